//! The log of deploys, and proposals for the next one.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use baton_core::access::Right;
use baton_core::deploy::{Deploy, Kind, Policy};
use baton_core::fleet::Fleet;
use baton_core::history::{Backing, History, Past, Proposal, ProposeError, Wish};
use baton_core::ids::{DeployId, ReleaseId, ServiceName};
use baton_core::run::RunSettings;
use baton_core::trust::Signed;
use baton_wire::api::{DeployView, PolicyView, Preview, Propose, Wanted};
use tokio::sync::oneshot;

use super::extract::{Named, Sent};
use super::prune::{Needing, needing};
use super::{Refusal, Shared, pending, releases};
use crate::access::Caller;
use crate::audit::{Effect, Note, Purpose};
use crate::board::Board;
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
    let view = |past: &Past| {
        let costs = posted.service.learnt(past.deploy.id).map(|learnt| view::status::costs(&learnt));
        DeployView { accepted: accepted.clone(), costs, ..view::deploy(past) }
    };
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
    let Checked { proposal, all_at_once, held } = check(&shared, &service, &caller, &asked).await?;
    if all_at_once && !caller.may(Right::AllAtOnce) {
        let text =
            "a release goes everywhere at once only by an operator: leave out --all-at-once, or ask one";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text));
    }
    if asked.dry_run {
        let protected = pending::waits(&shared, &service, &caller, &asked);
        return look_ahead(&shared, &service, proposal, protected);
    }
    // What would be refused anyway waits for nobody; and what waits is what was meant, whatever its words mean later.
    let exact = Propose {
        release: proposal.wish.release().map(|id| id.to_string()),
        parent: proposal.parent.map(|id| id.to_string()),
        ..asked
    };
    if pending::exposes(&exact) {
        shared.audit.ready(Purpose::Other).await?;
    }
    if pending::waits(&shared, &service, &caller, &exact)
        && let Err(error @ ProposeError::Unsigned) = judge(&*shared.known()?, &service, proposal.clone())
    {
        // A second person can add a signature only to one that is there.
        return Err(Refusal::from(&error));
    }
    pending::held_back(&shared, &service, &caller, exact).await?;
    let known =
        shared.posted(&service).is_ok_and(|posted| posted.service.history().find(proposal.id).is_some());
    let response = put_in_force(&shared, service, proposal, held).await?;
    // Asked again, since the answer was lost.
    Ok(if known { (Extension(Effect::Nothing), response).into_response() } else { response })
}

/// Puts a deploy in force that has waited for a second person.
pub(super) async fn begin(
    shared: &Shared,
    service: ServiceName,
    caller: &Caller,
    asked: &Propose,
) -> Result<Response, Refusal> {
    // Whether it may go everywhere at once was found out of who has asked for it, after this very parent.
    let Checked { proposal, held, .. } = check(shared, &service, caller, asked).await?;
    put_in_force(shared, service, proposal, held).await
}

/// What somebody asks for, once it was found to make sense.
struct Checked {
    proposal: Proposal,
    /// Whether it brings a release to every member at once.
    all_at_once: bool,
    /// What it names is not removed meanwhile.
    held: Option<Needing>,
}

/// Held from the look whether the release is there until everybody knows that it is needed. Whoever names none, to halt or to go
/// back, waits for nothing: where that leads is known to be needed.
async fn publishing(shared: &Shared, asked: &Propose) -> Result<Option<Needing>, Refusal> {
    match asked.release {
        Some(_) => needing(shared).await.map(Some),
        None => Ok(None),
    }
}

/// Puts a deploy in force.
async fn put_in_force(
    shared: &Shared,
    service: ServiceName,
    proposal: Proposal,
    held: Option<Needing>,
) -> Result<Response, Refusal> {
    let (name, (reply, answer)) = (service.clone(), oneshot::channel());
    let begun = held.as_ref().map(|held| held.begun);
    let ask = Ask::Propose { service, proposal, begun, reply };
    shared.inbox.send(ask).await.map_err(|_| Refusal::stopping())?;
    // Also when nobody waits for the answer any more.
    let known = tokio::spawn(async move {
        let _held = held;
        answer.await
    });
    let accepted = known.await.ok().and_then(Result::ok).ok_or_else(Refusal::stopping)??;
    let view = view::deploy_at(&accepted.deploy, false);
    let note = Note(format!("deploy {} {}: {} of release {}", view.epoch, view.id, view.kind, view.release));
    let board = shared.board();
    let history = board.services.get(&name).map(|posted| posted.service.history());
    let replaces = history.and_then(|history| view::replaced(history, &accepted.deploy));
    let view = DeployView { accepted: accepted.kept.to_string(), replaces, ..view };
    Ok((StatusCode::CREATED, Extension(note), Json(view)).into_response())
}

/// Makes a proposal of what somebody asks for. All of it is looked at in one state of the service, whose deploy in force is the
/// proposal's parent where none is named: in another state it is a conflict.
async fn check(
    shared: &Shared,
    service: &ServiceName,
    caller: &Caller,
    asked: &Propose,
) -> Result<Checked, Refusal> {
    let held = publishing(shared, asked).await?;
    let posted = shared.known()?.services.get(service).cloned();
    let history = posted.as_ref().map(|posted| posted.service.history());
    let parent = match &asked.parent {
        Some(parent) => Some(parent.parse::<DeployId>()?),
        None => history.and_then(History::in_force).map(|deploy| deploy.id),
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
        Some(text) => Some(releases::named(shared, text, history, caller).await?),
        None => None,
    };
    let wish = wish(shared, service, asked, release, history).await?;
    let all_at_once = goes_everywhere_at_once(history, parent, &wish)?;
    let backing = match &asked.warrant {
        Some(text) => Backing::Signed(Signed::parse(text)?),
        // What would be, without anybody's word for it yet.
        None if asked.unsigned || asked.dry_run => Backing::Nobody,
        None => Backing::InForce,
    };
    let (reason, actor) = (asked.reason.clone(), asked.actor.clone());
    let proposal = Proposal { id, parent, wish, reason, actor, created: unix_ms(), backing, blame: None };
    Ok(Checked { proposal, all_at_once, held })
}

/// Whether a wish brings a release to every member at once, if it is carried out after this parent.
fn goes_everywhere_at_once(
    history: Option<&History>,
    parent: Option<DeployId>,
    wish: &Wish,
) -> Result<bool, Refusal> {
    match wish {
        Wish::Rollout { policy, .. } => Ok(policy.all_at_once),
        // It goes on as it began: what its parent has halted, and not what is in force by now.
        Wish::Resume => {
            let Some((history, parent)) = history.zip(parent) else { return Ok(false) };
            let halt = history.find(parent).ok_or_else(|| {
                let in_force = history.in_force().map(|deploy| deploy.id);
                Refusal::from(&ProposeError::Conflict { in_force })
            })?;
            match halt.kind {
                Kind::Halt { of, .. } => Ok(history.find(of).is_some_and(|of| of.policy.all_at_once)),
                // There is nothing to go on with.
                Kind::Rollout | Kind::Rollback { .. } => Ok(false),
            }
        }
        Wish::Halt { .. } | Wish::Abort | Wish::RollBack { .. } => Ok(false),
    }
}

async fn wish(
    shared: &Shared,
    service: &ServiceName,
    asked: &Propose,
    release: Option<releases::Named>,
    history: Option<&History>,
) -> Result<Wish, Refusal> {
    // Only a rollout can be the first that is heard of a service.
    if asked.wanted != Wanted::Rollout {
        shared.posted(service)?;
    }
    match asked.wanted {
        Wanted::Rollout => {
            let release = release.ok_or_else(|| Refusal::invalid("a rollout needs a release"))?;
            let policy = asked.policy.as_ref().map_or_else(|| Ok(Policy::safe()), PolicyView::policy)?;
            if policy.metric.is_some() && !shared.measures {
                let text = "the release waits for a metric, and this server knows no Prometheus: start it with --prometheus, \
                            or leave out rollout.metric";
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "no-metrics", text));
            }
            let run = releases::must_be_deployable(shared, release, service, history).await?;
            if let Some(run) = &run {
                shared.secrets.check(service, run.secrets.pinned().map(|pinned| &pinned.reference))?;
            }
            let release = release.id;
            if policy.limits.singleton {
                must_run_alone(release, run.as_ref(), history)?;
            }
            Ok(Wish::Rollout { release, policy, again: asked.again })
        }
        Wanted::Halt => Ok(Wish::Halt { hand_back: false }),
        Wanted::Resume => Ok(Wish::Resume),
        Wanted::Abort => Ok(Wish::Abort),
        Wanted::Rollback => Ok(Wish::RollBack { to: release.map(|release| release.id) }),
    }
}

/// Refuses a release that runs beside what it replaces. Where nobody can tell how it wants to be run, one that was deployed so
/// before does not.
fn must_run_alone(
    release: ReleaseId,
    run: Option<&RunSettings>,
    history: Option<&History>,
) -> Result<(), Refusal> {
    let mut past = history.iter().flat_map(|history| history.past()).map(|past| &past.deploy);
    match run {
        Some(run) if run.overlap => Err(Refusal::invalid(format!(
            "the policy says singleton, and release {} runs beside what it replaces: set run.overlap = false",
            release.short()
        ))),
        None if !past.any(|past| past.release == release && past.policy.limits.singleton) => {
            Err(Refusal::unavailable(format!(
                "the policy says singleton, and whether release {} runs beside what it replaces stands in the artefact store, \
                 which is away: try again when it is back",
                release.short()
            )))
        }
        Some(_) | None => Ok(()),
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
fn look_ahead(
    shared: &Shared,
    service: &ServiceName,
    proposal: Proposal,
    protected: bool,
) -> Result<Response, Refusal> {
    let board = shared.known()?;
    let deploy = judge(&board, service, proposal).map_err(|error| Refusal::from(&error))?;
    let (nobody, posted) = (Fleet::new(), board.services.get(service));
    let fleet = posted.map_or(&nobody, |posted| posted.service.fleet());
    let preview = Preview { protected, ..preview(fleet, &deploy, shared.clock.now()) };
    Ok((Extension(Effect::Nothing), Json(preview)).into_response())
}

/// The deploy that a proposal would be, as things stand.
fn judge(board: &Board, service: &ServiceName, proposal: Proposal) -> Result<Deploy, ProposeError> {
    let posted = board.services.get(service);
    // Nobody has heard of it: a first deploy is welcome all the same.
    let (nothing, nobody) = (History::new(service.clone(), Vec::new()), Fleet::new());
    let known = posted.map(|posted| (posted.service.history(), posted.service.fleet()));
    let (history, fleet) = known.unwrap_or((&nothing, &nobody));
    let above = board.lock_above(service);
    above.map_or(Ok(()), |(base, lock)| history.check_lock(&base, lock, &proposal.wish))?;
    history.propose(proposal, fleet.highest_epoch())
}

#[cfg(test)]
mod tests {
    use baton_core::ids::Epoch;

    use super::*;

    fn add(history: &mut History, wish: Wish) -> DeployId {
        let id = DeployId::from_bytes([history.past().len() as u8 + 1; 16]);
        let parent = history.in_force().map(|deploy| deploy.id);
        let (reason, actor) = (String::new(), "ada".to_owned());
        let proposal =
            Proposal { id, parent, wish, reason, actor, created: 0, backing: Backing::InForce, blame: None };
        let deploy = history.propose(proposal, Epoch(0)).unwrap();
        history.add(deploy);
        id
    }

    #[test]
    fn p11_a_resume_is_judged_by_what_its_own_parent_has_halted() {
        let mut history = History::new("web".parse().unwrap(), Vec::new());
        let rollout = |number, policy| {
            let release = ReleaseId::from_bytes([number; 32]);
            Wish::Rollout { release, policy, again: false }
        };
        let halt = Wish::Halt { hand_back: false };
        let begun = add(&mut history, rollout(1, Policy::safe()));
        let careful = add(&mut history, halt.clone());
        add(&mut history, rollout(2, Policy::safe().at_once()));
        let everywhere = add(&mut history, halt);
        let unknown = DeployId::from_bytes([99; 16]);
        let judge = |parent, wish: &Wish| {
            goes_everywhere_at_once(Some(&history), parent, wish).map_err(|refusal| refusal.code)
        };
        for (parent, expected) in [
            (Some(everywhere), Ok(true)),
            // Whoever has seen the halt before goes on with that, or with nothing.
            (Some(careful), Ok(false)),
            (Some(begun), Ok(false)),
            (None, Ok(false)),
            (Some(unknown), Err("conflict")),
        ] {
            assert_eq!(judge(parent, &Wish::Resume), expected, "{parent:?}");
        }
        assert_eq!(judge(None, &rollout(3, Policy::safe().at_once())), Ok(true));
        assert_eq!(judge(None, &rollout(3, Policy::safe())), Ok(false));
        for wish in [Wish::Abort, Wish::RollBack { to: None }] {
            assert_eq!(judge(Some(everywhere), &wish), Ok(false));
        }
    }
}
