//! HTTP: the API of operators, the artefact store of members, and the sessions, on one port.

mod artefacts;
mod audit;
mod builds;
mod deploys;
mod events;
mod extract;
mod forget;
mod guards;
mod joining;
mod lock;
mod pass;
mod peers;
mod pending;
mod prune;
mod refusal;
mod releases;
mod repair;
mod secrets;
mod services;
mod tags;
mod tokens;
mod turn;
mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use baton_core::access::Right;
use baton_core::ids::ServiceName;
use baton_core::release::pack::{PACK_BYTES_MAX, PACK_CHUNKS_MAX};
use baton_core::trust::SIGNED_BYTES_MAX;
use baton_release::manifest::OUTLINE_PACKED_MAX;
use baton_release::remote::MISSING_IDS_MAX;
use baton_release::store::Custody;
use baton_store::secrets::SecretSource;
use baton_store::state::StateStore;
use baton_wire::session::PATH as SESSION_PATH;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::access::doorman::{self, Doorman};
use crate::access::doors::{Leaves, Needs, Routes};
use crate::access::{Access, Caller};
use crate::audit::Audit;
use crate::board::{Board, Posted};
use crate::clock::Clock;
use crate::heartbeats::Heartbeats;
use crate::keeper::Inbox;
use crate::lenders::Lenders;
use crate::metrics;
use crate::secrets::{Allowed, Desk};
use crate::session;
use crate::space::Space;
use crate::tls::Given;

pub(crate) use artefacts::Line;
use pass::Passes;
use pending::Deciding;
use prune::{Pruning, Publishing};
pub(crate) use refusal::Refusal;
use turn::Room;

/// Largest proposal in bytes: a policy with all its phases takes a tenth of it.
const PROPOSAL_BYTES_MAX: usize = 64 << 10;
/// Largest question which chunks are missing: each is 64 digits and a line feed.
const MISSING_BYTES_MAX: usize = MISSING_IDS_MAX * 65;
/// Largest question for chunks.
const WANTED_BYTES_MAX: usize = PACK_CHUNKS_MAX * 65;
/// Longest long poll. Proxies give up after a minute or less.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What there is, for who asks for something else.
const PATHS: &str = "/v1/services, /v1/services/{service}, /v1/services/{service}/members, \
    /v1/services/{service}/deploys, /v1/releases, /v1/releases/prune, /v1/releases/verify, /v1/releases/repair, /v1/secrets/versions, \
    /v1/events, /v1/chunks/missing, /v1/chunks/grant, /v1/chunks/pack, /v1/packs/{id}, /v1/releases/{id}/outline, \
    /v1/releases/{id}/approvals, /v1/releases/{id}/peers, /v1/manifests, \
    /v1/builds/{key}, /v1/tokens, /v1/tokens/{id}, /v1/join, /v1/renew, /v1/audit, /v1/guards, \
    /v1/services/{service}/members/forget, /v1/services/{service}/members/{member}/credential, \
    /v1/services/{service}/protection, /v1/services/{service}/pending/{id}, /v1/pending, /v1/services/{service}/tags, \
    /v1/services/{service}/tags/{tag}, /healthz and /metrics";

/// What all handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) inbox: Inbox,
    pub(crate) heartbeats: Heartbeats,
    board: watch::Receiver<Arc<Board>>,
    states: Arc<dyn StateStore>,
    artefacts: Arc<dyn Custody>,
    /// The artefact store could not keep something, and has not shown since that it can.
    artefacts_doubtful: Arc<AtomicBool>,
    pub(crate) clock: Clock,
    /// Room for requests for artefacts.
    room: Room,
    /// The right to read packs here.
    passes: Arc<Passes>,
    releases: releases::Cache,
    pub(crate) secrets: Desk,
    /// The members that are connected here, who may have what the artefact store has lost.
    pub(crate) lenders: Lenders,
    /// The sessions, which outlive the requests that they began with.
    pub(crate) attending: TaskTracker,
    /// None on a server that asks nobody who they are.
    pub(crate) access: Option<Arc<Access>>,
    has_tls: bool,
    /// The certificate that somebody has to renew.
    given: Option<Arc<Given>>,
    /// Whether it knows who measures what rollouts may wait for.
    measures: bool,
    audit: Audit,
    space: Arc<Space>,
    publishing: Publishing,
    pruning: Pruning,
    deciding: Deciding,
    /// How many bytes of chunks have been sent from here.
    sent: Arc<AtomicU64>,
}

/// What this server keeps.
pub(crate) struct Kept {
    pub states: Arc<dyn StateStore>,
    pub artefacts: Arc<dyn Custody>,
    /// None on a server that asks nobody who they are.
    pub access: Option<Arc<Access>>,
    /// Whether what is sent is encrypted here.
    pub has_tls: bool,
    /// The certificate that somebody has to renew.
    pub given: Option<Arc<Given>>,
    /// Whether it knows who measures what rollouts may wait for.
    pub measures: bool,
    /// Which service may have which secret; none where each may have all.
    pub allowed: Option<Allowed>,
    pub audit: Audit,
    /// What is kept of the disk for who stops harm.
    pub space: Space,
}

impl Shared {
    pub(crate) fn new(
        inbox: Inbox,
        heartbeats: Heartbeats,
        board: watch::Receiver<Arc<Board>>,
        Kept { states, artefacts, access, has_tls, given, measures, allowed, audit, space }: Kept,
        clock: Clock,
        secrets: SecretSource,
    ) -> Result<Self, getrandom::Error> {
        let passes = Arc::new(Passes::new(clock)?);
        let artefacts_doubtful = Arc::default();
        let releases = releases::Cache::default();
        let secrets = Desk::new(secrets, allowed, board.clone(), Arc::clone(&artefacts));
        Ok(Self {
            inbox,
            heartbeats,
            board,
            states,
            artefacts,
            artefacts_doubtful,
            clock,
            room: Room::default(),
            passes,
            releases,
            secrets,
            lenders: Lenders::default(),
            attending: TaskTracker::new(),
            access,
            has_tls,
            given,
            measures,
            audit,
            space: Arc::new(space),
            publishing: Publishing::default(),
            pruning: Pruning::default(),
            deciding: Deciding::default(),
            sent: Arc::default(),
        })
    }

    /// With an artefact store that has shown nothing yet, so that who asks for the health of this server hears of its.
    pub(crate) fn doubting_artefacts(self, doubtful: bool) -> Self {
        self.artefacts_doubtful.store(doubtful, Ordering::Relaxed);
        self
    }

    /// What is known, as it changes.
    pub(crate) fn board_receiver(&self) -> watch::Receiver<Arc<Board>> {
        self.board.clone()
    }

    /// What is on the board, which is nothing where the state store was not read yet.
    fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board.borrow())
    }

    /// What is known, for who would take a service that is not there for one that nobody has heard of.
    fn known(&self) -> Result<Arc<Board>, Refusal> {
        let board = self.board();
        match &board.trouble {
            Some(trouble) if board.unread => {
                Err(Refusal::unavailable(format!("this server has not read its state store yet: {trouble}")))
            }
            Some(_) | None => Ok(board),
        }
    }

    /// What is known of a service.
    fn posted(&self, service: &ServiceName) -> Result<Arc<Posted>, Refusal> {
        let board = self.known()?;
        board.services.get(service).cloned().ok_or_else(|| {
            let known = board.services.keys().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
            let known =
                if known.is_empty() { "none is known yet".to_owned() } else { format!("known are {known}") };
            Refusal::not_found(format!("there is no service {service} here: {known}"))
        })
    }

    /// Whether nothing new will ever be on the board.
    fn is_stopping(&self) -> bool {
        self.board.has_changed().is_err()
    }

    /// Waits until `is_due`, at most for so long. It is no mistake if it never is.
    async fn wait(&self, wait_ms: Option<u64>, is_due: impl FnMut(&Arc<Board>) -> bool) {
        let limit = Duration::from_millis(wait_ms.unwrap_or(0)).min(WAIT_MAX);
        let mut board = self.board.clone();
        // Neither the limit nor the end of the server is an error: whoever asks gets what is known.
        let _ = tokio::time::timeout(limit, board.wait_for(is_due)).await;
    }
}

/// Runs what waits for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::stopping())
}

/// Everything that the server answers, to whom it may answer.
pub(crate) fn router(shared: Shared) -> Router {
    let Routes { router, doors } = routes(&shared);
    let doorman = Doorman::new(doors, shared.access.clone(), shared.audit.clone(), shared.clock);
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared)
        .layer(middleware::from_fn_with_state(doorman, doorman::check))
}

/// All that can be asked.
fn routes(shared: &Shared) -> Routes<Shared> {
    api().and(store(shared)).get(SESSION_PATH, Needs::Limited(Right::Attend), session::begin)
}

/// What operators and members ask in JSON.
fn api() -> Routes<Shared> {
    use Needs::{Limited, Nothing, OfAll, OfService};
    use Right::{Administer, Approve, Attend, Deploy, Join, Keep, Look, Renew};
    let routes = Routes::new()
        .get("/v1/services", Limited(Look), services::list)
        .get("/v1/services/{service}", OfService(Look), services::one)
        .get("/v1/services/{service}/members", OfService(Look), services::members)
        .post("/v1/services/{service}/members/forget", OfService(Keep), forget::forget)
        .revoke("/v1/services/{service}/members/{member}/credential", OfService(Administer), joining::revoke)
        .get("/v1/services/{service}/deploys", OfService(Look), deploys::list)
        .remedy("/v1/services/{service}/deploys", OfService(Deploy), deploys::propose)
        .remedy("/v1/services/{service}/lock", OfService(Deploy), lock::lock)
        .post("/v1/services/{service}/unlock", OfService(Deploy), lock::unlock)
        .get("/v1/services/{service}/tags", OfService(Look), tags::list)
        .put("/v1/services/{service}/tags/{tag}", OfService(Deploy), Leaves::Change, tags::put)
        .delete("/v1/services/{service}/tags/{tag}", OfService(Deploy), tags::remove)
        .put("/v1/services/{service}/protection", OfService(Administer), Leaves::Change, pending::protect)
        .get("/v1/pending", Limited(Look), pending::list)
        .post("/v1/services/{service}/pending/{id}", OfService(Approve), pending::approve)
        // Who has asked for it as well, which is seen behind the door.
        .delete("/v1/services/{service}/pending/{id}", OfService(Look), pending::reject)
        .get("/v1/releases", Limited(Look), releases::list)
        .ask("/v1/secrets/versions", Limited(Deploy), secrets::versions)
        .post("/v1/releases/prune", OfAll(Keep), prune::prune)
        .ask("/v1/releases/verify", OfAll(Keep), verify::verify)
        .post("/v1/releases/repair", OfAll(Keep), repair::repair)
        .get("/v1/releases/{id}/peers", Limited(Attend), peers::of_release)
        .get("/v1/events", Limited(Look), events::list)
        .get("/v1/tokens", OfAll(Administer), tokens::list)
        .post("/v1/tokens", OfAll(Administer), tokens::make)
        .revoke("/v1/tokens/{id}", OfAll(Administer), tokens::revoke)
        .post("/v1/join", Limited(Join), joining::join)
        // The same member goes on: nothing is changed.
        .ask("/v1/renew", Limited(Renew), joining::renew)
        .get("/v1/guards", Limited(Look), guards::list)
        .get("/v1/audit", OfAll(Administer), audit::list)
        .get("/healthz", Nothing, healthz)
        .get("/metrics", OfAll(Look), metrics);
    routes.around(|router| limited(router, PROPOSAL_BYTES_MAX))
}

/// What `baton_release::remote` asks, with a limit for each kind of body.
fn store(shared: &Shared) -> Routes<Shared> {
    use Needs::{Limited, OfAny};
    use Right::{Fetch, Push};
    let missing = Routes::new().ask("/v1/chunks/missing", OfAny(Push), artefacts::missing);
    let wanted = Routes::new().ask("/v1/chunks/grant", OfAny(Fetch), artefacts::grant).ask(
        "/v1/chunks/pack",
        OfAny(Fetch),
        artefacts::wanted,
    );
    let packs = Routes::new().get("/v1/packs/{id}", OfAny(Fetch), artefacts::pack).put(
        "/v1/packs/{id}",
        OfAny(Push),
        Leaves::Bytes,
        artefacts::put_pack,
    );
    let outline = "/v1/releases/{id}/outline";
    let manifests = Routes::new()
        .get(outline, Limited(Fetch), artefacts::outline)
        .ask(outline, Limited(Fetch), artefacts::outline_since)
        .put(outline, Limited(Push), Leaves::Change, artefacts::publish)
        .get("/v1/manifests", Limited(Fetch), artefacts::manifests);
    let approvals = "/v1/releases/{id}/approvals";
    let approvals = Routes::new().get(approvals, Limited(Fetch), artefacts::approvals).put(
        approvals,
        Limited(Push),
        Leaves::Change,
        artefacts::sign,
    );
    let builds = Routes::new().get("/v1/builds/{key}", Limited(Fetch), builds::get).put(
        "/v1/builds/{key}",
        Limited(Push),
        Leaves::Change,
        builds::put,
    );
    let limit = |routes: Routes<Shared>, max| routes.around(|router| limited(router, max));
    limit(missing, MISSING_BYTES_MAX)
        .and(limit(wanted, WANTED_BYTES_MAX))
        .and(limit(packs, PACK_BYTES_MAX))
        .and(limit(manifests, OUTLINE_PACKED_MAX))
        .and(limit(approvals, SIGNED_BYTES_MAX))
        .and(limit(builds, builds::BODY_BYTES_MAX))
        .around(|router| router.layer(middleware::from_fn_with_state(shared.clone(), turn::in_turn)))
        .in_lines()
}

/// Refuses bodies of more bytes: by what they say of themselves, or else once they have come to it.
fn limited(router: Router<Shared>, max: usize) -> Router<Shared> {
    router.layer(DefaultBodyLimit::max(max)).layer(middleware::from_fn_with_state(max, not_too_long))
}

async fn not_too_long(State(max): State<usize>, request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > max as u64) {
        let text = format!("the body is too long: send at most {max} bytes");
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", text).into_response();
    }
    next.run(request).await
}

async fn nothing_here() -> Refusal {
    Refusal::not_found(format!("there is nothing here; there are {PATHS}"))
}

async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "this path has no such method")
}

/// Whether it can do its work. It says nothing about the fleet, and waits for the disk only where a push has failed.
async fn healthz(State(shared): State<Shared>) -> Result<&'static str, Refusal> {
    match &shared.board().trouble {
        None => artefacts::ready(&shared).await.map(|()| "ok\n"),
        Some(trouble) => Err(Refusal::unavailable(trouble)),
    }
}

async fn metrics(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refusal> {
    let board = shared.known()?;
    let off = guards::off(&shared, &board, &caller);
    // Who approves what was overtaken lets nothing begin.
    let waiting = pending::waiting(&shared).into_iter().filter(|(_, view)| view.overtaken_by.is_none());
    let pending: Vec<ServiceName> = waiting.map(|(pending, _)| pending.service).collect();
    let chunk_bytes = shared.sent.load(Ordering::Relaxed);
    let clock_ahead_ms = shared.states.clock_ahead_ms();
    let beside = metrics::Beside { chunk_bytes, clock_ahead_ms, off: &off, pending: &pending };
    let text = metrics::text(&board, shared.clock.now(), &beside);
    // It is written to memory.
    let text = text.map_err(|_| Refusal::unavailable("the metrics cannot be written"))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT)], text).into_response())
}

#[cfg(test)]
mod tests;
