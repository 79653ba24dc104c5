//! Releases that are bad, and programs that are hostile to the bootloader.

use rustix::process::Signal;

use super::{generation, serving};
use crate::boot::{Boot, Folder, binary};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::wait::wait_for;

/// Tells of its health what the file says, by turns.
const FLAPS: &str = r#"
import itertools, server
turns = itertools.cycle(open("health").read().split())
route = server.route
def flapping(connection, request):
    if request.path == "/health":
        return connection.answer(int(next(turns)), {}, request.close)
    return route(connection, request)
server.route = flapping
server.main()
"#;

#[test]
fn f79_a_candidate_that_is_healthy_now_and_then_is_refused() {
    let (folder, boot, address) = serving("30s");
    folder.write("flaps.py", FLAPS);
    folder.write("health", "200 503 503");
    folder.change("baton.toml", "server.py", "flaps.py");
    folder.change("baton.toml", "interval        = \"1s\"", "interval = \"50ms\"\nsuccesses = 2");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"2s\"");
    let load = Load::start(plan(address));
    boot.signal(Signal::HUP);
    boot.wait_for("(image) refused: ", 1);
    assert_nothing_lost(&load.stop());
    let log = boot.log();
    assert!(!log.contains("generation 2 (image) serves") && log.contains("answered 503"), "{log}");
    // Healthy twice in a row, it is taken.
    folder.write("health", "503 200 200 200");
    boot.signal(Signal::HUP);
    boot.wait_for(" serves, ", 2);
    assert!(boot.stop().success());
}

#[test]
fn f83_a_candidate_that_lacks_a_variable_is_refused_and_says_what_for() {
    let (folder, boot, address) = serving("50ms");
    let needs = "[\"sh\", \"-c\", \": ${DATABASE_URL:?is needed}; exec python3 server.py\"]";
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", needs);
    boot.signal(Signal::HUP);
    boot.wait_for("(image) refused: exit 2 after ", 1);
    boot.wait_for("DATABASE_URL: is needed", 1);
    assert_eq!(generation(address), "1");
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}[env]\nDATABASE_URL = \"here\"\n"));
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert!(boot.stop().success());
}

#[test]
fn f88_a_program_that_closes_its_input_and_output_is_not_taken_for_dead() {
    let (folder, boot, address) = serving("50ms");
    let closed = "[\"sh\", \"-c\", \"exec python3 server.py <&- >&- 2>&-\"]";
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", closed);
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert_eq!(generation(address), "2");
    assert!(boot.stop().success());
}

/// Sends PID 1 everything that would end or stop any other process, and says how that went.
const ATTACKS: &str = "import os, signal\n\
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE,\n\
                   signal.SIGTRAP, signal.SIGSYS, signal.SIGPIPE):\n    os.kill(1, number)\n\
    open('attacked', 'w').close()\nsignal.pause()\n";

#[test]
fn f89_a_program_cannot_kill_or_stop_pid_1() {
    let folder = Folder::empty();
    folder.write("attacks.py", ATTACKS);
    let mut before = vec!["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !rustix::process::geteuid().is_root() {
        before.extend(["--user", "--map-root-user"]);
    }
    let boot = Boot::start_under(&before, &folder, &["--", "python3", "attacks.py"]);
    wait_for("the attack", || folder.path().join("attacked").exists().then_some(()));
    let children = baton_sys::process::all().unwrap();
    let init = children.into_iter().find(|child| child.parent == boot.pid()).unwrap().pid;
    rustix::process::kill_process(rustix::process::Pid::from_raw(init).unwrap(), Signal::TERM).unwrap();
    assert_eq!(boot.exit().code(), Some(143), "{}", folder.read("log"));
}

/// Tries to read what the bootloader that started it knows, and to take it over.
const PRIES: &str = r#"
for place in environ mem maps fd; do
    if [ $place = fd ]; then ls /proc/$PPID/fd; else head -c 1 /proc/$PPID/$place; fi > /dev/null 2>&1 && echo $place >> found
done
strace -p $PPID -o /dev/null 2> trace & tracer=$!
wait $tracer && echo trace >> found
touch over
exec sleep 60
"#;

#[test]
fn f89_a_program_of_the_same_user_can_neither_read_nor_trace_the_bootloader() {
    let folder = Folder::empty();
    folder.write("pries.sh", PRIES);
    // Root may do everything; who is not root already becomes somebody who is not.
    let ordinary = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--"];
    let is_root = rustix::process::geteuid().is_root();
    let place = folder.path();
    if is_root {
        std::os::unix::fs::chown(place, Some(54321), Some(54321)).unwrap();
    }
    let reachable = place.join("baton-boot");
    std::fs::copy(binary("baton-boot"), &reachable).unwrap();
    let boot = [reachable.to_str().unwrap(), "--", "sh", "pries.sh"];
    let command = if is_root { [&ordinary[..], &boot].concat() } else { boot.to_vec() };
    let mut boot = std::process::Command::new(command[0])
        .args(&command[1..])
        .current_dir(place)
        .env("BATON_STATE_DIR", place.join("state"))
        .spawn()
        .unwrap();
    wait_for("its tries", || place.join("over").exists().then_some(()));
    let found = folder.read("found");
    let mine = rustix::process::Pid::from_child(&boot);
    rustix::process::kill_process(mine, Signal::TERM).unwrap();
    assert_eq!(boot.wait().unwrap().code(), Some(143));
    assert_eq!(found, "", "it got at these of the bootloader's");
    assert!(folder.read("trace").contains("Operation not permitted"), "{}", folder.read("trace"));
}
