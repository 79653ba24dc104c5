//! Programs that name another process as their main one (`MAINPID=`).

use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Boot, Folder, free_address};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

/// The Python example in a child of the process that is started. `NAMES` says who names the child, and `THEN` what its parent does.
const FORKS: &str = r#"
import os, signal, sys
import server

said, say = os.pipe()
child = os.fork()
if child == 0:
    if os.environ["NAMES"] == "itself":
        server.notify(f"MAINPID={os.getpid()}")
    os.write(say, b"x")
    server.main()
    sys.exit(0)
os.read(said, 1)
if os.environ["NAMES"] == "parent":
    server.notify(f"MAINPID={child}")
if os.environ["THEN"] == "ends":
    os._exit(0)
def asked(*_):
    try:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            open("asked", "w").write("the parent, while its child ran")
    except ChildProcessError:
        pass
signal.signal(signal.SIGTERM, asked)
os.waitpid(child, 0)
if os.environ["THEN"] == "stays":
    while True:
        signal.pause()
"#;

fn forking(names: &str, then: &str) -> (Folder, Boot, SocketAddr) {
    let (folder, address) = (Folder::with_example("python"), free_address());
    folder.write("forks.py", FORKS);
    let [names, then] = [format!("NAMES={names}"), format!("THEN={then}")];
    let command =
        format!("command = [\"env\", {names:?}, {then:?}, \"python3\", \"forks.py\"]\nready = \"notify\"");
    folder.change("baton.toml", "command = [\"python3\", \"server.py\"]", &command);
    folder.change("baton.toml", "127.0.0.1:8080", &address.to_string());
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"50ms\"\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    (folder, boot, address)
}

fn answering(address: SocketAddr) -> i32 {
    i32::try_from(Client::connect(address).unwrap().get("/").unwrap().pid()).unwrap()
}

#[test]
fn p1_p3_a_program_whose_named_main_process_outlives_the_first_is_handed_over_without_loss() {
    for names in ["itself", "parent"] {
        let (_folder, boot, address) = forking(names, "ends");
        assert_eq!(boot.status()["generations"][0]["pid"], answering(address));
        let load = Load::start(plan(address));
        for reload in 2..=4 {
            boot.signal(Signal::HUP);
            boot.wait_for(" is proven", reload);
            boot.wait_for(&format!("generation {} is gone: exit 0", reload - 1), 1);
        }
        assert_nothing_lost(&load.stop());
        // Its end is that of its generation.
        kill_process(Pid::from_raw(answering(address)).unwrap(), Signal::KILL).unwrap();
        boot.wait_for("generation 4 failed (killed by SIGKILL", 1);
        boot.wait_for("generation 5 (image) serves", 1);
        assert!(boot.stop().success());
    }
}

#[test]
fn a_named_main_process_is_asked_to_stop_and_ends_its_generation_beside_its_parent() {
    let (folder, boot, address) = forking("parent", "waits");
    wait_for("the child to be followed", || {
        (boot.status()["generations"][0]["pid"] == answering(address)).then_some(())
    });
    boot.stop();
    // It is asked with what is left, if it is, once its child has ended.
    assert_eq!(folder.read("asked"), "");

    let (_folder, boot, address) = forking("parent", "stays");
    boot.wait_for("is followed at process", 1);
    kill_process(Pid::from_raw(answering(address)).unwrap(), Signal::KILL).unwrap();
    boot.wait_for("generation 1 failed", 1);
    boot.wait_for("generation 2 (image) serves", 1);
    boot.stop();
}

#[test]
fn a_main_process_of_somebody_else_is_not_followed() {
    let (folder, address) = (Folder::with_example("python"), free_address());
    folder
        .write("names.py", "import os, server\nserver.notify(f\"MAINPID={os.getppid()}\")\nserver.main()\n");
    folder.change("baton.toml", "server.py", "names.py");
    folder.change("baton.toml", "127.0.0.1:8080", &address.to_string());
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for("which is none of its own: it is not followed", 1);
    boot.wait_for(" serves, ", 1);
    assert_eq!(boot.status()["generations"][0]["pid"], answering(address));
    assert!(boot.stop().success());
}

/// A program that is succeeded when it is asked to stop: by a child that names itself, and waits to be asked as well.
const SUCCEEDED: &str = r#"
import os, signal
import server

def asked(*_):
    with open("asked", "w") as file:
        file.write("the child")
    os._exit(0)

def succeeded(*_):
    said, say = os.pipe()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, asked)
        server.notify(f"MAINPID={os.getpid()}")
        os.write(say, b"x")
        while True:
            signal.pause()
    os.read(said, 1)
    os._exit(0)

signal.signal(signal.SIGTERM, succeeded)
server.notify("READY=1")
while True:
    signal.pause()
"#;

#[test]
fn p19_a_main_process_that_is_named_after_the_stop_began_is_asked_too() {
    let folder = Folder::with_example("python");
    folder.write("succeeded.py", SUCCEEDED);
    let command = "command = [\"python3\", \"succeeded.py\"]";
    folder.write("baton.toml", &format!("service = \"web\"\n[run]\n{command}\nready = \"notify\"\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves", 1);
    boot.stop();
    assert_eq!(folder.read("asked"), "the child");
}
