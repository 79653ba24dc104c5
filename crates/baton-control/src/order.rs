//! What the members of a service are to be told.

use baton_core::decision::Order;
use baton_core::fleet::Fleet;
use baton_core::ids::{MemberId, ReleaseId};
use baton_core::report::Seen;
use baton_core::rollout::Rollout;
use baton_core::trust::Signed;
use baton_core::units::Millis;
use baton_store::state::Service;
use baton_wire::session::{ToMember, Wish};

use crate::happened::Look;

/// The orders of one service at one moment.
pub(crate) struct Orders<'a> {
    rollout: Rollout<'a>,
    base: Option<ReleaseId>,
}

impl<'a> Orders<'a> {
    /// The orders that follow from the deploy in force; none when nothing is.
    pub(crate) fn of(service: &'a Service, now: Millis) -> Option<Self> {
        let rollout = Rollout::of(service.fleet(), now)?;
        Some(Self { rollout, base: service.history().release_for_new_member() })
    }

    /// Whether since that look something has changed for which everybody may have to be told something else, though nobody
    /// has said anything.
    pub(crate) fn differ_for_all(&self, before: &Look<'_>) -> bool {
        let (old, new) = (before.service.fleet(), self.rollout.fleet());
        let deploy = |fleet: &Fleet| fleet.in_force().map(|in_force| in_force.deploy.id);
        let is_mass = |fleet: &Fleet, now| fleet.silence(now).is_mass();
        deploy(old) != deploy(new)
            || old.highest_epoch() != new.highest_epoch()
            || is_mass(old, before.now) != is_mass(new, self.rollout.now())
    }

    /// What to tell a member now, if anything.
    pub(crate) fn of_member(&self, id: &MemberId) -> Option<ToMember> {
        let deploy = self.rollout.deploy();
        let member = self.rollout.fleet().member(id);
        let back = member.is_some_and(|member| self.rollout.hands_back(member));
        Some(match Order::of(deploy, member, back)? {
            Order::Wish => self.wish(Seen { epoch: deploy.epoch, deploy: deploy.id }),
            Order::Grant { deploy, bake } => ToMember::Grant { deploy, bake },
            Order::HandBack { deploy } => ToMember::HandBack { deploy },
        })
    }

    fn wish(&self, seen: Seen) -> ToMember {
        let deploy = self.rollout.deploy();
        let (purpose, release) = (deploy.kind.into(), deploy.release);
        let warrant = deploy.warrant.as_ref().map(Signed::to_text);
        ToMember::Wish(Wish { seen, purpose, release, base: self.base }, warrant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::deploy::Policy;
    use baton_core::fleet::LEASE;
    use baton_core::history::{Backing, Proposal, Wish as Wanted};
    use baton_core::ids::{DeployId, Epoch};
    use baton_core::metric::Measured;
    use baton_core::report::Standing;
    use baton_store::state::{MemoryStore, StateStore};

    use crate::decision::decide;
    use crate::sample::report;

    const RELEASE: ReleaseId = ReleaseId::from_bytes([2; 32]);
    const DEPLOY: DeployId = DeployId::from_bytes([1; 16]);
    /// When a store that was empty at its start trusts what it knows.
    const NOW: Millis = LEASE;

    fn seen_of((epoch, id): (u64, u8)) -> Seen {
        Seen { epoch: Epoch(epoch), deploy: DeployId::from_bytes([id; 16]) }
    }

    /// What web-1 is told after it has said this, in a service with one deploy.
    fn told(seen: Option<(u64, u8)>, standing: Standing) -> Option<ToMember> {
        let (store, web) = (MemoryStore::new(Millis::ZERO), "web".parse().unwrap());
        let _ = store.hear(&web, report("web-1", 1, None, Standing::Behind), NOW).unwrap();
        let wish = Wanted::Rollout { release: RELEASE, policy: Policy::safe(), again: false };
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
        store.propose(&web, proposal, NOW).unwrap();
        let _ = store.hear(&web, report("web-1", 2, seen.map(seen_of), standing), NOW).unwrap();
        let decision = decide(&store.service(&web, NOW).unwrap(), &Measured::default(), NOW).unwrap();
        if !decision.grants.is_empty() {
            store.grant(&web, decision.deploy.epoch, &decision.grants, NOW).unwrap();
        }
        let service = store.service(&web, NOW).unwrap();
        Orders::of(&service, NOW).unwrap().of_member(&"web-1".parse().unwrap())
    }

    #[test]
    fn a_member_is_told_what_its_report_lacks() {
        let wish = |order: Option<ToMember>| matches!(order, Some(ToMember::Wish(wish, None)) if wish.release == RELEASE);
        assert!(wish(told(None, Standing::Behind)), "it has not heard of the deploy");
        assert!(wish(told(Some((1, 1)), Standing::Behind)), "it may have forgotten it");
        let bake = Policy::safe().phases[0].bake.into();
        assert_eq!(
            told(Some((1, 1)), Standing::Staged),
            Some(ToMember::Grant { deploy: DEPLOY, bake }),
            "it has a slot and does not use it"
        );
        for standing in [Standing::Granted, Standing::Trying, Standing::Proving, Standing::Proven] {
            assert_eq!(told(Some((1, 1)), standing.clone()), None, "{standing:?}");
        }
    }

    #[test]
    fn p12_a_member_that_obeys_another_deploy_is_left_alone() {
        assert_eq!(told(Some((2, 9)), Standing::Proven), None, "a newer one");
        assert_eq!(told(Some((1, 9)), Standing::Staged), None, "another one with the same number");
    }
}
