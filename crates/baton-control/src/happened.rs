//! What happened to a service between two looks at it: pure.
//!
//! Events are read off the difference of two states, not sent along with each change, so that every change has
//! one, whoever made it.

mod member;

use std::collections::BTreeSet;

use baton_core::costs::{Cost, MORE_BY_PERCENT};
use baton_core::deploy::{Deploy, Kind};
use baton_core::event::{Event, What};
use baton_core::fleet::{Fleet, Silence};
use baton_core::ids::{DeployId, MemberId, ServiceName};
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_store::state::Service;

/// A service at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub service: &'a Service,
    pub now: Millis,
}

/// Collects the events of one service.
struct Story<'a> {
    service: &'a ServiceName,
    deploy: Option<DeployId>,
    at: u64,
    events: Vec<Event>,
}

impl Story<'_> {
    fn tell(&mut self, what: What, text: String) {
        self.tell_of(None, what, text);
    }

    fn tell_of(&mut self, member: Option<&MemberId>, what: What, text: String) {
        let (service, deploy) = (self.service.clone(), self.deploy);
        self.events.push(Event { at: self.at, service, deploy, member: member.cloned(), what, text });
    }
}

/// A server that was started has taken the service over.
pub(crate) fn took_over(service: &ServiceName, at: u64) -> Event {
    Event {
        at,
        service: service.clone(),
        deploy: None,
        member: None,
        what: What::TookOver,
        text: format!("a server has started and takes over {service}"),
    }
}

/// What happened, in the order of cause and effect. `left` tells who said goodbye; `at` is in milliseconds
/// since 1970.
pub(crate) fn between(
    name: &ServiceName,
    before: &Look<'_>,
    after: &Look<'_>,
    left: impl Fn(&MemberId) -> bool,
    at: u64,
) -> Vec<Event> {
    let mut story = Story { service: name, deploy: None, at, events: Vec::new() };
    let members = changed(before, after);
    // What members did for a deploy that is past comes first: it may be why there is a new one.
    let in_force = after.service.history().in_force().map(|deploy| deploy.id);
    member::steps(&mut story, &members, before, after, |deploy| Some(deploy) != in_force);
    deploys(&mut story, before, after);
    story.deploy = in_force;
    lock(&mut story, before, after);
    silence(&mut story, before.service.fleet().silence(before.now), after.service.fleet().silence(after.now));
    phase(&mut story, before, after);
    member::tell(&mut story, &members, before, after, left);
    member::steps(&mut story, &members, before, after, |deploy| Some(deploy) == in_force);
    story.deploy = in_force;
    milestones(&mut story, before, after);
    story.events
}

/// The members of whom there may be something to tell.
pub(crate) fn changed<'a>(before: &Look<'a>, after: &Look<'a>) -> BTreeSet<&'a MemberId> {
    let (old, new) = (before.service.fleet(), after.service.fleet());
    let everybody = || old.members().chain(new.members()).map(|(id, _)| id).collect();
    new.changed_since(old).unwrap_or_else(everybody)
}

fn deploys(story: &mut Story<'_>, before: &Look<'_>, after: &Look<'_>) {
    let history = after.service.history();
    for past in history.past().iter().skip(before.service.history().past().len()) {
        let deploy = &past.deploy;
        story.deploy = Some(deploy.id);
        let parent = deploy.parent.and_then(|parent| history.find(parent));
        let resumed = parent.is_some_and(|parent| match parent.kind {
            Kind::Halt { of, .. } => {
                let like = |of: &Deploy| of.kind == deploy.kind && of.release == deploy.release;
                history.find(of).is_some_and(like)
            }
            Kind::Rollout | Kind::Rollback { .. } => false,
        });
        let (what, done) = match deploy.kind {
            Kind::Rollout | Kind::Rollback { .. } if resumed => (What::Resumed, "goes on with"),
            Kind::Rollout => (What::Deployed, "deploys"),
            Kind::Rollback { .. } => (What::RolledBack, "goes back to"),
            Kind::Halt { .. } => (What::Halted, "halts"),
        };
        let at_once = if deploy.policy.all_at_once && deploy.kind == Kind::Rollout {
            " everywhere at once"
        } else {
            ""
        };
        let (actor, release, epoch) = (&deploy.actor, deploy.release.short(), deploy.epoch);
        let why = if deploy.reason.is_empty() { String::new() } else { format!(": {}", deploy.reason) };
        story.tell(what, format!("{actor} {done} release {release}{at_once} (epoch {epoch}){why}"));
    }
}

fn lock(story: &mut Story<'_>, before: &Look<'_>, after: &Look<'_>) {
    match (before.service.history().lock(), after.service.history().lock()) {
        (before, Some(lock)) if before != Some(lock) => {
            story.tell(What::Locked, format!("{} locks the service: {}", lock.actor, lock.reason));
        }
        (Some(lock), None) => {
            story.tell(What::Unlocked, format!("unlocked; it was locked by {}: {}", lock.actor, lock.reason));
        }
        (Some(_), Some(_)) | (None, Some(_) | None) => {}
    }
}

fn silence(story: &mut Story<'_>, before: Silence, after: Silence) {
    let Silence { silent, of } = after;
    match (before.is_mass(), after.is_mass()) {
        (false, true) => {
            story.tell(
                What::Frozen,
                format!("{silent} of {of} members are silent: nothing is done until they are back"),
            );
        }
        (true, false) => {
            story.tell(What::Thawed, format!("{} of {of} members are heard again", of - silent));
        }
        (false, false) | (true, true) => {}
    }
}

fn phase(story: &mut Story<'_>, before: &Look<'_>, after: &Look<'_>) {
    let of = |look: &Look<'_>| {
        let rollout = Rollout::of(look.service.fleet(), look.now)?;
        Some((rollout.deploy().id, rollout.phase(), rollout.slots()))
    };
    let (Some((_, phase, slots)), Some(deploy)) = (of(after), after.service.history().in_force()) else {
        return;
    };
    let phases = deploy.policy.phases.len();
    let began = of(before).is_some_and(|(id, earlier, _)| id == deploy.id && earlier < phase);
    if began {
        story.tell(What::PhaseBegan, format!("phase {} of {phases} begins: {slots} at a time", phase + 1));
    }
}

fn milestones(story: &mut Story<'_>, before: &Look<'_>, after: &Look<'_>) {
    let Some(rollout) = Rollout::of(after.service.fleet(), after.now) else { return };
    let deploy = rollout.deploy();
    let (old, new) = (before.service.milestones(deploy.id), after.service.milestones(deploy.id));
    let (release, counts) = (deploy.release.short(), rollout.counts());
    if old.incomplete.is_none() && new.incomplete.is_some() {
        let left: Vec<_> = rollout.refused().map(|(member, _)| member.as_str()).collect();
        let text = format!("release {release} is not everywhere: {} did not take it", names(&left));
        story.tell(What::Incomplete, text);
    }
    if old.switched.is_none() && new.switched.is_some() {
        let text =
            format!("release {release} is switched: proven on {} of {} members", counts.proven, counts.live);
        story.tell(What::Switched, text);
        for cost in Cost::ALL {
            if let Some((more, of)) = rollout.costs_more(cost) {
                let text = format!(
                    "the {cost} of release {release} is at least {MORE_BY_PERCENT} % more than before, on {more} of {of} members"
                );
                story.tell(What::CostsMore, text);
            }
        }
    }
    if old.drained.is_none() && new.drained.is_some() {
        story.tell(What::Drained, format!("release {release} is drained: no old generation is left"));
    }
}

/// How many names a sentence holds.
const NAMED_MAX: usize = 5;

fn names(all: &[&str]) -> String {
    let named = all.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED_MAX) {
        0 => named,
        others => format!("{named} and {others} others"),
    }
}

/// Whether a fleet's member runs something else than the deploy in force because it obeys another deploy.
fn contradicts(fleet: &Fleet, member: &MemberId) -> bool {
    let in_force = fleet.in_force().map(|in_force| (in_force.deploy.epoch, in_force.deploy.id));
    let seen = fleet.member(member).and_then(|member| member.report()).and_then(|report| report.seen);
    match (in_force, seen) {
        (Some((epoch, id)), Some(seen)) => seen.epoch > epoch || seen.epoch == epoch && seen.deploy != id,
        (None, Some(_)) => true,
        (_, None) => false,
    }
}
