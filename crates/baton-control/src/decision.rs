//! What a server does next for a service: what its members call for, unless the metric says otherwise.

use std::fmt;

use baton_core::blame::Blame;
use baton_core::decision::{self, Milestone};
use baton_core::deploy::{Deploy, Kind};
use baton_core::history::Wish;
use baton_core::ids::MemberId;
use baton_core::metric::{Judgement, Measured, Outside, Unsure};
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_core::verdict::{HaltReason, Verdict, verdict};
use baton_store::state::Service;

/// What to write to the state store before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The deploy that was looked at.
    pub deploy: Deploy,
    /// The rollout failed: propose this, for this reason.
    pub stop: Option<(Wish, Fault)>,
    /// Where it got to and nobody has noted yet.
    pub reached: Vec<Milestone>,
    /// Who gets a slot.
    pub grants: Vec<MemberId>,
}

/// What a rollout is stopped for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// How members fare.
    Members(HaltReason),
    /// What was measured.
    Metric(Outside),
}

impl Fault {
    /// What is kept of it.
    pub(crate) fn blame(&self, rollout: &Rollout<'_>) -> Blame {
        match self {
            Self::Members(reason) => Blame::of(rollout, reason),
            Self::Metric(outside) => Blame::of_metric(outside),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members(reason) => reason.fmt(f),
            Self::Metric(outside) => outside.fmt(f),
        }
    }
}

impl Decision {
    /// Whether it cannot be taken back, as [`decision::Decision::is_final`] has it.
    pub(crate) fn is_final(&self) -> bool {
        self.stop.is_some() || !self.reached.is_empty()
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.stop.is_none() && self.reached.is_empty() && self.grants.is_empty()
    }
}

/// Decides; nothing while nothing is in force. `measured` is what is known of the metric that must stay within bounds.
pub(crate) fn decide(service: &Service, measured: &Measured, now: Millis) -> Option<Decision> {
    let rollout = Rollout::of(service.fleet(), now)?;
    let noted = service.milestones(rollout.deploy().id);
    let is_noted = |milestone| match milestone {
        Milestone::Switched => noted.switched.is_some(),
        Milestone::Incomplete => noted.incomplete.is_some(),
        Milestone::Drained => noted.drained.is_some(),
    };
    let decision::Decision { deploy, stop, mut reached, mut grants } =
        decision::Decision::of(&rollout, is_noted);
    let mut stop = stop.map(|(wish, reason)| (wish, Fault::Members(reason)));
    if stop.is_none() {
        match judge(&rollout, service, measured, now) {
            Judgement::Within => {}
            Judgement::Waits(_) => {
                grants.clear();
                reached.retain(|milestone| *milestone == Milestone::Incomplete);
            }
            Judgement::Failed(outside) => {
                grants.clear();
                reached.clear();
                stop = Some((way_out(&deploy), Fault::Metric(outside)));
            }
        }
    }
    Some(Decision { deploy, stop, reached, grants })
}

/// What the metric says of a rollout that has one and is under way; nothing else waits for it. While nothing can be decided
/// about members, it decides nothing either: what keeps them from being heard may be what is out of bounds.
fn judge(rollout: &Rollout<'_>, service: &Service, measured: &Measured, now: Millis) -> Judgement {
    let deploy = rollout.deploy();
    let under_way = deploy.kind == Kind::Rollout && service.milestones(deploy.id).switched.is_none();
    let asked = under_way && !rollout.is_held();
    let Some(gate) = deploy.policy.metric.as_ref().filter(|_| asked) else { return Judgement::Within };
    match verdict(rollout) {
        Verdict::Done { .. } => measured.may_end(gate, now),
        Verdict::Continue | Verdict::Incomplete | Verdict::Halt(_) | Verdict::RollBack(_) => {
            measured.may_go_on(gate, now)
        }
    }
}

/// Why a rollout waits for its metric, if it does.
pub(crate) fn unsure(service: &Service, measured: &Measured, now: Millis) -> Option<Unsure> {
    service.history().in_force()?.policy.metric.as_ref()?;
    match judge(&Rollout::of(service.fleet(), now)?, service, measured, now) {
        Judgement::Waits(unsure) => Some(unsure),
        Judgement::Within | Judgement::Failed(_) => None,
    }
}

/// Takes in how far a rollout is that has a metric.
pub(crate) fn see(service: &Service, measured: &mut Measured, now: Millis) {
    let is_measured = service.history().in_force().is_some_and(|deploy| deploy.policy.metric.is_some());
    if is_measured && let Some(rollout) = Rollout::of(service.fleet(), now) {
        let counts = rollout.counts();
        measured.see(counts.proven + counts.open > 0, counts.proven, now);
    }
}

/// How a release is stopped that has failed as a whole: as one is that fails on members.
fn way_out(deploy: &Deploy) -> Wish {
    match deploy.policy.auto_rollback && deploy.fallback.is_some() {
        true => Wish::RollBack { to: None },
        false => Wish::Halt { hand_back: true },
    }
}

#[cfg(test)]
mod tests {
    use baton_core::deploy::Policy;
    use baton_core::fleet::LEASE;
    use baton_core::history::{Backing, Proposal};
    use baton_core::ids::{DeployId, Epoch, ReleaseId};
    use baton_core::metric::{Measure, MetricGate, Sample};
    use baton_core::report::{Seen, Standing};
    use baton_store::state::{MemoryStore, StateStore};

    use super::*;
    use crate::sample::report;

    const MEMBERS: u64 = 10;
    const BEGUN: Millis = LEASE;
    const DEPLOY: DeployId = DeployId::from_bytes([1; 16]);

    /// A rollout that one member bakes, with a metric that has been out of bounds for too long, when so many of the members
    /// were not heard for longer than a lease.
    fn stopped(silent: u64) -> bool {
        let (store, web) = (MemoryStore::new(Millis::ZERO), "web".parse().unwrap());
        let id = |number: u64| format!("web-{number}");
        let say = |number, sequence, seen, standing, at| {
            let _ = store.hear(&web, report(&id(number), sequence, seen, standing), at).unwrap();
        };
        let seen = Some(Seen { epoch: Epoch(1), deploy: DEPLOY });
        (0..MEMBERS).for_each(|number| say(number, 1, None, Standing::Behind, BEGUN));
        let gate = MetricGate {
            query: "errors".to_owned(),
            min: None,
            max: Some(Measure::of_millionths(1)),
            interval: MetricGate::INTERVAL,
            failures: 1,
        };
        let policy = Policy { metric: Some(gate.clone()), ..Policy::safe() };
        let wish = Wish::Rollout { release: ReleaseId::from_bytes([2; 32]), policy, again: false };
        let (reason, actor) = (String::new(), String::new());
        let proposal = Proposal {
            id: DEPLOY,
            parent: None,
            wish,
            reason,
            actor,
            created: 0,
            backing: Backing::InForce,
            blame: None,
        };
        store.propose(&web, proposal, BEGUN).unwrap();
        (0..MEMBERS).for_each(|number| say(number, 2, seen, Standing::Staged, BEGUN));
        let mut measured = Measured::default();
        let decision = decide(&store.service(&web, BEGUN).unwrap(), &measured, BEGUN).unwrap();
        store.grant(&web, decision.deploy.epoch, &decision.grants, BEGUN).unwrap();
        let trying = &decision.grants[0];
        let now = Millis(BEGUN.0 + LEASE.0 + 1);
        let heard = (0..MEMBERS).filter(|&number| id(number) != trying.as_str());
        for number in heard.skip(silent as usize) {
            say(number, 3, seen, Standing::Staged, now);
        }
        let _ = store.hear(&web, report(trying.as_str(), 3, seen, Standing::Proving), now).unwrap();
        let service = store.service(&web, now).unwrap();
        see(&service, &mut measured, now);
        measured.add(&gate, Sample { at: now, found: Ok(Measure::of_millionths(2)) });
        decide(&service, &measured, now).unwrap().stop.is_some()
    }

    #[test]
    fn p14_what_is_measured_stops_no_rollout_while_most_members_cannot_be_heard() {
        assert!(stopped(0));
        assert!(stopped(5));
        assert!(!stopped(6), "it is frozen");
    }
}
