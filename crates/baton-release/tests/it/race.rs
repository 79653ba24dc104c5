//! Somebody with the member's own rights who swaps directories for links while a release is laid out.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use baton_release::fetch::fetch;
use baton_release::store::memory::MemoryStore;

use crate::sample::{Node, Nodes, file, open, push_nodes, read};

/// How often a release is laid out at least, and how many directories are swapped for links meanwhile.
const ROUNDS: usize = 50;
const SWAPS: usize = 500;
/// More often than this it is not tried: then nothing was shown.
const ROUNDS_MAX: usize = 5000;
/// Directories of the release, each with so many files.
const DIRS: usize = 6;
const FILES: usize = 12;

fn tree() -> Nodes {
    let dirs = (0..DIRS).map(|dir| (format!("d{dir}"), Node::Dir));
    let name = |n: usize| format!("d{}/f{}", n / FILES, n % FILES);
    let files = (0..DIRS * FILES).map(|n| (name(n), file(format!("content {n}").as_bytes())));
    dirs.chain(files).collect()
}

/// What the outside consists of: each directory with its mode and the names in it, and what the one file in it says.
fn look(outside: &Path) -> Vec<(u32, Vec<OsString>, String)> {
    let dir = |n: usize| {
        let path = outside.join(format!("d{n}"));
        let names = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let kept = fs::read_to_string(path.join("kept")).unwrap();
        (fs::metadata(&path).unwrap().permissions().mode(), names, kept)
    };
    (0..DIRS).map(dir).collect()
}

/// Swaps the directories of a tree for links to the outside and back, for as long as there are any. Returns how many links there
/// were.
fn swap(tree: &Path, outside: &Path) -> usize {
    let mut swapped = 0;
    for dir in 0..DIRS {
        let (there, aside) = (tree.join(format!("d{dir}")), tree.join(format!("aside{dir}")));
        if fs::rename(&there, &aside).is_err() {
            continue;
        }
        swapped += usize::from(symlink(outside.join(format!("d{dir}")), &there).is_ok());
        thread::yield_now();
        // The tree may have been moved or removed meanwhile.
        let _ = fs::remove_file(&there);
        let _ = fs::rename(&aside, &there);
    }
    swapped
}

#[test]
fn f101_directories_swapped_for_links_while_a_release_is_laid_out_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    for n in 0..DIRS {
        fs::create_dir_all(outside.join(format!("d{n}"))).unwrap();
        fs::set_permissions(outside.join(format!("d{n}")), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(outside.join(format!("d{n}/kept")), "untouched").unwrap();
    }
    let before = look(&outside);
    let store = MemoryStore::new();
    let id = push_nodes(&tree(), &store).id;
    let state = |round: usize| -> PathBuf { dir.path().join(format!("member{round}")) };
    let (round, swaps, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let (mut whole, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let staging = state(round.load(Ordering::Relaxed)).join("staging");
                let swapped = swap(&staging.join(id.to_string()).join("tree"), &outside);
                swaps.fetch_add(swapped, Ordering::Relaxed);
            }
        });
        while (whole + refused < ROUNDS || swaps.load(Ordering::Relaxed) < SWAPS)
            && whole + refused < ROUNDS_MAX
        {
            let state = state(round.load(Ordering::Relaxed));
            let releases = open(&state);
            // Either it is laid out, or there is a reason; what counts is what may be launched.
            let laid_out = fetch(id, &store, &releases, &|_| {}).is_ok();
            if laid_out && releases.verify_full(id).is_ok() {
                whole += 1;
                assert_eq!(read(&releases.path(id)), tree());
            } else {
                refused += 1;
            }
            drop(releases);
            round.fetch_add(1, Ordering::Relaxed);
            // Until nobody swaps anything there any more.
            while state.exists() {
                let _ = fs::remove_dir_all(&state);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let swaps = swaps.into_inner();
    println!("{swaps} directories swapped for links: {whole} trees whole, {refused} refused");
    assert!(swaps >= SWAPS, "only {swaps}");
    assert_eq!(look(&outside), before);
}
