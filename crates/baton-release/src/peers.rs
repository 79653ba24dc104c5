//! Members that give each other what they have of a release: both ends of it.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST /v1/releases/{id}/chunks` | at most [`IDS_MAX`] chunk ids, one on a line | a pack of these, or of the first of them |
//!
//! `Authorization: Baton MARK` is needed, where the mark is the keyed hash of the question by the [`Key`] that control gives all
//! members of a service: nobody else can ask, and who overhears a question can only ask the same again. 404 means that the
//! member does not know the release, 503 that it may be asked again: it is busy, or has not got everything yet.
//!
//! Nothing that a peer says is believed: it counts when it has the right hash, and whoever sends something else, too little, or
//! too late is not asked again.

mod head;
mod key;
mod serve;
mod shelf;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::peers::{Answer, Search, Step, Wanted};
use baton_core::units::Millis;
use ureq::Agent;

use crate::chain::chain;
use crate::pace::Pace;
use crate::pack::{Pack, PackError, unpack};

pub use key::{KEY_BYTES, Key, Keyring};
pub use serve::PeerServer;
pub use shelf::{Awaited, Shelf};

/// Most chunk ids in a question: as many as an answer has room for where files are small, and little to hold for many askers.
pub const IDS_MAX: usize = 2048;
/// Content after which an answer ends, in bytes: several are being made at once, in a bootloader with little memory.
pub const GIVEN_BYTES: u64 = 1 << 20;
/// Longest answer in bytes: the content with one more chunk, and an index of [`IDS_MAX`].
const ANSWER_BYTES_MAX: usize = 3 << 20;
/// How long to wait for a connection within a network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer may take: what a peer gives at its slowest. Whoever takes longer is not asked again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Whoever takes longer than this is asked after the others.
const SLOW: Duration = Duration::from_secs(2);

/// Why a peer is not asked again.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("it does not answer as it should")]
    Http(#[from] ureq::Error),
    #[error("it answers {0}")]
    Status(u16),
    #[error("what it sends is refused")]
    Pack(#[from] PackError),
    #[error("it sends less than it was asked for")]
    TooLittle,
}

/// What came of asking a peer.
enum Reply {
    Pack(Vec<u8>),
    Later,
    Lacks,
}

/// How a fetch went with the peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes that came from peers, compressed.
    pub bytes: u64,
    /// Who is not asked again, and why.
    pub failed: Vec<(SocketAddr, String)>,
}

/// The members that are asked for chunks of a release, for one fetch of it.
pub struct Peers<'a> {
    release: ReleaseId,
    /// Tells whom to ask. It may take as long as control does.
    who: Box<dyn Fn() -> Vec<SocketAddr> + Sync + 'a>,
    named: OnceLock<Named>,
    key: Key,
    pace: &'a Pace,
    agent: Agent,
    /// Differs from member to member.
    seed: u64,
    /// Since when something is looked for: a fetch may have to wait for its turn first.
    begun: OnceLock<Instant>,
    bytes: AtomicU64,
    failed: Mutex<Vec<(SocketAddr, String)>>,
}

/// Whom to ask, and how they did.
struct Named {
    addresses: Vec<SocketAddr>,
    search: Mutex<Search>,
}

impl<'a> Peers<'a> {
    /// These, at this pace. `seed` differs from member to member.
    pub fn new(release: ReleaseId, named: Vec<SocketAddr>, key: Key, seed: u64, pace: &'a Pace) -> Self {
        Self::told_by(Box::new(move || named.clone()), release, key, seed, pace)
    }

    /// Does something with those whom `ask` finds out meanwhile. They are waited for where something is wanted of them: what does not
    /// depend on them does not wait.
    pub fn asking<T>(
        ask: impl FnOnce() -> Vec<SocketAddr> + Send,
        (release, key, seed, pace): (ReleaseId, Key, u64, &Pace),
        act: impl FnOnce(&Peers<'_>) -> T,
    ) -> T {
        thread::scope(|scope| {
            let asking = Mutex::new(Some(scope.spawn(ask)));
            let answer = || lock(&asking).take()?.join().ok();
            act(&Peers::told_by(Box::new(move || answer().unwrap_or_default()), release, key, seed, pace))
        })
    }

    fn told_by(
        who: Box<dyn Fn() -> Vec<SocketAddr> + Sync + 'a>,
        release: ReleaseId,
        key: Key,
        seed: u64,
        pace: &'a Pace,
    ) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .build();
        Self {
            release,
            who,
            named: OnceLock::new(),
            key,
            pace,
            agent: Agent::new_with_config(config),
            seed,
            begun: OnceLock::new(),
            bytes: AtomicU64::new(0),
            failed: Mutex::default(),
        }
    }

    /// How it went.
    pub fn tally(&self) -> Tally {
        Tally { bytes: self.bytes.load(Ordering::Relaxed), failed: lock(&self.failed).clone() }
    }

    /// These chunks or the first of them from a peer, as a pack that was checked; `None` when the store is to be asked.
    pub(crate) fn find(&self, ids: &[ChunkId]) -> Option<Vec<u8>> {
        let mut wanted = Wanted::new(*ids.first()?);
        let Named { addresses, search } = self.named.get_or_init(|| self.find_out());
        loop {
            // Not to be held while somebody is asked.
            let step = lock(search).step(&mut wanted, self.now());
            let peer = match step {
                Step::Store => return None,
                Step::Wait(pause) => {
                    wait(pause);
                    continue;
                }
                Step::Ask(peer) => peer,
            };
            let address = *addresses.get(peer)?;
            let asked = Instant::now();
            let reply = self.ask(address, &ids[..ids.len().min(IDS_MAX)]);
            let answer = match &reply {
                Ok(Reply::Pack(_)) if asked.elapsed() > SLOW => Answer::GaveSlowly,
                Ok(Reply::Pack(_)) => Answer::Gave,
                Ok(Reply::Later) => Answer::Later,
                Ok(Reply::Lacks) => Answer::Lacks,
                Err(_) => Answer::Failed,
            };
            lock(search).told(&mut wanted, peer, answer, self.now());
            match reply {
                Ok(Reply::Pack(pack)) => {
                    self.bytes.fetch_add(pack.len() as u64, Ordering::Relaxed);
                    // Not while it comes: it is little, and a peer is not to be blamed for this member's pace.
                    self.pace.pass(pack.len());
                    return Some(pack);
                }
                Ok(Reply::Later | Reply::Lacks) => {}
                Err(why) => {
                    let mut failed = lock(&self.failed);
                    // Several threads may have asked it at once.
                    if failed.iter().all(|(known, _)| *known != address) {
                        failed.push((address, chain(&why)));
                    }
                }
            }
        }
    }

    fn find_out(&self) -> Named {
        let addresses = (self.who)();
        let search = Mutex::new(Search::new(addresses.len(), self.seed, Millis::ZERO));
        Named { addresses, search }
    }

    fn ask(&self, address: SocketAddr, ids: &[ChunkId]) -> Result<Reply, Failed> {
        let path = path(self.release);
        let body: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let mut response = self
            .agent
            .post(format!("http://{address}{path}"))
            .header("Authorization", format!("Baton {}", self.key.mark(&path, body.as_bytes())))
            .send(body.as_bytes())?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(Reply::Lacks),
            503 => return Ok(Reply::Later),
            status => return Err(Failed::Status(status)),
        }
        // The client's limit is the first length that is too much.
        let limit = ANSWER_BYTES_MAX as u64 + 1;
        let pack = response.body_mut().with_config().limit(limit).read_to_vec()?;
        check(&pack, ids)?;
        Ok(Reply::Pack(pack))
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Makes sure that a pack is what it says, and holds what was asked for or a good part of it: a peer that gave little at a time
/// could make a fetch take for ever.
fn check(pack: &[u8], ids: &[ChunkId]) -> Result<(), Failed> {
    let mut missing: HashSet<&ChunkId> = ids.iter().collect();
    let mut bytes = 0;
    for (frame, packed) in Pack::open(pack)?.frames() {
        for (chunk, _) in unpack(frame, packed)?.chunks() {
            if missing.remove(&chunk.id) {
                bytes += u64::from(chunk.bytes);
            }
        }
    }
    match missing.is_empty() || bytes >= GIVEN_BYTES {
        true => Ok(()),
        false => Err(Failed::TooLittle),
    }
}

/// Where a peer is asked for chunks of a release.
fn path(release: ReleaseId) -> String {
    format!("/v1/releases/{release}/chunks")
}

#[expect(clippy::disallowed_methods, reason = "a pause between attempts waits for nothing but time")]
fn wait(pause: Millis) {
    thread::sleep(Duration::from_millis(pause.0));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
