//! How many round trips a fetch takes that depend on each other, with members that are asked first.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use baton_core::ids::{ChunkId, PackId, ReleaseId};
use baton_core::release::grant::{Grant, GrantedPack};
use baton_release::fetch::fetch;
use baton_release::manifest;
use baton_release::nearest::Nearest;
use baton_release::pace::Pace;
use baton_release::peers::{KEY_BYTES, Key, Peers};
use baton_release::remote::Remote;
use baton_release::store::memory::MemoryStore;
use baton_release::store::{ArtefactStore, Custody, Granted};

use crate::remote::answer;
use crate::sample::{Nodes, file, noise, open, push_nodes, read};

/// Far longer than it takes to ask for anything.
const LIMIT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(60);

/// What was asked, whomever: each with how many answers, one after the other, it depends on.
#[derive(Default)]
struct Row {
    seen: Mutex<Seen>,
    more: Condvar,
}

#[derive(Default)]
struct Seen {
    asked: Vec<(&'static str, usize)>,
    answered: usize,
}

impl Row {
    /// A question, which `answer` answers; not before these were asked too.
    fn asked<T>(&self, what: &'static str, beside: &[&str], answer: impl FnOnce() -> T) -> T {
        let mut seen = self.seen.lock().unwrap();
        let depends_on = seen.answered;
        seen.asked.push((what, depends_on));
        self.more.notify_all();
        let lacking =
            |seen: &mut Seen| !beside.iter().all(|what| seen.asked.iter().any(|(other, _)| other == what));
        drop(self.more.wait_timeout_while(seen, LIMIT, lacking).unwrap());
        let answer = answer();
        let mut seen = self.seen.lock().unwrap();
        seen.answered = seen.answered.max(depends_on + 1);
        answer
    }
}

/// Answers whoever connects by what it makes of the path and the body.
fn serve(say: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let say = Arc::new(say);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let say = Arc::clone(&say);
            thread::spawn(move || one(&stream, &*say));
        }
    });
    address
}

fn one(mut stream: &TcpStream, say: &dyn Fn(&str, &str) -> Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let lines = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let lines: Vec<String> = lines.map(|line| line.to_ascii_lowercase()).collect();
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let mut body = vec![0; value("content-length: ").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    // Of a range it is what stands in for a body.
    let range = value("range: bytes=");
    stream.write_all(&say(path, if range.is_empty() { &body } else { range })).unwrap();
}

/// A server with a store, which grants the reading of packs that lie at another one.
fn control(store: &Arc<MemoryStore>, row: &Arc<Row>) -> SocketAddr {
    let (packs, packs_row) = (Arc::clone(store), Arc::clone(row));
    let bucket = serve(move |path, range| {
        packs_row.asked("pack", &[], || {
            let pack: PackId = path.trim_start_matches('/').parse().unwrap();
            let (start, last) = range.split_once('-').unwrap();
            let content = packs.read(pack, start.parse().unwrap()..last.parse::<u64>().unwrap() + 1).unwrap();
            let length = content.len();
            let head = format!(
                "HTTP/1.1 206 X\r\nContent-Length: {length}\r\nContent-Range: bytes {range}/*\r\nConnection: close\r\n\r\n"
            );
            [head.as_bytes(), &content].concat()
        })
    });
    let (store, row) = (Arc::clone(store), Arc::clone(row));
    serve(move |path, body| {
        let Some(release) = path.strip_prefix("/v1/releases/").and_then(|rest| rest.strip_suffix("/outline"))
        else {
            assert_eq!(path, "/v1/chunks/grant");
            let ids: Vec<ChunkId> = body.lines().map(|id| id.parse().unwrap()).collect();
            return row.asked("grant", &[], || answer(200, grant(&store, &ids, bucket).as_bytes()));
        };
        let release: ReleaseId = release.parse().unwrap();
        row.asked("outline", &["whom"], || {
            let (outline, parts) = manifest::since(release, &[], &*store).unwrap();
            answer(200, &[format!("{}\n", outline.len()).into_bytes(), outline, parts].concat())
        })
    })
}

fn grant(store: &MemoryStore, ids: &[ChunkId], bucket: SocketAddr) -> String {
    let granted = store.grant(ids, TTL).unwrap().into_iter();
    let pack = |Granted { pack, frames, .. }| GrantedPack {
        id: pack,
        url: format!("http://{bucket}/{pack}"),
        frames,
    };
    Grant { packs: granted.map(pack).collect() }.to_text()
}

/// So little that it is asked for at once.
fn little() -> Nodes {
    Nodes::from([("data".to_owned(), file(&noise(1, 1000)))])
}

/// What a member answers that is asked for these chunks.
type Gives = fn(&MemoryStore, &[ChunkId]) -> Vec<u8>;

/// What a fetch asks one after the other, where a member is named that answers so, or none.
fn trips(gives: Option<Gives>) -> Vec<(&'static str, usize)> {
    let (store, row) = (Arc::new(MemoryStore::default()), Arc::<Row>::default());
    let release = push_nodes(&little(), &*store).id;
    let remote = Remote::new(&format!("http://{}", control(&store, &row)));
    let peer = gives.map(|gives| {
        let (store, row) = (Arc::clone(&store), Arc::clone(&row));
        serve(move |_, body| {
            let ids: Vec<ChunkId> = body.lines().map(|id| id.parse().unwrap()).collect();
            row.asked("member", &[], || gives(&store, &ids))
        })
    });
    let state = tempfile::tempdir().unwrap();
    let (releases, pace) = (open(&state.path().join("state")), Pace::unlimited());
    let ask = || row.asked("whom", &["outline"], || Vec::from_iter(peer));
    let by = (release, Key::from_bytes([7; KEY_BYTES]), 1, &pace);
    Peers::asking(ask, by, |peers| {
        fetch(release, &Nearest::new(&remote, None, Some(peers)), &releases, &|_| {}).unwrap();
    });
    assert_eq!(read(&releases.path(release)), little());
    let mut asked = row.seen.lock().unwrap().asked.clone();
    asked.sort_by_key(|(what, depends_on)| (*depends_on, *what));
    asked
}

#[test]
fn p24_members_that_have_nothing_cost_one_round_trip_and_those_that_have_it_save_one() {
    let begins = [("outline", 0), ("whom", 0)];
    let of_store = |before: usize| [("grant", before), ("pack", before + 1)];
    let row = |rest: &[(&'static str, usize)]| [&begins[..], rest].concat();
    assert_eq!(trips(None), row(&of_store(1)), "nobody is named");
    let gone = trips(Some(|_, _| answer(500, b"")));
    assert_eq!(gone, row(&[&[("member", 1)][..], &of_store(2)].concat()));
    let has_it = trips(Some(|store, ids| answer(200, &store.get(ids).unwrap())));
    assert_eq!(has_it, row(&[("member", 1)]));
}
