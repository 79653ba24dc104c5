//! What a server does next for a service: what its members call for, unless the metric says otherwise.

use std::fmt;

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

/// What the metric says of a rollout that has one and is under way; nothing else waits for it.
fn judge(rollout: &Rollout<'_>, service: &Service, measured: &Measured, now: Millis) -> Judgement {
    let deploy = rollout.deploy();
    let under_way = deploy.kind == Kind::Rollout && service.milestones(deploy.id).switched.is_none();
    let Some(gate) = deploy.policy.metric.as_ref().filter(|_| under_way) else { return Judgement::Within };
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
