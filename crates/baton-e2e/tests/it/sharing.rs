//! Where the kernel or a sandbox does not let the sockets of generations share an address: the bootloader accepts.

use std::net::SocketAddr;

use rustix::process::Signal;

use crate::boot::{Boot, Folder, free_address};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::reload::kill_with_a_queue;
use crate::wait::wait_for;

/// What a sandbox refuses, as `refuse.py` takes it: `setsockopt` with these options, and `seccomp`.
const SHARING: &str = "54/2=15:92";
const SELECTOR: &str = "54/2=51:1";
const SELECTOR_OTHERWISE: &str = "54/2=51:22";
const FILTERS: &str = "317:1";

/// Starts a bootloader that is refused something.
pub fn start_refused(folder: &Folder, rules: &[&str]) -> Boot {
    let refuse = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/refuse.py");
    Boot::start_under(&[&["python3", refuse], rules, &["--"]].concat(), folder, &[])
}

/// The Python example under it. `binds`: it is told nothing of any socket.
fn refused(rules: &[&str], handover: &str, binds: bool, bake: &str) -> (Folder, Boot, SocketAddr) {
    let (folder, address) = (Folder::with_example("python"), free_address());
    if binds {
        folder.change("baton.toml", "command = [", "command = [\"env\", \"-u\", \"LISTEN_FDS\", ");
    }
    let listen = format!("{address}\"\nhandover = \"{handover}\"\n");
    folder.change("baton.toml", "127.0.0.1:8080\"\n", &listen);
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"{bake}\"\n"));
    let boot = start_refused(&folder, rules);
    boot.wait_for(" serves, ", 1);
    (folder, boot, address)
}

fn generation(address: SocketAddr) -> String {
    Client::connect(address).unwrap().get("/").unwrap().generation().to_owned()
}

#[test]
fn p1_p3_f23_without_a_shared_address_or_a_selector_programs_are_handed_over_without_loss() {
    for (rules, handover, binds, how) in [
        (&[SELECTOR][..], "auto", true, "and got listener \"http\""),
        (&[SHARING], "auto", true, "and got listener \"http\""),
        (&[SHARING], "inherit", false, "generation 1 (image) serves"),
        (&[SELECTOR_OTHERWISE], "inherit", false, "generation 1 (image) serves"),
        (&[SELECTOR, FILTERS], "auto", false, "generation 1 (image) serves"),
        (&[SHARING, FILTERS], "auto", true, "its connections are relayed to $PORT"),
    ] {
        let (_folder, boot, address) = refused(rules, handover, binds, "50ms");
        boot.wait_for(how, 1);
        boot.wait_for(" is proven", 1);
        let load = Load::start(plan(address));
        for reload in 2..=6 {
            boot.signal(Signal::HUP);
            boot.wait_for(" is proven", reload);
        }
        let report = load.stop();
        assert_nothing_lost(&report);
        assert!(report.sent > 100, "{report:#?}");
        let listener = boot.status()["listeners"][0].clone();
        assert_eq!(listener["handover"], handover);
        let why = listener["forwarded"].as_str().unwrap().to_owned();
        assert!(why.starts_with("setsockopt("), "{why}");
        let said = |text: &str| boot.log().lines().filter(|line| line.contains(text)).count();
        assert_eq!(said("does not let generations share an address"), 1, "{}", boot.log());
        assert!(boot.stop().success());
    }
}

#[test]
fn p2_f23_without_a_selector_a_candidate_that_is_not_healthy_gets_no_connection() {
    let (folder, boot, address) = refused(&[SELECTOR], "auto", true, "50ms");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"1s\"");
    folder.write("behaviour", "never-healthy\n");
    boot.signal(Signal::HUP);
    let mut asked = 0;
    while !boot.log().contains("refused: not healthy within 1 s") {
        assert_eq!(generation(address), "1");
        asked += 1;
    }
    assert!(asked > 20, "asked only {asked} times");
    assert!(boot.stop().success());
}

#[test]
fn p1_a_socket_of_somebody_else_at_a_listener_is_told_and_gets_no_connection() {
    let (folder, address) = (Folder::with_example("python"), free_address());
    folder.change("baton.toml", "127.0.0.1:8080", &address.to_string());
    folder.change("baton.toml", "interval        = \"1s\"", "interval = \"100ms\"");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let strangers = || boot.status()["listeners"][0]["strangers"].as_array().unwrap().clone();
    assert_eq!(strangers().len(), 0);
    let other = baton_sys::socket::join_group(address, 8).unwrap();
    let own = format!("process {} (", std::process::id());
    boot.wait_for(&own, 1);
    wait_for("its owner", || {
        strangers().first().is_some_and(|one| one.as_str().unwrap().starts_with(&own)).then_some(())
    });
    (0..50).for_each(|_| assert_eq!(generation(address), "1"));
    drop(other);
    wait_for("its end", || strangers().is_empty().then_some(()));
    assert!(boot.stop().success());
}

#[test]
fn p4_f23_without_a_selector_who_waits_at_a_killed_program_is_answered() {
    let (_folder, boot, address) = refused(&[SELECTOR], "auto", true, "30s");
    kill_with_a_queue(address);
    boot.wait_for("generation 2 (image) serves", 1);
    assert!(boot.stop().success());
}

#[test]
fn p9_f23_without_a_selector_a_release_that_crashes_within_the_bake_is_handed_back() {
    let (folder, boot, address) = refused(&[SHARING], "inherit", false, "30s");
    folder.write("behaviour", "crash-after=0.5\n");
    let load = Load::start(plan(address));
    load.say(&format!("window {address} begin"));
    boot.signal(Signal::HUP);
    boot.wait_for("handed back from generation 2 to 1", 1);
    load.say(&format!("window {address} end"));
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert_eq!(generation(address), "1");
    assert!(boot.stop().success());
}
