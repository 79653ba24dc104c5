//! A simulated server: it does with the pure functions what the real one does.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::End;
use super::member::Order;
use super::release::Release;
use crate::bake::Bake;
use crate::decision::{self, Decision, Milestone, id_of_stop};
use crate::deploy::{Deploy, Kind, Policy};
use crate::fleet::{Fleet, Grant, Heard, Member, Presence, Tie};
use crate::history::{Backing, History, Past, Proposal, ProposeError, Wish};
use crate::ids::{DeployId, Epoch, MemberId, ServiceName};
use crate::report::{Report, Seen};
use crate::rollout::{Inadmissible, Rollout};
use crate::turn::Why;
use crate::units::Millis;
use crate::verdict::{Verdict, verdict};

/// How often a hand back is said again to members that have not reported it.
const REPEAT: Millis = Millis::from_secs(1);
/// How long an incomplete rollout is watched: the members' next try is over by then.
const INCOMPLETE_FOR: Millis = Millis::from_secs(150);

/// A server and what it knows.
pub(super) struct Server {
    /// Its place among the servers, counted from 0.
    pub number: usize,
    pub fleet: Fleet,
    pub history: History,
    /// Down: it hears and says nothing.
    pub up: bool,
    /// How often it was started.
    pub life: u32,
    /// It waits for the store.
    pub writing: bool,
    /// It is about to decide.
    pub deciding: bool,
    hand_backs_at: Millis,
    incomplete_since: Option<Millis>,
}

/// Something to write to the state store, all or nothing.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A person's wish, or what control proposes itself.
    Propose(Box<Proposal>),
    Grant {
        epoch: Epoch,
        members: Vec<MemberId>,
    },
    Switched(DeployId),
    Lock(Option<crate::history::Lock>),
}

/// What came of a change.
#[derive(Debug)]
pub(super) enum Changed {
    /// A deploy is in force; again, when an earlier call had put it there.
    Begun {
        again: bool,
    },
    Granted {
        deploy: DeployId,
        epoch: Epoch,
        members: Vec<MemberId>,
        grant: Grant,
    },
    Switched,
    Locked,
}

/// Why a change is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Proposal(#[from] ProposeError),
    #[error(transparent)]
    Grant(#[from] Inadmissible),
    #[error("it is about a deploy that is not in force")]
    NotInForce,
}

/// What a server does next.
#[derive(Default)]
pub(super) struct Next {
    pub change: Option<Change>,
    pub hand_backs: Vec<MemberId>,
    /// How many members it counts as proven.
    pub proven: u32,
    /// How the rollout ends, if nothing comes in between.
    pub end: Option<End>,
    /// What the state store's check says against the grants.
    pub objection: Option<String>,
}

impl Server {
    /// A server that knows nothing.
    pub(super) fn new(number: usize, service: ServiceName) -> Self {
        Self {
            number,
            fleet: Fleet::new(),
            history: History::new(service, Vec::new()),
            up: true,
            life: 0,
            writing: false,
            deciding: false,
            hand_backs_at: Millis::ZERO,
            incomplete_since: None,
        }
    }

    /// The service runs [`Release::OLD`] everywhere, switched.
    pub(super) fn begin_with(&mut self, policy: Policy) -> Result<(), Refused> {
        let wish = Wish::Rollout { release: Release::OLD.id(), policy, again: false };
        let first = self.proposal(DeployId::from_bytes([1; 16]), wish, "first", Millis::ZERO);
        self.apply(&Change::Propose(Box::new(first)), Millis::ZERO)?;
        self.note_switched();
        Ok(())
    }

    /// A proposal for what follows the deploy in force here.
    pub(super) fn proposal(&self, id: DeployId, wish: Wish, reason: &str, now: Millis) -> Proposal {
        let parent = self.history.in_force().map(|deploy| deploy.id);
        let (reason, actor, created) = (reason.into(), "baton".into(), now.0);
        Proposal { id, parent, wish, reason, actor, created, backing: Backing::InForce, blame: None }
    }

    /// Does what a state store does with a change, from what is known here.
    pub(super) fn apply(&mut self, change: &Change, now: Millis) -> Result<Changed, Refused> {
        match change {
            Change::Propose(proposal) => {
                if self.history.find(proposal.id).is_some_and(|known| proposal.wish.led_to(known)) {
                    return Ok(Changed::Begun { again: true });
                }
                let deploy = self.history.propose(Proposal::clone(proposal), self.fleet.highest_epoch())?;
                self.history.add(deploy.clone());
                self.fleet.begin(deploy, now);
                self.note_other_deploy(now);
                Ok(Changed::Begun { again: false })
            }
            Change::Grant { epoch, members } => {
                self.fleet.sweep(now);
                let rollout = Rollout::of(&self.fleet, now).ok_or(Refused::NotInForce)?;
                rollout.admissible(*epoch, members)?;
                let (grant, deploy) = (rollout.grant(), rollout.deploy().id);
                self.fleet.grant(members, grant);
                Ok(Changed::Granted { deploy, epoch: *epoch, members: members.clone(), grant })
            }
            Change::Switched(deploy) => {
                if self.in_force().map(|deploy| deploy.id) != Some(*deploy) {
                    return Err(Refused::NotInForce);
                }
                self.note_switched();
                Ok(Changed::Switched)
            }
            Change::Lock(lock) => {
                self.history.set_lock(lock.clone())?;
                Ok(Changed::Locked)
            }
        }
    }

    /// Another deploy is in force than before.
    pub(super) fn note_other_deploy(&mut self, now: Millis) {
        self.hand_backs_at = now;
        self.incomplete_since = None;
    }

    fn note_switched(&mut self) {
        if let Some(deploy) = self.history.in_force().map(|deploy| deploy.id) {
            self.history.note_switched(deploy);
            self.fleet.note_switched();
        }
    }

    /// It ends.
    pub(super) fn die(&mut self) {
        (self.up, self.writing, self.deciding) = (false, false, false);
    }

    /// It starts again with what a store of its own keeps; that members have proven the release is not kept.
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
        let gone = self.fleet.members().filter(|(_, member)| member.is_gone()).map(|(id, _)| id.clone());
        let fleet = Fleet::restore(members, in_force, highest, now).without(gone);
        self.start(fleet, self.history.clone(), now);
    }

    /// It starts with what it has read.
    pub(super) fn start(&mut self, fleet: Fleet, history: History, now: Millis) {
        (self.fleet, self.history) = (fleet, history);
        (self.up, self.life) = (true, self.life + 1);
        self.note_other_deploy(now);
    }

    pub(super) fn in_force(&self) -> Option<&Deploy> {
        self.history.in_force()
    }

    /// Takes in a report, and returns whether that was news and what its sender must be told (again).
    pub(super) fn hear(&mut self, report: Arc<Report>, now: Millis) -> (Heard, Option<Order>) {
        let id = report.member.clone();
        match self.fleet.apply(report, now) {
            Heard::News => (Heard::News, self.order(&id)),
            Heard::Stale => (Heard::Stale, None),
        }
    }

    /// What a member is to be told, beside handing back.
    pub(super) fn order(&self, id: &MemberId) -> Option<Order> {
        self.order_for(self.fleet.member(id))
    }

    fn order_for(&self, member: Option<&Member>) -> Option<Order> {
        let deploy = self.in_force()?;
        Some(match decision::Order::of(deploy, member, false)? {
            decision::Order::Wish => self.wish()?,
            decision::Order::Grant { deploy, bake } => Order::Grant { deploy, bake },
            decision::Order::HandBack { deploy } => Order::HandBack { deploy },
        })
    }

    /// What is in force.
    pub(super) fn wish(&self) -> Option<Order> {
        let deploy = self.in_force()?;
        let seen = Seen { epoch: deploy.epoch, deploy: deploy.id };
        Some(Order::Wish { seen, release: Release::of(deploy.release) })
    }

    /// What members must be told again: orders get lost.
    pub(super) fn reminders(&self, now: Millis) -> Vec<(MemberId, Order)> {
        let live = self.fleet.in_no_order().filter(|(_, member)| member.presence(now) == Presence::Live);
        let orders = live.filter_map(|(id, member)| Some((id.clone(), self.order_for(Some(member))?)));
        let mut orders: Vec<_> = orders.collect();
        orders.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        orders
    }

    /// Decides what to do next.
    pub(super) fn decide(&mut self, now: Millis) -> Next {
        self.fleet.sweep(now);
        let Some(rollout) = Rollout::of(&self.fleet, now) else { return Next::default() };
        let noted = |milestone| match milestone {
            Milestone::Switched => rollout.switched(),
            // Nothing follows from these here.
            Milestone::Incomplete | Milestone::Drained => true,
        };
        let decision = Decision::of(&rollout, noted);
        let mut next = Next { proven: rollout.counts().proven, ..Next::default() };
        let deploy = decision.deploy;
        let (epoch, members) = (deploy.epoch, decision.grants);
        next.change = if let Some((wish, reason)) = decision.stop {
            let id = id_of_stop(deploy.id, &wish);
            Some(Change::Propose(Box::new(self.proposal(id, wish, &reason.to_string(), now))))
        } else if decision.reached.contains(&Milestone::Switched) {
            Some(Change::Switched(deploy.id))
        } else if !members.is_empty() {
            next.objection = rollout.admissible(epoch, &members).err().map(|refused| refused.to_string());
            Some(Change::Grant { epoch, members })
        } else {
            None
        };
        if !matches!(next.change, Some(Change::Propose(_))) {
            if now >= self.hand_backs_at {
                next.hand_backs = rollout.hand_backs();
                self.hand_backs_at = now + REPEAT;
            }
            next.end = end(&rollout, &mut self.incomplete_since, now);
        }
        next
    }

    /// What it proposes where its first proposal to stop a failing rollout was refused.
    pub(super) fn instead_of(&self, refused: &Proposal, now: Millis) -> Option<Proposal> {
        let halt = Wish::Halt { hand_back: true };
        let failing = self.in_force().filter(|deploy| Some(deploy.id) == refused.parent)?;
        let own = refused.id == id_of_stop(failing.id, &refused.wish);
        let back = own && matches!(refused.wish, Wish::RollBack { .. });
        back.then(|| self.proposal(id_of_stop(failing.id, &halt), halt, &refused.reason, now))
    }

    /// Where the rollout stands, for whoever looks on.
    pub(super) fn look(&self, now: Millis) -> Option<Look> {
        let rollout = Rollout::of(&self.fleet, now)?;
        Some(Look {
            deploy: rollout.deploy().id,
            phase: rollout.phase(),
            slots: rollout.slots(),
            bake: rollout.deploy().bake(rollout.grant().bake),
            stop: rollout.stop(),
            switched: rollout.switched(),
            verdict: verdict(&rollout),
            refuse: rollout.refused().map(|(id, _)| id.clone()).collect(),
        })
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

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub deploy: DeployId,
    pub phase: usize,
    pub slots: u32,
    pub bake: Bake,
    pub stop: Option<Why>,
    pub switched: bool,
    pub verdict: Verdict,
    /// Who refuses the release, or cannot get it.
    pub refuse: Vec<MemberId>,
}

/// How a rollout ends that stands like this, if it has come to its end.
fn end(rollout: &Rollout<'_>, incomplete_since: &mut Option<Millis>, now: Millis) -> Option<End> {
    let (counts, deploy) = (rollout.counts(), rollout.deploy());
    match verdict(rollout) {
        Verdict::Halt(_) | Verdict::RollBack(_) => None,
        Verdict::Incomplete => {
            let since = *incomplete_since.get_or_insert(now);
            (now.since(since) >= INCOMPLETE_FOR).then_some(End::Incomplete)
        }
        Verdict::Done { drained } => {
            let end = match deploy.kind {
                Kind::Rollback { .. } => End::RolledBack,
                Kind::Rollout | Kind::Halt { .. } => End::Switched,
            };
            // Proven or not: what crashes after the switch is no longer part of the rollout.
            let wanted = deploy.policy.target.of(counts.meant);
            (drained && counts.held >= wanted).then_some(end)
        }
        Verdict::Continue => {
            let halted = matches!(deploy.kind, Kind::Halt { .. });
            (halted && counts.unsettled == 0 && counts.silent == 0).then_some(End::Halted)
        }
    }
}
