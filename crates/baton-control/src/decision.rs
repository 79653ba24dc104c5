//! What a server does next for a service.

use baton_core::decision::{Decision, Milestone};
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_store::state::Service;

/// Decides; nothing while nothing is in force.
pub(crate) fn decide(service: &Service, now: Millis) -> Option<Decision> {
    let rollout = Rollout::of(service.fleet(), now)?;
    let noted = service.milestones(rollout.deploy().id);
    let is_noted = |milestone| match milestone {
        Milestone::Switched => noted.switched.is_some(),
        Milestone::Incomplete => noted.incomplete.is_some(),
        Milestone::Drained => noted.drained.is_some(),
    };
    Some(Decision::of(&rollout, is_noted))
}
