//! The artefact store over HTTP, as `baton_release::remote` expects it.
//!
//! Unlike elsewhere, a refusal is one line of text, which that client shows as it is.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use baton_core::event::{Event, What};
use baton_core::ids::{ChunkId, InvalidId, PackId, ReleaseId};
use baton_core::release::grant::{Grant, GrantedPack};
use baton_core::release::pack::PACK_BYTES_MAX;
use baton_release::manifest;
use baton_release::remote::{HERE_MAX, MISSING_IDS_MAX, status};
use baton_release::store::{Custody, Granted, Kind, StoreError};

use super::pass::Pass;
use super::{Refusal, Shared, blocking, prune, releases};
use crate::access::Caller;
use crate::audit::{Code, Note};
use crate::chain::chain;
use crate::clock::unix_ms;
use crate::keeper::Ask;

/// How often a release is published anew because another server has begun to remove some.
const PUBLISH_ATTEMPTS: usize = 5;
/// How long a grant lasts: several times as long as a member takes for all that one is for, at the slowest.
const GRANT_TTL: Duration = Duration::from_secs(15 * 60);

/// A refusal in one line.
pub(crate) struct Line(pub(super) StatusCode, pub(super) String, pub(super) &'static str);

impl IntoResponse for Line {
    fn into_response(self) -> Response {
        let mut response = (self.0, format!("{}\n", self.1)).into_response();
        response.extensions_mut().insert(Code(self.2));
        response
    }
}

impl From<StoreError> for Line {
    fn from(error: StoreError) -> Self {
        let code = StatusCode::from_u16(status(error.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(code, chain(&error), word(error.kind))
    }
}

/// The word for a kind of failure.
const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Missing => "not-found",
        Kind::Conflict => "conflict",
        Kind::Denied => "not-allowed",
        Kind::Corrupt => "corrupt",
        Kind::Unavailable | Kind::Storage => "unavailable",
    }
}

impl From<InvalidId> for Line {
    fn from(error: InvalidId) -> Self {
        Self(StatusCode::BAD_REQUEST, chain(&error), "invalid")
    }
}

impl From<Refusal> for Line {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.status, refusal.message, refusal.code)
    }
}

pub(super) async fn missing(State(shared): State<Shared>, body: String) -> Result<String, Line> {
    let ids = body.lines().map(str::parse).collect::<Result<Vec<ChunkId>, _>>()?;
    if ids.len() > MISSING_IDS_MAX {
        return Err(Refusal::invalid(format!("more than {MISSING_IDS_MAX} chunk ids in one question")).into());
    }
    let missing = call(&shared, move |store| store.missing(&ids)).await?;
    Ok(lines(&missing))
}

pub(super) async fn wanted(State(shared): State<Shared>, body: String) -> Result<Vec<u8>, Line> {
    let ids = body.lines().map(str::parse).collect::<Result<Vec<ChunkId>, _>>()?;
    let pack = call(&shared, move |store| store.get(&ids)).await?;
    shared.sent.fetch_add(pack.len() as u64, Ordering::Relaxed);
    Ok(pack)
}

pub(super) async fn grant(State(shared): State<Shared>, body: String) -> Result<String, Line> {
    let ids = body.lines().map(str::parse).collect::<Result<Vec<ChunkId>, _>>()?;
    let granted = call(&shared, move |store| store.grant(&ids, GRANT_TTL)).await?;
    let pack = |Granted { pack, url, frames }| {
        let url = url.unwrap_or_else(|| shared.passes.path(pack, GRANT_TTL));
        GrantedPack { id: pack, url, frames }
    };
    Ok(Grant { packs: granted.into_iter().map(pack).collect() }.to_text())
}

/// A pack, or the range of it that is asked for, for who has a pass for it.
pub(super) async fn pack(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(pass): Query<Pass>,
    headers: HeaderMap,
) -> Result<Response, Line> {
    let id: PackId = id.parse()?;
    if !shared.passes.allow(id, &pass) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "not-granted",
            "ask for a new grant: this one has ended",
        )
        .into());
    }
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok()).and_then(one_range);
    let Some(asked) = range else {
        return Ok(call(&shared, move |store| store.read(id, 0..PACK_BYTES_MAX as u64))
            .await?
            .into_response());
    };
    let start = asked.start;
    let content = call(&shared, move |store| store.read(id, asked)).await?;
    if content.is_empty() {
        let text = "the pack ends before that range";
        return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "no-such-range", text).into());
    }
    shared.sent.fetch_add(content.len() as u64, Ordering::Relaxed);
    let said = format!("bytes {start}-{}/*", start + content.len() as u64 - 1);
    Ok((StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, said)], content).into_response())
}

/// The range of `bytes=START-END`. Who asks for anything else gets everything, which HTTP leaves to the server.
fn one_range(value: &str) -> Option<Range<u64>> {
    let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    (start <= end).then(|| start..end.saturating_add(1))
}

pub(super) async fn outline_since(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: String,
) -> Result<Vec<u8>, Line> {
    let id: ReleaseId = id.parse()?;
    releases::must_be_seen(&shared, id, &caller).await?;
    let here = body.lines().take(HERE_MAX).map(str::parse).collect::<Result<Vec<ReleaseId>, _>>()?;
    let mut seen = Vec::with_capacity(here.len());
    for id in here {
        if releases::must_be_seen(&shared, id, &caller).await.is_ok() {
            seen.push(id);
        }
    }
    let here = seen;
    let (outline, parts) = call(&shared, move |store| manifest::since(id, &here, store)).await?;
    Ok([format!("{}\n", outline.len()).into_bytes(), outline, parts].concat())
}

pub(super) async fn put_pack(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<(), Line> {
    let id: PackId = id.parse()?;
    add(&shared, move |store| match PackId::of(&body) {
        found if found == id => store.put(&body),
        found => {
            let why = format!("the content is that of pack {found}");
            Err(StoreError::new(Kind::Corrupt, format!("put pack {id}")).because(why))
        }
    })
    .await
}

pub(super) async fn outline(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Vec<u8>, Line> {
    let id: ReleaseId = id.parse()?;
    releases::must_be_seen(&shared, id, &caller).await?;
    call(&shared, move |store| store.outline(id)).await
}

pub(super) async fn manifests(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<String, Line> {
    if !caller.covers_all() {
        let seen = releases::seen(&shared, &caller).await?;
        return Ok(lines(&seen.into_iter().map(|view| view.id).collect::<Vec<_>>()));
    }
    Ok(lines(&call(&shared, |store| store.list()).await?))
}

pub(super) async fn publish(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Extension<Note>, Line> {
    let id: ReleaseId = id.parse()?;
    let body = may_publish(&shared, id, &caller, body).await?;
    let pushed = publish_while_it_stays(&shared, id, body).await?;
    if let Some(event) = pushed {
        // The release is there, with or without its event.
        let _ = shared.inbox.send(Ask::Note(event)).await;
    }
    Ok(Extension(Note(format!("release {id}"))))
}

/// Publishes a release, and again where another server has begun to remove some meanwhile: what it leads to may have gone then, which
/// is told as it is told of any release that is not complete.
pub(super) async fn publish_while_it_stays(
    shared: &Shared,
    id: ReleaseId,
    body: Bytes,
) -> Result<Option<Event>, Line> {
    let mut pushed = None;
    for _ in 0..PUBLISH_ATTEMPTS {
        let held = Arc::new(prune::needing(shared).await?);
        let (keeps, body) = (Arc::clone(&held), body.clone());
        let publish = move |store: &dyn Custody| {
            // Also when nobody waits for the answer any more.
            let _held = keeps;
            publish_new(store, id, &body)
        };
        pushed = add(shared, publish).await?.or(pushed);
        if !held.is_doubtful(shared).await? {
            return Ok(pushed);
        }
    }
    Err(Refusal::unavailable("other servers remove releases all the time: try again").into())
}

/// Refuses a release of a service that somebody may not push for. The rest of it is checked when it is published.
async fn may_publish(shared: &Shared, id: ReleaseId, caller: &Caller, outline: Bytes) -> Result<Bytes, Line> {
    if caller.covers_all() {
        return Ok(outline);
    }
    let read = call(shared, move |store| Ok((manifest::service_of(id, &outline, store), outline))).await?;
    let (service, outline) = read;
    match service {
        Ok(service) if caller.covers(&service) => Ok(outline),
        Ok(service) => {
            let text = format!("the token is not for service {service}");
            Err(Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text).into())
        }
        Err(error) => Err(Refusal::invalid(chain(&error)).into()),
    }
}

pub(super) async fn sign(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: String,
) -> Result<(), Line> {
    let id: ReleaseId = id.parse()?;
    releases::must_be_seen(&shared, id, &caller).await?;
    add(&shared, move |store| store.sign(id, &body)).await
}

pub(super) async fn approvals(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<String, Line> {
    let id: ReleaseId = id.parse()?;
    releases::must_be_seen(&shared, id, &caller).await?;
    Ok(call(&shared, move |store| store.approvals(id)).await?.concat())
}

/// Publishes a release and tells so, if it is new.
fn publish_new(store: &dyn Custody, id: ReleaseId, outline: &[u8]) -> Result<Option<Event>, StoreError> {
    let known = match store.outline(id) {
        Ok(_) => true,
        Err(error) if matches!(error.kind, Kind::Missing | Kind::Corrupt) => false,
        Err(error) => return Err(error),
    };
    store.publish(id, outline)?;
    if known {
        return Ok(None);
    }
    let service = manifest::service(id, store).ok();
    Ok(service.map(|service| Event {
        at: unix_ms(),
        text: format!("release {} of {service} has arrived", id.short()),
        service,
        deploy: None,
        member: None,
        what: What::Pushed,
    }))
}

/// Adds something, and remembers whether that failed for a reason that the next one will meet too.
pub(super) async fn add<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&dyn Custody) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Line> {
    let doubtful = Arc::clone(&shared.artefacts_doubtful);
    call(shared, move |store| {
        work(store).inspect_err(|error| {
            if matches!(error.kind, Kind::Storage | Kind::Unavailable | Kind::Denied) {
                doubtful.store(true, Ordering::Relaxed);
            }
        })
    })
    .await
}

/// Whether the store can keep what is pushed. Only one that has failed is asked, since that takes a write.
pub(super) async fn ready(shared: &Shared) -> Result<(), Refusal> {
    if !shared.artefacts_doubtful.load(Ordering::Relaxed) {
        return Ok(());
    }
    let store = Arc::clone(&shared.artefacts);
    blocking(move || store.ready()).await?.map_err(|error| Refusal::unavailable(chain(&error)))?;
    shared.artefacts_doubtful.store(false, Ordering::Relaxed);
    Ok(())
}

async fn call<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&dyn Custody) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Line> {
    let store = Arc::clone(&shared.artefacts);
    Ok(blocking(move || work(&*store)).await??)
}

fn lines(ids: &[impl ToString]) -> String {
    ids.iter().map(|id| id.to_string() + "\n").collect()
}
