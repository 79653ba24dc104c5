//! Ready, healthy, alive: every way to ask a program, and what follows from the answers.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use rustix::process::{Pid, Signal, test_kill_process};

use crate::boot::{Boot, Folder, binary, free_address};
use crate::wait::wait_for;

const PROGRAM: &str = include_str!("health/program.py");

/// A folder with the program in it, to be run like this.
fn folder(mode: &str, run: &str) -> Folder {
    let folder = Folder::empty();
    folder.write("program.py", PROGRAM);
    let command = format!("service = \"probed\"\nrun.command = [\"python3\", \"program.py\", \"{mode}\"]\n");
    folder.write("baton.toml", &format!("{command}rollout.bake = \"0s\"\n{run}"));
    folder
}

fn listening(address: SocketAddr) -> String {
    format!("\n[[run.listen]]\nname = \"http\"\naddress = \"{address}\"\nhandover = \"inherit\"\n")
}

/// Reloads with a start-up time that nothing can wait for long, and waits for this refusal.
fn refused(folder: &Folder, boot: &Boot, why: &str) {
    if folder.read("baton.toml").contains("startup_timeout = \"60s\"") {
        folder.change("baton.toml", "startup_timeout = \"60s\"", "startup_timeout = \"1s\"");
    }
    boot.signal(Signal::HUP);
    boot.wait_for(why, 1);
}

#[test]
fn http_is_asked_with_headers_and_host_and_judged_by_status_and_body() {
    let health = "[run.health]\nhttp = \"/health\"\nstatus = [\"200-299\", 418]\nheaders = { X-Probe = \"1\" }\n\
                  host = \"web.test\"\nbody = \"ok\"\ninterval = \"1h\"\nstartup_timeout = \"60s\"\n";
    let folder = folder("http", &format!("{}{health}", listening(free_address())));
    folder.write("answer", "418 I'm a teapot\nall ok");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    folder.write("answer", "503 Service Unavailable\nok");
    refused(&folder, &boot, "refused: not healthy within 1 s: GET /health answered 503 Service Unavailable");
    folder.write("answer", "200 OK\nnot at all");
    refused(
        &folder,
        &boot,
        "refused: not healthy within 1 s: GET /health answered 200 OK without \"ok\" in its body",
    );
    assert!(boot.stop().code().is_some());
}

#[test]
fn grpc_is_asked_about_a_service() {
    let health = "[run.health]\ngrpc = \"web\"\ninterval = \"1h\"\nstartup_timeout = \"60s\"\n";
    let folder = folder("grpc", &format!("{}{health}", listening(free_address())));
    let server = binary("baton-grpc");
    let script = format!("exec {} web $(cat answer) <&3", server.display());
    folder.change(
        "baton.toml",
        "\"python3\", \"program.py\", \"grpc\"",
        &format!("\"sh\", \"-c\", {script:?}"),
    );
    folder.write("answer", "serving");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    folder.write("answer", "not-serving");
    refused(&folder, &boot, "refused: not healthy within 1 s: grpc.health.v1 answered NOT_SERVING");
    folder.change("baton.toml", "grpc = \"web\"", "grpc = \"shop\"");
    refused(
        &folder,
        &boot,
        "refused: not healthy within 1 s: grpc.health.v1: the server does not know this service",
    );
    assert!(boot.stop().success());
}

#[test]
fn a_command_is_asked_and_killed_with_its_children_when_it_takes_too_long() {
    let health = "[run.health]\nexec = [\"./check\"]\ntimeout = \"30s\"\ninterval = \"1h\"\nstartup_timeout = \"60s\"\n";
    let folder = folder("worker", health);
    let check = |script: &str| {
        folder.write("check", &format!("#!/bin/sh\n{script}\n"));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path().join("check"), mode).unwrap();
    };
    check("[ -n \"$BATON_GENERATION\" ] && [ -z \"$NOTIFY_SOCKET\" ]");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    check("echo trying; echo no database >&2; exit 3");
    refused(&folder, &boot, "refused: not healthy within 1 s: ./check: exit 3: no database");
    check("sleep 1000 & echo $! >> sleepers; wait");
    folder.change("baton.toml", "timeout = \"30s\"", "timeout = \"200ms\"");
    refused(&folder, &boot, "refused: not healthy within 1 s: ./check did not end within 200 ms");
    let sleepers: Vec<i32> = folder.read("sleepers").lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(!sleepers.is_empty());
    wait_for("the command's children to be gone", || {
        let gone = |pid: &i32| test_kill_process(Pid::from_raw(*pid).unwrap()).is_err();
        sleepers.iter().all(gone).then_some(())
    });
    assert!(boot.stop().success());
}

#[test]
fn f33_a_program_that_hangs_in_a_read_is_found_looked_at_and_replaced() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    let folder = folder("watchdog", "run.ready = \"notify\"\nrun.watchdog = \"3s\"\n");
    folder.write("upstream", &port.to_string());
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    folder.write("hang-1", "");
    boot.wait_for("generation 1 failed (no sign of life (WATCHDOG=1) for 3 s); launching it again", 1);
    boot.wait_for("generation 1: thread ", 1);
    boot.wait_for(&format!("to 127.0.0.1:{port} ESTABLISHED"), 1);
    boot.wait_for("generation 1: wrote: reading what never comes", 1);
    boot.wait_for("generation 2 (image) serves, ", 1);
    boot.wait_for("generation 1 is gone", 1);
    boot.stop();
}

/// A master that waits for its workers; each takes one connection at a time, and one of them never comes back from it.
const WORKERS: &str = r#"
import os, socket, time
listener = socket.socket(fileno=3)
for _ in range(3):
    if os.fork() == 0:
        while True:
            client = listener.accept()[0]
            request = client.recv(1000)
            if b"/hang" in request or os.path.exists("hang-" + os.environ["BATON_GENERATION"]):
                open("hanging", "w").write(str(os.getpid()))
                time.sleep(1000)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            client.close()
os.wait()
"#;

#[test]
fn f33_of_a_program_with_workers_those_are_looked_at_that_hang() {
    let health =
        "[run.health]\nhttp = \"/health\"\ninterval = \"100ms\"\ntimeout = \"300ms\"\nfailures = 3\n";
    let folder = folder("workers", &format!("{}{health}", listening(free_address())));
    folder.write("program.py", WORKERS);
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for("generation 1 (image) serves", 1);
    folder.write("hang-1", "");
    boot.wait_for("generation 1 failed", 1);
    boot.wait_for("generation 1: process ", 4);
    let log = boot.log();
    let told = log.lines().filter(|line| line.contains("generation 1: process ")).collect::<Vec<_>>();
    let hanging = format!("generation 1: process {}: ", folder.read("hanging"));
    assert!(log.contains(&hanging), "{log}");
    let master = boot.status()["generations"][0]["pid"].to_string();
    assert!(!told[0].contains(&format!("process {master}:")), "those that hang come first: {log}");
    assert!(told[0].contains(": python3"), "{log}");
    assert!(!told[0].contains("program.py"), "words of a command line may be secrets: {log}");
    boot.wait_for("generation 2 (image) serves", 1);
    boot.stop();
}

#[test]
fn a_program_that_makes_no_progress_is_replaced() {
    let folder =
        folder("beacon", "run.ready = \"notify\"\nrun.progress = { file = \"beat\", within = \"3s\" }\n");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    folder.write("hang-1", "");
    boot.wait_for("generation 1 failed (no progress for 3 s (run.progress.file)); launching it again", 1);
    boot.wait_for("generation 2 (image) serves, ", 1);
    boot.wait_for("generation 1 is gone", 1);
    assert!(!boot.log().contains("generation 2 failed"), "{}", boot.log());
    boot.stop();
}

#[test]
fn a_program_that_listens_elsewhere_is_told_where_and_what_to_do() {
    for handover in ["auto", "inherit", "proxy"] {
        let (address, other) = (free_address(), free_address());
        let listener = listening(address).replace("\"inherit\"", &format!("{handover:?}"));
        let folder =
            folder("elsewhere", &format!("{listener}[run.health]\ntcp = true\nstartup_timeout = \"4s\"\n"));
        folder.write("port", &other.port().to_string());
        let boot = Boot::start(&folder, &[], &[]);
        let expected = format!(
            "not healthy within 4 s: the program listens on {other}, and nobody accepts at its listener {address}: \
             let it bind $PORT"
        );
        boot.wait_for(&expected, 1);
        boot.stop();
    }
}

#[test]
fn a_program_that_uses_too_much_memory_is_handed_over_to_a_fresh_one() {
    let folder = folder("greedy", "run.ready = \"notify\"\nrun.memory.recycle = \"150MiB\"\n");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    folder.write("eat-1", "");
    boot.wait_for(" of memory, more than 150 MiB; replacing it", 1);
    boot.wait_for("generation 2 (image) is proven", 1);
    boot.wait_for("generation 1 is gone", 1);
    let status = boot.status();
    assert_eq!((&status["restarts"], &status["trial"]["state"]), (&0.into(), &"proven".into()), "{status}");
    boot.stop();
}

#[test]
fn a_singleton_never_runs_twice_and_its_way_back_is_a_relaunch() {
    let folder = folder(
        "singleton",
        "run.overlap = false\nrun.ready = \"notify\"\nrun.health.startup_timeout = \"60s\"\n",
    );
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" is proven", 1);
    for reload in 2..=4 {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload);
    }
    (5..=6).for_each(|generation| folder.write(&format!("broken-{generation}"), ""));
    refused(&folder, &boot, "generation 6 (image) refused: not healthy within 1 s");
    boot.wait_for("generation 7 (image) serves, ", 1);
    assert!(!boot.log().contains("exit 9"), "{}", boot.log());
    assert!(boot.stop().success());
}

#[test]
fn a_worker_finishes_what_it_has_while_its_successor_works() {
    let run = "run.ready = \"notify\"\nrun.quiesce_signal = \"USR1\"\nrun.quiesce = \"5h\"\n";
    let folder = folder("worker", run);
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" is proven", 1);
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) is proven", 1);
    boot.wait_for("generation 1 was asked to take no new work, and to stop in 5 h at the latest", 1);
    wait_for("the first worker to hear it", || folder.path().join("quiescing-1").exists().then_some(()));
    assert!(!boot.log().contains("generation 1 is gone"), "{}", boot.log());
    folder.write("finished", "");
    boot.wait_for("generation 1 is gone: exit 0", 1);
    assert!(!folder.path().join("quiescing-2").exists());
    assert!(boot.stop().success());
}

#[test]
fn a_start_that_asks_for_more_time_gets_it_and_is_held_against_the_one_before() {
    let folder = folder("worker", "run.ready = \"notify\"\nrun.health.startup_timeout = \"60s\"\n");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" is proven", 1);
    folder.change("baton.toml", "\"worker\"", "\"slow\"");
    folder.change("baton.toml", "startup_timeout = \"60s\"", "startup_timeout = \"2s\"");
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) is proven", 1);
    boot.wait_for("to start, much longer than the last proven one", 1);
    boot.stop();
}

#[test]
fn strangers_are_not_believed_and_a_flood_holds_nobody_up() {
    let folder = folder("talker", "run.ready = \"notify\"\n");
    let boot = Boot::start(&folder, &[], &[]);
    wait_for("the program to say where it speaks", || folder.path().join("socket").exists().then_some(()));
    let name = folder.read("socket");
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.set_nonblocking(true).unwrap();
    for _ in 0..5000 {
        // What finds no room is lost, which is as good.
        let _ = stranger.send_to(b"WATCHDOG=trigger\nSTOPPING=1", &name);
    }
    boot.wait_for(" serves, ", 1);
    folder.write("speak", "");
    boot.wait_for(
        "generation 1 names process 1 as its main one, which is none of its own: it is not followed",
        1,
    );
    assert!(!boot.log().contains("hangs"), "{}", boot.log());
    boot.stop();
}
