//! Several copies of a program in one generation.

use std::collections::BTreeSet;

use baton_core::units::Millis;
use baton_e2e::load::Plan;
use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Boot, Folder, free_address};
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

/// The pids that answer new connections.
fn answering(address: std::net::SocketAddr) -> BTreeSet<u64> {
    (0..40).filter_map(|_| Some(Client::connect(address)?.get("/")?.pid())).collect()
}

#[test]
fn p1_a_copy_that_is_killed_is_started_again_alone_and_all_are_replaced_together() {
    let folder = Folder::with_example("python");
    folder.change("baton.toml", "drain   =", "workers = 3\ndrain   =");
    let address = free_address();
    let boot = Boot::start(&folder, &[], &[("BATON_LISTEN", &format!("http={address}"))]);
    boot.wait_for(" serves, ", 1);
    let first = wait_for("three copies", || Some(answering(address)).filter(|pids| pids.len() == 3));

    let killed = *first.first().unwrap();
    kill_process(Pid::from_raw(i32::try_from(killed).unwrap()).unwrap(), Signal::KILL).unwrap();
    boot.wait_for("of generation 1 failed (killed by SIGKILL", 1);
    let second = wait_for("another copy", || {
        Some(answering(address)).filter(|pids| pids.len() == 3 && !pids.contains(&killed))
    });
    assert_eq!(first.intersection(&second).count(), 2, "the others are still there");

    let load = Load::start(Plan {
        new: 4,
        keep: 4,
        rate: 50,
        timeout: Millis::from_secs(20),
        ..Plan::on(vec![address.to_string().parse().unwrap()])
    });
    for reload in 2..=4 {
        boot.signal(Signal::HUP);
        boot.wait_for(&format!("generation {reload} (image) is proven"), 1);
    }
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    boot.wait_for("generation 3 is gone", 1);
    let last = wait_for("three new copies", || Some(answering(address)).filter(|pids| pids.len() == 3));
    assert!(last.is_disjoint(&second), "{last:?} and {second:?}");
    assert!(boot.stop().success());
}
