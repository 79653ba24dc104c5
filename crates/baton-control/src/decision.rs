//! What a server does next for a service: pure, and the same on every server.

use baton_core::deploy::Deploy;
use baton_core::history::Wish;
use baton_core::ids::MemberId;
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_core::verdict::{HaltReason, Verdict, verdict};
use baton_store::state::{Milestone, Service};

/// What to write to the state store before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The deploy that was looked at.
    pub deploy: Deploy,
    /// The rollout failed: propose this, for this reason.
    pub stop: Option<(Wish, HaltReason)>,
    /// Where it got to and nobody has noted yet.
    pub reached: Vec<Milestone>,
    /// Who gets a slot.
    pub grants: Vec<MemberId>,
}

impl Decision {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.stop.is_none() && self.reached.is_empty() && self.grants.is_empty()
    }
}

/// Decides; nothing while nothing is in force.
pub(crate) fn decide(service: &Service, now: Millis) -> Option<Decision> {
    let rollout = Rollout::of(service.fleet(), now)?;
    let deploy = rollout.deploy().clone();
    let noted = service.milestones(deploy.id);
    let mut reached = Vec::new();
    let mut stop = None;
    match verdict(&rollout) {
        Verdict::Continue => {}
        Verdict::Halt(reason) => stop = Some((Wish::Halt { hand_back: true }, reason)),
        Verdict::RollBack(reason) => stop = Some((Wish::RollBack { to: None }, reason)),
        Verdict::Incomplete => {
            reached.extend(noted.incomplete.is_none().then_some(Milestone::Incomplete));
        }
        Verdict::Done { drained } => {
            reached.extend(noted.switched.is_none().then_some(Milestone::Switched));
            reached.extend((drained && noted.drained.is_none()).then_some(Milestone::Drained));
        }
    }
    // What failed gets no further slots, also when the store does not take the halt at once.
    let grants = if stop.is_none() { rollout.next_grants() } else { Vec::new() };
    Some(Decision { deploy, stop, reached, grants })
}
