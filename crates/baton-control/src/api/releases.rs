//! The releases in the artefact store, and how they are named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use baton_core::history::{History, TagName};
use baton_core::ids::{ReleaseId, ServiceName};
use baton_core::release::Manifest;
use baton_core::run::RunSettings;
use baton_release::manifest::{self, Known, ManifestError};
use baton_release::read::ReadError;
use baton_release::store::{Custody, Kind, StoreError};
use baton_wire::api::ReleaseView;
use tokio::time::timeout;

use super::{Refusal, Shared, blocking};
use crate::access::Caller;
use crate::chain::chain;

/// Fewest digits of a release's id that name it: what people read off a screen, and rarely the same by chance.
const PREFIX_DIGITS_MIN: usize = 4;
/// How long the store is asked about what deploys of the service name: what it would say was found when they were asked for. A
/// bucket that is away is tried again for many times as long, and one that hangs for minutes.
const KNOWN_PATIENCE: Duration = Duration::from_secs(3);
/// How many candidates a refusal names.
const CANDIDATES_MAX: usize = 5;

/// What was read of releases before: they never change.
#[derive(Clone, Default)]
pub(super) struct Cache(Arc<Mutex<BTreeMap<ReleaseId, ReleaseView>>>);

impl Cache {
    fn get(&self, id: ReleaseId) -> Option<ReleaseView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn put(&self, id: ReleaseId, view: ReleaseView) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, view);
    }

    /// A release of the store, unless it is damaged.
    pub(super) fn read(
        &self,
        id: ReleaseId,
        artefacts: &dyn Custody,
    ) -> Result<Option<ReleaseView>, StoreError> {
        match self.get(id) {
            Some(view) => Ok(Some(view)),
            None => Ok(read(artefacts, id)?.inspect(|view| self.put(id, view.clone()))),
        }
    }
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<ReleaseView>>, Refusal> {
    Ok(Json(seen(&shared, &caller).await?))
}

/// The releases that somebody may know of.
pub(super) async fn seen(shared: &Shared, caller: &Caller) -> Result<Vec<ReleaseView>, Refusal> {
    let (artefacts, cache) = (Arc::clone(&shared.artefacts), shared.releases.clone());
    let views = blocking(move || read_all(&*artefacts, &cache)).await?;
    let mut views = views.map_err(|error| refused(&error))?;
    views.retain(|view| covers(caller, view));
    Ok(views)
}

/// Refuses who may not know of a release as if there were none.
pub(super) async fn must_be_seen(shared: &Shared, id: ReleaseId, caller: &Caller) -> Result<(), Refusal> {
    if caller.covers_all() {
        return Ok(());
    }
    let (artefacts, cache) = (Arc::clone(&shared.artefacts), shared.releases.clone());
    let view = blocking(move || cache.read(id, &*artefacts)).await?.map_err(|error| refused(&error))?;
    match view.filter(|view| covers(caller, view)) {
        Some(_) => Ok(()),
        None => Err(Refusal::not_found(format!("release {} is not here", id.short()))),
    }
}

fn covers(caller: &Caller, view: &ReleaseView) -> bool {
    view.service.parse().is_ok_and(|service: ServiceName| caller.covers(&service))
}

fn read_all(artefacts: &dyn Custody, cache: &Cache) -> Result<Vec<ReleaseView>, StoreError> {
    let mut views = Vec::new();
    for id in artefacts.list()? {
        views.extend(cache.read(id, artefacts)?);
    }
    views.sort_by(|a, b| (b.created_ms, &b.id).cmp(&(a.created_ms, &a.id)));
    Ok(views)
}

/// A release, unless it is damaged: the others are listed all the same.
fn read(artefacts: &dyn Custody, id: ReleaseId) -> Result<Option<ReleaseView>, StoreError> {
    match manifest::read(id, artefacts, Known::default()) {
        Ok(manifest) => Ok(Some(view(id, &manifest))),
        Err(ManifestError::Read(ReadError::Store(error)))
            if !matches!(error.kind, Kind::Missing | Kind::Corrupt) =>
        {
            Err(error)
        }
        Err(ManifestError::Read(_) | ManifestError::Refused(_)) => Ok(None),
    }
}

fn view(id: ReleaseId, manifest: &Manifest) -> ReleaseView {
    ReleaseView {
        id: id.to_string(),
        service: manifest.service.to_string(),
        files: manifest.tree.files().count() as u64,
        bytes: manifest.tree.bytes(),
        commit: manifest.provenance.commit.as_ref().map(|commit| commit.hash.clone()),
        created_ms: manifest.provenance.created,
    }
}

/// A release that a text names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) id: ReleaseId,
    /// Whether the store was asked which releases there are, and is away: only deploys name it then.
    is_away: bool,
}

impl Named {
    const fn of(id: ReleaseId) -> Self {
        Self { id, is_away: false }
    }
}

/// The release that a text names for a service: one of its tags, or the release's id, or enough digits of that.
pub(super) async fn named(
    shared: &Shared,
    text: &str,
    history: Option<&History>,
    caller: &Caller,
) -> Result<Named, Refusal> {
    if let Some(release) = history.and_then(|history| history.tagged(text)) {
        return Ok(Named::of(release));
    }
    if let Ok(tag) = text.parse::<TagName>() {
        return Err(Refusal::not_found(format!(
            "{tag} names no release: the service has no such tag (see `baton releases tags`), and of a release's id at least the \
             first {PREFIX_DIGITS_MIN} lowercase digits are needed"
        )));
    }
    let past = history.iter().flat_map(|history| history.past());
    let used: Vec<ReleaseId> = past.map(|past| past.deploy.release).collect();
    resolve(shared, text, used.into_iter(), caller).await
}

/// The release that a text names: its id, or enough digits of it. `also` are releases that are known otherwise.
async fn resolve(
    shared: &Shared,
    text: &str,
    also: impl Iterator<Item = ReleaseId>,
    caller: &Caller,
) -> Result<Named, Refusal> {
    let also: BTreeSet<ReleaseId> = also.collect();
    if let Ok(id) = text.parse() {
        if !also.contains(&id) {
            must_be_seen(shared, id, caller).await?;
        }
        return Ok(Named::of(id));
    }
    let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !digits || !(PREFIX_DIGITS_MIN..64).contains(&text.len()) {
        return Err(Refusal::invalid(format!(
            "{text:?} names no release: write its id, or at least the first {PREFIX_DIGITS_MIN} lowercase digits of it"
        )));
    }
    let fits = |id: &ReleaseId| id.to_string().starts_with(text);
    let stored = stored(shared, caller);
    let stored = if also.iter().any(fits) { soon(stored).await? } else { Some(stored.await?) };
    let (stored, away) = match stored {
        Some(Ok(stored)) => (stored, None),
        Some(Err(error)) if is_away(&error) => (Vec::new(), Some(refused(&error))),
        Some(Err(error)) => return Err(refused(&error)),
        None => (Vec::new(), Some(Refusal::unavailable("the artefact store does not answer"))),
    };
    let candidates: BTreeSet<_> = stored.into_iter().chain(also).filter(fits).collect();
    let mut found = candidates.iter();
    match (found.next(), found.next(), away) {
        (Some(&id), None, away) => Ok(Named { id, is_away: away.is_some() }),
        (None, _, Some(away)) => Err(away),
        (None, _, None) => {
            Err(Refusal::not_found(format!("no release begins with {text}: see `baton releases`")))
        }
        (Some(_), Some(_), _) => {
            let named = candidates.iter().take(CANDIDATES_MAX).map(ToString::to_string);
            let named = named.collect::<Vec<_>>().join(", ");
            let text = format!("{} releases begin with {text}, write more digits: {named}", candidates.len());
            Err(Refusal::new(StatusCode::BAD_REQUEST, "ambiguous", text))
        }
    }
}

/// The releases of the store that somebody may know of.
async fn stored(shared: &Shared, caller: &Caller) -> Result<Result<Vec<ReleaseId>, StoreError>, Refusal> {
    let (artefacts, cache) = (Arc::clone(&shared.artefacts), shared.releases.clone());
    if caller.covers_all() {
        return blocking(move || artefacts.list()).await;
    }
    let views = blocking(move || read_all(&*artefacts, &cache)).await?;
    let ids = |views: Vec<ReleaseView>| {
        let known = views.iter().filter(|view| covers(caller, view));
        known.filter_map(|view| view.id.parse().ok()).collect()
    };
    Ok(views.map(ids))
}

/// Makes sure that members can fetch a release, and that it was made for this service. Answers how it wants to be run.
pub(super) async fn must_be_of(
    shared: &Shared,
    id: ReleaseId,
    service: &ServiceName,
) -> Result<RunSettings, Refusal> {
    must_fit(stored_manifest(shared, id).await?, id, service)
}

/// The same for what is to be deployed. A store that is away hinders nobody where deploys of the service name the release: it was
/// found to be of the service then, and the members that shall have it again have it on their disks. How it wants to be run
/// nobody can tell then.
pub(super) async fn must_be_deployable(
    shared: &Shared,
    release: Named,
    service: &ServiceName,
    history: Option<&History>,
) -> Result<Option<RunSettings>, Refusal> {
    let Named { id, is_away: is_asked_in_vain } = release;
    if is_asked_in_vain {
        return Ok(None);
    }
    let past = history.iter().flat_map(|history| history.past());
    let is_deployed = past.map(|past| past.deploy.release).any(|release| release == id);
    let read = stored_manifest(shared, id);
    let read = if is_deployed { soon(read).await? } else { Some(read.await?) };
    let Some(read) = read else { return Ok(None) };
    if let Err(ManifestError::Read(ReadError::Store(error))) = &read
        && is_deployed
        && is_away(error)
    {
        return Ok(None);
    }
    must_fit(read, id, service).map(Some)
}

/// What the store answers, if it does so before long. It goes on with what it was asked.
async fn soon<T>(answer: impl Future<Output = Result<T, Refusal>>) -> Result<Option<T>, Refusal> {
    timeout(KNOWN_PATIENCE, answer).await.ok().transpose()
}

/// What the store says of a release now.
async fn stored_manifest(shared: &Shared, id: ReleaseId) -> Result<Result<Manifest, ManifestError>, Refusal> {
    let artefacts = Arc::clone(&shared.artefacts);
    let read = move || {
        // What this server has read before may have been removed by another one.
        if !artefacts.list().map_err(ReadError::from)?.contains(&id) {
            return Err(ReadError::from(StoreError::new(Kind::Missing, format!("read release {id}"))).into());
        }
        manifest::read(id, &*artefacts, Known::default())
    };
    blocking(read).await
}

fn must_fit(
    read: Result<Manifest, ManifestError>,
    id: ReleaseId,
    service: &ServiceName,
) -> Result<RunSettings, Refusal> {
    match read {
        Ok(manifest) if manifest.service == *service => Ok(manifest.run),
        Ok(manifest) => Err(Refusal::invalid(format!(
            "release {} was pushed for service {}: push it with `--service {service}`, or deploy it there",
            id.short(),
            manifest.service
        ))),
        Err(ManifestError::Read(ReadError::Store(error))) if error.kind == Kind::Missing => {
            Err(Refusal::not_found(format!("release {} is not here: `baton push` it first", id.short())))
        }
        Err(ManifestError::Read(ReadError::Store(error))) => Err(refused(&error)),
        Err(error) => {
            Err(Refusal::unavailable(format!("release {} is damaged here: {}", id.short(), chain(&error))))
        }
    }
}

/// Whether the store says nothing of what it has.
const fn is_away(error: &StoreError) -> bool {
    matches!(error.kind, Kind::Unavailable | Kind::Denied)
}

pub(super) fn refused(error: &StoreError) -> Refusal {
    match error.kind {
        Kind::Missing => Refusal::not_found(chain(error)),
        Kind::Conflict | Kind::Denied | Kind::Unavailable | Kind::Storage | Kind::Corrupt => {
            Refusal::unavailable(chain(error))
        }
    }
}
