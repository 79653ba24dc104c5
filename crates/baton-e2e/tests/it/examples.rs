//! The example programs do what a program must do to be replaced, and misbehave when told to.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use baton_core::units::Share;
use baton_e2e::load::{Loss, Plan};
use rustix::process::Signal;

use crate::handover::plan;
use crate::load::{Load, kinds};
use crate::program::{Client, Launch, Web};
use crate::wait::{LIMIT, wait_for};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn the_settings_of_every_example_are_valid() {
    for example in ["python", "node", "worker"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
        let text = std::fs::read_to_string(directory.join("baton.toml")).unwrap();
        let settings = baton_core::settings::parse("baton.toml", &text).unwrap();
        let file = settings.run.command.last().unwrap();
        assert!(directory.join(file).is_file(), "{example} runs {file}");
    }
}

/// How often a program is replaced by another copy over the same socket.
const REPLACEMENTS: usize = 4;

#[test]
fn p1_p3_replacing_a_program_under_load_loses_nothing_and_it_exits_with_0() {
    for web in Web::ALL {
        let (listener, address) = listener();
        let mut serving = web.release("r0").on(&listener);
        serving.wait_until_it_answers(address);
        let load = Load::start(plan(address));
        for nth in 1..=REPLACEMENTS {
            let next = web.release(&format!("r{nth}")).on(&listener);
            next.wait_until_it_answers(address);
            let old = std::mem::replace(&mut serving, next);
            assert_eq!(old.stop(), Some(0), "{web:?}");
        }
        let report = load.stop();
        assert_eq!(report.lost, 0, "{web:?}: {report:#?}");
        assert!(report.is_clean(), "{web:?}: {report:#?}");
        assert_eq!(report.answered, report.sent);
        assert!(report.releases.len() > 1, "{web:?}: {report:#?}");
        assert_eq!(serving.stop(), Some(0), "{web:?}");
    }
}

#[test]
fn p3_a_running_request_is_finished_and_its_connection_told_to_go() {
    for web in Web::ALL {
        let (listener, address) = listener();
        let program = web.release("r1").on(&listener);
        let mut busy = Client::connect(address).unwrap();
        let mut idle = Client::connect(address).unwrap();
        for client in [&mut busy, &mut idle] {
            let answer = client.get("/").unwrap();
            assert_eq!((answer.status, answer.close), (200, false), "{web:?}");
            assert_eq!(
                ["release", "conn", "seq"].map(|key| answer.body[key].as_str()),
                [Some("r1"), Some("3"), Some("4")],
                "{web:?}"
            );
        }
        busy.send("/slow?ms=700");
        program.signal(Signal::TERM);
        let answer = busy.answer().unwrap();
        assert_eq!((answer.status, answer.close), (200, true), "{web:?}");
        assert!(idle.answer().is_none(), "{web:?}: an idle connection is closed");
        assert_eq!(program.exit(), Some(0), "{web:?}");
    }
}

#[test]
fn what_a_killed_program_had_in_flight_died_with_it_and_is_lost_where_nobody_killed_it() {
    for said in [true, false] {
        let (listener, address) = listener();
        let program = Web::Python.release("r1").on(&listener);
        program.wait_until_it_answers(address);
        let slow = Plan { keep: 0, rate: 0, slow_share: Share::ALL, ..plan(address) };
        let load = Load::start(slow);
        // Until it is at work: only a request under way can die.
        Client::connect(address).unwrap().get("/slow?ms=100").unwrap();
        if said {
            load.say(&format!("window {address} begin"));
        }
        program.signal(Signal::KILL);
        assert_eq!(program.exit(), None);
        let next = Web::Python.release("r2").on(&listener);
        next.wait_until_it_answers(address);
        if said {
            load.say(&format!("window {address} end"));
        }
        let report = load.stop();
        if said {
            assert!(report.died_with_program > 0 && report.is_clean(), "{report:#?}");
        } else {
            let cuts = [Loss::ResetBeforeFirstByte, Loss::ResetAfterFirstByte];
            assert!(report.lost > 0 && kinds(&report).iter().all(|kind| cuts.contains(kind)), "{report:#?}");
        }
        assert_eq!(next.stop(), Some(0));
    }
}

#[test]
fn a_release_that_is_never_healthy_answers_everything_else_at_once() {
    for web in Web::ALL {
        let (listener, address) = listener();
        let program = web.release("r1").behaviour("never-healthy").on(&listener);
        let mut client = Client::connect(address).unwrap();
        let statuses =
            ["/health", "/", "/slow?ms=1", "/nowhere"].map(|path| client.get(path).unwrap().status);
        assert_eq!(statuses, [503, 200, 200, 404], "{web:?}");
        drop(client);
        assert_eq!(program.stop(), Some(0), "{web:?}");

        let program = web.release("r2").on(&listener);
        assert_eq!(Client::connect(address).unwrap().get("/health").unwrap().status, 200, "{web:?}");
        assert_eq!(program.stop(), Some(0), "{web:?}");
    }
}

#[test]
fn a_release_that_exits_at_start_says_with_what() {
    for web in Web::ALL {
        for (words, code) in [("exit-at-start", 1), ("exit-at-start=7", 7), ("make-tea", 1)] {
            let (listener, _) = listener();
            let from_file = web.release("r1").behaviour(words).on(&listener).exit();
            let from_env = web.release("r1").env("BEHAVIOUR", words).on(&listener).exit();
            assert_eq!((from_file, from_env), (Some(code), Some(code)), "{web:?} {words}");
        }
    }
}

#[test]
fn a_release_that_crashes_is_healthy_before() {
    for web in Web::ALL {
        let (listener, address) = listener();
        let program = web.release("r1").behaviour("crash-after=3").on(&listener);
        let mut client = Client::connect(address).unwrap();
        assert_eq!(client.get("/health").unwrap().status, 200, "{web:?}");
        client.send("/slow?ms=60000");
        assert!(client.answer().is_none(), "{web:?}: the request in flight died");
        assert_eq!(program.exit(), Some(3), "{web:?}");
    }
}

#[test]
fn a_release_that_ignores_sigterm_goes_on() {
    for web in Web::ALL {
        let (listener, address) = listener();
        let program = web.release("r1").behaviour("ignore-term").on(&listener);
        program.wait_until_it_answers(address);
        program.signal(Signal::TERM);
        let answer = Client::connect(address).unwrap().get("/health").unwrap();
        assert_eq!((answer.status, answer.close), (200, false), "{web:?}");
        program.signal(Signal::KILL);
        assert_eq!(program.exit(), None, "{web:?}");
    }
}

#[test]
fn a_release_that_starts_slowly_can_be_stopped_meanwhile() {
    for web in Web::ALL {
        let (listener, address) = listener();
        let start = Instant::now();
        let program = web.release("r1").behaviour("slow-start=0.5").on(&listener);
        program.wait_until_it_answers(address);
        assert!(start.elapsed() >= Duration::from_millis(500), "{web:?}");
        assert_eq!(program.stop(), Some(0), "{web:?}");
    }
}

#[test]
fn without_a_passed_socket_it_binds_its_port() {
    for web in Web::ALL {
        let (listener, address) = listener();
        drop(listener);
        let program = web.release("r1").env("PORT", &address.port().to_string()).alone();
        program.wait_until_it_answers(address);
        assert_eq!(program.stop(), Some(0), "{web:?}");
    }
}

/// A socket for notify messages, and its path.
fn notify_socket(directory: &tempfile::TempDir) -> (UnixDatagram, String) {
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    (socket, path.to_str().unwrap().into())
}

fn message(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].into()).unwrap()
}

#[test]
fn python_says_that_it_is_ready() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, path) = notify_socket(&directory);
    let (listener, _) = listener();
    let program = Web::Python.release("r1").env("NOTIFY_SOCKET", &path).on(&listener);
    assert_eq!(message(&socket), "READY=1");
    assert_eq!(program.stop(), Some(0));
}

fn worker() -> Launch {
    Launch::new("worker", "python3", "worker.py", "r1")
}

#[test]
fn the_worker_finishes_the_piece_that_it_has_begun() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, path) = notify_socket(&directory);
    let mut program = worker().env("NOTIFY_SOCKET", &path).env("WORK_MS", "50").alone();
    assert_eq!(message(&socket), "READY=1");
    let mut stdout = program.child.stdout.take().unwrap();
    let mut text = String::new();
    let begun = format!("working release=r1 pid={} n=3\n", program.pid());
    wait_for("the third piece of work", || {
        let mut chunk = [0; 1024];
        let bytes = stdout.read(&mut chunk).unwrap();
        text.push_str(std::str::from_utf8(&chunk[..bytes]).unwrap());
        text.contains(&begun).then_some(())
    });
    assert_eq!(program.stop(), Some(0));
    stdout.read_to_string(&mut text).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len() % 2, 0, "{text}");
    for pair in lines.chunks(2) {
        assert_eq!(pair[1], pair[0].replace("working", "finished"));
    }
}

#[test]
fn the_worker_misbehaves_when_told_to() {
    for (words, code) in
        [("exit-at-start=9", 9), ("crash-after=0.1", 3), ("slow-start=0.1 crash-after=0.2", 3)]
    {
        assert_eq!(worker().behaviour(words).alone().exit(), Some(code), "{words}");
    }
    let directory = tempfile::tempdir().unwrap();
    let (socket, path) = notify_socket(&directory);
    let program = worker().behaviour("never-healthy crash-after=0.5").env("NOTIFY_SOCKET", &path).alone();
    assert_eq!(program.exit(), Some(3));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 16]).is_err(), "it never says that it is ready");
}
