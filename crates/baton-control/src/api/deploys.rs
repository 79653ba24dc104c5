//! The log of deploys, and proposals for the next one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use baton_core::access::Right;
use baton_core::deploy::Policy;
use baton_core::fleet::Fleet;
use baton_core::history::{Backing, History, Proposal, Wish};
use baton_core::ids::{DeployId, ReleaseId, ServiceName};
use baton_core::trust::Signed;
use baton_wire::api::{DeployView, Propose, Wanted};
use tokio::sync::{OwnedRwLockReadGuard, oneshot};

use super::extract::{Named, Sent};
use super::{Refusal, Shared, pending, releases};
use crate::access::Caller;
use crate::audit::Note;
use crate::clock::unix_ms;
use crate::keeper::Ask;
use crate::preview::preview;
use crate::proposal::{id_of_key, random_id};
use crate::view;

/// Longest idempotency key.
const KEY_CHARS_MAX: usize = 128;
/// Longest reason in bytes: a paragraph.
pub(super) const REASON_BYTES_MAX: usize = 4096;
/// Longest name of whoever asks, in bytes.
pub(super) const ACTOR_BYTES_MAX: usize = 256;

pub(super) async fn list(
    State(shared): State<Shared>,
    Named(service): Named,
) -> Result<Json<Vec<DeployView>>, Refusal> {
    let posted = shared.posted(&service)?;
    let accepted = posted.service.kept().to_string();
    let view = |past| DeployView { accepted: accepted.clone(), ..view::deploy(past) };
    Ok(Json(posted.service.history().past().iter().rev().map(view).collect()))
}

pub(super) async fn propose(
    State(shared): State<Shared>,
    Named(service): Named,
    Extension(caller): Extension<Caller>,
    Sent(mut asked): Sent<Propose>,
) -> Result<Response, Refusal> {
    check_text("actor", &asked.actor, ACTOR_BYTES_MAX)?;
    asked.actor = caller.actor(asked.actor);
    if goes_everywhere_at_once(&shared, &service, &asked) && !caller.may(Right::AllAtOnce) {
        let text =
            "a release goes everywhere at once only by an operator: leave out --all-at-once, or ask one";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text));
    }
    begin_or_wait(&shared, service, &caller, asked).await
}

fn goes_everywhere_at_once(shared: &Shared, service: &ServiceName, asked: &Propose) -> bool {
    match asked.wanted {
        Wanted::Rollout => asked.policy.as_ref().is_some_and(|policy| policy.all_at_once),
        // It goes on as it began.
        Wanted::Resume => shared.posted(service).is_ok_and(|posted| {
            posted.service.history().halted().is_some_and(|halted| halted.policy.all_at_once)
        }),
        Wanted::Halt | Wanted::Abort | Wanted::Rollback => false,
    }
}

/// Puts a deploy in force, unless a second person has to let it begin.
async fn begin_or_wait(
    shared: &Shared,
    service: ServiceName,
    caller: &Caller,
    asked: Propose,
) -> Result<Response, Refusal> {
    if !asked.dry_run {
        // Until it waits, nothing that it names is removed.
        let _held = publishing(shared, &asked).await;
        // What would be refused anyway waits for nobody; and what waits is what was named, whatever else that may mean later.
        let release = proposal(shared, &service, caller, asked.clone()).await?.wish.release();
        let exact = Propose { release: release.map(|id| id.to_string()), ..asked.clone() };
        pending::held_back(shared, &service, caller, &exact).await?;
    }
    begin(shared, service, caller, asked).await
}

/// Held from the look whether the release is there until everybody knows that it is needed. Whoever names none, to halt or to go
/// back, waits for nothing: where that leads is known to be needed.
async fn publishing(shared: &Shared, asked: &Propose) -> Option<OwnedRwLockReadGuard<()>> {
    match asked.release {
        Some(_) => Some(Arc::clone(&shared.publishing).read_owned().await),
        None => None,
    }
}

/// Puts a deploy in force, or tells what it would do.
pub(super) async fn begin(
    shared: &Shared,
    service: ServiceName,
    caller: &Caller,
    asked: Propose,
) -> Result<Response, Refusal> {
    let dry_run = asked.dry_run;
    let held = publishing(shared, &asked).await;
    let proposal = proposal(shared, &service, caller, asked).await?;
    if dry_run {
        return look_ahead(shared, &service, proposal);
    }
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Propose { service, proposal, reply };
    shared.inbox.send(ask).await.map_err(|_| Refusal::stopping())?;
    // Also when nobody waits for the answer any more.
    let known = tokio::spawn(async move {
        let _held = held;
        answer.await
    });
    let accepted = known.await.ok().and_then(Result::ok).ok_or_else(Refusal::stopping)??;
    let view = view::deploy_at(&accepted.deploy, false);
    let note = Note(format!("deploy {} {}: {} of release {}", view.epoch, view.id, view.kind, view.release));
    let view = DeployView { accepted: accepted.kept.to_string(), ..view };
    Ok((StatusCode::CREATED, Extension(note), Json(view)).into_response())
}

/// What somebody asks for, checked.
async fn proposal(
    shared: &Shared,
    service: &ServiceName,
    caller: &Caller,
    asked: Propose,
) -> Result<Proposal, Refusal> {
    let posted = shared.board().services.get(service).cloned();
    let in_force =
        posted.as_ref().and_then(|posted| posted.service.history().in_force()).map(|deploy| deploy.id);
    let parent = match &asked.parent {
        Some(parent) => Some(parent.parse::<DeployId>()?),
        None => in_force,
    };
    let id = match &asked.idempotency_key {
        Some(key) => {
            check_key(key)?;
            id_of_key(service, key)
        }
        None => random_id()?,
    };
    check_text("reason", &asked.reason, REASON_BYTES_MAX)?;
    let release = match &asked.release {
        Some(text) => {
            let past = posted.iter().flat_map(|posted| posted.service.history().past());
            let used: Vec<ReleaseId> = past.map(|past| past.deploy.release).collect();
            Some(releases::resolve(shared, text, used.into_iter(), caller).await?)
        }
        None => None,
    };
    let wish = wish(shared, service, &asked, release).await?;
    let backing = match &asked.warrant {
        Some(text) => Backing::Signed(Signed::parse(text)?),
        // What would be, without anybody's word for it yet.
        None if asked.unsigned || asked.dry_run => Backing::Nobody,
        None => Backing::InForce,
    };
    Ok(Proposal { id, parent, wish, reason: asked.reason, actor: asked.actor, created: unix_ms(), backing })
}

async fn wish(
    shared: &Shared,
    service: &ServiceName,
    asked: &Propose,
    release: Option<ReleaseId>,
) -> Result<Wish, Refusal> {
    // Only a rollout can be the first that is heard of a service.
    if asked.wanted != Wanted::Rollout {
        shared.posted(service)?;
    }
    match asked.wanted {
        Wanted::Rollout => {
            let release = release.ok_or_else(|| Refusal::invalid("a rollout needs a release"))?;
            let policy = asked.policy.as_ref().map_or_else(|| Ok(Policy::safe()), view::policy_of)?;
            if policy.metric.is_some() && !shared.measures {
                let text = "the release waits for a metric, and this server knows no Prometheus: start it with --prometheus, \
                            or leave out rollout.metric";
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "no-metrics", text));
            }
            let run = releases::must_be_of(shared, release, service).await?;
            shared.secrets.check(service, run.secrets.pinned().map(|pinned| &pinned.reference))?;
            if policy.limits.singleton && run.overlap {
                return Err(Refusal::invalid(format!(
                    "the policy says singleton, and release {} runs beside what it replaces: set run.overlap = false",
                    release.short()
                )));
            }
            Ok(Wish::Rollout { release, policy, again: asked.again })
        }
        Wanted::Halt => Ok(Wish::Halt { hand_back: false }),
        Wanted::Resume => Ok(Wish::Resume),
        Wanted::Abort => Ok(Wish::Abort),
        Wanted::Rollback => Ok(Wish::RollBack { to: release }),
    }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Refusal::invalid(format!("idempotency_key needs 1 to {KEY_CHARS_MAX} visible ASCII characters")))
    }
}

pub(super) fn check_text(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() <= max {
        Ok(())
    } else {
        Err(Refusal::invalid(format!("{field} has {} bytes: write at most {max}", text.len())))
    }
}

/// Answers what the proposal would do, by the very check that would accept it.
fn look_ahead(shared: &Shared, service: &ServiceName, proposal: Proposal) -> Result<Response, Refusal> {
    let board = shared.board();
    let posted = board.services.get(service);
    // Nobody has heard of it: a first deploy is welcome all the same.
    let (nothing, nobody) = (History::new(service.clone(), Vec::new()), Fleet::new());
    let known = posted.map(|posted| (posted.service.history(), posted.service.fleet()));
    let (history, fleet) = known.unwrap_or((&nothing, &nobody));
    let above = board.lock_above(service);
    let lock = above.map_or(Ok(()), |(base, lock)| history.check_lock(&base, lock, &proposal.wish));
    let deploy = lock.and_then(|()| history.propose(proposal, fleet.highest_epoch()));
    let deploy = deploy.map_err(|error| Refusal::from(&error))?;
    Ok(Json(preview(fleet, &deploy, shared.clock.now())).into_response())
}
