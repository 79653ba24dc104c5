//! A directory that the members of a host share: one download for all, and nobody has to trust anybody.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use baton_core::ids::{ChunkId, PackId, ReleaseId};
use baton_core::units::Bytes;
use baton_release::cache::{Cache, CacheError};
use baton_release::fetch::fetch;
use baton_release::nearest::Nearest;
use baton_release::pace::Pace;
use baton_release::pack;
use baton_release::peers::{KEY_BYTES, Key, Peers};
use baton_release::store::ArtefactStore;
use baton_release::store::memory::MemoryStore;
use rustix::fs::{CWD, Mode};
use tempfile::TempDir;

use crate::peers::{Counted, many};
use crate::remote::answer;
use crate::sample::{file, nodes, noise, open, push_nodes, read};

const LARGE: Bytes = Bytes(1 << 30);

/// A cache, a store with a release, and how many bytes of chunks members that have nothing get from the store.
struct Host {
    dir: TempDir,
    store: MemoryStore,
    release: ReleaseId,
}

impl Host {
    fn new() -> Self {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
        let release = push_nodes(&many(), &store).id;
        Self { dir, store, release }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// A new member fetches the release; returns what the store gave for it.
    fn fetch(&self) -> usize {
        self.fetch_with(LARGE)
    }

    fn fetch_with(&self, limit: Bytes) -> usize {
        let state = tempfile::tempdir_in(self.dir.path()).unwrap();
        let releases = open(&state.path().join("state"));
        let counted = Counted::new(&self.store);
        let cache = Cache::open(&self.path(), limit).unwrap();
        fetch(self.release, &Nearest::new(&counted, Some(&cache), None), &releases, &|_| {}).unwrap();
        assert_eq!(read(&releases.path(self.release)), many());
        counted.bytes()
    }

    fn packs(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path().join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn alter(path: &Path, alter: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).unwrap();
    alter(&mut content);
    fs::write(path, content).unwrap();
}

#[test]
fn one_download_is_enough_for_all_members_of_a_host() {
    let host = Host::new();
    let once = host.fetch();
    assert!(once > 3 << 20);
    assert_eq!(host.fetch(), 0);

    let host = Host::new();
    let given: Vec<usize> = thread::scope(|scope| {
        let fetches: Vec<_> = (0..8).map(|_| scope.spawn(|| host.fetch())).collect();
        fetches.into_iter().map(|fetch| fetch.join().unwrap()).collect()
    });
    // A release has its time in its manifest, which compresses to a few bytes more or less.
    assert!(given.iter().sum::<usize>().abs_diff(once) < 16, "{given:?}");
}

#[test]
fn a_member_that_is_killed_while_it_writes_leaves_nothing_that_matters() {
    let host = Host::new();
    let once = host.fetch();
    // It had written a part, and held the lock until it ended.
    for pack in host.packs() {
        fs::rename(&pack, host.path().join("incoming").join(pack.file_name().unwrap())).unwrap();
    }
    fs::write(host.path().join("incoming/1-1"), "half").unwrap();
    assert_eq!(host.fetch(), once);
    assert_eq!(host.fetch(), 0);
}

#[test]
fn p24_what_was_altered_or_is_not_what_its_name_says_is_removed_and_fetched() {
    for (what, change) in [
        (
            "cut",
            Box::new(|pack: &Path| alter(pack, |content| content.truncate(content.len() / 2)))
                as Box<dyn Fn(&Path)>,
        ),
        ("empty", Box::new(|pack| alter(pack, Vec::clear))),
        ("garbage", Box::new(|pack| alter(pack, |content| content.fill(b'x')))),
        ("a bit", Box::new(|pack| alter(pack, |content| *content.last_mut().unwrap() ^= 1))),
        ("too long", Box::new(|pack| alter(pack, |content| content.resize(7 << 20, 0)))),
        (
            "a link",
            Box::new(|pack| {
                fs::rename(pack, pack.with_file_name("elsewhere")).unwrap();
                symlink("elsewhere", pack).unwrap();
            }),
        ),
        (
            "a fifo",
            Box::new(|pack| {
                fs::remove_file(pack).unwrap();
                rustix::fs::mknodat(CWD, pack, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
            }),
        ),
        (
            "a directory",
            Box::new(|pack| {
                fs::remove_file(pack).unwrap();
                fs::create_dir(pack).unwrap();
            }),
        ),
    ] {
        let host = Host::new();
        let once = host.fetch();
        host.packs().iter().for_each(|pack| change(pack));
        assert!(host.fetch() > 0, "{what} of {once}");
        assert!(host.path().join("packs").is_dir(), "{what}");
    }
    // A pack of somebody who lies about what is in it.
    let host = Host::new();
    let once = host.fetch();
    for pack in host.packs() {
        let content = fs::read(&pack).unwrap();
        let mut lie = content.clone();
        let behind = lie.len();
        lie[behind - 1000..].fill(0);
        fs::remove_file(&pack).unwrap();
        fs::write(pack.with_file_name(PackId::of(&lie).to_string()), lie).unwrap();
    }
    assert!(host.fetch() > 0);
    assert!(host.fetch() < once);
}

#[test]
fn f44_a_cache_that_others_control_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let refused = |why: &str| match Cache::open(&path, LARGE) {
        Err(error @ CacheError::Unsafe { .. }) => assert!(error.to_string().contains(why), "{error}"),
        other => panic!("{why}: {:?}", other.err()),
    };
    drop(Cache::open(&path, LARGE).unwrap());
    for below in ["", "packs", "locks", "incoming"] {
        for mode in [0o777, 0o770] {
            fs::set_permissions(path.join(below), Permissions::from_mode(mode)).unwrap();
            refused("others may write to it");
        }
        fs::set_permissions(path.join(below), Permissions::from_mode(0o700)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path.join("packs"), Some(1), None).unwrap();
        refused("belongs to another user");
        std::os::unix::fs::chown(path.join("packs"), Some(0), None).unwrap();
    }
    drop(Cache::open(&path, LARGE).unwrap());
    fs::rename(path.join("packs"), dir.path().join("elsewhere")).unwrap();
    symlink("../elsewhere", path.join("packs")).unwrap();
    refused("it is not a directory");
    fs::rename(&path, dir.path().join("moved")).unwrap();
    symlink("moved", &path).unwrap();
    refused("if it is a link");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert!(Cache::open(&path, LARGE).is_err());
}

#[test]
fn f44_a_cache_that_is_replaced_while_it_is_open_stays_what_it_was() {
    let host = Host::new();
    let once = host.fetch();
    let cache = Cache::open(&host.path(), LARGE).unwrap();
    let outside = host.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::rename(host.path(), host.dir.path().join("moved")).unwrap();
    symlink("outside", host.path()).unwrap();
    let releases = open(&host.dir.path().join("state"));
    let counted = Counted::new(&host.store);
    fetch(host.release, &Nearest::new(&counted, Some(&cache), None), &releases, &|_| {}).unwrap();
    assert_eq!((counted.bytes(), fs::read_dir(outside).unwrap().count()), (0, 0), "of {once}");
}

#[test]
fn what_is_oldest_goes_when_there_is_too_much() {
    let mut host = Host::new();
    let once = host.fetch();
    for seed in 10..16 {
        let mut more = nodes(seed);
        more.insert("more".to_owned(), file(&noise(seed, 2 << 20)));
        let release = push_nodes(&more, &host.store).id;
        let releases = open(&host.dir.path().join(format!("state-{seed}")));
        let cache = Cache::open(&host.path(), Bytes(5 << 20)).unwrap();
        fetch(release, &Nearest::new(&host.store, Some(&cache), None), &releases, &|_| {}).unwrap();
        let bytes: u64 = host.packs().iter().map(|pack| fs::metadata(pack).unwrap().len()).sum();
        assert!(bytes <= 5 << 20, "{bytes}");
    }
    host.release = push_nodes(&many(), &host.store).id;
    assert!(host.fetch() > once / 2, "it has gone");
    assert!(host.fetch_with(Bytes(0)) <= 2 * once, "what nothing can be kept of is fetched");
}

/// A peer that says that it comes, until it is told to say nothing of use; and how often it was asked.
fn promises(over: &Arc<AtomicBool>) -> (SocketAddr, Arc<AtomicUsize>) {
    let (asked, over) = (Arc::new(AtomicUsize::new(0)), Arc::clone(over));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::clone(&asked));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // All of a question for one chunk, or so much that it has been sent.
            let _ = stream.read(&mut [0; 4096]);
            count.fetch_add(1, Ordering::SeqCst);
            let status = if over.load(Ordering::SeqCst) { 500 } else { 503 };
            // Whoever asked may have heard enough.
            let _ = stream.write_all(&answer(status, b""));
        }
    });
    (address, asked)
}

#[test]
fn nobody_of_a_host_waits_for_a_member_that_waits_for_its_peers() {
    let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
    let (pack, id) = (pack::of(b"content").unwrap(), ChunkId::of(b"content"));
    store.put(&pack).unwrap();
    let over = Arc::default();
    let (address, asked) = promises(&over);
    let (waits, other) = (Counted::new(&store), Counted::new(&store));
    let (key, pace) = (Key::from_bytes([7; KEY_BYTES]), Pace::unlimited());
    let peers = Peers::new(ReleaseId::from_bytes([1; 32]), vec![address], key, 1, &pace);
    let [first, second] = [(); 2].map(|()| Cache::open(dir.path(), LARGE).unwrap());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| Nearest::new(&waits, Some(&first), Some(&peers)).get(&[id]));
        while asked.load(Ordering::SeqCst) == 0 && !waiting.is_finished() {
            thread::yield_now();
        }
        for lock in fs::read_dir(dir.path().join("locks")).unwrap() {
            let lock = File::open(lock.unwrap().path()).unwrap();
            assert!(lock.try_lock().is_ok(), "it is held while a peer is waited for");
        }
        assert_eq!(Nearest::new(&other, Some(&second), None).get(&[id]).unwrap(), pack);
        over.store(true, Ordering::SeqCst);
        assert_eq!(waiting.join().unwrap().unwrap(), pack);
    });
    assert_eq!((other.bytes(), waits.bytes()), (pack.len(), 0), "one download is enough");
}
