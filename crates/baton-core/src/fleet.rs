//! What is known of a service's members: what they said last, when, and what they were granted.

mod leavers;
mod member;

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::costs::Learnt;
use crate::counts::{Counts, Scene};
use crate::deploy::Deploy;
use crate::ids::{Epoch, MemberId};
use crate::report::{Report, Stamp, Standing};
use crate::rollout;
use crate::roster::Roster;
use crate::units::Millis;

pub(crate) use self::leavers::Leavers;
pub use self::member::{Grant, Heard, LEASE, Member, Presence, Tie};

/// A silent member counts as gone after this long: enough for a container to be restarted in its place.
pub const GONE_AFTER: Millis = Millis::from_secs(60);

/// How far above the deploy in force an epoch may be that one member alone has seen: more deploys than a store loses of which
/// nobody else has heard, and so few that made-up ones do not use up the numbers that may follow a signed deploy
/// ([`crate::trust::FOLLOWING_EPOCHS_MAX`]).
const LEAP_MAX: u64 = 1_000;
/// No epoch is above this, whoever says so: there is always a next one.
const EPOCH_MAX: u64 = 1 << 62;

/// The members of one service and the deploy in force for them.
///
/// All times are moments on one monotonic clock. What members report only ever adds knowledge: a report
/// that is older than what is known is ignored, and what is not known makes a rollout slower.
///
/// A copy costs next to nothing, and what a report changes costs the same in a fleet of any size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    roster: Roster,
    in_force: Option<InForce>,
    highest_epoch: Epoch,
    restored: Option<Restored>,
    /// The last moment at which most of the fleet was silent, or could not be heard. Nobody's patience runs out during it.
    excused_until: Millis,
    leavers: Leavers,
}

/// The deploy in force and what must be remembered of it across a restart of control, beside the grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The deploy.
    pub deploy: Deploy,
    /// How many members were live when it came into force; 0 when nobody was there.
    pub members_at_start: u32,
    /// Whether it has reached its target once: what fails from then on is not its failure.
    pub switched: bool,
}

/// A restart of control, after which it must listen before it grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Restored {
    at: Millis,
    /// The store knew no members, so that nobody can say when all have reported.
    blind: bool,
    /// It has not started: the store may have lost something.
    anew: bool,
}

impl Fleet {
    /// A service that has just been made up: nobody is known and nothing is in force.
    pub fn new() -> Self {
        Self::default()
    }

    /// The fleet as a server knows it that has just started: from the state store, before anybody has
    /// reported. It grants nothing until all `members` have reported or one lease has passed.
    pub fn restore(
        members: impl IntoIterator<Item = (MemberId, Tie)>,
        in_force: Option<InForce>,
        highest_epoch: Epoch,
        now: Millis,
    ) -> Self {
        let mut fleet = Self { in_force, ..Self::default() };
        fleet.highest_epoch = highest_epoch.min(Epoch(EPOCH_MAX));
        let scene = scene(fleet.in_force.as_ref(), Millis::ZERO, now);
        for (id, tie) in members {
            let member = Member { tie, ..stranger(scene.deploy, &id, now) };
            fleet.roster.insert(&id, member, scene);
        }
        fleet.restored = Some(Restored { at: now, blind: fleet.roster.is_empty(), anew: false });
        fleet
    }

    /// The same, where the state store says that these are gone. Nobody waits for a report of them, and a deploy that follows does
    /// not wait for what they tried.
    #[must_use]
    pub fn without(mut self, gone: impl IntoIterator<Item = MemberId>) -> Self {
        let scene = scene(self.in_force.as_ref(), self.excused_until, self.roster.placed_at());
        for id in gone {
            self.roster.change(&id, scene, |member| member.gone = true);
        }
        self
    }

    /// The deploy in force.
    pub const fn in_force(&self) -> Option<&InForce> {
        self.in_force.as_ref()
    }

    /// Everybody who is known, in the order of their names.
    pub fn members(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.roster.members()
    }

    /// The same in no order, in less time.
    pub(crate) fn in_no_order(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.roster.in_no_order()
    }

    /// One member.
    pub fn member(&self, id: &MemberId) -> Option<&Member> {
        self.roster.get(id)
    }

    /// Who was changed since `before`, an earlier state of this fleet, or is not known any more, in the order of their
    /// names; none when it cannot be told, and everybody may have been. That somebody was heard again who was heard anyway
    /// is no change.
    pub fn changed_since(&self, before: &Self) -> Option<BTreeSet<&MemberId>> {
        self.roster.changed_since(&before.roster)
    }

    /// Members that wait for a slot with the release on their disk, first those whose turn is first. Some may be silent.
    pub(crate) fn staged(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.roster.staged()
    }

    #[cfg(test)]
    pub(crate) const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// How many members there are of each sort.
    pub(crate) fn counts(&self, now: Millis) -> Counts {
        self.roster.counts(self.scene(now))
    }

    /// The highest epoch that any member has ever reported here.
    pub const fn highest_epoch(&self) -> Epoch {
        self.highest_epoch
    }

    /// Who was asked to stop.
    pub(crate) const fn leavers(&self) -> &Leavers {
        &self.leavers
    }

    /// The last moment at which most of the fleet was silent.
    pub(crate) const fn excused_until(&self) -> Millis {
        self.excused_until
    }

    /// The slots given in the deploy in force: what a state store keeps.
    pub fn grants(&self) -> impl Iterator<Item = (&MemberId, Grant)> {
        self.members().filter_map(|(id, member)| match member.tie {
            Tie::Slot(grant) => Some((id, grant)),
            Tie::Nothing | Tie::Leftover | Tie::Found => None,
        })
    }

    /// Puts a deploy in force. Members that run the release already, proven, count from the start. Those
    /// who may be in the middle of a try for the deploy before take a slot until they have said otherwise.
    pub fn begin(&mut self, deploy: Deploy, now: Millis) {
        let before = self.in_force.take();
        let mut live = 0;
        let scene = Scene { deploy: Some(&deploy), excused_until: self.excused_until, now };
        self.roster.change_all(scene, |id, member| {
            live += u32::from(member.presence(now) == Presence::Live);
            member.rank = rollout::order(deploy.id, id);
            let left = before.as_ref().map_or(Tie::Nothing, |before| member.leave_behind(&before.deploy));
            member.tie = member.tied_by(left, &deploy);
            !member.gone
        });
        self.in_force = Some(InForce { deploy, members_at_start: live, switched: false });
        self.leavers = Leavers::default();
    }

    /// What the release in force costs the members that have told so in its deploy.
    pub fn learnt(&self) -> Learnt {
        let deploy = self.in_force.as_ref().map(|in_force| &in_force.deploy);
        let told = |member: &&Member| deploy.is_some_and(|deploy| member.standing(deploy).is_some());
        let told = self.in_no_order().map(|(_, member)| member).filter(told);
        Learnt::of(told.filter_map(Member::report).map(|report| &report.costs))
    }

    /// Notes that the deploy in force has reached its target.
    pub fn note_switched(&mut self) {
        if let Some(in_force) = &mut self.in_force {
            in_force.switched = true;
        }
    }

    /// Takes in a report that has just arrived.
    pub fn apply(&mut self, report: impl Into<Arc<Report>>, now: Millis) -> Heard {
        let report = report.into();
        let id = report.member.clone();
        let epoch = report.seen.map_or(Epoch(0), |seen| seen.epoch);
        let at = now.max(self.roster.placed_at());
        let scene = scene(self.in_force.as_ref(), self.excused_until, at);
        let heard = self.roster.change_or_insert(
            &id,
            scene,
            || stranger(scene.deploy, &id, now),
            |member| {
                let heard = member.take_in(report, scene.deploy, now);
                (heard == Heard::News, heard)
            },
        );
        if heard == Heard::News {
            self.raise(epoch);
        }
        heard
    }

    /// A member has seen this epoch, so that the next deploy is numbered above it. Where it is far from the deploy in force it
    /// counts only with most of the members: one that makes it up must not leave the service without numbers, and a store
    /// that has lost everything is told how far they were.
    fn raise(&mut self, epoch: Epoch) {
        if epoch <= self.highest_epoch || epoch.0 > EPOCH_MAX {
            return;
        }
        let known = self.in_force.as_ref().map_or(Epoch(0), |in_force| in_force.deploy.epoch);
        let is_near = epoch.0.saturating_sub(known.0) <= LEAP_MAX;
        if let Some(epoch) = if is_near { Some(epoch) } else { self.common(epoch) } {
            self.highest_epoch = self.highest_epoch.max(epoch);
        }
    }

    /// How far members have come, if most of them are about as far as this epoch.
    fn common(&self, epoch: Epoch) -> Option<Epoch> {
        let seen = |member: &Member| Some(member.report.as_ref()?.seen?.epoch);
        let is_about = |seen: &Epoch| seen.0.abs_diff(epoch.0) <= LEAP_MAX;
        let about = || self.in_no_order().filter_map(|(_, member)| seen(member)).filter(is_about);
        let is_most = 2 * about().count() > self.in_no_order().count();
        if is_most { about().max() } else { None }
    }

    /// Takes in a sign of life of a member that has nothing new to say. It counts only from somebody whose
    /// report is known.
    pub fn heartbeat(&mut self, id: &MemberId, stamp: Stamp, now: Millis) -> Heard {
        let at = now.max(self.roster.placed_at());
        let scene = scene(self.in_force.as_ref(), self.excused_until, at);
        let hear = |member: &mut Member| {
            if member.gone || member.stamp().is_none_or(|last| stamp <= last) {
                return (false, Heard::Stale);
            }
            member.stamp = stamp;
            // It may have come before a report that was taken in first.
            (member.hear_again(at, now), Heard::News)
        };
        self.roster.change_if(id, scene, hear).unwrap_or(Heard::Stale)
    }

    /// A member said goodbye, or a person says that it will not come back.
    ///
    /// Who is asked to stop in the middle of a try, by a platform that wants fewer of them or another machine, has not shown
    /// that the release fails: its slot is free again. It is counted all the same. What had failed before
    /// is remembered, since that may be why it leaves: a refusal, a crash after the proof, or silence.
    pub fn leave(&mut self, id: &MemberId, now: Millis) {
        let Some(member) = self.member(id) else { return };
        let deploy = self.in_force.as_ref().map(|in_force| &in_force.deploy);
        let relapsed = deploy.is_some_and(|deploy| member.has_relapsed(deploy));
        let refused = deploy.is_some_and(|deploy| member.refusal(deploy).is_some());
        // One that has got a slot a moment ago may have been asked to stop before.
        let has_begun = |standing: &Standing| matches!(standing, Standing::Trying | Standing::Proving);
        let tries = matches!(member.tie, Tie::Slot(Grant { proven: false, .. }))
            && deploy.and_then(|deploy| member.standing(deploy)).is_some_and(has_begun);
        let has_failed = match member.tie {
            Tie::Slot(Grant { proven: false, .. }) => {
                relapsed || refused || member.presence(now) != Presence::Live
            }
            Tie::Slot(Grant { proven: true, .. }) | Tie::Found => relapsed,
            Tie::Leftover | Tie::Nothing => false,
        };
        // Somebody else may hear by now of a later life of it, which may still be at what it was given before.
        let may_be_back = member.tie == Tie::Leftover && member.report.is_none() && !member.gone;
        if has_failed || may_be_back {
            let scene = scene(self.in_force.as_ref(), self.excused_until, self.roster.placed_at());
            self.roster.change(id, scene, |member| member.gone = true);
        } else {
            self.leavers.note(id, tries);
            self.roster.remove(id);
        }
    }

    /// Nobody is blamed for having been silent until now: it is more likely that nobody could be heard.
    pub fn excuse(&mut self, now: Millis) {
        let now = now.max(self.roster.placed_at());
        let blamed = self.counts(now).overdue > 0;
        self.excused_until = now;
        if blamed {
            self.roster.change_all(scene(self.in_force.as_ref(), now, now), |_, _| true);
        }
    }

    /// Finds out who is gone by now and returns their names. Nobody is while most of the fleet is silent:
    /// then it is probably us. To be called before every decision.
    pub fn sweep(&mut self, now: Millis) -> Vec<MemberId> {
        let now = now.max(self.roster.placed_at());
        let lost = self.roster.settle(scene(self.in_force.as_ref(), self.excused_until, now));
        let counts = self.counts(now);
        if counts.silence().is_mass() {
            self.excuse(now);
            return Vec::new();
        }
        let scene = scene(self.in_force.as_ref(), self.excused_until, now);
        for id in &lost {
            let tie = self.roster.get(id).map(|member| member.tie);
            // Who may have the release is remembered, so that nobody else gets it instead.
            if let Some(Tie::Slot(_) | Tie::Found) = tie {
                self.roster.change(id, scene, |member| member.gone = true);
            } else {
                self.roster.remove(id);
            }
        }
        lost.into_iter().collect()
    }

    /// How much of the fleet is silent.
    pub fn silence(&self, now: Millis) -> Silence {
        self.counts(now).silence()
    }

    /// Whether this server must wait for known members to report, of whom so many are `unheard`.
    pub(crate) fn listens(&self, unheard: u32, now: Millis) -> bool {
        let restored = self.restored.filter(|restored| now.since(restored.at) < LEASE);
        restored.is_some_and(|restored| restored.blind || unheard > 0)
    }

    /// Whether that is so since the store may have lost something, and not since a start.
    pub(crate) fn listens_anew(&self) -> bool {
        self.restored.is_some_and(|restored| restored.anew)
    }

    /// Notes slots that the state store has accepted (see [`crate::rollout::Rollout::admissible`]), all with
    /// this grant (see [`crate::rollout::Rollout::grant`]).
    pub fn grant(&mut self, members: &[MemberId], grant: Grant) {
        let scene = scene(self.in_force.as_ref(), self.excused_until, self.roster.placed_at());
        for id in members {
            self.roster.change(id, scene, |member| member.tie = Tie::Slot(grant));
        }
    }

    /// Takes over from `stored` what a state store keeps that several servers write to: the deploy in force and who has
    /// slots and who is gone. What members have said here stays, and counts for it. `before` is what was taken over or written
    /// last: who was in it and is not here any more has left here, and whoever wrote `stored` did not know that yet.
    pub fn adopt(&mut self, stored: &Self, before: Option<&Self>, now: Millis) {
        let deploy = |fleet: &Self| fleet.in_force.as_ref().map(|in_force| in_force.deploy.clone());
        let (ours, theirs) = (deploy(self), deploy(stored));
        let same = ours.as_ref().map(|deploy| deploy.id) == theirs.as_ref().map(|deploy| deploy.id);
        self.in_force.clone_from(&stored.in_force);
        if !same {
            self.leavers = Leavers::default();
        }
        self.highest_epoch = self.highest_epoch.max(stored.highest_epoch);
        let scene = scene(self.in_force.as_ref(), self.excused_until, now);
        let has_left = |id: &MemberId| before.is_some_and(|before| before.roster.contains(id));
        let next = |member: &Member, theirs: Option<&Member>| {
            let is_heard = member.report.is_some() && member.presence(now) == Presence::Live;
            let gone = member.gone || (theirs.is_some_and(Member::is_gone) && !is_heard);
            // Another server may have let somebody go who is silent here, and does not know yet who has just come.
            let stays = theirs.is_some() || member.presence(now) == Presence::Live;
            let theirs = theirs.map_or(Tie::Nothing, |theirs| theirs.tie.as_stored());
            let tie = if same { theirs.known_here_as(member.tie) } else { theirs };
            stays.then(|| (scene.deploy.map_or(tie, |deploy| member.tied_by(tie, deploy)), gone))
        };
        // Few have changed where somebody else has given slots. Looking for each in the other fleet is what this costs.
        let moves = |member: &Member, theirs: Option<&Member>| {
            let next = next(member, theirs);
            (next != Some((member.tie, member.gone))).then_some(next)
        };
        let (mut both, mut strangers, mut moved) = (0, Vec::new(), Vec::new());
        for (id, theirs) in stored.in_no_order() {
            match self.roster.get(id) {
                Some(member) => {
                    both += 1;
                    moved.extend(moves(member, Some(theirs)).map(|next| (id.clone(), next)));
                }
                None if has_left(id) => {}
                None => strangers.push((id, theirs)),
            }
        }
        if both < self.roster.size() {
            let only_here = self.roster.in_no_order().filter(|(id, _)| !stored.roster.contains(id));
            moved.extend(only_here.filter_map(|(id, member)| Some((id.clone(), moves(member, None)?))));
        }
        for (id, theirs) in strangers {
            let member = stranger(scene.deploy, id, now);
            let (tie, gone) = next(&member, Some(theirs)).unwrap_or((member.tie, member.gone));
            self.roster.insert(id, Member { tie, gone, ..member }, scene);
        }
        for (id, next) in moved {
            match next {
                Some(next) => {
                    self.roster.change(&id, scene, |member| (member.tie, member.gone) = next);
                }
                None => self.roster.remove(&id),
            }
        }
        if ours != theirs {
            // Everybody stands elsewhere in another deploy.
            self.roster.change_all(scene, |id, member| {
                member.rank = scene.deploy.map_or(member.rank, |deploy| rollout::order(deploy.id, id));
                true
            });
        }
    }

    /// Somebody else has heard a member at this moment, of whom a report is known here. Returns the stamp of what it said last, as
    /// far as is known here.
    pub fn renew(&mut self, id: &MemberId, at: Millis) -> Option<Stamp> {
        let placed_at = at.max(self.roster.placed_at());
        let scene = scene(self.in_force.as_ref(), self.excused_until, placed_at);
        let stamp = self.roster.change_if(id, scene, |member| {
            let is_known = member.report.is_some() && !member.gone;
            (is_known && member.hear_again(placed_at, at), member.stamp())
        });
        stamp.flatten()
    }

    /// The state store may have lost slots that were given: nothing is granted until one lease has passed, in which whoever
    /// tries the release has said so.
    pub fn listen_anew(&mut self, now: Millis) {
        self.restored = Some(Restored { at: now, blind: true, anew: true });
    }

    pub(crate) fn scene(&self, now: Millis) -> Scene<'_> {
        scene(self.in_force.as_ref(), self.excused_until, now)
    }
}

fn scene(in_force: Option<&InForce>, excused_until: Millis, now: Millis) -> Scene<'_> {
    Scene { deploy: in_force.map(|in_force| &in_force.deploy), excused_until, now }
}

/// Somebody of whom nothing is known.
fn stranger(deploy: Option<&Deploy>, id: &MemberId, now: Millis) -> Member {
    let rank = deploy.map_or(0, |deploy| rollout::order(deploy.id, id));
    Member { rank, ..Member::new(now) }
}

/// How much of a fleet is silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silence {
    /// How many members are silent.
    pub silent: u32,
    /// Of how many that are not gone.
    pub of: u32,
}

impl Silence {
    /// Whether more than half are silent, which is more likely our own fault than theirs.
    pub const fn is_mass(self) -> bool {
        2 * self.silent as u64 > self.of as u64
    }
}
