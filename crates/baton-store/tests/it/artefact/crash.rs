//! A server that is killed at every system call by which its folder changes, while it takes a push and while it prunes.
//!
//! The test program starts itself again under `strace`, which kills it at the n-th call.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use baton_release::store::{ArtefactStore, Custody};
use baton_store::artefact::FolderStore;

use super::pruned::{prune, two};
use super::{check_all, push_dir, write};

/// Where the child finds its folders; its presence makes it the child.
const CHILD: &str = "BATON_TEST_STORE_CRASH_DIR";

/// Not a test by itself: the server that is killed.
#[test]
fn the_server() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let store = FolderStore::open(&dir.join("store")).unwrap();
    push_dir(&dir.join("two"), 2, &store).unwrap();
}

/// Not a test by itself: the server that is killed while it prunes.
#[test]
fn the_pruning_server() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let store = FolderStore::open(&dir.join("store")).unwrap();
    let kept = std::fs::read_to_string(dir.join("kept")).unwrap().parse().unwrap();
    assert!(prune(&store, &[kept]).unwrap());
}

/// Runs one of these tests as a child that is killed at the n-th of these calls.
fn run(test: &str, dir: &Path, calls: &str, n: usize) -> ExitStatus {
    run_with("signal=KILL", test, dir, calls, n).0
}

/// Runs one of these tests as a child to which this happens at the n-th of these calls, and tells whether it came to that.
fn run_with(fault: &str, test: &str, dir: &Path, calls: &str, n: usize) -> (ExitStatus, bool) {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let ended = Command::new("strace")
        .args([
            "-f",
            "-qqq",
            "-e",
            &format!("trace={calls}"),
            "-e",
            &format!("inject={calls}:{fault}:when={n}"),
            "-o",
        ])
        .arg(trace.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("artefact::crash::{test}"), "--test-threads=1"])
        .env(CHILD, dir)
        .output()
        .expect("this test needs strace: apt-get install strace")
        .status;
    (ended, std::fs::read_to_string(trace.path()).unwrap().contains("(INJECTED)"))
}

#[test]
fn f38_a_folder_whose_disk_fails_at_any_call_knows_complete_releases_only() {
    let mut failed = 0;
    for (calls, error) in [
        ("?mkdir,?mkdirat", "ENOSPC"),
        ("write", "ENOSPC"),
        ("fsync", "EIO"),
        ("?rename,?renameat,?renameat2", "EIO"),
    ] {
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let store = FolderStore::open(&dir.path().join("store")).unwrap();
            push_dir(&dir.path().join("one"), 1, &store).unwrap();
            write(&dir.path().join("two"), 2);
            let (ended, hit) = run_with(&format!("error={error}"), "the_server", dir.path(), calls, n);
            let store = FolderStore::open(&dir.path().join("store")).unwrap();
            let what = format!("{calls} {n} {error}: {ended}");
            let known = check_all(&store);
            // What is not durable is not said to be there.
            assert!(known == 2 || known == 1 && !ended.success(), "{what}: {known}");
            push_dir(&dir.path().join("two"), 2, &store).unwrap();
            assert_eq!(check_all(&store), 2, "{what}");
            if !hit {
                assert!(ended.success(), "{what}");
                break;
            }
            assert!(calls != "fsync" || !ended.success(), "{what}");
            failed += 1;
        }
    }
    println!("failed at {failed} points");
    assert!(failed >= 12, "{failed}");
}

#[test]
fn p28_killed_at_any_call_a_prune_has_left_all_that_is_kept_and_the_next_one_does_the_rest() {
    let (mut killed, mut before) = (0, 0);
    for calls in ["write", "fsync", "?rename,?renameat,?renameat2", "?unlink,?unlinkat"] {
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let open = || FolderStore::open(&dir.path().join("store")).unwrap();
            let [first, second] = two(dir.path(), &open());
            std::fs::write(dir.path().join("kept"), second.to_string()).unwrap();
            let ended = run("the_pruning_server", dir.path(), calls, n);
            let known = open().list().unwrap();
            assert!(known.contains(&second), "{calls} {n}");
            // One that is known is complete, also the one that was about to go.
            assert_eq!(check_all(&open()), known.len(), "{calls} {n}");
            before += usize::from(known.contains(&first));
            prune(&open(), &[second]).unwrap();
            assert_eq!((check_all(&open()), open().packs().unwrap().len()), (1, 2), "{calls} {n}");
            if ended.success() {
                break;
            }
            assert_eq!(ended.code(), None, "killed, not failed: {calls} {n} {ended}");
            killed += 1;
        }
    }
    println!("killed at {killed} points");
    assert!(killed >= 8 && (1..killed).contains(&before), "{killed}, {before} before the release was gone");
}

#[test]
fn p24_killed_at_any_call_a_folder_knows_complete_releases_only() {
    let mut killed = 0;
    for calls in ["write", "fsync", "?rename,?renameat,?renameat2"] {
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let store = FolderStore::open(&dir.path().join("store")).unwrap();
            push_dir(&dir.path().join("one"), 1, &store).unwrap();
            write(&dir.path().join("two"), 2);
            let ended = run("the_server", dir.path(), calls, n);
            let store = FolderStore::open(&dir.path().join("store")).unwrap();
            assert!((1..=2).contains(&check_all(&store)), "{calls} {n}");
            push_dir(&dir.path().join("two"), 2, &store).unwrap();
            assert_eq!(check_all(&store), 2, "{calls} {n}");
            if ended.success() {
                break;
            }
            assert_eq!(ended.code(), None, "killed, not failed: {calls} {n} {ended}");
            killed += 1;
        }
    }
    assert!(killed >= 12, "{killed}");
}
