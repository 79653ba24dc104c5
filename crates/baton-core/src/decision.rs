//! What a server does next for a service, and what it tells each member: the same on every server.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::bake::Bake;
use crate::deploy::Deploy;
use crate::fleet::{Member, Tie};
use crate::history::Wish;
use crate::ids::{DeployId, MemberId};
use crate::report::{Seen, Standing};
use crate::rollout::Rollout;
use crate::verdict::{HaltReason, Verdict, verdict};

/// What to write to the state store before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The deploy that was looked at.
    pub deploy: Deploy,
    /// The rollout failed: propose this, for this reason.
    pub stop: Option<(Wish, HaltReason)>,
    /// Where it got to and nobody has noted yet.
    pub reached: Vec<Milestone>,
    /// Who gets a slot.
    pub grants: Vec<MemberId>,
}

/// Somewhere that a deploy can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    /// Its target is reached.
    Switched,
    /// Only members are left that refuse the release or cannot get it.
    Incomplete,
    /// No old generation is left.
    Drained,
}

/// What a member is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What is in force.
    Wish,
    /// It has a slot.
    Grant {
        /// In which deploy.
        deploy: DeployId,
        /// What the release must go through after the switch.
        bake: Bake,
    },
    /// The trial is over.
    HandBack {
        /// In which deploy.
        deploy: DeployId,
    },
}

impl Decision {
    /// Decides. `noted` says how far the deploy is known to have got.
    pub fn of(rollout: &Rollout<'_>, noted: impl Fn(Milestone) -> bool) -> Self {
        let mut reached = Vec::new();
        let mut stop = None;
        match verdict(rollout) {
            Verdict::Continue => {}
            Verdict::Halt(reason) => stop = Some((Wish::Halt { hand_back: true }, reason)),
            Verdict::RollBack(reason) => stop = Some((Wish::RollBack { to: None }, reason)),
            Verdict::Incomplete => reached.push(Milestone::Incomplete),
            Verdict::Done { drained } => {
                reached.push(Milestone::Switched);
                reached.extend(drained.then_some(Milestone::Drained));
            }
        }
        reached.retain(|&milestone| !noted(milestone));
        Self { deploy: rollout.deploy().clone(), stop, reached, grants: rollout.next_grants() }
    }

    /// Whether it cannot be taken back. The store does not check it against what it knows itself, as it does with slots.
    pub fn is_final(&self) -> bool {
        self.stop.is_some() || !self.reached.is_empty()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.stop.is_none() && self.reached.is_empty() && self.grants.is_empty()
    }
}

impl Order {
    /// What to tell a member now, if anything, as its last report shows it. What was lost is simply found missing again.
    /// `back` says whether it is one of those who shall [hand back](Rollout::hands_back).
    pub fn of(deploy: &Deploy, member: Option<&Member>, back: bool) -> Option<Self> {
        let in_force = Seen { epoch: deploy.epoch, deploy: deploy.id };
        let Some((member, report)) = member.and_then(|member| Some((member, member.report()?))) else {
            return Some(Self::Wish);
        };
        match report.seen {
            Some(seen) if seen == in_force => {}
            // It obeys a newer deploy, or another one with the same number: it would not listen.
            Some(seen) if seen.epoch >= in_force.epoch => return None,
            Some(_) | None => return Some(Self::Wish),
        }
        if back {
            return Some(Self::HandBack { deploy: deploy.id });
        }
        match &report.standing {
            // A bootloader that was restarted has heard of the deploy and does not know it any more.
            Standing::Behind => Some(Self::Wish),
            Standing::Staged => match member.tie() {
                Tie::Slot(grant) => Some(Self::Grant { deploy: deploy.id, bake: deploy.bake(grant.bake) }),
                Tie::Nothing | Tie::Leftover | Tie::Found => None,
            },
            Standing::Granted
            | Standing::Trying
            | Standing::Proving
            | Standing::Proven
            | Standing::Refused(_) => None,
        }
    }
}

/// The id of the deploy by which a server stops a failing one. It is the same after a lost answer, and on every server.
pub fn id_of_stop(failing: DeployId, wish: &Wish) -> DeployId {
    let what = match wish {
        Wish::Rollout { .. } => "rollout",
        Wish::Halt { .. } => "halt",
        Wish::Resume => "resume",
        Wish::Abort => "abort",
        Wish::RollBack { .. } => "rollback",
    };
    let mut hasher = blake3::Hasher::new();
    for part in ["stop", &failing.to_string(), what] {
        // The length keeps ("a", "bc") apart from ("ab", "c").
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    DeployId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p32_a_failing_deploy_is_stopped_under_one_id_on_every_server() {
        let failing = |n| DeployId::from_bytes([n; 16]);
        let halt = Wish::Halt { hand_back: true };
        let id = id_of_stop(failing(1), &halt);
        assert_eq!(id, id_of_stop(failing(1), &halt));
        assert_ne!(id, id_of_stop(failing(2), &halt));
        assert_ne!(id, id_of_stop(failing(1), &Wish::RollBack { to: None }));
    }
}
