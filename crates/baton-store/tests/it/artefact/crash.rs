//! A server that is killed at every system call by which its folder changes.
//!
//! The test program starts itself again under `strace`, which kills it at the n-th call.

use std::path::PathBuf;
use std::process::Command;

use baton_store::artefact::FolderStore;

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

#[test]
fn p24_killed_at_any_call_a_folder_knows_complete_releases_only() {
    let mut killed = 0;
    for calls in ["write", "fsync", "?rename,?renameat,?renameat2"] {
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let store = FolderStore::open(&dir.path().join("store")).unwrap();
            push_dir(&dir.path().join("one"), 1, &store).unwrap();
            write(&dir.path().join("two"), 2);
            let ended = Command::new("strace")
                .args([
                    "-f",
                    "-qqq",
                    "-o",
                    "/dev/null",
                    "-e",
                    &format!("inject={calls}:signal=KILL:when={n}"),
                ])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "artefact::crash::the_server", "--test-threads=1"])
                .env(CHILD, dir.path())
                .output()
                .expect("this test needs strace: apt-get install strace")
                .status;
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
