//! A disk that is really full, or takes no more writes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_release::fetch::{FetchError, Step, fetch};
use baton_release::store::Kind;
use baton_release::store::memory::MemoryStore;

use crate::sample::{Nodes, chain, file, left, nodes, noise, open, push_nodes};
use crate::small_disk::{again, disk};

/// Runs a test of this file on a small disk.
fn on_small_disk(test: &str, options: &str) {
    again(&format!("disk_full::{test}"), options);
}

/// 8 MB in 400 files.
fn large() -> Nodes {
    (0..400_u32)
        .map(|n| (format!("{n}"), file(&[&n.to_le_bytes()[..], &noise(n as u8, 20_000)].concat())))
        .collect()
}

/// Not a test by itself: the member with the small disk. One release fits, a second does not.
#[test]
fn the_member_without_room() {
    let Some(disk) = disk() else { return };
    let store = MemoryStore::new();
    let fits = push_nodes(&nodes(1), &store).id;
    let too_large = push_nodes(&large(), &store).id;
    let state = disk.join("state");
    let releases = open(&state);
    fetch(fits, &store, &releases, &|_| {}).unwrap();
    for _ in 0..2 {
        let created = AtomicUsize::new(0);
        let count = |step| {
            created.fetch_add(usize::from(step == Step::Created), Ordering::Relaxed);
        };
        let error = fetch(too_large, &store, &releases, &count).unwrap_err();
        assert!(matches!(error, FetchError::NoRoom(_)), "{}", chain(&error));
        assert!(chain(&error).contains("no space left on device"), "{}", chain(&error));
        assert_eq!(created.into_inner(), 0, "it is said before anything is created");
        assert_eq!(left(&state), [format!("releases/{fits}")]);
        releases.verify_full(fits).unwrap();
    }
}

#[test]
fn p29_a_disk_without_room_is_a_reason_before_anything_is_created() {
    on_small_disk("the_member_without_room", "size=4m");
}

#[test]
fn p29_a_disk_without_inodes_is_a_reason_before_anything_is_created() {
    on_small_disk("the_member_without_room", "size=64m,nr_inodes=100");
}

/// Takes all bytes and inodes that are left.
fn fill(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    while (0..).try_for_each(|n: u32| fs::File::create_new(dir.join(n.to_string())).map(drop)).is_ok() {}
    let mut filler = fs::File::options().write(true).open(dir.join("0")).unwrap();
    while filler.write(&[0; 1 << 16]).is_ok() {}
}

/// Not a test by itself: the member whose disk somebody else fills while a release arrives.
#[test]
fn the_member_whose_disk_fills() {
    let Some(disk) = disk() else { return };
    let store = MemoryStore::new();
    let fits = push_nodes(&nodes(1), &store).id;
    let fits_too = push_nodes(&large(), &store).id;
    let state = disk.join("state");
    let releases = open(&state);
    fetch(fits, &store, &releases, &|_| {}).unwrap();
    for _ in 0..2 {
        let fetched = AtomicUsize::new(0);
        let filling = |step| {
            if matches!(step, Step::Fetched { .. }) && fetched.fetch_add(1, Ordering::SeqCst) == 10 {
                fill(&disk.join("filler"));
            }
        };
        let error = fetch(fits_too, &store, &releases, &filling).unwrap_err();
        assert!(matches!(error, FetchError::Disk(_)), "{}", chain(&error));
        assert!(chain(&error).contains("No space left on device"), "{}", chain(&error));
        assert_eq!(left(&state), [format!("releases/{fits}")]);
        releases.verify_full(fits).unwrap();
        fs::remove_dir_all(disk.join("filler")).unwrap();
    }
    // The space has been given back.
    fetch(fits_too, &store, &releases, &|_| {}).unwrap();
}

#[test]
fn p29_a_disk_that_fills_up_is_a_reason_and_the_space_is_given_back() {
    on_small_disk("the_member_whose_disk_fills", "size=16m,nr_inodes=1000");
}

/// Not a test by itself: the member that goes on with a file for which there is not twice the room.
#[test]
fn the_member_that_goes_on_with_little_room() {
    let Some(disk) = disk() else { return };
    let store = MemoryStore::new();
    let tree: Nodes = [("binary".to_owned(), file(&noise(1, 9_000_000)))].into();
    let id = push_nodes(&tree, &store).id;
    let before = store.calls();
    let twin = tempfile::tempdir().unwrap();
    fetch(id, &store, &open(twin.path()), &|_| {}).unwrap();
    store.fail_call(store.calls() - before, Kind::Unavailable);
    let releases = open(&disk.join("state"));
    fetch(id, &store, &releases, &|_| {}).unwrap_err();
    fs::write(disk.join("other"), noise(2, 4_000_000)).unwrap();
    fetch(id, &store, &releases, &|_| {}).unwrap();
    releases.verify_full(id).unwrap();
}

#[test]
fn p29_what_has_come_of_a_release_does_not_take_the_room_for_it() {
    on_small_disk("the_member_that_goes_on_with_little_room", "size=16m");
}

/// Not a test by itself: the member in whose release something is mounted, with the same content.
#[test]
fn the_member_that_is_mounted_over() {
    let Some(disk) = disk() else { return };
    let (store, tree) = (MemoryStore::new(), nodes(1));
    let id = push_nodes(&tree, &store).id;
    let state = disk.join("state");
    fetch(id, &store, &open(&state), &|_| {}).unwrap();
    let (lib, copy) = (open(&state).path(id).join("lib"), disk.join("copy"));
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new("cp").arg("-a").args([&lib, &copy]));
    run(Command::new("mount").arg("--bind").args([&copy, &lib]));
    let refused = open(&state).verify(id).unwrap_err();
    assert!(chain(&refused).contains("lib/"), "{}", chain(&refused));
    run(Command::new("umount").arg(&lib));
    open(&state).verify(id).unwrap();
}

#[test]
fn f44_what_is_mounted_in_a_release_is_no_part_of_it() {
    on_small_disk("the_member_that_is_mounted_over", "size=16m");
}

/// Not a test by itself: the member whose disk takes no more writes while a release arrives.
#[test]
fn the_member_whose_disk_turns_read_only() {
    let Some(disk) = disk() else { return };
    let mount = |options: &[&str], at: &Path| {
        Command::new("mount").args(options).arg(at).output().unwrap().status.success()
    };
    let remount = |how: &str| mount(&["-o", &format!("remount,{how}")], &disk);
    // The lock is held open: nobody can take the right to write from under it, but an error of a real disk.
    let (state, elsewhere) = (disk.join("state"), disk.join("elsewhere"));
    [&state, &elsewhere].iter().for_each(|dir| fs::create_dir(dir).unwrap());
    assert!(mount(&["-t", "tmpfs", "tmpfs"], &elsewhere));
    [&state, &elsewhere].iter().for_each(|dir| fs::write(dir.join("lock"), "").unwrap());
    assert!(mount(&["--bind", elsewhere.join("lock").to_str().unwrap()], &state.join("lock")));
    let store = MemoryStore::new();
    let before = push_nodes(&nodes(1), &store).id;
    let next = push_nodes(&large(), &store).id;
    let releases = open(&state);
    fetch(before, &store, &releases, &|_| {}).unwrap();
    let fetched = AtomicUsize::new(0);
    let turning = |step| {
        if matches!(step, Step::Fetched { .. }) && fetched.fetch_add(1, Ordering::SeqCst) == 10 {
            // Not while somebody has a file open for writing.
            assert!((0..1000).any(|_| remount("ro")));
        }
    };
    let error = fetch(next, &store, &releases, &turning).unwrap_err();
    assert!(matches!(error, FetchError::Disk(_)), "{}", chain(&error));
    assert!(chain(&error).contains("Read-only file system"), "{}", chain(&error));
    assert!(!releases.has(next));
    releases.verify_full(before).unwrap();
    assert!(remount("rw"));
    fetch(next, &store, &releases, &|_| {}).unwrap();
    releases.verify_full(next).unwrap();
}

#[test]
fn f39_a_disk_that_turns_read_only_is_a_reason_and_what_is_there_stays_launchable() {
    on_small_disk("the_member_whose_disk_turns_read_only", "size=32m");
}
