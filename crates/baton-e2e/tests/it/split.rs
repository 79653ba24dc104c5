//! A release that gets a part of the new connections while it bakes.

use std::net::SocketAddr;

use rustix::process::Signal;

use crate::boot::{Boot, Folder, free_address};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;

/// The ways in which connections are divided: in the kernel, and by the bootloader.
const WAYS: [&str; 2] = ["inherit", "proxy"];

/// The Python example under a bootloader, half of whose connections go to what bakes.
fn serving(handover: &str, bake: &str) -> (Folder, Boot, SocketAddr) {
    let (folder, address) = (Folder::with_example("python"), free_address());
    folder.change("baton.toml", "[run]", "[run]\nsplit = \"50%\"");
    folder.change("baton.toml", "\"127.0.0.1:8080\"", &format!("\"{address}\"\nhandover = \"{handover}\""));
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"{bake}\"\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    (folder, boot, address)
}

fn generation(address: SocketAddr) -> String {
    Client::connect(address).unwrap().get("/").unwrap().generation().to_owned()
}

/// How many of so many new connections a generation answers.
fn answered_by(id: &str, of: u32, address: SocketAddr) -> u32 {
    (0..of).map(|_| u32::from(generation(address) == id)).sum()
}

/// Five standard deviations of 400 draws by halves are 50: one run in two million is outside.
fn assert_half(of_400: u32) {
    assert!(of_400.abs_diff(200) <= 50, "{of_400} of 400");
}

#[test]
fn p1_p3_p5_a_release_gets_its_part_while_it_bakes_and_all_when_it_is_proven() {
    for way in WAYS {
        let (_folder, boot, address) = serving(way, "200ms");
        let load = Load::start(plan(address));
        for reload in 1..=10 {
            boot.signal(Signal::HUP);
            boot.wait_for(" gets 50 % of the new connections while it bakes, generation ", reload);
            boot.wait_for(" is proven", reload + 1);
            let id = (reload + 1).to_string();
            assert_eq!(answered_by(&id, 50, address), 50, "{way}");
        }
        assert_nothing_lost(&load.stop());
        assert!(boot.stop().success());
    }
}

#[test]
fn p9_a_release_gets_its_part_while_it_bakes_and_gives_it_back_when_it_fails() {
    for way in WAYS {
        let (folder, boot, address) = serving(way, "10m");
        let load = Load::start(plan(address));
        boot.signal(Signal::HUP);
        boot.wait_for(
            "generation 2 gets 50 % of the new connections while it bakes, generation 1 the rest",
            1,
        );
        assert_half(answered_by("2", 400, address));
        // A release that is tried meanwhile takes its place, and the one that is proven has all until then.
        folder.write("behaviour", "exit-at-start=7\n");
        boot.signal(Signal::HUP);
        boot.wait_for("handed back from generation 2 to 1", 1);
        assert_eq!(answered_by("1", 50, address), 50, "{way}");
        boot.wait_for("refused: exit 7", 1);
        assert_nothing_lost(&load.stop());
        assert!(boot.stop().success());
    }
}

#[test]
fn p1_p4_when_the_one_that_stands_by_is_killed_the_release_that_bakes_gets_all() {
    for way in WAYS {
        let (_folder, boot, address) = serving(way, "10m");
        let first = Client::connect(address).unwrap().get("/").unwrap().pid();
        boot.signal(Signal::HUP);
        boot.wait_for("generation 2 gets 50 % of the new connections", 1);
        let (load, target) = (Load::start(plan(address)), address.to_string());
        load.run_until(|report| report.answered > 50);
        load.say(&format!("window {target} begin"));
        let first = rustix::process::Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
        rustix::process::kill_process(first, Signal::KILL).unwrap();
        boot.wait_for("generation 1, which stood by, has ended", 1);
        load.say(&format!("window {target} end"));
        assert_eq!(answered_by("2", 50, address), 50, "{way}");
        let report = load.stop();
        assert_eq!(report.lost, 0, "{report:#?}");
        assert!(boot.stop().success());
    }
}
