//! The simulated server: it does with the pure functions what the real one does.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::End;
use super::member::{OLD, Order, Release};
use crate::deploy::{Deploy, Kind, Policy};
use crate::fleet::{Fleet, Grant, Heard, Member, Presence, Tie};
use crate::history::{Backing, History, Past, Proposal, ProposeError, Wish};
use crate::ids::{DeployId, MemberId};
use crate::report::{Report, Seen, Standing};
use crate::rollout::Rollout;
use crate::units::Millis;
use crate::verdict::{Verdict, verdict};

/// How often a hand back is said again to members that have not reported it.
const REPEAT: Millis = Millis::from_secs(1);
/// How long an incomplete rollout is watched: the members' next try is over by then.
const INCOMPLETE_FOR: Millis = Millis::from_secs(150);

pub(super) struct Control {
    pub fleet: Fleet,
    pub history: History,
    /// Down: it hears and says nothing.
    pub up: bool,
    hand_backs_at: Millis,
    incomplete_since: Option<Millis>,
}

/// What a decision came to.
#[derive(Default)]
pub(super) struct Decision {
    /// A deploy was proposed and is in force.
    pub begun: bool,
    pub granted: Vec<MemberId>,
    pub bake: Millis,
    pub hand_backs: Vec<MemberId>,
    /// The rollout has just reached its target.
    pub switched: bool,
    /// How many members it counts as proven.
    pub proven: u32,
    pub end: Option<End>,
    /// What the state store's check said against the grants.
    pub objection: Option<String>,
}

impl Decision {
    fn add_slots(&mut self, rollout: &Rollout<'_>) {
        self.granted = rollout.next_grants();
        self.bake = rollout.grant().bake;
        if !self.granted.is_empty() {
            let refused = rollout.admissible(rollout.deploy().epoch, &self.granted).err();
            self.objection = refused.map(|refused| refused.to_string());
        }
    }
}

impl Control {
    /// A server whose service runs [`OLD`] everywhere, switched.
    pub(super) fn new(policy: Policy) -> Option<Self> {
        let service = "web".parse().ok()?;
        let mut control = Self {
            fleet: Fleet::new(),
            history: History::new(service, Vec::new()),
            up: true,
            hand_backs_at: Millis::ZERO,
            incomplete_since: None,
        };
        control
            .propose(Wish::Rollout { release: OLD.id(), policy, again: false }, "first", Millis::ZERO)
            .ok()?;
        control.note_switched();
        Some(control)
    }

    pub(super) fn propose(&mut self, wish: Wish, reason: &str, now: Millis) -> Result<(), ProposeError> {
        let number = self.history.past().len() as u8;
        let proposal = Proposal {
            id: DeployId::from_bytes([number + 1; 16]),
            parent: self.history.in_force().map(|deploy| deploy.id),
            wish,
            reason: reason.into(),
            actor: "baton".into(),
            created: now.0,
            backing: Backing::InForce,
        };
        let deploy = self.history.propose(proposal, self.fleet.highest_epoch())?;
        self.history.add(deploy.clone());
        self.fleet.begin(deploy, now);
        self.hand_backs_at = now;
        self.incomplete_since = None;
        Ok(())
    }

    fn note_switched(&mut self) {
        if let Some(deploy) = self.history.in_force().map(|deploy| deploy.id) {
            self.history.note_switched(deploy);
            self.fleet.note_switched();
        }
    }

    /// It starts again with what the state store keeps; that members have proven the release is not kept.
    pub(super) fn restart(&mut self, now: Millis) {
        let kept = |(id, member): (&MemberId, &Member)| {
            let tie = match member.tie() {
                Tie::Slot(grant) => Tie::Slot(Grant { proven: false, ..grant }),
                Tie::Leftover => Tie::Leftover,
                Tie::Found | Tie::Nothing => Tie::Nothing,
            };
            (id.clone(), tie)
        };
        let members: Vec<_> = self.fleet.members().map(kept).collect();
        let (in_force, highest) = (self.fleet.in_force().cloned(), self.fleet.highest_epoch());
        self.fleet = Fleet::restore(members, in_force, highest, now);
        self.up = true;
    }

    pub(super) fn in_force(&self) -> Option<&Deploy> {
        self.history.in_force()
    }

    pub(super) fn wish(&self) -> Option<Order> {
        let deploy = self.in_force()?;
        let seen = Seen { epoch: deploy.epoch, deploy: deploy.id };
        Some(Order::Wish { seen, release: Release::of(deploy.release) })
    }

    /// Takes in a report and returns what its sender must be told (again).
    pub(super) fn hear(&mut self, report: Report, now: Millis) -> Option<Order> {
        let id = report.member.clone();
        match self.fleet.apply(report, now) {
            Heard::News => self.reminder(&id),
            Heard::Stale => None,
        }
    }

    fn reminder(&self, id: &MemberId) -> Option<Order> {
        let (deploy, member) = (self.in_force()?, self.fleet.member(id)?);
        let report = member.report()?;
        if report.seen.is_none_or(|seen| seen.epoch < deploy.epoch) {
            return self.wish();
        }
        if let (Tie::Slot(grant), Standing::Staged) = (member.tie(), &report.standing) {
            Some(Order::Grant { deploy: deploy.id, bake: grant.bake })
        } else {
            None
        }
    }

    /// What members must be told again: orders get lost.
    pub(super) fn reminders(&self, now: Millis) -> Vec<(MemberId, Order)> {
        let live = self.fleet.members().filter(|(_, member)| member.presence(now) == Presence::Live);
        live.filter_map(|(id, _)| Some((id.clone(), self.reminder(id)?))).collect()
    }

    pub(super) fn decide(&mut self, now: Millis) -> Decision {
        let mut decision = Decision::default();
        self.fleet.sweep(now);
        let Some(rollout) = Rollout::of(&self.fleet, now) else { return decision };
        let (counts, kind) = (*rollout.counts(), rollout.deploy().kind);
        decision.proven = counts.proven;
        let stop = match verdict(&rollout) {
            Verdict::Halt(reason) => Some((Wish::Halt { hand_back: true }, reason)),
            Verdict::RollBack(reason) => Some((Wish::RollBack { to: None }, reason)),
            Verdict::Incomplete { .. } => {
                let since = *self.incomplete_since.get_or_insert(now);
                decision.end = (now.since(since) >= INCOMPLETE_FOR).then_some(End::Incomplete);
                None
            }
            Verdict::Done { drained } => {
                decision.switched = !rollout.switched();
                let end = match kind {
                    Kind::Rollback { .. } => End::RolledBack,
                    Kind::Rollout | Kind::Halt { .. } => End::Switched,
                };
                // Proven or not: what crashes after the switch is no longer part of the rollout.
                decision.end = (drained && counts.held >= counts.present()).then_some(end);
                None
            }
            Verdict::Continue => {
                let halted = matches!(kind, Kind::Halt { .. });
                decision.end = (halted && counts.unsettled == 0 && counts.silent == 0).then_some(End::Halted);
                None
            }
        };
        match stop {
            Some((wish, reason)) => {
                let text = reason.to_string();
                decision.begun = self.propose(wish, &text, now).is_ok();
            }
            None => {
                decision.add_slots(&rollout);
                let grant = rollout.grant();
                if now >= self.hand_backs_at {
                    decision.hand_backs = rollout.hand_backs();
                    self.hand_backs_at = now + REPEAT;
                }
                self.fleet.grant(&decision.granted, grant);
            }
        }
        if decision.switched {
            self.note_switched();
        }
        decision
    }

    /// What it sees, for messages about broken invariants.
    pub(super) fn describe(&self, now: Millis) -> String {
        let Some(rollout) = Rollout::of(&self.fleet, now) else { return "nothing is in force".into() };
        let (kind, slots, wanted) = (rollout.deploy().kind, rollout.slots(), rollout.wanted());
        let judged = verdict(&rollout);
        let (stop, counts) = (rollout.stop(), rollout.counts());
        format!("{kind:?}, {slots} slots, {wanted} wanted, {judged:?}, stopped by {stop:?}, {counts:?}")
    }

    /// The deploys so far.
    pub(super) fn past(&self) -> &[Past] {
        self.history.past()
    }
}
