//! Faults of the bootloader itself: panics, which only a build for tests has.

use rustix::process::{Signal, kill_process};

use super::{generation, process};
use crate::boot::{Boot, Folder, free_address};

/// Says that it is ready and shows progress, and is the example otherwise.
const SHOWING: &str = r#"
import os, socket, threading, server
def show():
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        open("beat", "a").write(".")
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
        threading.Event().wait(0.2)
threading.Thread(target=show, daemon=True).start()
server.main()
"#;

/// Each of them several times: what is done again may panic again.
fn faults(names: &[&str]) -> String {
    [names, names, names].concat().join(",")
}

#[test]
fn p21_a_program_lives_through_panics_of_the_bootloader_and_is_supervised_on() {
    let everywhere = ["probe", "notify", "progress", "strays", "memory", "admin"];
    for (handover, more) in [("auto", "rescue"), ("proxy", "proxy")] {
        let names = [&everywhere[..], &[more]].concat();
        let (folder, address) = (Folder::with_example("python"), free_address());
        folder.write("showing.py", SHOWING);
        folder.change("baton.toml", "server.py", "showing.py");
        let listen = format!("{address}\"\nhandover = \"{handover}\"\nbacklog = 100");
        folder.change("baton.toml", "127.0.0.1:8080\"", &listen);
        let ready = "[run]\nready = \"notify\"\nprogress = { file = \"beat\", within = \"20s\" }";
        folder.change("baton.toml", "[run]", ready);
        folder.change("baton.toml", "interval        = \"1s\"", "interval = \"200ms\"");
        folder.hangs_after("5s");
        let boot = Boot::start(&folder, &[], &[("BATON_TEST_FAULTS", &faults(&names))]);
        boot.wait_for("generation 1 (image) serves", 1);
        if handover == "auto" {
            boot.signal(Signal::HUP);
            boot.wait_for("generation 2 (image) serves", 1);
        }
        for name in names {
            boot.wait_for(&format!("the one that a test wants in {name};"), 3);
        }
        let serving = generation(address);
        assert!(!boot.log().contains(&format!("generation {serving} failed")), "{}", boot.log());
        assert_eq!(boot.status()["restarts"], 0);
        // One that hangs is found by its probes.
        kill_process(process(address), Signal::STOP).unwrap();
        boot.wait_for(&format!("generation {serving} failed"), 1);
        let next = serving.parse::<u32>().unwrap() + 1;
        boot.wait_for(&format!("generation {next} (image) serves"), 1);
        assert!(boot.stop().success());
    }
}
