//! The artefact store of a control server, over HTTP.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST /v1/chunks/missing` | at most [`MISSING_IDS_MAX`] chunk ids, one on a line | those that are missing, one on a line |
//! | `POST /v1/chunks/grant` | at most [`PACK_CHUNKS_MAX`] chunk ids, one on a line | a [grant](baton_core::release::grant) for the frames that hold them, or the first of them |
//! | `POST /v1/chunks/pack` | the same | a pack with these frames |
//! | `PUT /v1/packs/{id}` | a pack, at most [`PACK_BYTES_MAX`] bytes | nothing |
//! | `PUT /v1/releases/{id}/outline` | the packed outline, at most [`OUTLINE_PACKED_MAX`] bytes | nothing |
//! | `GET /v1/releases/{id}/outline` | | the packed outline |
//! | `PUT /v1/releases/{id}/approvals` | an approval with one signature, at most [`SIGNED_BYTES_MAX`](trust::SIGNED_BYTES_MAX) bytes | nothing |
//! | `GET /v1/releases/{id}/approvals` | | all approvals of the release, one after the other |
//! | `POST /v1/releases/{id}/outline` | at most [`HERE_MAX`] ids of releases, one on a line | the packed outline behind a line with its length, and a pack with parts of the manifest that those lack |
//! | `GET /v1/manifests` | | the ids of the releases that are known, one on a line |
//! | `GET /v1/releases/{id}/peers?service=…&member=…` | | where members may have the release sooner than this one, one address on a line |
//!
//! Chunks are read by a grant: straight from where the packs lie, or from the server itself, `GET /v1/packs/{id}?…`, when its
//! store is no server. What cannot be read so, or comes damaged, comes as a pack through the server.
//!
//! Ids are lowercase hexadecimal digits, and every line ends with a line feed. A failure is answered with the
//! status of its kind, see [`status`], and a body that says why in one line.

mod mirrors;
mod ranges;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use baton_core::ids::{ChunkId, MemberId, PackId, ReleaseId, ServiceName};
use baton_core::peers::NAMED_MAX;
use baton_core::release::grant::{GRANT_BYTES_MAX, Grant};
use baton_core::release::pack::{PACK_BYTES_MAX, PACK_CHUNKS_MAX};
use baton_core::trust;
use ureq::config::ConfigBuilder;
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::typestate::AgentScope;
use ureq::{Agent, Body};

use self::mirrors::Mirrors;
use self::ranges::Reader;
use crate::control::{Control, ControlError, direct};
use crate::manifest::OUTLINE_PACKED_MAX;
use crate::pace::Pace;
use crate::pack;
use crate::signing::APPROVALS_BYTES_MAX;
use crate::store::{ArtefactStore, Kind, Retry, StoreError};

/// Most chunk ids in one question: one request of 2 MB for an ordinary large tree.
pub const MISSING_IDS_MAX: usize = 32_768;
/// Most releases that are named to get what a manifest has more than theirs: more than a member keeps.
pub const HERE_MAX: usize = 16;
/// Bytes of a chunk id and its line feed.
const ID_LINE_BYTES: usize = 65;
/// Most bytes of a list of releases: a million of them.
const LIST_BYTES_MAX: usize = ID_LINE_BYTES * 1_000_000;
/// Longest answer with an outline and parts of a manifest: the line is that of a number.
const SINCE_BYTES_MAX: usize = 32 + OUTLINE_PACKED_MAX + PACK_BYTES_MAX;
/// Most bytes of a list of peers: a few addresses.
const PEERS_BYTES_MAX: usize = NAMED_MAX * 64;
/// How much is read of what a server says about a failure.
const REASON_BYTES_MAX: usize = 1024;

/// How long to wait for a connection: a server that does not answer within it has a problem.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take: the longest pack at 35 kB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(180);
/// How long one of several servers may take to begin its answer.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to list or publish releases: a server reads all of one before it knows it.
const LONG_REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
/// Pauses before trying again. They bridge a restart of the server; longer outages are the caller's to judge.
const PAUSES_MS: [u64; 4] = [100, 300, 900, 2700];
/// Connections that are kept for the next request: one for each of the threads that push or fetch.
const IDLE_CONNECTIONS: usize = 16;
/// How long nothing is read from where the packs lie once that could not be reached: finding out anew takes half a minute.
const DETOUR: Duration = Duration::from_secs(60);

/// The HTTP status that stands for a kind of failure.
pub const fn status(kind: Kind) -> u16 {
    match kind {
        Kind::Missing => 404,
        Kind::Conflict => 409,
        Kind::Denied => 403,
        Kind::Corrupt => 422,
        Kind::Unavailable => 503,
        Kind::Storage => 507,
    }
}

fn kind_of(status: u16) -> Kind {
    match status {
        404 | 410 => Kind::Missing,
        409 | 412 => Kind::Conflict,
        422 => Kind::Corrupt,
        507 => Kind::Storage,
        408 | 429 | 500..=599 => Kind::Unavailable,
        // Including redirects: packs come from the server that was named, or not at all.
        _ => Kind::Denied,
    }
}

/// The artefact store of a control server.
pub struct Remote {
    control: Arc<Control>,
    /// Who asks control, once it is known whom to believe.
    asking: OnceLock<Agent>,
    /// Who reads what lies elsewhere.
    agent: Agent,
    pace: Arc<Pace>,
    mirrors: Mirrors,
    /// Until when what no mirror has is read through the server.
    detour: Mutex<Option<Instant>>,
}

/// What a server said instead of the answer.
#[derive(Debug, thiserror::Error)]
#[error("{base} answers {status}: {reason}")]
struct Refused {
    base: String,
    status: u16,
    reason: String,
}

/// An answer that is not what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{base} answers with what was not asked for: {line:?}")]
struct NotAsked {
    base: String,
    line: String,
}

/// A request and how it is answered.
struct Call<'a> {
    attempted: String,
    path: String,
    send: Method<'a>,
    answer_bytes_max: usize,
    timeout: Duration,
}

#[derive(Clone, Copy)]
enum Method<'a> {
    Get,
    Post(&'a [u8]),
    Put(&'a [u8]),
}

impl Remote {
    /// The store of the server with this address: `http://control:7070`, or of several, separated by commas.
    ///
    /// Proxies named in the environment are not used: members and control share a network.
    pub fn new(base: &str) -> Self {
        Self::of(Arc::new(Control::open(base)))
    }

    /// The store of this server.
    pub fn of(control: Arc<Control>) -> Self {
        Self {
            control,
            asking: OnceLock::new(),
            agent: agent(direct(TlsConfig::default())),
            pace: Arc::new(Pace::unlimited()),
            mirrors: Mirrors::default(),
            detour: Mutex::default(),
        }
    }

    /// The same, and packs come at this pace.
    #[must_use]
    pub fn at(mut self, pace: Arc<Pace>) -> Self {
        self.pace = pace;
        self
    }

    /// The same, and packs are read from these mirrors where they have them: `http://HOST/PREFIX`, nearest first.
    #[must_use]
    pub fn behind(mut self, mirrors: Vec<String>) -> Self {
        self.mirrors = Mirrors::new(mirrors);
        self
    }

    /// Which mirrors are not asked for a while since this was asked last, and why.
    pub fn take_troubles(&self) -> Vec<(String, String)> {
        self.mirrors.take_troubles()
    }

    /// Sends a request, again after a pause while that makes sense, and returns the answer's body.
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, StoreError> {
        for pause in PAUSES_MS {
            match self.call_once(call) {
                Err(error) if error.retry() == Retry::Later => {
                    self.control.go_on();
                    wait(pause);
                }
                done => return done,
            }
        }
        self.call_once(call)
    }

    fn call_once(&self, call: &Call<'_>) -> Result<Vec<u8>, StoreError> {
        let error = |kind| StoreError::new(kind, call.attempted.as_str());
        let failed = |cause: ureq::Error| error(kind_of_failure(&cause)).because(cause);
        let asking = self.asking().map_err(|cause| {
            error(if cause.is_away() { Kind::Unavailable } else { Kind::Denied }).because(cause)
        })?;
        let mut response = self.send(asking, call).map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config();
        if (200..300).contains(&status) {
            // The client's limit is the first length that is too much.
            let body = body.limit(call.answer_bytes_max as u64 + 1).reader();
            let mut answer = Vec::new();
            let read = self.pace.reader(body).read_to_end(&mut answer);
            return read.map(|_| answer).map_err(|cause| failed(cause.into()));
        }
        let reason = body.limit(REASON_BYTES_MAX as u64).read_to_vec().unwrap_or_default();
        let reason = String::from_utf8_lossy(&reason).trim().replace(char::is_control, " ");
        let error = error(kind_of(status));
        // The server says in the same words what this error says already.
        let said = error.to_string();
        let reason = reason.strip_prefix(&said).map_or(reason.as_str(), |rest| rest.trim_start_matches(": "));
        let reason = if reason.is_empty() { "no more is known" } else { reason }.to_owned();
        Err(error.because(Refused { base: self.control.base().to_owned(), status, reason }))
    }

    /// Who asks control.
    fn asking(&self) -> Result<&Agent, ControlError> {
        if let Some(asking) = self.asking.get() {
            return Ok(asking);
        }
        let begun = self.control.asking()?;
        Ok(self.asking.get_or_init(|| agent(begun)))
    }

    fn send(&self, asking: &Agent, call: &Call<'_>) -> Result<Response<Body>, ureq::Error> {
        let url = format!("{}{}", self.control.base(), call.path);
        let timeout = Some(call.timeout);
        // Where another server could answer, one that does not is not waited for. What is put is read by it first.
        let several = self.control.bases().len() > 1;
        let begin = timeout.filter(|_| several).map(|timeout| timeout.min(BEGIN_TIMEOUT));
        match call.send {
            Method::Get => {
                let request = self.control.bear(asking.get(url)).config().timeout_global(timeout);
                request.timeout_recv_response(begin).build().call()
            }
            Method::Post(body) => {
                let request = self.control.bear(asking.post(url)).config().timeout_global(timeout);
                request.timeout_recv_response(begin).build().send(body)
            }
            Method::Put(body) => {
                let request = self.control.bear(asking.put(url)).config().timeout_global(timeout);
                request.build().send(body)
            }
        }
    }

    /// Asks where these chunks may be read.
    fn grant(&self, ids: &[ChunkId]) -> Result<Grant, StoreError> {
        let attempted = attempt(ids);
        let answer = self.call(&Call {
            attempted: attempted.clone(),
            path: "/v1/chunks/grant".to_owned(),
            send: Method::Post(question(ids).as_bytes()),
            answer_bytes_max: GRANT_BYTES_MAX,
            timeout: REQUEST_TIMEOUT,
        })?;
        let grant = Grant::parse(&String::from_utf8_lossy(&answer));
        grant.map_err(|error| StoreError::new(Kind::Corrupt, attempted).because(error))
    }

    /// Reads these chunks where they lie; `None` where that is not possible. A right to read may have ended since it was
    /// granted, and a chunk may lie elsewhere by now: then there is a new grant, once.
    fn read_granted(&self, ids: &[ChunkId]) -> Result<Option<Vec<u8>>, StoreError> {
        if self.is_on_detour() && self.mirrors.are_away() {
            return Ok(None);
        }
        let mut grant = self.grant(ids)?;
        if let Some(frames) = self.mirrors.frames(&self.agent, &self.pace, &grant) {
            return Ok(Some(pack::join(frames)));
        }
        if self.is_on_detour() {
            return Ok(None);
        }
        let here = self.asking.get().map(|asking| (asking, &*self.control));
        let reader = Reader {
            agent: &self.agent,
            here,
            base: self.control.base(),
            pace: &self.pace,
            pauses: &PAUSES_MS,
        };
        let mut frames = reader.frames(&grant);
        if frames.as_ref().is_err_and(|error| matches!(error.kind, Kind::Denied | Kind::Missing)) {
            grant = self.grant(ids)?;
            frames = reader.frames(&grant);
        }
        if frames.as_ref().is_err_and(|error| error.retry() == Retry::Later) {
            *self.detour.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + DETOUR);
        }
        Ok(frames.ok().map(pack::join))
    }

    fn is_on_detour(&self) -> bool {
        let detour = *self.detour.lock().unwrap_or_else(PoisonError::into_inner);
        detour.is_some_and(|until| Instant::now() < until)
    }

    /// Which members to ask for a release before the store; none where this one is to begin with the store. Asked once: who is
    /// not told asks the store.
    ///
    /// # Errors
    /// As with the methods of a store.
    pub fn peers(
        &self,
        release: ReleaseId,
        service: &ServiceName,
        member: &MemberId,
    ) -> Result<Vec<SocketAddr>, StoreError> {
        let attempted = "ask which members have the release";
        let answer = self.call_once(&Call {
            attempted: attempted.to_owned(),
            path: format!("/v1/releases/{release}/peers?service={service}&member={member}"),
            send: Method::Get,
            answer_bytes_max: PEERS_BYTES_MAX,
            timeout: CONNECT_TIMEOUT,
        })?;
        self.ids(attempted, &answer)
    }

    fn not_asked(&self, attempted: &str, line: &str) -> StoreError {
        let (base, line) = (self.control.base().to_owned(), line.to_owned());
        StoreError::new(Kind::Corrupt, attempted).because(NotAsked { base, line })
    }

    /// The ids in a body, one on a line.
    fn ids<T: FromStr>(&self, attempted: &str, body: &[u8]) -> Result<Vec<T>, StoreError> {
        let text = String::from_utf8_lossy(body);
        let id = |line: &str| line.parse().map_err(|_| self.not_asked(attempted, line));
        text.lines().map(id).collect()
    }
}

/// A client that believes these certificates.
fn agent(begun: ConfigBuilder<AgentScope>) -> Agent {
    let config =
        begun.timeout_connect(Some(CONNECT_TIMEOUT)).max_idle_connections_per_host(IDLE_CONNECTIONS).build();
    Agent::new_with_config(config)
}

/// The ids of a question for chunks, one on a line.
fn question(ids: &[ChunkId]) -> String {
    ids.iter().take(PACK_CHUNKS_MAX).map(|id| format!("{id}\n")).collect()
}

fn attempt(ids: &[ChunkId]) -> String {
    let first = ids.first().map(ToString::to_string).unwrap_or_default();
    format!("get chunk {first} and those asked for with it")
}

/// Waits before trying again: `pause` ms, give or take half of it, so that a fleet does not come back at once.
#[expect(clippy::disallowed_methods, reason = "a pause between attempts waits for nothing but time")]
fn wait(pause: u64) {
    let random = RandomState::new().hash_one(pause);
    std::thread::sleep(Duration::from_millis(pause / 2 + random % pause));
}

/// Whether a request that got no proper answer is worth another attempt.
fn kind_of_failure(error: &ureq::Error) -> Kind {
    use ureq::Error;
    match error {
        Error::BodyExceedsLimit(_) => Kind::Corrupt,
        Error::BadUri(_) | Error::Http(_) | Error::Tls(_) | Error::TlsRequired => Kind::Denied,
        // A cut connection, a timeout, a garbled answer; also what a later version of the client may add.
        _ => Kind::Unavailable,
    }
}

impl ArtefactStore for Remote {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError> {
        let attempted = "ask which chunks are missing";
        let mut missing = BTreeSet::new();
        for ids in ids.chunks(MISSING_IDS_MAX) {
            let question: String = ids.iter().map(|id| format!("{id}\n")).collect();
            let answer = self.call(&Call {
                attempted: attempted.to_owned(),
                path: "/v1/chunks/missing".to_owned(),
                send: Method::Post(question.as_bytes()),
                answer_bytes_max: question.len(),
                timeout: REQUEST_TIMEOUT,
            })?;
            let asked: BTreeSet<&ChunkId> = ids.iter().collect();
            for id in self.ids::<ChunkId>(attempted, &answer)? {
                if !asked.contains(&id) {
                    return Err(self.not_asked(attempted, &id.to_string()));
                }
                missing.insert(id);
            }
        }
        Ok(missing.into_iter().collect())
    }

    fn put(&self, pack: &[u8]) -> Result<(), StoreError> {
        let id = PackId::of(pack);
        self.call(&Call {
            attempted: format!("put pack {id}"),
            path: format!("/v1/packs/{id}"),
            send: Method::Put(pack),
            answer_bytes_max: REASON_BYTES_MAX,
            timeout: REQUEST_TIMEOUT,
        })
        .map(drop)
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        self.read_granted(ids)?.map_or_else(|| self.get_checked(ids), Ok)
    }

    fn get_checked(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        self.call(&Call {
            attempted: attempt(ids),
            path: "/v1/chunks/pack".to_owned(),
            send: Method::Post(question(ids).as_bytes()),
            answer_bytes_max: PACK_BYTES_MAX,
            timeout: REQUEST_TIMEOUT,
        })
    }

    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError> {
        self.call(&Call {
            attempted: format!("publish release {id}"),
            path: format!("/v1/releases/{id}/outline"),
            send: Method::Put(outline),
            answer_bytes_max: REASON_BYTES_MAX,
            timeout: LONG_REQUEST_TIMEOUT,
        })
        .map(drop)
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        self.call(&Call {
            attempted: format!("read the outline of release {id}"),
            path: format!("/v1/releases/{id}/outline"),
            send: Method::Get,
            answer_bytes_max: OUTLINE_PACKED_MAX,
            timeout: REQUEST_TIMEOUT,
        })
    }

    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError> {
        self.call(&Call {
            attempted: format!("sign release {id}"),
            path: format!("/v1/releases/{id}/approvals"),
            send: Method::Put(approval.as_bytes()),
            answer_bytes_max: REASON_BYTES_MAX,
            timeout: REQUEST_TIMEOUT,
        })
        .map(drop)
    }

    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError> {
        let body = self.call(&Call {
            attempted: format!("read the approvals of release {id}"),
            path: format!("/v1/releases/{id}/approvals"),
            send: Method::Get,
            answer_bytes_max: APPROVALS_BYTES_MAX,
            timeout: REQUEST_TIMEOUT,
        })?;
        Ok(trust::approvals(&String::from_utf8_lossy(&body)).map(str::to_owned).collect())
    }

    fn outline_since(&self, id: ReleaseId, here: &[ReleaseId]) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let attempted = format!("read the outline of release {id}");
        let question: String = here.iter().take(HERE_MAX).map(|id| format!("{id}\n")).collect();
        let answer = self.call(&Call {
            attempted: attempted.clone(),
            path: format!("/v1/releases/{id}/outline"),
            send: Method::Post(question.as_bytes()),
            answer_bytes_max: SINCE_BYTES_MAX,
            timeout: REQUEST_TIMEOUT,
        })?;
        let behind = answer.iter().position(|byte| *byte == b'\n').unwrap_or(answer.len());
        let (line, rest) = answer.split_at(behind);
        let line = String::from_utf8_lossy(line);
        let parts = line.parse().ok().and_then(|length: usize| rest.get(1..)?.split_at_checked(length));
        let (outline, parts) = parts.ok_or_else(|| self.not_asked(&attempted, &line))?;
        Ok((outline.to_vec(), parts.to_vec()))
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        let attempted = "list releases";
        let body = self.call(&Call {
            attempted: attempted.to_owned(),
            path: "/v1/manifests".to_owned(),
            send: Method::Get,
            answer_bytes_max: LIST_BYTES_MAX,
            timeout: LONG_REQUEST_TIMEOUT,
        })?;
        self.ids(attempted, &body)
    }
}
