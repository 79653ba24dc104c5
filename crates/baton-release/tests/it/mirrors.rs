//! Mirrors that have what is asked for, and such as do not do what they should.

use std::net::TcpListener;
use std::thread::JoinHandle;

use baton_core::ids::{ChunkId, PackId};
use baton_core::release::grant::{Grant, GrantedPack};
use baton_release::pack;
use baton_release::remote::Remote;
use baton_release::store::ArtefactStore;

use crate::remote::{answer, listen};

const CONTENT: &[u8] = b"some content";

/// A pack with one chunk, and where it is granted.
struct Granted {
    pack: Vec<u8>,
    place: std::ops::Range<u64>,
    grant: Vec<u8>,
}

fn granted() -> Granted {
    granted_at("/v1/packs/1?pass=3")
}

fn granted_at(url: &str) -> Granted {
    let pack = pack::of(CONTENT).unwrap();
    let (index, places) = pack::index(&pack, pack.len() as u64).unwrap();
    let frames = vec![(index.frames()[0].clone(), places[0].clone())];
    let packs = vec![GrantedPack { id: PackId::of(&pack), url: url.to_owned(), frames }];
    Granted { grant: answer(200, Grant { packs }.to_text().as_bytes()), place: places[0].clone(), pack }
}

impl Granted {
    fn frame(&self) -> &[u8] {
        &self.pack[self.place.start as usize..]
    }

    /// The range that is asked for, with these bytes in it.
    fn range(&self, bytes: &[u8]) -> Vec<u8> {
        let (start, last, length) = (self.place.start, self.place.end - 1, bytes.len());
        let head = format!(
            "HTTP/1.1 206 X\r\nContent-Length: {length}\r\nContent-Range: bytes {start}-{last}/*\r\n"
        );
        [head.as_bytes(), b"Connection: close\r\n\r\n", bytes].concat()
    }

    fn right(&self) -> Vec<u8> {
        self.range(self.frame())
    }
}

type Asked = JoinHandle<Vec<(String, String)>>;

/// A store and a mirror of it that answer like this.
fn behind(store: Vec<Vec<u8>>, mirror: Vec<Vec<u8>>) -> (Remote, Asked, Asked) {
    let ((store, store_asked), (mirror, mirror_asked)) = (listen(store), listen(mirror));
    let remote = Remote::new(&format!("http://{store}")).behind(vec![format!("http://{mirror}/copy")]);
    (remote, store_asked, mirror_asked)
}

fn lines(asked: Asked) -> Vec<String> {
    asked.join().unwrap().into_iter().map(|(line, _)| line).collect()
}

#[test]
fn what_a_mirror_has_is_read_there() {
    let granted = granted();
    let missing = answer(404, b"");
    let store = vec![granted.grant.clone(), granted.grant.clone(), granted.right(), granted.grant.clone()];
    let (remote, store, mirror) = behind(store, vec![granted.right(), missing, granted.right()]);
    for _ in 0..3 {
        assert_eq!(remote.get(&[ChunkId::of(CONTENT)]).unwrap(), granted.pack);
    }
    let read = format!("get /copy/packs/{} http/1.1", PackId::of(&granted.pack));
    assert_eq!(lines(mirror), vec![read; 3], "what it has not got yet it may have the next time");
    let (grant, read) = ("post /v1/chunks/grant http/1.1", "get /v1/packs/1?pass=3 http/1.1");
    assert_eq!(lines(store), [grant, grant, read, grant]);
    assert_eq!(remote.take_troubles(), []);
}

#[test]
fn f72_whatever_a_mirror_does_the_right_bytes_come_and_it_is_left_alone_for_a_while() {
    let granted = granted();
    let mut damaged = granted.frame().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let half = &granted.frame()[..granted.frame().len() / 2];
    for (mirror, why) in [
        (granted.range(&damaged), "what it sends is refused"),
        (granted.range(&[granted.frame(), b"x"].concat()), "more than was asked for"),
        (granted.range(half), "too early"),
        (answer(200, &granted.pack), "answers 200"),
        (answer(503, b""), "answers 503"),
        (answer(403, b""), "answers 403"),
        (
            b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "answers 302",
        ),
        (answer(206, granted.frame()), "another range"),
        (b"SSH-2.0-x\r\n".to_vec(), "not available"),
        (Vec::new(), "not available"),
    ] {
        let store = [granted.grant.clone(), granted.right()];
        let (remote, store, mirror) = behind([&store[..], &store[..]].concat(), vec![mirror]);
        for _ in 0..2 {
            assert_eq!(remote.get(&[ChunkId::of(CONTENT)]).unwrap(), granted.pack, "{why}");
        }
        assert_eq!((lines(store).len(), lines(mirror).len()), (4, 1), "{why}");
        let troubles = remote.take_troubles();
        assert!(troubles.len() == 1 && troubles[0].1.contains(why), "{why}: {troubles:?}");
        assert_eq!(remote.take_troubles(), []);
    }
}

#[test]
fn a_mirror_that_is_gone_leaves_the_next_one_and_the_store() {
    let granted = granted();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ((store, store_asked), (mirror, _)) =
        (listen(vec![granted.grant.clone()]), listen(vec![granted.right()]));
    let mirrors = [gone, mirror].map(|address| format!("http://{address}"));
    let remote = Remote::new(&format!("http://{store}")).behind(mirrors.to_vec());
    assert_eq!(remote.get(&[ChunkId::of(CONTENT)]).unwrap(), granted.pack);
    assert_eq!(lines(store_asked).len(), 1);
    assert_eq!(remote.take_troubles()[0].0, format!("http://{gone}"));
}

#[test]
fn a_mirror_is_asked_also_while_nothing_is_read_from_where_the_packs_lie() {
    let granted = granted();
    // What lies at an address where nobody answers comes through the server.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = granted_at(&format!("http://{gone}/pack")).grant;
    let store = vec![unreachable.clone(), answer(200, &granted.pack), unreachable];
    let (remote, store, mirror) = behind(store, vec![answer(404, b""), granted.right()]);
    for _ in 0..2 {
        assert_eq!(remote.get(&[ChunkId::of(CONTENT)]).unwrap(), granted.pack);
    }
    let (grant, through) = ("post /v1/chunks/grant http/1.1", "post /v1/chunks/pack http/1.1");
    assert_eq!((lines(store), lines(mirror).len()), (vec![grant.into(), through.into(), grant.into()], 2));
}
