//! A disk that is really full: the test program starts itself again on a small file system of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use baton_release::fetch::{FetchError, fetch};
use baton_release::store::memory::MemoryStore;

use crate::sample::{Nodes, chain, file, left, nodes, open, push_nodes};

/// Where the child's small file system is; its presence makes it the child.
const CHILD: &str = "BATON_TEST_SMALL_DISK";

/// Runs the child on a tmpfs with these options, which only it sees and which ends with it.
fn on_small_disk(options: &str) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} tmpfs {dir} && exec {exe} --exact disk_full::the_member --nocapture",
        dir = dir.path().display(),
        exe = std::env::current_exe().unwrap().display(),
    );
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let output = command.args(["--mount", "sh", "-c", &script]).env(CHILD, dir.path()).output().unwrap();
    assert!(output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Not a test by itself: the member with the small disk. One release fits, a second does not.
#[test]
fn the_member() {
    let Some(disk) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let store = MemoryStore::new();
    let fits = push_nodes(&nodes(1), &store).id;
    let many: Nodes =
        (0..400).map(|n| (format!("{n}"), file(&crate::sample::noise(n as u8, 20_000)))).collect();
    let too_large = push_nodes(&many, &store).id;
    let state = disk.join("state");
    let releases = open(&state);
    fetch(fits, &store, &releases, &|_| {}).unwrap();
    for _ in 0..2 {
        let error = fetch(too_large, &store, &releases, &|_| {}).unwrap_err();
        assert!(matches!(error, FetchError::Disk(_)), "{}", chain(&error));
        assert!(chain(&error).contains("No space left on device"), "{}", chain(&error));
        assert_eq!(left(&state), [format!("releases/{fits}")]);
        releases.verify_full(fits).unwrap();
    }
    // The space has been given back.
    fs::write(disk.join("filler"), vec![0; 1 << 20]).unwrap();
}

#[test]
fn p29_a_full_disk_is_a_reason_and_the_space_is_given_back() {
    on_small_disk("size=4m");
}

#[test]
fn p29_a_disk_without_inodes_is_a_reason_and_they_are_given_back() {
    on_small_disk("size=64m,nr_inodes=100");
}
