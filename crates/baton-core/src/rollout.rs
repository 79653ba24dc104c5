//! The progress of a deploy over the fleet: who may try the release now, and why the others wait.
//!
//! Order chooses, counts authorise. Members are taken in an order that is salted by the deploy, and only as
//! many as the slots allow; a slot stays taken until its holder has *proven* the release, also when it
//! refuses, falls silent or vanishes. So failures use up the budget by themselves, and what is not known
//! makes a rollout slower, never faster.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cell::OnceCell;

use crate::costs::{Cost, Learnt};
use crate::counts::{Counts, Failure, Moment};
use crate::deploy::{Deploy, Kind, Phase, PhaseSize, Policy};
use crate::fleet::{Fleet, Grant, InForce, Member, Presence, Tie};
use crate::ids::{DeployId, Epoch, MemberId};
use crate::limits::Limit;
use crate::report::{Refusal, Standing};
use crate::turn::{Turn, Why};
use crate::units::{Bytes, Millis, Share};
use crate::verdict::{self, Rule};

/// How many holders of slots a reason names: a line of text, not a list.
const NAMED_MAX: usize = 3;

/// A member's place in the order of a deploy: the first 8 bytes of a hash of both, so that the same members
/// are not always first.
pub fn order(deploy: DeployId, member: &MemberId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(deploy.as_bytes()).update(member.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// How many of `n` members may try at once: at least one, or small fleets would never move.
pub fn slots(size: PhaseSize, max_unhealthy: Share, n: u32) -> u32 {
    match size {
        PhaseSize::One => 1,
        PhaseSize::Share(share) => share.min(max_unhealthy).floor_of(n).max(1),
    }
}

/// The phases of a deploy. A rollback has one, since its release went through them before, and nothing is
/// baked on the way back.
fn phases(deploy: &Deploy) -> Vec<Phase> {
    let Policy { max_unhealthy, phases, .. } = &deploy.policy;
    match deploy.kind {
        Kind::Rollback { .. } => {
            alloc::vec![Phase { size: PhaseSize::Share(*max_unhealthy), bake: Millis::ZERO }]
        }
        // No stored policy is without phases; if one were, the most careful reading is the right one.
        Kind::Rollout | Kind::Halt { .. } if phases.is_empty() => {
            alloc::vec![Phase { size: PhaseSize::One, bake: Millis::from_secs(60) }]
        }
        Kind::Rollout | Kind::Halt { .. } => phases.clone(),
    }
}

/// The window of a rollout: how many may try at once now.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// The phase, counted from 0.
    phase: usize,
    bake: Millis,
    slots: u32,
}

impl Window {
    /// A phase ends when as many members are settled as it and the phases before it had slots, and not every
    /// slot is held by one that failed. The slots to be settled are those of the fleet that the deploy began
    /// with, since a shrinking view of the fleet must not end a phase early.
    fn of(deploy: &Deploy, members_at_start: u32, counts: &Counts) -> Self {
        let Policy { max_unhealthy, limits, .. } = deploy.policy;
        let slots = |size, n| if limits.singleton { 1 } else { slots(size, max_unhealthy, n) };
        let most = limits.slots(deploy.kind, counts).map_or(u32::MAX, |(most, _)| most);
        // Of the fleet then and now the smaller counts, so that neither a loss nor a burst of members opens
        // slots. If nobody was there at the start, there was nobody to protect.
        let n =
            if members_at_start == 0 { counts.live_meant } else { members_at_start.min(counts.live_meant) };
        // Where only some are meant, the phases are theirs.
        let members_at_start = if deploy.policy.target.label.is_none() {
            members_at_start
        } else {
            members_at_start.min(counts.known_meant)
        };
        let mut window = Self { phase: 0, bake: Millis::ZERO, slots: 1 };
        let mut ends_at = 0;
        for (phase, Phase { size, bake }) in phases(deploy).into_iter().enumerate() {
            ends_at += slots(size, members_at_start);
            window = Self { phase, bake, slots: slots(size, n).min(most) };
            let settled = counts.settled() >= ends_at && counts.failed_open < window.slots;
            if phase >= counts.phase && !settled {
                break;
            }
        }
        window
    }
}

/// Who takes slots.
#[derive(Debug)]
struct Holders {
    /// The first few.
    first: Vec<MemberId>,
    /// How many of all cannot be heard, and are let go as soon as they are gone.
    silent: u32,
}

/// The deploy in force and its progress at one moment: the sums over the fleet, from which every decision
/// and every explanation follows.
#[derive(Debug)]
pub struct Rollout<'a> {
    fleet: &'a Fleet,
    moment: Moment<'a>,
    in_force: &'a InForce,
    counts: Counts,
    window: Window,
    wanted: u32,
    /// How many more may try by a limit, if there is one.
    limit: Option<(u32, Limit)>,
    stop: Option<Why>,
    broken: Option<Rule>,
    go: BTreeSet<&'a MemberId>,
    /// Who takes slots, once somebody has asked.
    holders: OnceCell<Holders>,
}

impl<'a> Rollout<'a> {
    /// Looks at the fleet; none when nothing is in force. [`Fleet::sweep`] comes first.
    pub fn of(fleet: &'a Fleet, now: Millis) -> Option<Self> {
        let in_force = fleet.in_force()?;
        let deploy = &in_force.deploy;
        let moment = Moment { deploy, excused_until: fleet.excused_until(), now };
        let counts = fleet.counts(now);
        // Who vanished with the release still counts, or others would get it instead.
        let target = deploy.policy.target.of(counts.known_meant);
        let window = Window::of(deploy, in_force.members_at_start, &counts);
        let mut rollout = Self {
            fleet,
            moment,
            in_force,
            counts,
            window,
            wanted: target.saturating_sub(counts.held),
            limit: deploy.policy.limits.room(deploy.kind, &counts),
            stop: None,
            broken: verdict::broken_rule(deploy, &counts, fleet.leavers(), window.slots)
                .filter(|_| !in_force.switched),
            go: BTreeSet::new(),
            holders: OnceCell::new(),
        };
        rollout.stop = rollout.find_stop();
        rollout.go = rollout.choose();
        Some(rollout)
    }

    /// The deploy.
    pub const fn deploy(&self) -> &'a Deploy {
        &self.in_force.deploy
    }

    /// The fleet.
    pub const fn fleet(&self) -> &'a Fleet {
        self.fleet
    }

    /// When it is looked at.
    pub const fn now(&self) -> Millis {
        self.moment.now
    }

    /// Whether it has reached its target once.
    pub const fn switched(&self) -> bool {
        self.in_force.switched
    }

    /// How many members there are of each sort.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What the release costs the members that have told so in this deploy.
    pub fn learnt(&self) -> Learnt {
        self.fleet.learnt()
    }

    /// Whether a cost is remarkably more than before on most of the members that know, and on how many of how many.
    pub const fn costs_more(&self, cost: Cost) -> Option<(u32, u32)> {
        self.counts.more(cost)
    }

    /// The phase that it is in, counted from 0.
    pub const fn phase(&self) -> usize {
        self.window.phase
    }

    /// What goes with a slot that is given now.
    pub const fn grant(&self) -> Grant {
        Grant { phase: self.window.phase, bake: self.window.bake, proven: false }
    }

    /// How many members may try at once in this phase.
    pub const fn slots(&self) -> u32 {
        self.window.slots
    }

    /// Each phase: how many members may try at once, as the fleet is now, and how long each bakes.
    pub fn phases(&self) -> Vec<(u32, Millis)> {
        let Policy { max_unhealthy, limits, .. } = &self.deploy().policy;
        let most = limits.slots(self.deploy().kind, &self.counts).map_or(u32::MAX, |(most, _)| most);
        let most = if limits.singleton { most.min(1) } else { most };
        let n = self.counts.live_meant;
        let phase = |Phase { size, bake }| (slots(size, *max_unhealthy, n).min(most), bake);
        phases(self.deploy()).into_iter().map(phase).collect()
    }

    /// How many members are still to get a slot.
    pub const fn wanted(&self) -> u32 {
        self.wanted
    }

    /// What stops everybody, if anything does.
    pub fn stop(&self) -> Option<Why> {
        self.stop.clone().or_else(|| self.broken.map(Why::Failing))
    }

    /// Whether most members obey a later deploy, which is not known here: nothing that is known here is so any more.
    pub const fn is_outranked(&self) -> bool {
        matches!(self.stop, Some(Why::Outranked { .. }))
    }

    /// Whether nothing can be decided: it is halted, or too little is known.
    pub const fn is_held(&self) -> bool {
        self.stop.is_some()
    }

    /// The rule by which it has failed.
    pub(crate) const fn broken(&self) -> Option<Rule> {
        self.broken
    }

    /// How many more slots may be given now.
    pub fn room(&self) -> u32 {
        if self.stop.is_some() || self.broken.is_some() {
            return 0;
        }
        let by_limit = self.limit.map_or(u32::MAX, |(more, _)| more);
        self.free_slots().min(self.wanted).min(by_limit)
    }

    const fn free_slots(&self) -> u32 {
        self.window.slots.saturating_sub(self.counts.open)
    }

    fn find_stop(&self) -> Option<Why> {
        let deploy = self.deploy();
        let silence = self.counts.silence();
        if 2 * u64::from(self.counts.ahead) > u64::from(self.counts.live) {
            // Everybody who is there hears of a deploy at once; what a few say alone may be made up.
            Some(Why::Outranked { epoch: self.fleet.highest_epoch() })
        } else if let Kind::Halt { .. } = deploy.kind {
            Some(Why::Halted { by: deploy.id, because: deploy.reason.clone() })
        } else if self.fleet.listens(self.counts.unheard, self.moment.now) {
            Some(Why::Listening { unheard: self.counts.unheard, anew: self.fleet.listens_anew() })
        } else if silence.is_mass() {
            Some(Why::Frozen { silent: silence.silent, of: silence.of })
        } else {
            None
        }
    }

    /// The first members in order for whom there is room, among those who can go.
    fn choose(&self) -> BTreeSet<&'a MemberId> {
        let room = self.room() as usize;
        if room == 0 {
            return BTreeSet::new();
        }
        let live = |(_, member): &(&MemberId, &Member)| member.presence(self.moment.now) == Presence::Live;
        self.fleet.staged().filter(live).take(room).map(|(id, _)| id).collect()
    }

    /// Who gets a slot now. Ask the state store for it (see [`Rollout::admissible`]), then note it with
    /// [`Fleet::grant`], then tell the members.
    pub fn next_grants(&self) -> Vec<MemberId> {
        self.go.iter().map(|&id| id.clone()).collect()
    }

    /// Whether a member may try the release now, and if not, why not.
    pub fn turn(&self, id: &MemberId) -> Turn {
        if self.go.contains(id) {
            return Turn::Go;
        }
        let why = match self.fleet.member(id) {
            None => Why::Gone,
            Some(member) => self.why(member),
        };
        Turn::Wait(why)
    }

    /// Why a member that does not go waits: what is wrong with itself first, then what stops everybody.
    fn why(&self, member: &Member) -> Why {
        let place = self.moment.place(member);
        let standing = member.standing(self.deploy());
        match (place.presence, standing) {
            (Presence::Gone, _) => Why::Gone,
            (Presence::Silent { since }, _) => Why::Silent { quiet: self.moment.now.since(since) },
            (Presence::Live, _) if member.report().is_none() => Why::Unheard,
            (Presence::Live, _) if place.proven => Why::AlreadyThere,
            (Presence::Live, Some(Standing::Refused(refusal))) if place.open => Why::Refused(refusal.clone()),
            (Presence::Live, Some(Standing::Refused(refusal))) => Why::CannotStage(refusal.clone()),
            (Presence::Live, _) if place.open => {
                let on_trial = Why::OnTrial { standing: standing.map_or("granted", Standing::word) };
                self.lacks_traffic(member).unwrap_or(on_trial)
            }
            (Presence::Live, _) => match self.stop().or_else(|| self.apart(member)) {
                Some(why) => why,
                None if standing == Some(&Standing::Proven) => Why::Starting,
                None if standing != Some(&Standing::Staged) => {
                    let fetching = member.report().and_then(|report| report.fetching);
                    let fetches = fetching.is_some_and(|fetching| fetching.total > Bytes(0));
                    Why::NotStaged { aware: standing.is_some(), fetches }
                }
                None => self.why_no_room(),
            },
        }
    }

    /// Whether a member bakes and has accepted too few connections.
    fn lacks_traffic(&self, member: &Member) -> Option<Why> {
        let wanted = self.deploy().bake(Millis::ZERO).connections;
        let report = member.report().filter(|report| report.standing == Standing::Proving)?;
        let accepted = report.bake_connections;
        (accepted < u64::from(wanted)).then_some(Why::NeedsTraffic { accepted, wanted })
    }

    /// Why it is not for this member though others go: the deploy is not meant for it, or it obeys another one.
    fn apart(&self, member: &Member) -> Option<Why> {
        if let Some(epoch) = member.ahead(self.deploy()) {
            return Some(Why::Ahead { epoch });
        }
        let target = &self.deploy().policy.target;
        let label = target.label.clone().filter(|_| !member.is_meant(target));
        label.map(|label| Why::NotMeant { label })
    }

    /// Why there is no room for another member.
    fn why_no_room(&self) -> Why {
        let free = self.free_slots().min(self.wanted);
        match self.limit {
            Some((more, limit)) if self.wanted > 0 && (more < free || self.window.slots == 0) => {
                Why::Limited(limit)
            }
            Some(_) | None if self.wanted <= self.free_slots() => {
                Why::TargetReached { target: self.deploy().policy.target.clone() }
            }
            Some(_) | None => self.slots_taken(),
        }
    }

    fn slots_taken(&self) -> Why {
        let taken = self.counts.open + self.go.len() as u32;
        // Thousands may wait for the same ones.
        let Holders { first, silent } = self.holders.get_or_init(|| self.find_holders());
        Why::SlotsTaken { slots: self.window.slots, taken, by: first.clone(), silent: *silent }
    }

    fn find_holders(&self) -> Holders {
        let (mut first, mut silent) = (Vec::new(), 0);
        for (id, member) in self.fleet.members() {
            let place = self.moment.place(member);
            if !place.open {
                continue;
            }
            if first.len() < NAMED_MAX {
                first.push(id.clone());
            }
            let ends_when_gone = !matches!(member.tie, Tie::Slot(_));
            silent += u32::from(ends_when_gone && matches!(place.presence, Presence::Silent { .. }));
        }
        let next = self.go.iter().take(NAMED_MAX - first.len()).map(|&id| id.clone());
        first.extend(next);
        Holders { first, silent }
    }

    /// The check that a state store makes before it accepts slots, with what it knows itself: whoever asks
    /// may have looked at an older state. `epoch` is that of the deploy the slots are for.
    ///
    /// # Errors
    /// Says why the slots would be too many. Nothing may be granted then; the asker looks again.
    pub fn admissible(&self, epoch: Epoch, members: &[MemberId]) -> Result<(), Inadmissible> {
        if self.deploy().epoch != epoch {
            return Err(Inadmissible::OtherDeploy { asked: epoch, in_force: self.deploy().epoch });
        }
        if let Some(why) = self.stop() {
            return Err(Inadmissible::Stopped(why));
        }
        if members.len() > self.room() as usize {
            return Err(Inadmissible::TooMany { asked: members.len() as u32, room: self.room() });
        }
        let mut asked = BTreeSet::new();
        for id in members {
            let free = |member: &Member| {
                member.tie == Tie::Nothing
                    && member.is_meant(&self.deploy().policy.target)
                    && member.presence(self.moment.now) == Presence::Live
            };
            if !asked.insert(id) || !self.fleet.member(id).is_some_and(free) {
                return Err(Inadmissible::Member { member: id.clone() });
            }
        }
        Ok(())
    }

    /// Who shall go back at once to the generation that still stands by: nothing starts, so no slots are
    /// needed. In a rollback the members whose standby is the release, who still try another one beside
    /// it, or who would start it by themselves when the one on trial fails; in the halt of a failing release
    /// all that are on trial.
    pub fn hand_backs(&self) -> Vec<MemberId> {
        if self.nobody_hands_back() {
            return Vec::new();
        }
        let back = self.fleet.in_no_order().filter(|(_, member)| self.hands_back(member));
        let mut back: Vec<_> = back.map(|(id, _)| id.clone()).collect();
        back.sort_unstable();
        back
    }

    /// Whether no member does, whatever it says.
    fn nobody_hands_back(&self) -> bool {
        let deploy = self.deploy();
        let forward = matches!(deploy.kind, Kind::Rollout | Kind::Halt { hand_back: false, .. });
        forward || self.counts.silence().is_mass() || self.fleet.highest_epoch() > deploy.epoch
    }

    /// Whether a member shall go back at once, see [`Rollout::hand_backs`].
    pub fn hands_back(&self, member: &Member) -> bool {
        let deploy = self.deploy();
        if self.nobody_hands_back() {
            return false;
        }
        let Some(report) = &member.report else { return false };
        let back = match deploy.kind {
            Kind::Rollback { .. } if report.running == Some(deploy.release) => {
                report.standing.on_trial() && member.standing(deploy).is_none()
            }
            // A worker that runs alone has nothing that stands by: it starts again what it has proven. Its slot is taken as it is.
            Kind::Rollback { .. } => {
                let starts = report.committed.map(|(release, _)| release);
                report.standby == Some(deploy.release)
                    || report.standing.on_trial() && starts == Some(deploy.release)
            }
            Kind::Halt { .. } => report.standing.on_trial(),
            Kind::Rollout => false,
        };
        back && member.presence(self.moment.now) == Presence::Live
    }

    /// The first member, in the order of their names, that failed or that the release costs too much.
    pub(crate) fn first_failure(&self, rule: Rule) -> Option<(&'a MemberId, Failure<'a>)> {
        let failure = |member: &'a Member| match rule {
            Rule::TooCostly { cost, .. } => {
                let costs = &member.report.as_ref()?.costs;
                (member.standing(self.deploy()).is_some() && costs.is_more(cost))
                    .then_some(Failure::Costly(cost, costs))
            }
            Rule::FirstMember | Rule::WindowFailed { .. } | Rule::FailureLimit { .. } => {
                self.moment.place(member).failure
            }
        };
        let stopped = || Some((self.fleet.leavers().first_suspect()?, Failure::Stopped));
        self.fleet.members().find_map(|(id, member)| Some((id, failure(member)?))).or_else(stopped)
    }

    /// Members that refuse the release, with or without a slot.
    pub fn refused(&self) -> impl Iterator<Item = (&'a MemberId, &'a Refusal)> {
        let deploy = &self.in_force.deploy;
        let meant =
            |member: &Member| matches!(member.tie, Tie::Slot(_)) || member.is_meant(&deploy.policy.target);
        let present = self.fleet.members().filter(move |(_, member)| !member.gone && meant(member));
        present.filter_map(|(id, member)| member.refusal(deploy).map(|refusal| (id, refusal)))
    }
}

/// Why slots are not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inadmissible {
    /// Another deploy is in force.
    #[error("slots were asked for in epoch {asked}, but epoch {in_force} is in force")]
    OtherDeploy {
        /// The epoch they were asked for.
        asked: Epoch,
        /// The epoch in force.
        in_force: Epoch,
    },
    /// Nothing may be granted at all.
    #[error("no slots are given: {0}")]
    Stopped(Why),
    /// More than there is room for.
    #[error("{asked} slots were asked for, and there is room for {room}")]
    TooMany {
        /// How many were asked for.
        asked: u32,
        /// How many there are.
        room: u32,
    },
    /// A member is not there, has the release or a slot already, or was named twice.
    #[error("member {member} cannot get a slot")]
    Member {
        /// The member.
        member: MemberId,
    },
}
