//! Several copies of a program, each with an accept queue of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Boot, Folder, free_address};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

const LISTEN: &str = "address = \"127.0.0.1:8080\"\n";

/// Three copies of the Python example under a bootloader, which say this of their listener beside.
fn serving(listen: &str, run: &str) -> (Folder, Boot, SocketAddr) {
    let folder = Folder::with_example("python");
    folder.change("baton.toml", "drain   =", &format!("workers = 3\n{run}\ndrain   ="));
    folder.change("baton.toml", LISTEN, &format!("{LISTEN}per_worker = true\n{listen}\n"));
    folder.hangs_after("3s");
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"50ms\"\n"));
    let address = free_address();
    let boot = Boot::start(&folder, &[], &[("BATON_LISTEN", &format!("http={address}"))]);
    boot.wait_for(" is proven", 1);
    (folder, boot, address)
}

/// How often each process answers so many new connections.
fn answering(address: SocketAddr, of: u32) -> BTreeMap<u64, u32> {
    let mut answers = BTreeMap::new();
    for _ in 0..of {
        let pid = Client::connect(address).unwrap().get("/").unwrap().pid();
        *answers.entry(pid).or_default() += 1;
    }
    answers
}

/// Five standard deviations of 600 draws by thirds are 58: one run in half a million is outside.
fn assert_thirds(of_600: &BTreeMap<u64, u32>) {
    assert_eq!(of_600.len(), 3, "{of_600:?}");
    assert!(of_600.values().all(|answers| answers.abs_diff(200) <= 58), "{of_600:?}");
}

fn signal(pid: u64, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Clients of which some wait in the queue of a copy that is suspended, with their requests sent.
fn waiting(address: SocketAddr) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..60).map(|_| Client::connect(address).unwrap()).collect();
    clients.iter_mut().for_each(|client| client.send("/"));
    clients
}

fn answered_by(clients: Vec<Client>) -> BTreeSet<u64> {
    clients.into_iter().map(|mut client| client.answer().unwrap().pid()).collect()
}

#[test]
fn p1_p3_new_connections_are_spread_evenly_and_twenty_reloads_lose_none() {
    for listen in ["handover = \"inherit\"", "handover = \"auto\""] {
        let (_folder, boot, address) = serving(listen, "");
        assert_thirds(&answering(address, 600));
        let load = Load::start(plan(address));
        for reload in 2..=21 {
            boot.signal(Signal::HUP);
            boot.wait_for(" is proven", reload);
        }
        assert_nothing_lost(&load.stop());
        assert_thirds(&answering(address, 600));
        assert!(boot.stop().success());
    }
}

#[test]
fn p1_p4_who_waits_for_a_copy_that_is_killed_is_served_by_the_others() {
    let (folder, boot, address) = serving("", "");
    let before = answering(address, 600);
    let killed = *before.keys().next().unwrap();
    signal(killed, Signal::STOP);
    let clients = waiting(address);
    // It cannot be launched again: only the others can answer.
    folder.write("behaviour", "exit-at-start=7\n");
    signal(killed, Signal::KILL);
    let served = answered_by(clients);
    assert!(served.len() == 2 && !served.contains(&killed), "{served:?}");
    boot.wait_for("of generation 1 failed (exit 7", 1);
    // Whoever comes now is not kept waiting either.
    assert!(answering(address, 50).keys().all(|pid| served.contains(pid)));
    folder.write("behaviour", "");
    wait_for("three copies", || Some(answering(address, 50)).filter(|answers| answers.len() == 3));
    assert_thirds(&answering(address, 600));
    assert!(boot.stop().success());
}

#[test]
fn p1_p4_a_copy_that_hangs_is_found_and_nobody_who_waits_for_it_is_lost() {
    let (_folder, boot, address) = serving("", "");
    let hung = *answering(address, 600).keys().next().unwrap();
    signal(hung, Signal::STOP);
    let clients = waiting(address);
    boot.wait_for("generation 2 (image) serves", 1);
    // By the copies of the next one, and by itself: it goes on when it is asked to stop.
    answered_by(clients);
    assert_thirds(&answering(address, 600));
    assert!(boot.stop().success());
}

#[test]
fn p1_p5_a_release_that_bakes_gets_its_part_by_all_of_its_copies() {
    let (folder, boot, address) = serving("", "split = \"50%\"");
    folder.change("baton.toml", "50ms", "10m");
    let before = answering(address, 100);
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 gets 50 % of the new connections", 1);
    let both = answering(address, 400);
    assert_eq!(both.len(), 6, "{both:?}");
    let of_the_first: u32 = before.keys().filter_map(|pid| both.get(pid)).sum();
    assert!(of_the_first.abs_diff(200) <= 50, "five standard deviations: {both:?}");
    assert!(boot.stop().success());
}
