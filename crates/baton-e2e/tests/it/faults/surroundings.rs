//! Surroundings that lack something: rights, a place to write to, standard descriptors.

use std::fs;
use std::os::unix::fs::chown;

use rustix::process::Signal;

use super::{example, generation, is_gone, pid, process};
use crate::boot::{Boot, binary};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::sharing::start_refused;
use crate::wait::wait_for;

/// Write-protects the folder that it is given and the root, for whom it becomes only.
const READ_ONLY: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && mount -o remount,bind,ro / && \
                         exec env -u BATON_STATE_DIR \"$@\"";
/// Somebody who may do nothing but what everybody may.
const NOBODY: [&str; 8] = [
    "setpriv",
    "--reuid=54321",
    "--regid=54321",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--",
];

#[test]
fn f23_an_ordinary_user_without_capabilities_and_a_place_to_write_to_reloads_without_loss() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: only root can take everything away");
    }
    let (folder, address) = example("50ms");
    let (reachable, temporary) = (folder.path().join("baton-boot"), std::env::temp_dir());
    fs::copy(binary("baton-boot"), &reachable).unwrap();
    chown(folder.path(), Some(54321), Some(54321)).unwrap();
    let sealed = ["unshare", "--mount", "sh", "-c", READ_ONLY, temporary.to_str().unwrap()];
    // Where it was built, nobody else may be able to go.
    let before = [&sealed[..], &NOBODY, &["sh", "-c", "exec ./baton-boot"]].concat();
    let boot = Boot::start_under(&before, &folder, &[]);
    boot.wait_for(" is proven", 1);
    let status = fs::read_to_string(format!("/proc/{}/status", process(address).as_raw_nonzero())).unwrap();
    for expected in
        ["Uid:\t54321\t54321", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
    {
        assert!(status.contains(expected), "{status}");
    }
    assert!(!folder.path().join("state").exists() && !folder.path().join("__pycache__").exists());
    let load = Load::start(plan(address));
    for reload in 2..=4 {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload);
    }
    assert_nothing_lost(&load.stop());
    assert_eq!(generation(address), "4");
    // The program bound its port, and got the socket of its generation: nothing was done without.
    assert_eq!(boot.status()["listeners"][0]["handover"], "auto");
    assert!(!boot.log().contains("relayed") && !boot.log().contains("cannot"), "{}", boot.log());
    assert!(boot.stop().success());
}

#[test]
fn f23_where_orphans_go_elsewhere_it_reloads_without_loss_and_leaves_none_behind() {
    let (folder, address) = example("50ms");
    // In a session of its own, and without a parent.
    let left = "setsid sh -c 'sleep 600 & echo $! > orphan' && exec python3 server.py";
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", &format!("[\"sh\", \"-c\", {left:?}]"));
    let boot = start_refused(&folder, &["157/0=36:1"]);
    boot.wait_for("what a program leaves behind does not come to this process", 1);
    boot.wait_for(" is proven", 1);
    let load = Load::start(plan(address));
    for reload in 2..=3 {
        let orphan = pid(&folder.read("orphan"));
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload);
        boot.wait_for(&format!("generation {} is gone", reload - 1), 1);
        // Somebody else reaps it.
        wait_for("the end of the orphan", || is_gone(orphan).then_some(()));
    }
    assert_nothing_lost(&load.stop());
    let orphan = pid(&folder.read("orphan"));
    assert!(boot.stop().success());
    wait_for("the end of the orphan", || is_gone(orphan).then_some(()));
}

#[test]
fn f23_without_proc_it_says_so_and_a_program_that_binds_its_port_is_handed_over_without_loss() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: only root can cover /proc");
    }
    let (folder, address) = example("50ms");
    folder.change("baton.toml", "command = [", "command = [\"env\", \"-u\", \"LISTEN_FDS\", ");
    let covered = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    let boot = Boot::start_under(&["unshare", "--mount", "sh", "-c", covered], &folder, &[]);
    boot.wait_for("processes cannot be seen (/proc is not mounted", 1);
    boot.wait_for("its connections are relayed to $PORT", 1);
    boot.wait_for(" is proven", 1);
    let load = Load::start(plan(address));
    for reload in 2..=4 {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload);
    }
    assert_nothing_lost(&load.stop());
    assert!(boot.stop().success());
}

#[test]
fn f23_without_standard_input_and_output_it_works_and_its_program_has_some() {
    let (folder, address) = example("50ms");
    let boot = Boot::start_under(&["sh", "-c", "exec \"$0\" \"$@\" <&- >&-"], &folder, &[]);
    boot.wait_for(" is proven", 1);
    let opened =
        |number| fs::read_link(format!("/proc/{}/fd/{number}", process(address).as_raw_nonzero())).unwrap();
    assert_eq!(opened(0).to_str(), Some("/dev/null"));
    assert!([1, 2].iter().all(|number| opened(*number).to_string_lossy().starts_with("pipe:")));
    let load = Load::start(plan(address));
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert_nothing_lost(&load.stop());
    assert_eq!(generation(address), "2");
    assert!(boot.stop().success());
}
