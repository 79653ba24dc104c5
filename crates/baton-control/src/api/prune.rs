//! Removing releases that nobody needs from the artefact store, and the packs that are only theirs.
//!
//! Who publishes, deploys or keeps the outputs of a build step holds [`Publishing`]; the last look and the removal hold it
//! alone. So nothing can come to need what is being removed, and what was removed a moment before is missed by name.

mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use baton_core::collection::{self, Fate, Pack, Rules, Stored, Why};
use baton_core::event::{Event, What};
use baton_core::ids::{PackId, PendingId, ReleaseId, ServiceName};
use baton_core::units::Millis;
use baton_release::collect::{self, Needed};
use baton_release::store::{Custody, Kind, StoreError};
use baton_store::state::{Pruning as Turns, StateStore};
use baton_wire::api::{Prune, Pruned, PrunedPack, PrunedRelease};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};

use self::turn::Turn;
use super::extract::Sent;
use super::releases::{Cache, refused};
use super::{Refusal, Shared, blocking};
use crate::access::Pending;
use crate::audit::Effect;
use crate::chain::chain;
use crate::clock::unix_ms;
use crate::keeper::Ask;

/// How long who comes to need something waits for another server that removes some.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether that has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Held by many who add what needs chunks, or alone by who removes some.
pub(super) type Publishing = Arc<RwLock<()>>;

/// Held by who prunes: what one has decided to move another one must not remove.
pub(super) type Pruning = Arc<Mutex<()>>;

/// Held by who comes to need what is in the artefact store: this server removes nothing meanwhile, and if another one does, that can be
/// told.
pub(super) struct Needing {
    _held: OwnedRwLockReadGuard<()>,
    /// How many turns to prune had begun at all servers.
    pub(super) begun: u64,
}

impl Needing {
    /// Whether something may have been removed since.
    pub(super) async fn is_doubtful(&self, shared: &Shared) -> Result<bool, Refusal> {
        Ok(pruning(shared).await? != Turns { begun: self.begun, is_taken: false })
    }
}

/// Waits until no server removes anything.
pub(super) async fn needing(shared: &Shared) -> Result<Needing, Refusal> {
    let held = Arc::clone(&shared.publishing).read_owned().await;
    let until = Instant::now() + WAIT_MAX;
    loop {
        match pruning(shared).await? {
            Turns { begun, is_taken: false } => return Ok(Needing { _held: held, begun }),
            Turns { .. } if Instant::now() >= until => {
                return Err(Refusal::unavailable(
                    "another server removes releases from the store, and what is needed must wait: try again",
                ));
            }
            Turns { .. } => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

async fn pruning(shared: &Shared) -> Result<Turns, Refusal> {
    let states = Arc::clone(&shared.states);
    Ok(blocking(move || states.pruning()).await??)
}

/// What was found and what shall be done about it.
struct Look {
    releases: Vec<(Stored, Option<Why>)>,
    packs: Vec<Pack>,
    needed: Needed,
    rules: Rules,
}

/// What was written anew before anything was removed.
#[derive(Default)]
struct Repacked {
    /// How much of each pack that goes, in bytes.
    of: BTreeMap<PackId, u64>,
    /// Length of the packs that it is in now.
    bytes: u64,
}

/// What the services, and the deploys that wait for a second person, say about releases.
struct References {
    named: Vec<(ReleaseId, Why)>,
    /// What deploys that wait call their release, its id or the beginning of it, and of which service they are.
    waiting: Vec<(String, ServiceName)>,
    /// When each was last deployed, in milliseconds since 1970.
    deployed: BTreeMap<ReleaseId, u64>,
}

pub(super) async fn prune(
    State(shared): State<Shared>,
    Sent(asked): Sent<Prune>,
) -> Result<Response, Refusal> {
    let usual = Rules::default();
    let rules = Rules {
        keep: asked.keep.map_or(usual.keep, |keep| keep as usize),
        grace: asked.grace_ms.map_or(usual.grace, Millis),
    };
    let alone = Arc::clone(&shared.pruning).lock_owned().await;
    let first = look(&shared, rules, Needed::default()).await?;
    if asked.dry_run {
        let would = view(&first, &Repacked::default(), true);
        return Ok((Extension(Effect::Nothing), Json(would)).into_response());
    }
    // What takes time is done before: reading, and writing what is left of packs. What has come since is found then, and nothing
    // more comes.
    let artefacts = Arc::clone(&shared.artefacts);
    let repack = move || first.repack(&*artefacts).map(|repacked| (first.needed, repacked));
    let (needed, repacked) = blocking(repack).await?.map_err(|error| not_repacked(&error))?;
    let closed = Arc::clone(&shared.publishing).write_owned().await;
    let states = Arc::clone(&shared.states);
    let turn = blocking(move || Turn::begin(states)).await??;
    let last = match look(&shared, rules, needed).await {
        Ok(last) => last,
        Err(refusal) => {
            blocking(move || turn.end()).await?;
            return Err(refusal);
        }
    };
    let done = view(&last, &repacked, false);
    let (artefacts, gone) = (Arc::clone(&shared.artefacts), last.gone());
    blocking(move || {
        // To its end, whether or not anybody still waits for the answer.
        let _held = (alone, closed);
        let done = last.remove(&*artefacts, &turn);
        turn.end();
        done
    })
    .await?
    .map_err(|error| refused(&error))?;
    for event in gone {
        // It is gone, with or without its event.
        let _ = shared.inbox.send(Ask::Note(event)).await;
    }
    Ok(Json(done).into_response())
}

fn not_repacked(error: &StoreError) -> Refusal {
    match error.kind {
        Kind::Corrupt => Refusal::unavailable(format!(
            "something that shall stay is damaged, and nothing was removed: `baton releases verify` sets it aside, and then \
             it can be pruned ({})",
            chain(error)
        )),
        Kind::Missing | Kind::Conflict | Kind::Denied | Kind::Unavailable | Kind::Storage => refused(error),
    }
}

async fn look(shared: &Shared, rules: Rules, needed: Needed) -> Result<Look, Refusal> {
    // Before the board: a deploy that waits no more has begun, and is there.
    let pending = shared.access.as_ref().map(|access| access.pending()).unwrap_or_default();
    shared.known()?;
    let (states, now) = (Arc::clone(&shared.states), shared.clock.now());
    let (artefacts, cache) = (Arc::clone(&shared.artefacts), shared.releases.clone());
    blocking(move || {
        let references = References::of(&*states, now, pending)?;
        Look::at(&*artefacts, &cache, &references, rules, needed)
    })
    .await?
}

impl References {
    /// As the state store has it, which may know of more by now than the board.
    fn of(states: &dyn StateStore, now: Millis, pending: Vec<(PendingId, Pending)>) -> Result<Self, Refusal> {
        let waits = |(_, pending): (PendingId, Pending)| Some((pending.asked.release?, pending.service));
        let waiting = pending.into_iter().filter_map(waits).collect();
        let mut references = Self { named: Vec::new(), waiting, deployed: BTreeMap::new() };
        for name in states.services()? {
            let service = states.service(&name, now)?;
            let history = service.history();
            references.named.extend(collection::named(history, service.fleet()));
            for deploy in history.past().iter().map(|past| &past.deploy) {
                let last = references.deployed.entry(deploy.release).or_default();
                *last = deploy.created.max(*last);
            }
        }
        Ok(references)
    }

    /// The releases that deploys which wait may mean, as where their service may go.
    fn waited_for(&self, stored: &[Stored]) -> Vec<(ReleaseId, Why)> {
        let mut named = Vec::new();
        for release in stored.iter().map(|stored| stored.release) {
            let id = release.to_string();
            let waits = self.waiting.iter().filter(|(text, _)| id.starts_with(text.as_str()));
            named.extend(waits.map(|(_, service)| (release, Why::WayBack(service.clone()))));
        }
        named
    }
}

impl Look {
    fn at(
        store: &dyn Custody,
        cache: &Cache,
        references: &References,
        rules: Rules,
        mut needed: Needed,
    ) -> Result<Self, Refusal> {
        let failed = |error: StoreError| refused(&error);
        let (now, now_ms) = (SystemTime::now(), unix_ms());
        let mut stored = Vec::new();
        for release in store.releases().map_err(failed)? {
            let view = cache.read(release.id, store).map_err(failed)?;
            let deployed = references.deployed.get(&release.id).map(|at| Millis(now_ms).since(Millis(*at)));
            let pushed = collect::age(now, release.since);
            stored.push(Stored {
                release: release.id,
                service: view.and_then(|view| view.service.parse::<ServiceName>().ok()),
                idle: deployed.map_or(pushed, |deployed| deployed.min(pushed)),
            });
        }
        let waited_for = references.waited_for(&stored);
        let named: Vec<(ReleaseId, Why)> = references.named.iter().cloned().chain(waited_for).collect();
        let mut why = collection::releases(&stored, &named, rules);
        let releases: Vec<(Stored, Option<Why>)> = stored
            .into_iter()
            .map(|stored| (why.remove(&stored.release).flatten(), stored))
            .map(|(why, stored)| (stored, why))
            .collect();
        for (stored, why) in &releases {
            let Some(why) = why else { continue };
            needed.count_release(stored.release, store).map_err(|error| {
                Refusal::unavailable(format!(
                    "release {} ({why}) cannot be read here, so nobody knows what it needs, and nothing was removed: \
                     push it again, or give it back with `baton releases repair` ({})",
                    stored.release.short(),
                    chain(&error)
                ))
            })?;
        }
        needed.count_records(store).map_err(failed)?;
        Ok(Self { releases, packs: collect::packs(store).map_err(failed)?, needed, rules })
    }

    fn fates(&self) -> Vec<(&Pack, Fate)> {
        collection::packs(&self.packs, |id| self.needed.has(id), self.rules.grace)
    }

    fn repack(&self, store: &dyn Custody) -> Result<Repacked, StoreError> {
        let fates = self.fates();
        collect::check_copies(store, &fates, &self.needed)?;
        let of = fates.iter().map(|(pack, fate)| (pack.id, repacked_bytes(pack, fate)));
        let of = of.filter(|(_, bytes)| *bytes > 0).collect();
        Ok(Repacked { of, bytes: collect::repack(store, &fates)?.into_values().sum() })
    }

    fn remove(&self, store: &dyn Custody, turn: &Turn) -> Result<(), StoreError> {
        let goes = self.releases.iter().filter(|(_, why)| why.is_none());
        let goes: Vec<ReleaseId> = goes.map(|(stored, _)| stored.release).collect();
        collect::remove(store, &goes, &self.fates(), &|| turn.holds())
    }

    /// What is to be told of the releases that go.
    fn gone(&self) -> Vec<Event> {
        let event = |(stored, why): &(Stored, Option<Why>)| {
            let service = stored.service.clone().filter(|_| why.is_none())?;
            let text =
                format!("release {} of {service} was removed: nobody needed it", stored.release.short());
            Some(Event { at: unix_ms(), service, deploy: None, member: None, what: What::Pruned, text })
        };
        self.releases.iter().filter_map(event).collect()
    }
}

fn view(look: &Look, repacked: &Repacked, dry_run: bool) -> Pruned {
    let release = |(stored, why): &(Stored, Option<Why>)| PrunedRelease {
        id: stored.release.to_string(),
        service: stored.service.as_ref().map(ToString::to_string),
        idle_ms: stored.idle.0,
        goes: why.is_none(),
        why: match (why, &stored.service) {
            (Some(why), _) => why.to_string(),
            (None, Some(_)) => "nobody names it".to_owned(),
            (None, None) => "nobody names it, and it is damaged".to_owned(),
        },
    };
    let pack = |(pack, fate): &(&Pack, Fate)| {
        let kept = repacked.of.get(&pack.id).copied().unwrap_or_else(|| repacked_bytes(pack, fate));
        let view = || PrunedPack { id: pack.id.to_string(), bytes: length(pack), repacked_bytes: kept };
        (*fate != Fate::Stays).then(view)
    };
    let packs: Vec<PrunedPack> = look.fates().iter().filter_map(pack).collect();
    let mut releases: Vec<PrunedRelease> = look.releases.iter().map(release).collect();
    releases.sort_by(|a, b| (a.idle_ms, &a.id).cmp(&(b.idle_ms, &b.id)));
    Pruned {
        dry_run,
        bytes: look.packs.iter().map(length).sum::<u64>().saturating_sub(repacked.bytes),
        bytes_freed: packs.iter().map(|pack| pack.bytes.saturating_sub(pack.repacked_bytes)).sum(),
        releases,
        packs,
    }
}

/// How much of a pack is written anew.
fn repacked_bytes(pack: &Pack, fate: &Fate) -> u64 {
    match fate {
        Fate::Stays | Fate::Goes => 0,
        Fate::Repacked(frames) => frames.iter().map(|at| u64::from(pack.index.frames()[*at].packed)).sum(),
    }
}

fn length(pack: &Pack) -> u64 {
    pack.index.to_text().len() as u64 + pack.index.packed()
}

#[cfg(test)]
mod tests {
    use baton_store::state::MemoryStore;

    use super::*;

    fn release(number: u8) -> ReleaseId {
        ReleaseId::from_bytes([number; 32])
    }

    fn waits(release: Option<&str>) -> (PendingId, Pending) {
        let asked = serde_json::json!({ "wanted": "rollout", "release": release });
        let asked = serde_json::from_value(asked).unwrap();
        let service = "web".parse().unwrap();
        let pending = Pending {
            service,
            asked_by: "ada".to_owned(),
            at: 1,
            ends: 2,
            approved_by: None,
            decided: 0,
            asked,
        };
        (PendingId::from_bytes([0; 6]), pending)
    }

    #[test]
    fn what_a_deploy_that_waits_names_stays_by_its_id_or_the_beginning_of_it() {
        let pending = vec![waits(Some(&release(1).to_string())), waits(Some("0202")), waits(None)];
        let states = MemoryStore::new(Millis(0));
        let references = References::of(&states, Millis(0), pending).unwrap();
        let stored =
            [1, 2, 3].map(|number| Stored { release: release(number), service: None, idle: Millis(1) });
        let named = references.waited_for(&stored);
        let why = collection::releases(&stored, &named, Rules { keep: 0, grace: Millis(0) });
        let stays = |number| why.get(&release(number)).is_some_and(Option::is_some);
        assert!(stays(1) && stays(2) && !stays(3), "{why:?}");
    }
}
