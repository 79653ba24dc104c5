//! Giving back to the artefact store what it has lost of releases, from the disks of members that are connected here.
//!
//! A few releases at a time, and of a large one a part, so that nobody waits long for an answer. What has come stays, so who asks
//! again goes on. Nothing is removed from the store meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use baton_core::collection;
use baton_core::ids::{ChunkId, ReleaseId, ServiceName};
use baton_release::check;
use baton_release::manifest;
use baton_release::regain::{self, Left, RegainError, Regained};
use baton_release::store::{Custody, Kind, StoreError};
use baton_wire::api::{FailedLender, Repair, Repaired, RepairedRelease};
use tokio::runtime::Handle;

use super::extract::Sent;
use super::peers::holds;
use super::releases::refused;
use super::{Refusal, Shared, artefacts, blocking};
use crate::audit::{Effect, Note};
use crate::board::Board;
use crate::chain::chain;
use crate::keeper::Ask;
use crate::lenders::Who;

/// How many releases are looked up for one answer: each is a manifest, which may be long.
const RELEASES_MAX: u64 = 32;
/// How much content is asked for for one answer, in bytes.
const BYTES_MAX: u64 = 64 << 20;
/// How long an answer may take of which there is something to tell.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How many members are asked for a release: those who say that they have it, and then others of its service.
const LENDERS_MAX: usize = 16;

/// How far an answer has come.
#[derive(Clone, Copy)]
struct Progress {
    begun: Instant,
    bytes: u64,
}

impl Progress {
    /// Whether there is enough to tell when so many bytes more have come.
    fn is_enough(self, more: u64) -> bool {
        let bytes = self.bytes + more;
        bytes >= BYTES_MAX || (bytes > 0 && self.begun.elapsed() >= ANSWER_MAX)
    }
}

pub(super) async fn repair(
    State(shared): State<Shared>,
    Sent(asked): Sent<Repair>,
) -> Result<Response, Refusal> {
    let no = |text: &str| Refusal::invalid(format!("{text:?} is no place to go on: give what `next` says"));
    let from = asked.from.as_deref().map(|text| text.parse::<ReleaseId>().map_err(|_| no(text)));
    let from = from.transpose()?;
    let board = shared.known()?;
    // What has come back is not to be removed before all of it has.
    let _alone = Arc::clone(&shared.pruning).lock_owned().await;
    let (store, named) = (Arc::clone(&shared.artefacts), named(&board));
    let all = blocking(move || all(&*store, named)).await?.map_err(|error| refused(&error))?;
    let mut answer = Repaired { dry_run: asked.dry_run, ..Repaired::default() };
    let mut progress = Progress { begun: Instant::now(), bytes: 0 };
    for id in all.into_iter().filter(|id| from.is_none_or(|from| *id >= from)) {
        if answer.releases >= RELEASES_MAX || progress.is_enough(0) {
            answer.next = Some(id.to_string());
            break;
        }
        let found = look(&shared, &board, id).await?.map(|lost| (lost.members(&shared, &board), lost));
        let one = match found {
            None => None,
            Some((members, lost)) if asked.dry_run => Some(lost.told(&members)),
            Some((members, lost)) => Some(lost.give_back(&shared, members, progress).await?),
        };
        progress.bytes += one.as_ref().map_or(0, |one| one.bytes);
        let goes_on = one.as_ref().is_some_and(|one| one.goes_on);
        answer.repaired.extend(one);
        if goes_on {
            answer.next = Some(id.to_string());
            break;
        }
        answer.releases += 1;
    }
    let came = |one: &&RepairedRelease| one.chunks > 0 || one.manifest;
    let came: Vec<String> = answer.repaired.iter().filter(came).map(line).collect();
    let effect = if asked.dry_run || came.is_empty() { Effect::Nothing } else { Effect::Changed };
    Ok((Extension(effect), Extension(Note(came.join(", "))), Json(answer)).into_response())
}

/// What the audit log has of a release.
fn line(one: &RepairedRelease) -> String {
    let id = one.id.get(..12).unwrap_or(&one.id);
    let end = if one.is_whole { "" } else { ", not whole yet" };
    format!("release {id}: {} chunks of {} from {}{end}", one.chunks, one.bytes, one.members.join(" "))
}

/// The releases that services need, and those that their members have: a server that has begun anew knows of no others.
fn named(board: &Board) -> Vec<ReleaseId> {
    let services = board.services.values();
    let named =
        services.flat_map(|posted| collection::named(posted.service.history(), posted.service.fleet()));
    named.map(|(release, _)| release).collect()
}

/// The releases that are there and those that should be, in order; packs that are gone are noticed.
fn all(store: &dyn Custody, named: Vec<ReleaseId>) -> Result<BTreeSet<ReleaseId>, StoreError> {
    store.packs()?;
    Ok(store.list()?.into_iter().chain(named).collect())
}

/// A release of which something is lost.
struct Lost {
    id: ReleaseId,
    /// Of which service, where the store still knows.
    service: Option<ServiceName>,
    what: String,
}

async fn look(shared: &Shared, board: &Board, id: ReleaseId) -> Result<Option<Lost>, Refusal> {
    let store = Arc::clone(&shared.artefacts);
    let damage = blocking(move || {
        let damage = check::release(&*store, id)?;
        Ok(damage.map(|damage| (chain(&damage), manifest::service(id, &*store).ok())))
    });
    let damage = damage.await?.map_err(|error: StoreError| refused(&error))?;
    Ok(damage.map(|(what, service)| {
        let service =
            service.or_else(|| board.services.keys().find(|name| has_had(board, name, id)).cloned());
        Lost { id, service, what }
    }))
}

/// Whether a release was ever deployed in a service, as far as that is remembered.
fn has_had(board: &Board, service: &ServiceName, id: ReleaseId) -> bool {
    let past = board.services.get(service).map(|posted| posted.service.history().past());
    past.into_iter().flatten().any(|past| past.deploy.release == id)
}

/// Who may have a release: how many of them say so, who come first.
struct Members {
    all: Vec<Who>,
    sure: usize,
}

impl Lost {
    /// The members that are connected here and have the release, and others of the services that have had it.
    fn members(&self, shared: &Shared, board: &Board) -> Members {
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for (service, posted) in &board.services {
            let is_its = self.service.as_ref() == Some(service) || has_had(board, service, self.id);
            let fleet = posted.service.fleet();
            for (member, known) in fleet.members() {
                let who = (service.clone(), member.clone());
                let has = holds(fleet, known, self.id);
                if (has || is_its) && shared.lenders.has(&who) {
                    if has { all.push(who) } else { others.push(who) }
                }
            }
        }
        let sure = all.len();
        all.extend(others);
        Members { all, sure }
    }

    fn view(&self) -> RepairedRelease {
        RepairedRelease {
            id: self.id.to_string(),
            service: self.service.as_ref().map(ToString::to_string),
            lacked: self.what.clone(),
            ..RepairedRelease::default()
        }
    }

    /// What there is to tell of it before anybody is asked.
    fn told(&self, Members { all, sure }: &Members) -> RepairedRelease {
        let members: Vec<String> = all.iter().take(*sure).map(name).collect();
        let none = || "no member that is connected to this server says that it has it".to_owned();
        let why = members.is_empty().then(none);
        RepairedRelease { members, why, ..self.view() }
    }

    /// Asks for what is lost, and publishes the release where it is not known any more.
    async fn give_back(
        self,
        shared: &Shared,
        Members { all: mut whom, .. }: Members,
        progress: Progress,
    ) -> Result<RepairedRelease, Refusal> {
        whom.truncate(LENDERS_MAX);
        let asked = whom.len();
        let (id, store, lenders) = (self.id, Arc::clone(&shared.artefacts), shared.lenders.clone());
        let runtime = Handle::current();
        let (done, members, failed) = blocking(move || {
            let ask = |at: usize, chunks: &[ChunkId]| match whom.get(at) {
                Some(who) => runtime.block_on(lenders.ask(who, id, chunks.to_vec())),
                None => Err("it is not known".to_owned()),
            };
            let mut all = regain::Lenders::new(whom.len(), &ask);
            let done = regain::regain(id, &*store, &mut all, &|more| !progress.is_enough(more));
            let (gave, failed) = all.told();
            let called = |at: usize| whom.get(at).map(name).unwrap_or_default();
            let gave: Vec<String> = gave.into_iter().map(called).collect();
            let failed = failed.into_iter();
            let failed = failed.map(|(at, why)| FailedLender { member: called(at), why: why.to_owned() });
            (done, gave, failed.collect())
        })
        .await?;
        let view = RepairedRelease { members, failed, ..self.view() };
        let regained = match done {
            Ok(regained) => regained,
            Err(RegainError::Store(error)) if !matches!(error.kind, Kind::Missing | Kind::Corrupt) => {
                return Err(refused(&error));
            }
            Err(error) => return Ok(RepairedRelease { why: Some(nowhere(&chain(&error), asked)), ..view }),
        };
        let Regained { service, chunks, bytes, manifest, left, .. } = &regained;
        let view = RepairedRelease {
            service: Some(service.to_string()),
            chunks: *chunks as u64,
            bytes: *bytes,
            manifest: *manifest,
            goes_on: *left == Some(Left::Unasked),
            ..view
        };
        let why = match left {
            None => publish(shared, id, regained).await?,
            Some(Left::Unasked) => None,
            Some(Left::Nowhere { chunks, first: (first, path) }) => {
                let of = path.as_ref().map(|path| format!(" of {path}")).unwrap_or_default();
                Some(nowhere(&format!("{chunks} of its chunks are nowhere, the first is {first}{of}"), asked))
            }
        };
        Ok(RepairedRelease { is_whole: why.is_none() && !view.goes_on, why, ..view })
    }
}

fn name((service, member): &Who) -> String {
    format!("{service}/{member}")
}

/// Why a release is not whole, and what is left to do.
fn nowhere(what: &str, asked: usize) -> String {
    let whom = match asked {
        0 => "no member that is connected to this server may have it".to_owned(),
        1 => "one member was asked".to_owned(),
        asked => format!("{asked} members were asked"),
    };
    format!(
        "{what} ({whom}): push it again, or give it back from a copy of a member's disk with `baton releases repair DIR`"
    )
}

/// Makes a release known again that lacks nothing any more; says what is wrong with it where something is.
async fn publish(shared: &Shared, id: ReleaseId, regained: Regained) -> Result<Option<String>, Refusal> {
    let Regained { is_known, outline, approvals, .. } = regained;
    if is_known {
        let store = Arc::clone(&shared.artefacts);
        let damage = blocking(move || check::release(&*store, id)).await?.map_err(|error| refused(&error))?;
        return Ok(damage.map(|damage| chain(&damage)));
    }
    let done = async {
        if let Some(event) = artefacts::publish_while_it_stays(shared, id, outline.into()).await? {
            // The release is there, with or without its event.
            let _ = shared.inbox.send(Ask::Note(event)).await;
        }
        for approval in approvals {
            let signed = artefacts::add(shared, move |store| match store.sign(id, &approval) {
                // Whoever wrote that, it is no signature of this release.
                Err(error) if error.kind == Kind::Corrupt => Ok(()),
                done => done,
            });
            signed.await?;
        }
        Ok::<(), artefacts::Line>(())
    };
    Ok(done.await.err().map(|artefacts::Line(_, why, _)| why))
}
