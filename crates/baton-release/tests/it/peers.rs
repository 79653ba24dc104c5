//! Members that give each other what they have, over real connections, and peers that misbehave.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::peers::PATIENCE_WITHOUT_HOPE;
use baton_core::units::Bytes;
use baton_release::fetch::fetch;
use baton_release::nearest::Nearest;
use baton_release::pace::Pace;
use baton_release::pack;
use baton_release::peers::{KEY_BYTES, Key, Keyring, PeerServer, Peers, Shelf};
use baton_release::releases::ReleasesDir;
use baton_release::store::memory::MemoryStore;
use baton_release::store::{ArtefactStore, StoreError};
use tempfile::TempDir;

use crate::remote::{self, listen};
use crate::sample::{Nodes, file, nodes, noise, open, push_nodes, read};

const KEY: Key = Key::from_bytes([7; KEY_BYTES]);
const FAST: Bytes = Bytes(1 << 30);
/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A store that counts what it is asked for.
pub struct Counted<'a> {
    store: &'a MemoryStore,
    /// Done before each answer, whose number it gets, from 0.
    before: Box<dyn Fn(usize) + Send + Sync + 'a>,
    answers: AtomicUsize,
    bytes: AtomicUsize,
    outlines: AtomicUsize,
}

impl<'a> Counted<'a> {
    pub fn new(store: &'a MemoryStore) -> Self {
        Self::doing(store, |_| {})
    }

    fn doing(store: &'a MemoryStore, before: impl Fn(usize) + Send + Sync + 'a) -> Self {
        let [answers, bytes, outlines] = [0, 0, 0].map(AtomicUsize::new);
        Self { store, before: Box::new(before), answers, bytes, outlines }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl ArtefactStore for Counted<'_> {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError> {
        self.store.missing(ids)
    }

    fn put(&self, pack: &[u8]) -> Result<(), StoreError> {
        self.store.put(pack)
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        (self.before)(self.answers.fetch_add(1, Ordering::SeqCst));
        let pack = self.store.get(ids)?;
        self.bytes.fetch_add(pack.len(), Ordering::Relaxed);
        Ok(pack)
    }

    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError> {
        self.store.publish(id, outline)
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        self.store.outline(id)
    }

    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError> {
        self.store.sign(id, approval)
    }

    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError> {
        self.store.approvals(id)
    }

    fn outline_since(&self, id: ReleaseId, here: &[ReleaseId]) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        self.outlines.fetch_add(1, Ordering::SeqCst);
        self.store.outline_since(id, here)
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        self.store.list()
    }
}

/// A member: its disk, and its door.
struct Member {
    state: TempDir,
    releases: Arc<ReleasesDir>,
    shelf: Arc<Shelf>,
    address: SocketAddr,
}

impl Member {
    fn new(rate: Bytes) -> Self {
        let state = tempfile::tempdir().unwrap();
        let releases = Arc::new(open(&state.path().join("state")));
        let (shelf, keys) = (Arc::new(Shelf::new(Arc::clone(&releases))), Arc::new(Keyring::default()));
        keys.learn(KEY);
        let server = PeerServer::bind("127.0.0.1:0", rate, Arc::clone(&shelf), keys).unwrap();
        let address = server.address();
        server.start().unwrap();
        Self { state, releases, shelf, address }
    }

    /// Fetches a release from the store alone.
    fn having(release: ReleaseId, store: &MemoryStore) -> Self {
        let member = Self::new(FAST);
        fetch(release, store, &member.releases, &|_| {}).unwrap();
        member
    }

    /// Fetches a release with these peers; returns how many bytes of chunks the store was asked for, and who failed.
    fn fetch(&self, release: ReleaseId, store: &MemoryStore, peers: Vec<SocketAddr>) -> (usize, Vec<String>) {
        self.fetch_with(KEY, release, store, peers)
    }

    fn fetch_with(
        &self,
        key: Key,
        release: ReleaseId,
        store: &MemoryStore,
        peers: Vec<SocketAddr>,
    ) -> (usize, Vec<String>) {
        let (counted, pace) = (Counted::new(store), Pace::unlimited());
        let peers = Peers::new(release, peers, key, 1, &pace);
        fetch(release, &Nearest::new(&counted, None, Some(&peers)), &self.releases, &|_| {}).unwrap();
        (counted.bytes(), peers.tally().failed.into_iter().map(|(_, why)| why).collect())
    }

    fn tree(&self, release: ReleaseId) -> Nodes {
        read(&self.releases.path(release))
    }
}

/// Small files, large ones, and what cannot be compressed.
pub fn many() -> Nodes {
    let mut nodes = nodes(1);
    nodes.insert("large".to_owned(), file(&noise(2, 3 << 20)));
    (0..200).for_each(|n| drop(nodes.insert(format!("lib/{n}"), file(&noise(n, 500 + usize::from(n))))));
    nodes
}

/// Answers every connection with these bytes.
fn says(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut question = [0; 4096];
            while !question.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                if stream.read(&mut question).unwrap_or(0) == 0 {
                    break;
                }
            }
            // Whoever asked may have heard enough.
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(Shutdown::Write);
            // What is left unread of a question would cut the answer off.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    address
}

/// Sends the right answer's head and then a byte now and then, for ever.
fn drips() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut sent = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n");
                stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                while sent.is_ok() {
                    // What was asked, or nothing for a while.
                    let _ = stream.read(&mut [0; 4096]);
                    sent = stream.write_all(b"b");
                }
            });
        }
    });
    address
}

fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn what_a_peer_has_does_not_come_from_the_store() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let first = Member::having(release, &store);
    let second = Member::new(FAST);
    assert_eq!(second.fetch(release, &store, vec![first.address]), (0, vec![]));
    assert_eq!(second.tree(release), many());
    // And so does what it has from there, of which the next one lacks a part.
    let mut nodes = many();
    nodes.insert("new".to_owned(), file(&noise(77, 200_000)));
    let next = push_nodes(&nodes, &store).id;
    fetch(next, &store, &second.releases, &|_| {}).unwrap();
    assert_eq!(first.fetch(next, &store, vec![second.address]), (0, vec![]));
    assert_eq!(first.tree(next), nodes);
}

#[test]
fn f72_whatever_a_peer_sends_the_release_is_right_and_it_is_not_asked_again() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let other = pack::of(b"something else").unwrap();
    let mut damaged = other.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (peer, why) in [
        (closed, "Connection refused"),
        (silent.local_addr().unwrap(), "timeout"),
        (drips(), "timeout"),
        (says(answer(200, b"rubbish")), "the pack is not allowed"),
        (says(answer(200, &other)), "less than it was asked for"),
        (says(answer(200, &damaged)), "what it sends is refused"),
        (says(answer(200, &vec![b'x'; 4 << 20])), "limit"),
        (says(answer(500, b"")), "it answers 500"),
        (says(answer(403, b"")), "it answers 403"),
        (says(b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\n\r\n".to_vec()), "it answers 302"),
        (says(b"HTTP/1.1 200 X\r\nContent-Length: 99999\r\n\r\nhalf".to_vec()), "as it should"),
        (says(b"SSH-2.0-x\r\n".to_vec()), "as it should"),
        (says(Vec::new()), "as it should"),
    ] {
        let member = Member::new(FAST);
        let (bytes, failed) = member.fetch(release, &store, vec![peer]);
        assert!(bytes > 3 << 20, "{why}: the store gave {bytes} bytes");
        assert!(failed.len() == 1 && failed[0].contains(why), "{why}: {failed:?}");
        assert_eq!(member.tree(release), many(), "{why}");
    }
}

#[test]
fn a_liar_among_peers_costs_the_store_nothing() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let honest = Member::having(release, &store);
    let liar = says(answer(200, &pack::of(b"something else").unwrap()));
    let member = Member::new(FAST);
    let (bytes, failed) = member.fetch(release, &store, vec![liar, honest.address]);
    assert_eq!((bytes, member.tree(release)), (0, many()));
    assert!(failed.len() <= 1, "{failed:?}");
}

#[test]
fn p25_what_was_altered_on_a_peers_disk_is_not_given() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let peer = Member::having(release, &store);
    std::fs::write(peer.releases.path(release).join("large"), noise(99, 3 << 20)).unwrap();
    let member = Member::new(FAST);
    let (bytes, _) = member.fetch(release, &store, vec![peer.address]);
    assert!(bytes > 0);
    assert_eq!(member.tree(release), many());
}

#[test]
fn strangers_are_given_nothing() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let peer = Member::having(release, &store);
    let member = Member::new(FAST);
    let (bytes, failed) =
        member.fetch_with(Key::from_bytes([8; KEY_BYTES]), release, &store, vec![peer.address]);
    assert!(bytes > 3 << 20);
    assert_eq!(failed, ["it answers 403"]);

    let path = format!("/v1/releases/{release}/chunks");
    let id = format!("{}\n", ChunkId::of(&noise(2, 500)));
    for (question, status) in [
        (format!("POST {path} HTTP/1.1\r\nContent-Length: 65\r\n\r\n{id}"), "403"),
        (
            format!(
                "POST {path} HTTP/1.1\r\nContent-Length: 65\r\nAuthorization: Baton {}\r\n\r\n{id}",
                "0".repeat(64)
            ),
            "403",
        ),
        (format!("GET {path} HTTP/1.1\r\n\r\n"), "405"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "404"),
        (format!("POST {path} HTTP/1.1\r\n{}\r\n\r\n", "a: b\r\n".repeat(1000)), "431"),
        (format!("POST {path} HTTP/1.1\r\nContent-Length: 65\r\nAuthorization: Baton 1\r\n\r\ncut"), "4"),
        ("\x16\x03\x01".to_owned(), "4"),
    ] {
        let mut stream = TcpStream::connect(peer.address).unwrap();
        // It may have read enough.
        let _ = stream.write_all(question.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        let heard = String::from_utf8_lossy(&heard);
        // Where it did not read all of it, the answer may be lost.
        assert!(
            heard.is_empty() || heard.starts_with(&format!("HTTP/1.1 {status}")),
            "{question:.60}: {heard}"
        );
        assert!(heard.is_empty() || heard.contains("Content-Length: 0\r\n"), "{heard}");
    }
    assert_eq!(member.fetch(release, &store, vec![peer.address]), (0, vec![]), "it still answers");
}

#[test]
fn what_is_on_its_way_to_a_peer_is_waited_for() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let (first, second) = (Member::new(FAST), Member::new(FAST));
    let awaited = first.shelf.awaits(release);
    thread::scope(|scope| {
        let waits = scope.spawn(|| second.fetch(release, &store, vec![first.address]));
        fetch(release, &store, &first.releases, &|_| {}).unwrap();
        drop(awaited);
        assert_eq!(waits.join().unwrap(), (0, vec![]));
    });
    assert_eq!(second.tree(release), many());
    assert!(second.state.path().exists());
}

#[test]
fn what_has_come_of_a_release_is_given_on_before_the_rest_is_there() {
    let store = MemoryStore::default();
    let mut nodes = many();
    nodes.insert("larger".to_owned(), file(&noise(5, 12 << 20)));
    let release = push_nodes(&nodes, &store).id;
    let (free, freed) = (Mutex::new(false), Condvar::new());
    // It answers once, and then not before it is let go.
    let stuck = Counted::doing(&store, |answer| {
        if answer > 0 {
            drop(freed.wait_while(free.lock().unwrap(), |free| !*free).unwrap());
        }
    });
    let (first, second) = (Member::new(FAST), Member::new(FAST));
    let awaited = first.shelf.awaits(release);
    let (counted, pace) = (Counted::new(&store), Pace::unlimited());
    let peers = Peers::new(release, vec![first.address], KEY, 1, &pace);
    thread::scope(|scope| {
        let fetches = scope.spawn(|| fetch(release, &stuck, &first.releases, &|_| {}));
        let follows = scope
            .spawn(|| fetch(release, &Nearest::new(&counted, None, Some(&peers)), &second.releases, &|_| {}));
        while peers.tally().bytes == 0 && !follows.is_finished() {
            thread::yield_now();
        }
        assert!(!first.releases.has(release), "the rest is held");
        *free.lock().unwrap() = true;
        freed.notify_all();
        fetches.join().unwrap().unwrap();
        drop(awaited);
        follows.join().unwrap().unwrap();
    });
    assert_eq!((counted.bytes(), peers.tally().failed), (0, vec![]));
    assert_eq!(second.tree(release), nodes);
}

#[test]
fn whom_to_ask_is_found_out_while_the_manifest_comes() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let (first, second) = (Member::having(release, &store), Member::new(FAST));
    let (counted, pace) = (Counted::new(&store), Pace::unlimited());
    let asked = Instant::now();
    let ask = || {
        // Control answers this not before it is asked for the manifest.
        while counted.outlines.load(Ordering::SeqCst) == 0 && asked.elapsed() < LIMIT {
            thread::yield_now();
        }
        let is_asked = counted.outlines.load(Ordering::SeqCst) > 0;
        Vec::from_iter(is_asked.then_some(first.address))
    };
    let fetched = Peers::asking(ask, (release, KEY, 1, &pace), |peers| {
        fetch(release, &Nearest::new(&counted, None, Some(peers)), &second.releases, &|_| {}).unwrap();
        peers.tally()
    });
    assert_eq!((counted.bytes(), fetched.failed), (0, vec![]), "all of it comes from the peer");
    assert_eq!(second.tree(release), many());
}

#[test]
fn a_peer_that_is_slow_or_busy_is_left_for_another() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let slow = Member::new(Bytes(1 << 10));
    fetch(release, &store, &slow.releases, &|_| {}).unwrap();
    let quick = Member::having(release, &store);
    let members: Vec<Member> = (0..6).map(|_| Member::new(FAST)).collect();
    thread::scope(|scope| {
        // At a KiB a second nobody gets anything in time; whoever finds all places taken asks the other.
        let fetches: Vec<_> = members
            .iter()
            .map(|member| {
                let peers = vec![slow.address, quick.address];
                let store = &store;
                scope.spawn(move || member.fetch(release, store, peers))
            })
            .collect();
        for fetch in fetches {
            assert_eq!(fetch.join().unwrap().0, 0);
        }
        members.iter().for_each(|member| assert_eq!(member.tree(release), many()));
    });
}

#[test]
fn a_fetch_that_waits_for_its_turn_has_lost_no_patience_then() {
    let (store, content) = (MemoryStore::default(), b"some content");
    let pack = pack::of(content).unwrap();
    let (peer, asked) =
        listen([(404, &b""[..]), (200, &pack)].map(|(status, body)| remote::answer(status, body)).to_vec());
    let (counted, pace) = (Counted::new(&store), Pace::unlimited());
    let peers = Peers::new(ReleaseId::from_bytes([1; 32]), vec![peer], KEY, 1, &pace);
    // More than it waits for those that know of nothing: this time is what is tested.
    let (_turn, comes) = mpsc::channel::<()>();
    comes.recv_timeout(Duration::from_millis(2 * PATIENCE_WITHOUT_HOPE.0 + 1)).unwrap_err();
    assert_eq!(Nearest::new(&counted, None, Some(&peers)).get(&[ChunkId::of(content)]).unwrap(), pack);
    assert_eq!(asked.join().unwrap().len(), 2);
}
