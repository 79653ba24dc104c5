//! A member that is killed, or whose disk fails, at every system call by which it changes the disk.
//!
//! The test program starts itself again under `strace`, which kills it at the n-th call or makes that call fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use baton_core::ids::{DeployId, Epoch, ReleaseId};
use baton_release::fetch::{FetchError, fetch};
use baton_release::releases::{ReleasesDir, Seen};
use baton_release::store::ArtefactStore;
use baton_release::store::memory::MemoryStore;
use rustix::fs::{FlockOperation, flock};

use crate::sample::{chain, left, nodes, open, push_nodes, read};

/// Where the child finds its member's directory and the release; its presence makes it the child.
const CHILD: &str = "BATON_TEST_CRASH_DIR";
/// The child's exit code when the fetch failed with a reason and left nothing.
const FAILED_CLEANLY: i32 = 3;

/// The calls that change the disk; on other architectures some have other names.
const CALLS: [&str; 7] = [
    "?mkdir,mkdirat",
    "openat2,symlinkat",
    "pwrite64",
    "fchmod",
    "fsync",
    "?rename,?renameat,?renameat2",
    "?unlink,unlinkat,?rmdir,ftruncate",
];

/// A member that runs one release and shall fetch the next.
struct Scene {
    dir: tempfile::TempDir,
    old: ReleaseId,
    new: ReleaseId,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::new();
        let (old, new) = (push_nodes(&nodes(1), &store), push_nodes(&nodes(2), &store));
        let releases = open(&dir.path().join("state"));
        fetch(old.id, &store, &releases, &|_| {}).unwrap();
        releases.commit(old.id, Epoch(1)).unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        for id in store.chunks() {
            fs::write(dir.path().join("store").join(id.to_string()), store.get(&[id]).unwrap()).unwrap();
        }
        fs::write(dir.path().join("outline"), store.outline(new.id).unwrap()).unwrap();
        fs::write(dir.path().join("new"), new.id.to_string()).unwrap();
        Self { dir, old: old.id, new: new.id }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Runs the child with this fault at the n-th of these calls.
    fn run(&self, calls: &str, fault: &str, n: usize) -> Output {
        let output = Command::new("strace")
            .args(["-f", "-qqq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{fault}:when={n}")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "crash::the_member", "--nocapture", "--test-threads=1"])
            .env(CHILD, self.dir.path())
            .output()
            .expect("this test needs strace: apt-get install strace");
        // Killed does not mean gone: its last thread gives the lock back.
        let lock = fs::File::open(self.state().join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        flock(&lock, FlockOperation::Unlock).unwrap();
        output
    }

    /// What must hold after any crash; returns whether the new release has arrived.
    fn check(&self) -> bool {
        let releases = open(&self.state());
        let left = left(&self.state());
        let arrived = releases.has(self.new);
        assert_eq!(left.len(), 1 + usize::from(arrived), "{left:?}");
        for (id, seed) in [(self.old, 1), (self.new, 2)].iter().take(left.len()) {
            releases.verify_quick(*id).unwrap();
            releases.verify_full(*id).unwrap();
            assert_eq!(read(&releases.path(*id)), nodes(*seed));
        }
        let committed = releases.committed().unwrap().unwrap();
        assert!(committed.release == self.old || committed.release == self.new && arrived);
        releases.seen().unwrap();
        arrived
    }
}

fn load(dir: &Path, store: &MemoryStore) -> ReleaseId {
    for entry in fs::read_dir(dir.join("store")).unwrap() {
        store.put(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
    }
    let id = fs::read_to_string(dir.join("new")).unwrap().parse().unwrap();
    store.plant_outline(id, fs::read(dir.join("outline")).unwrap());
    id
}

/// Not a test by itself: the member that is killed. It says by its exit code how it ended otherwise.
#[test]
fn the_member() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let store = MemoryStore::new();
    let new = load(&dir, &store);
    let state = dir.join("state");
    let failed = |why: String| -> ! {
        eprintln!("{why}");
        std::process::exit(FAILED_CLEANLY)
    };
    let releases = ReleasesDir::open(&state).unwrap_or_else(|error| failed(chain(&error)));
    if let Err(error) = fetch(new, &store, &releases, &|_| {}) {
        assert!(matches!(error, FetchError::Disk(_)), "{}", chain(&error));
        assert_eq!(left(&state).len(), 1, "only the old release is left after {}", chain(&error));
        failed(chain(&error));
    }
    let seen = Seen { epoch: Epoch(2), deploy: DeployId::from_bytes([2; 16]) };
    releases.see(seen).unwrap_or_else(|error| failed(chain(&error)));
    releases.commit(new, Epoch(2)).unwrap_or_else(|error| failed(chain(&error)));
    std::process::exit(0);
}

#[test]
fn p24_killed_at_any_call_a_member_has_the_old_releases_or_the_new_one_too() {
    let (mut before, mut after) = (0, 0);
    for calls in CALLS {
        for n in 1.. {
            let scene = Scene::new();
            let ended = scene.run(calls, "signal=KILL", n);
            match scene.check() {
                true => after += 1,
                false => before += 1,
            }
            if ended.status.success() {
                assert!(scene.check());
                break;
            }
            assert_eq!(ended.status.code(), None, "killed, not failed: {calls} {n}: {ended:?}");
        }
    }
    assert!(before >= 12 && after >= 5, "killed {before} times before the release was there, {after} after");
}

#[test]
fn p29_a_disk_that_fails_at_any_call_is_a_reason_and_leaves_nothing_half_done() {
    let mut failed = 0;
    for (calls, error) in CALLS.iter().take(6).zip(["ENOSPC", "EDQUOT", "EIO", "EROFS", "EIO", "ENOSPC"]) {
        for n in 1.. {
            let scene = Scene::new();
            let ended = scene.run(calls, &format!("error={error}"), n);
            scene.check();
            if ended.status.success() {
                break;
            }
            assert_eq!(ended.status.code(), Some(FAILED_CLEANLY), "{calls} {n}: {ended:?}");
            failed += 1;
        }
    }
    assert!(failed >= 12, "{failed}");
}
