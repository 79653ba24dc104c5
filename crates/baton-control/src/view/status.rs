//! How a service stands.

use baton_core::blame::Blame;
use baton_core::costs::{Cost, Learnt};
use baton_core::counts::Counts;
use baton_core::deploy::Kind;
use baton_core::fleet::{Presence, Silence};
use baton_core::history::Lock;
use baton_core::ids::{DeployId, MemberId, ReleaseId, ServiceName};
use baton_core::laggards::{Lag, laggards};
use baton_core::metric::Unsure;
use baton_core::rollout::Rollout;
use baton_core::turn::{Turn, Why};
use baton_core::units::Millis;
use baton_core::verdict::{Verdict, verdict};
use baton_core::words::Words;
use baton_store::state::{Kept, Service};
use baton_wire::api::{CostsView, CountsView, DeployView, FailureView, Fetching, LaggardView, ServiceStatus};

use super::{deploy_at, replaced};

/// All of a status that does not take a look at every member: while it stays the same, nobody who waits is woken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Face {
    silence: Silence,
    lock: Option<Lock>,
    kept: Kept,
    rollout: Option<Progress>,
}

#[derive(Debug, Clone, PartialEq)]
struct Progress {
    deploy: DeployId,
    state: &'static str,
    phase: usize,
    slots: u32,
    counts: Counts,
    stop: Option<Why>,
}

/// How a service looks.
pub(crate) fn face(service: &Service, now: Millis) -> Face {
    let progress = |rollout: Rollout<'_>| Progress {
        deploy: rollout.deploy().id,
        state: state(&rollout, &verdict(&rollout), service),
        phase: rollout.phase(),
        slots: rollout.slots(),
        counts: *rollout.counts(),
        stop: rollout.stop(),
    };
    Face {
        silence: service.fleet().silence(now),
        lock: service.history().lock().cloned(),
        kept: service.kept(),
        rollout: Rollout::of(service.fleet(), now).map(progress),
    }
}

/// How many members a status names that the deploy waits for: a screen full.
const LAGGARDS_MAX: usize = 20;

/// The status, with version 0.
pub(crate) fn of(name: &ServiceName, service: &Service, now: Millis) -> ServiceStatus {
    let committed = service.history().release_for_new_member().map(|release: ReleaseId| release.to_string());
    let Some(rollout) = Rollout::of(service.fleet(), now) else {
        return idle(name, service, committed, now);
    };
    let deploy = rollout.deploy();
    let verdict = verdict(&rollout);
    let waits = waits(&rollout, &verdict);
    let laggards = laggards(&rollout);
    let phases = match deploy.kind {
        Kind::Rollout | Kind::Halt { .. } => deploy.policy.phases.len(),
        Kind::Rollback { .. } => 1,
    };
    ServiceStatus {
        service: name.to_string(),
        version: 0,
        deploy: Some(DeployView {
            replaces: replaced(service.history(), deploy),
            ..deploy_at(deploy, rollout.switched())
        }),
        state: state(&rollout, &verdict, service).to_owned(),
        needs_person: needs_person(service),
        trouble: None,
        waits: waits.as_ref().map(|(text, _)| text.clone()),
        waits_code: waits.map(|(_, code)| code.to_owned()),
        phase: rollout.phase() as u32 + 1,
        phases: phases as u32,
        slots: rollout.slots(),
        counts: counts(&rollout),
        fetching: fetching(service, now),
        costs: costs(&rollout.learnt()),
        committed,
        lock: service.history().lock().map(super::lock),
        failure: failure(&rollout),
        laggards: laggards.iter().take(LAGGARDS_MAX).map(laggard).collect(),
        laggards_count: laggards.len() as u32,
    }
}

/// Why a person has to decide what follows, if one has to.
pub(crate) fn needs_person(service: &Service) -> Option<String> {
    let history = service.history();
    let (stuck, halt) = history.stuck().zip(history.in_force())?;
    let what = match stuck.kind {
        Kind::Rollout => "rollout of",
        Kind::Rollback { .. } => "way back to",
        Kind::Halt { .. } => "halt of",
    };
    Some(format!(
        "control has stopped the {what} release {} and does nothing more ({}): look at it, then deploy another release, go back \
         to one with `baton rollback --to`, or go on with `baton resume`",
        stuck.release.short(),
        Words::new(&halt.reason)
    ))
}

/// Nobody new gets a slot, and it does not end, before more is known of the metric.
pub(crate) fn wait_for_metric(status: &mut ServiceStatus, unsure: &Unsure) {
    if matches!(status.state.as_str(), "switched" | "drained" | "incomplete") {
        "rolling-out".clone_into(&mut status.state);
    }
    (status.waits, status.waits_code) = (Some(unsure.to_string()), Some(unsure.code().to_owned()));
}

/// What a release costs.
pub(crate) fn costs(learnt: &Learnt) -> CostsView {
    let Learnt { startup, memory, fetched, handover } = learnt;
    CostsView {
        startup_ms: startup.map(|startup| startup.median.0),
        startup_before_ms: startup.and_then(|startup| startup.before).map(|before| before.0),
        slower: learnt.more(Cost::Startup).is_some(),
        memory_bytes: memory.map(|memory| memory.median.0),
        memory_before_bytes: memory.and_then(|memory| memory.before).map(|before| before.0),
        larger: learnt.more(Cost::Memory).is_some(),
        fetched_bytes: fetched.0,
        handover_us: handover.map(|handover| handover.0),
    }
}

fn laggard((member, lag): &(&MemberId, Lag)) -> LaggardView {
    LaggardView { member: member.to_string(), code: lag.code().to_owned(), why: lag.text() }
}

fn idle(name: &ServiceName, service: &Service, committed: Option<String>, now: Millis) -> ServiceStatus {
    let silence = service.fleet().silence(now);
    let live = silence.of - silence.silent;
    ServiceStatus {
        service: name.to_string(),
        version: 0,
        deploy: None,
        state: "idle".to_owned(),
        needs_person: None,
        trouble: None,
        waits: None,
        waits_code: None,
        phase: 0,
        phases: 0,
        slots: 0,
        counts: CountsView { live, silent: silence.silent, ..CountsView::default() },
        fetching: fetching(service, now),
        costs: CostsView::default(),
        committed,
        lock: service.history().lock().map(super::lock),
        failure: None,
        laggards: Vec::new(),
        laggards_count: 0,
    }
}

fn state(rollout: &Rollout<'_>, verdict: &Verdict, service: &Service) -> &'static str {
    if rollout.is_outranked() {
        return "outranked";
    }
    let reached = service.milestones(rollout.deploy().id);
    match (verdict, rollout.deploy().kind) {
        (_, Kind::Halt { .. }) => "halted",
        (Verdict::Done { .. }, _) if reached.drained.is_some() => "drained",
        (Verdict::Done { .. }, _) => "switched",
        (Verdict::Incomplete, _) => "incomplete",
        (_, Kind::Rollout) => "rolling-out",
        (_, Kind::Rollback { .. }) => "rolling-back",
    }
}

/// Why nobody new gets a slot: what stops everybody, or else what the next members in line wait for.
fn waits(rollout: &Rollout<'_>, verdict: &Verdict) -> Option<(String, &'static str)> {
    if matches!(verdict, Verdict::Done { .. }) {
        return None;
    }
    if let Some(why) = rollout.stop() {
        return Some((why.to_string(), why.code()));
    }
    let mut first = None;
    for (id, _) in rollout.fleet().members() {
        match rollout.turn(id) {
            Turn::Go => return None,
            // The same for all who could go, so that nobody else needs to be asked.
            Turn::Wait(why @ Why::SlotsTaken { .. }) => return Some((why.to_string(), why.code())),
            Turn::Wait(Why::AlreadyThere | Why::Gone) => {}
            Turn::Wait(why) => first = first.or_else(|| Some((format!("{id}: {why}"), why.code()))),
        }
    }
    first
}

/// Each member once: by how far it is, or as silent.
const fn counts(rollout: &Rollout<'_>) -> CountsView {
    let &Counts { live, silent, staged, trying, proving, proven, refusing, drained, .. } = rollout.counts();
    let placed = staged + trying + proving + refusing + proven;
    let behind = live.saturating_sub(placed);
    CountsView { live, silent, behind, staged, trying, proving, proven, refused: refusing, drained }
}

/// What is on its way to all members that are heard of.
fn fetching(service: &Service, now: Millis) -> Option<Fetching> {
    let live = service.fleet().members().filter(|(_, member)| member.presence(now) == Presence::Live);
    let each = live.filter_map(|(_, member)| member.report()?.fetching).map(super::member::fetching);
    each.reduce(|sum, one| Fetching {
        fetched_bytes: sum.fetched_bytes.saturating_add(one.fetched_bytes),
        total_bytes: sum.total_bytes.saturating_add(one.total_bytes),
    })
}

/// What stopped this deploy or led to it, or else the first member that refuses it now.
fn failure(rollout: &Rollout<'_>) -> Option<FailureView> {
    if let Some(Blame { member, code, rule, detail }) = &rollout.deploy().blame {
        let (member, rule) = (member.as_ref().map(ToString::to_string), Some(rule.clone()));
        return Some(FailureView { member, code: code.clone(), rule, detail: detail.clone() });
    }
    rollout.refused().next().map(|(member, refusal)| FailureView {
        member: Some(member.to_string()),
        code: refusal.cause.code().to_owned(),
        rule: None,
        detail: refusal.text(),
    })
}
