//! A bootloader on its own replaces its program under load.

use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Boot, Folder, free_address};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

/// An example under a bootloader on a free port, serving.
fn serving(example: &str, bake: &str) -> (Folder, Boot, SocketAddr) {
    let folder = Folder::with_example(example);
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"{bake}\"\n"));
    let address = free_address();
    let boot = Boot::start(&folder, &[], &[("BATON_LISTEN", &format!("http={address}"))]);
    boot.wait_for(" serves, ", 1);
    (folder, boot, address)
}

#[test]
fn p1_p3_fifty_reloads_in_a_row_under_load_lose_nothing() {
    let (_folder, boot, address) = serving("python", "50ms");
    let load = Load::start(plan(address));
    for reload in 1..=50 {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload + 1);
    }
    let report = load.stop();
    assert_nothing_lost(&report);
    assert!(report.sent > 500, "{report:#?}");
    assert!(boot.stop().success());
}

#[test]
fn p1_a_node_program_is_replaced_without_loss() {
    let (_folder, boot, address) = serving("node", "50ms");
    let load = Load::start(plan(address));
    for reload in 1..=10 {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload + 1);
    }
    assert_nothing_lost(&load.stop());
    assert!(boot.stop().success());
}

#[test]
fn p1_p4_a_killed_program_is_launched_again_and_nobody_is_refused() {
    let (_folder, boot, address) = serving("python", "50ms");
    let target = address.to_string();
    let load = Load::start(plan(address));
    for crash in 1..=5 {
        let pid = Client::connect(address).unwrap().get("/").unwrap().pid();
        load.say(&format!("window {target} begin"));
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        boot.wait_for(" serves, ", crash + 1);
        load.say(&format!("window {target} end"));
    }
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert!(boot.stop().success());
}

#[test]
fn a_release_that_never_gets_healthy_is_refused_and_the_old_one_goes_on() {
    let (folder, boot, address) = serving("python", "50ms");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"500ms\"");
    folder.write("behaviour", "never-healthy\n");
    let load = Load::start(plan(address));
    boot.signal(Signal::HUP);
    boot.wait_for("refused: not healthy within 500 ms", 1);
    assert_eq!(Client::connect(address).unwrap().get("/").unwrap().generation(), "1");
    assert_nothing_lost(&load.stop());
}

#[test]
fn p9_a_release_that_crashes_within_the_bake_is_handed_back() {
    let (folder, boot, address) = serving("python", "30s");
    folder.write("behaviour", "crash-after=0.5\n");
    let load = Load::start(plan(address));
    load.say(&format!("window {address} begin"));
    boot.signal(Signal::HUP);
    boot.wait_for("handed back from generation 2 to 1", 1);
    load.say(&format!("window {address} end"));
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert_eq!(Client::connect(address).unwrap().get("/").unwrap().generation(), "1");
    assert!(boot.stop().success());
}

#[test]
fn mistakes_in_the_settings_leave_everything_as_it_is() {
    let (folder, boot, address) = serving("python", "50ms");
    folder.change("baton.toml", "interval", "intervall");
    boot.signal(Signal::HUP);
    boot.wait_for("did you mean", 1);
    assert_eq!(Client::connect(address).unwrap().get("/").unwrap().generation(), "1");
    assert!(boot.stop().success());
}

#[test]
fn a_worker_is_replaced_when_the_next_one_is_ready() {
    let folder = Folder::with_example("worker");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    boot.signal(Signal::HUP);
    boot.wait_for("generation 1 is gone: exit 0", 1);
    wait_for("work of the second generation", || {
        let pids: std::collections::BTreeSet<String> = folder
            .read("output")
            .lines()
            .filter_map(|line| line.split("pid=").nth(1)?.split(' ').next().map(str::to_owned))
            .collect();
        (pids.len() == 2).then_some(())
    });
    assert!(boot.stop().success());
}

#[test]
fn a_stopped_bootloader_can_be_started_again_at_once() {
    let (folder, boot, address) = serving("python", "50ms");
    // Connections that the program closes first leave its side of them behind for a minute.
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert!(Client::connect(address).unwrap().get("/").is_some());
    assert!(boot.stop().success());
    let again = Boot::start(&folder, &[], &[("BATON_LISTEN", &format!("http={address}"))]);
    again.wait_for(" serves, ", 1);
    assert!(!again.log().contains("in use"), "{}", again.log());
    assert!(again.stop().success());
}

/// Stops the program, so that connections stay in its queue, and kills it. The next generation answers all of them.
pub fn kill_with_a_queue(address: SocketAddr) {
    let program = Client::connect(address).unwrap().get("/").unwrap().pid();
    let program = Pid::from_raw(i32::try_from(program).unwrap()).unwrap();
    kill_process(program, Signal::STOP).unwrap();
    let mut waiting: Vec<Client> = (0..50).map(|_| Client::connect(address).unwrap()).collect();
    waiting.iter_mut().for_each(|client| client.send("/"));
    kill_process(program, Signal::KILL).unwrap();
    for client in &mut waiting {
        assert_eq!(client.answer().unwrap().generation(), "2");
    }
}

#[test]
fn p4_connections_that_wait_in_the_queue_of_a_killed_program_are_answered() {
    let (_folder, boot, address) = serving("python", "50ms");
    kill_with_a_queue(address);
    assert!(boot.stop().success());
}

#[test]
fn a_candidate_that_ends_is_tried_twice_and_its_own_end_is_told() {
    let (folder, boot, address) = serving("python", "50ms");
    folder.write("behaviour", "exit-at-start=7\n");
    boot.signal(Signal::HUP);
    boot.wait_for("refused: exit 7", 1);
    boot.wait_for("(exit 7", 1);
    assert_eq!(Client::connect(address).unwrap().get("/").unwrap().generation(), "1");
}

/// Its program would keep the port from the next bootloader.
#[test]
fn f2_a_killed_bootloader_takes_its_program_along() {
    let (folder, boot, address) = serving("python", "50ms");
    boot.signal(Signal::KILL);
    assert!(!boot.exit().success());
    let again = Boot::start(&folder, &[], &[("BATON_LISTEN", &format!("http={address}"))]);
    again.wait_for(" serves, ", 1);
    assert!(again.stop().success());
}

/// Beside its program, the first generation leaves a process behind that has nothing of it but its socket: no
/// parent, no session, no environment.
const LEAVES_A_DAEMON: &str = r#"
import os, sys
if os.environ["BATON_GENERATION"] == "1" and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.set_inheritable(3, True)
        accept = "import socket, os; open('daemon', 'w').write(str(os.getpid())); socket.socket(fileno=3).accept()"
        os.execve(sys.executable, [sys.executable, "-c", accept], {})
    os._exit(0)
os.execv(sys.executable, [sys.executable, "server.py"])
"#;

#[test]
fn p5_a_daemon_that_keeps_the_socket_of_its_generation_ends_with_it() {
    let folder = Folder::with_example("python");
    folder.write("launch.py", LEAVES_A_DAEMON);
    folder.change("baton.toml", "server.py", "launch.py");
    let address = free_address();
    let boot = Boot::start(&folder, &[], &[("BATON_LISTEN", &format!("http={address}"))]);
    let daemon = wait_for("the daemon", || folder.read("daemon").parse().ok().and_then(Pid::from_raw));
    boot.wait_for(" serves, ", 1);
    boot.signal(Signal::HUP);
    boot.wait_for("generation 1 is gone", 1);
    assert!(rustix::process::test_kill_process(daemon).is_err(), "the daemon still accepts: {}", boot.log());
    assert!(boot.stop().success());
}

#[test]
fn p19_a_process_that_nothing_ties_to_a_generation_is_named_and_ends_with_the_bootloader() {
    let folder = Folder::empty();
    folder.write(
        "daemon.sh",
        "trap 'sleep 0.3; echo finished > finished; exit' TERM; echo $$ > daemon; while :; do sleep 0.1; done",
    );
    let leave = "(setsid env -i sh daemon.sh &); while [ ! -e leave ]; do sleep 0.05; done; exit 3";
    let boot = Boot::start(&folder, &["--", "sh", "-c", leave], &[]);
    wait_for("its name in the status", || {
        let daemon: i32 = folder.read("daemon").trim().parse().ok()?;
        let status = boot.status();
        let mut others = status["others"].as_array()?.iter();
        others.any(|other| other["pid"] == daemon && other["name"] == "sh").then_some(())
    });
    let (_, shown) = ask(&boot, &["status"]);
    assert!(shown.contains("(sh) belongs to no generation"), "{shown}");
    folder.write("leave", "");
    assert_eq!(boot.exit().code(), Some(3));
    assert_eq!(folder.read("finished"), "finished\n", "it had no time to finish");
}

/// Says on its own that it is ready when it is told to by a file.
const SAYS_READY: &str = r#"
import os, socket, time
open("notify", "w").write(os.environ["NOTIFY_SOCKET"])
while not os.path.exists("ready"):
    time.sleep(0.01)
address = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", address)
time.sleep(1000)
"#;

#[test]
fn only_the_programs_own_word_makes_it_ready() {
    let folder = Folder::empty();
    folder.write("program.py", SAYS_READY);
    let run = "command = [\"python3\", \"program.py\"]\nready = \"notify\"\nhealth.startup_timeout = \"2s\"";
    folder.write("baton.toml", &format!("service = \"test\"\n[run]\n{run}\n"));
    let boot = Boot::start(&folder, &[], &[]);
    let address = wait_for("its address", || Some(folder.read("notify")).filter(|text| !text.is_empty()));
    let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
    stranger.send_to(b"READY=1", &address).unwrap();
    boot.wait_for("not healthy within 2 s", 1);
    assert!(!boot.log().contains(" serves, "), "{}", boot.log());
    folder.write("ready", "");
    boot.wait_for(" serves, ", 1);
    assert!(boot.stop().code() == Some(143));
}

fn ask(boot: &Boot, arguments: &[&str]) -> (Option<i32>, String) {
    let pid = boot.pid().to_string();
    let asked = std::process::Command::new(crate::boot::binary("baton-boot"))
        .args(arguments)
        .arg(pid)
        .output()
        .unwrap();
    let text = String::from_utf8(asked.stdout).unwrap() + &String::from_utf8(asked.stderr).unwrap();
    (asked.status.code(), text)
}

#[test]
fn a_running_bootloader_can_be_asked_and_told_to_reload() {
    let (folder, boot, address) = serving("python", "50ms");
    let (code, text) = ask(&boot, &["status"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1           image        serving   yes"), "{text}");
    assert!(text.contains(&format!("listener http on {address}, auto")), "{text}");
    let settings = folder.path().join("baton.toml");
    assert!(text.contains(&format!("settings: {}\n", settings.display())), "{text}");

    assert_eq!(ask(&boot, &["reload"]), (Some(0), "reload: proven\n".into()));
    let status: serde_json::Value = serde_json::from_str(&ask(&boot, &["status", "--json"]).1).unwrap();
    let serving =
        status["generations"].as_array().unwrap().iter().find(|one| one["state"] == "serving").unwrap();
    assert_eq!(serving["generation"], 2, "{status}");
    let pid = Client::connect(address).unwrap().get("/").unwrap().pid();
    assert_eq!(serving["pid"], pid, "{status}");

    // The example says nothing of its own; its end does.
    folder.change(
        "baton.toml",
        "command = [\"python3\"",
        "command = [\"sh\", \"-c\", \"echo hello; exec python3 server.py\"",
    );
    ask(&boot, &["reload"]);
    let (code, text) = ask(&boot, &["logs", "-n", "1"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.trim_end().ends_with("stdout hello"), "{text}");

    folder.write("behaviour", "exit-at-start=7\n");
    let (code, text) = ask(&boot, &["reload"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("reload: refused: exit 7 after "), "{text}");
    folder.change("baton.toml", "interval", "intervall");
    let (code, text) = ask(&boot, &["reload"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("did you mean"), "{text}");
    assert!(boot.stop().success());
}

#[test]
fn without_a_file_settings_are_typed_and_a_signal_asks_for_the_status() {
    let folder = Folder::with_example("python");
    std::fs::remove_file(folder.path().join("baton.toml")).unwrap();
    let address = free_address().to_string();
    let arguments = ["--listen", &address, "--set", "run.health.http=/health", "--set", "run.drain=5s", "--"];
    let command = [&arguments[..], &["python3", "server.py"]].concat();
    let boot = Boot::start(&folder, &command, &[("BATON_STATUS_SIGNAL", "USR1")]);
    boot.wait_for(" serves, ", 1);
    boot.signal(Signal::USR1);
    boot.wait_for("settings: the arguments", 1);
    boot.wait_for(&format!("listener http on {address}, auto"), 1);
    assert_eq!(Client::connect(address.parse().unwrap()).unwrap().get("/").unwrap().generation(), "1");
    assert_eq!(ask(&boot, &["reload"]), (Some(0), "reload: proven\n".into()));
    boot.signal(Signal::KILL);
    boot.exit();
    // What it leaves is gone with the next start.
    let boot = Boot::start(&folder, &command, &[]);
    boot.wait_for(" serves, ", 1);
    let scratch = std::fs::read_dir(folder.path().join("state/scratch")).unwrap();
    let names: Vec<_> = scratch.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, [boot.pid().to_string()]);
    folder.write("baton.toml", "service = \"web\"\n");
    boot.signal(Signal::HUP);
    boot.wait_for("settings are typed, and there is a baton.toml", 1);
    assert!(boot.stop().success());
}

#[test]
fn p23_a_bootloader_whose_file_was_replaced_says_so_and_goes_on_as_before() {
    let folder = Folder::with_example("python");
    let (address, copy) = (free_address(), folder.path().join("boot"));
    let listen = format!("http={address}");
    let boot = Boot::start_copy(&copy, &folder, &[("BATON_LISTEN", &listen)]);
    boot.wait_for(" serves, ", 1);
    assert!(!ask(&boot, &["status"]).1.contains("replaced"));
    folder.write("new", "another version");
    std::fs::rename(folder.path().join("new"), &copy).unwrap();
    let told = "its file was replaced: the new one runs from the next start of the container on";
    assert!(ask(&boot, &["status"]).1.contains(told));
    assert_eq!(ask(&boot, &["reload"]), (Some(0), "reload: proven\n".into()));
    assert_eq!(Client::connect(address).unwrap().get("/").unwrap().generation(), "2");
    assert!(boot.stop().success());
}

#[test]
fn a_bootloader_that_is_stopped_is_not_waited_for() {
    let (_folder, boot, _) = serving("python", "50ms");
    boot.signal(Signal::STOP);
    let (code, text) = ask(&boot, &["status"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("kill -CONT {}", boot.pid())), "{text}");
    boot.signal(Signal::CONT);
    assert!(boot.stop().success());
}

#[test]
fn a_bootloader_that_is_not_there_cannot_be_asked() {
    let asked =
        std::process::Command::new(crate::boot::binary("baton-boot")).args(["status", "1"]).output().unwrap();
    assert_eq!(asked.status.code(), Some(1));
    let text = String::from_utf8(asked.stderr).unwrap();
    assert!(text.contains("process 1 is no baton-boot that can be reached from here"), "{text}");
}
