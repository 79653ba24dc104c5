//! Watches a simulation from outside, with knowledge that no actor has, and names the invariant that breaks.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::HEARTBEAT;
use super::member::{Glance, Member};
use super::network::DELAY_MAX;
use super::release::{RELEASES, Release};
use crate::fleet::LEASE;
use crate::ids::Epoch;
use crate::units::Millis;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub invariant: &'static str,
    /// When.
    pub at: Millis,
    /// What was seen.
    pub what: String,
}

/// The truth about one member.
#[derive(Debug, Clone, Copy)]
struct Truth {
    granted: Epoch,
    bake: Millis,
    switched_at: Millis,
    /// The releases that it has ever committed, one bit each.
    committed: u16,
    /// Those that it has ever tried.
    tried: u16,
    alive: bool,
    /// Whether it has a slot that it has neither proven the release with nor heard to be void.
    holds: bool,
    /// Whether its try with that slot has failed: it waits to try again, and the next deploy does not wait for it.
    rests: bool,
}

/// Checks every step against the invariants, in time that does not depend on the size of the fleet.
pub(super) struct Observer {
    pub now: Millis,
    pub broken: Option<Broken>,
    /// Whether a store has forgotten slots that were given, or somebody was cut off for so long that he may count as gone.
    pub unsure: bool,
    /// A service that is locked.
    pub locked: bool,
    /// How many members may be on trial, or down because of it, at once: what the last slots were given by, or as many as had
    /// some before. It shrinks with the fleet.
    slots: u32,
    /// How many generations may run at once.
    pub generations_max: u32,
    /// Since when most of the fleet cannot be heard.
    pub mass_silence: Option<Millis>,
    /// How many members serve with something new.
    pub exposed: u32,
    pub on_trial_most: u32,
    /// When a member has changed for the last time.
    pub changed_at: Millis,
    members: Vec<Truth>,
    /// How many may have tried a release before any has proven it.
    first: [u32; RELEASES],
    tried: [u32; RELEASES],
    committed: [u32; RELEASES],
    serving: [u32; RELEASES],
    on_trial: u32,
    down: u32,
    generations: u32,
    busy: u32,
    /// How many members have slots.
    holding: u32,
    alive: u32,
    /// When members have gone, as far back as a server may still believe them to be there.
    gone: VecDeque<Millis>,
}

/// A member that is not there any more is believed to be there for no longer than this: its lease, and what it said last on its way.
const BELIEVED: Millis = Millis(2 * LEASE.0);

/// By then every member that cannot be heard has run out of its lease, and all that it said before has come.
const SILENCE_SHOWS: Millis = Millis(LEASE.0 + HEARTBEAT.0 + DELAY_MAX.0);

impl Observer {
    pub(super) const fn new() -> Self {
        Self {
            now: Millis::ZERO,
            broken: None,
            unsure: false,
            locked: false,
            slots: 0,
            generations_max: u32::MAX,
            mass_silence: None,
            exposed: 0,
            on_trial_most: 0,
            changed_at: Millis::ZERO,
            members: Vec::new(),
            first: [0; RELEASES],
            tried: [0; RELEASES],
            committed: [0; RELEASES],
            serving: [0; RELEASES],
            on_trial: 0,
            down: 0,
            generations: 0,
            busy: 0,
            holding: 0,
            alive: 0,
            gone: VecDeque::new(),
        }
    }

    pub(super) fn joined(&mut self, release: Release) {
        self.committed[release.index()] += 1;
        self.serving[release.index()] += 1;
        self.exposed += u32::from(release != Release::OLD);
        self.generations += 1;
        self.changed_at = self.now;
        self.alive += 1;
        let (granted, bake, switched_at) = (Epoch(0), Millis::ZERO, Millis::ZERO);
        let committed = release.bit();
        self.members.push(Truth {
            granted,
            bake,
            switched_at,
            committed,
            tried: 0,
            alive: true,
            holds: false,
            rests: false,
        });
    }

    /// A member is not there any more. Whoever says goodbye in the middle of a try makes room for another one.
    pub(super) fn left(&mut self, index: usize, last: Glance, goodbye: bool) {
        self.gone.push_back(self.now);
        self.alive -= 1;
        if let Some(truth) = self.members.get_mut(index) {
            self.holding -= u32::from(truth.holds);
            (truth.alive, truth.holds, truth.rests) = (false, false, false);
        }
        if let Some(release) = last.trial.filter(|_| goodbye) {
            self.first[release.index()] += 1;
        }
        self.on_trial -= u32::from(last.trial.is_some());
        self.down -= u32::from(last.down_for_trial);
        self.busy -= u32::from(last.busy);
        self.generations -= last.generations;
        self.exposed -= last.exposed();
        if let Some(release) = last.serving {
            self.serving[release.index()] -= 1;
        }
        self.changed_at = self.now;
    }

    /// Something that must hold.
    pub(super) fn must(&mut self, holds: bool, invariant: &'static str, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(Broken { invariant, at: self.now, what: what() });
        }
    }

    /// A member has changed.
    pub(super) fn changed(&mut self, index: usize, before: Glance, after: Glance, member: &Member) {
        if before == after {
            return;
        }
        self.changed_at = self.now;
        let Some(&truth) = self.members.get(index) else { return };
        let mut truth = truth;
        if after.trial.is_some() && after.serving == after.trial && before.serving != after.serving {
            truth.switched_at = self.now;
        }
        self.must(after.seen >= before.seen, "I4 epochs never decrease on a member", || member.describe());
        if let Some(release) = after.trial.filter(|_| before.trial.is_none()) {
            self.must(truth.granted == after.seen, "I5 nobody tries a release without a slot", || {
                format!("{}; granted in {}, seen {}", member.describe(), truth.granted, after.seen)
            });
            self.tried[release.index()] += u32::from(truth.tried & release.bit() == 0);
            truth.tried |= release.bit();
            self.check_first(release);
        }
        let known = [None, Some(after.committed), after.trial].contains(&after.serving);
        self.must(known, "I5 what runs is committed or on trial", || member.describe());
        if after.committed != before.committed {
            let baked = self.now.since(truth.switched_at) >= truth.bake;
            let first = before.trial == Some(after.committed);
            self.must(first && baked, "I3 nothing is committed that has not baked", || member.describe());
            let release = after.committed;
            self.committed[release.index()] += u32::from(truth.committed & release.bit() == 0);
            truth.committed |= release.bit();
        }
        let over = after.trial.is_none() && !after.down_for_trial;
        truth.rests = truth.holds && over && (truth.rests || before.trial.is_some() || before.down_for_trial);
        if truth.holds && over && (after.committed != before.committed || after.seen > truth.granted) {
            truth.holds = false;
            self.holding -= 1;
        }
        self.members[index] = truth;
        self.count(before, after, member);
    }

    fn check_first(&mut self, release: Release) {
        let (tried, first) = (self.tried[release.index()], self.first[release.index()]);
        let proof = self.committed[release.index()] > 0;
        self.must(proof || tried <= first, "I2 before the first proof only the first slots try", || {
            format!("{tried} members tried {release}, {first} may have")
        });
    }

    fn count(&mut self, before: Glance, after: Glance, member: &Member) {
        self.on_trial += u32::from(after.trial.is_some());
        self.on_trial -= u32::from(before.trial.is_some());
        self.on_trial_most = self.on_trial_most.max(self.on_trial);
        self.exposed = self.exposed + after.exposed() - before.exposed();
        self.busy = self.busy + u32::from(after.busy) - u32::from(before.busy);
        for (serving, more) in [(after.serving, true), (before.serving, false)] {
            let Some(count) = serving.map(|release| &mut self.serving[release.index()]) else { continue };
            *count = if more { *count + 1 } else { *count - 1 };
        }
        self.down += u32::from(after.down_for_trial);
        self.down -= u32::from(before.down_for_trial);
        self.generations = self.generations + after.generations - before.generations;
        let (generations, most) = (self.generations, self.generations_max);
        let more = after.generations > before.generations;
        self.must(!more || generations <= most, "I16 no more generations run than may", || {
            format!("{generations} generations run, {most} may; {}", member.describe())
        });
        let (down, on_trial, slots) = (self.down, self.on_trial, self.slots);
        self.must(down <= slots, "I1 capacity stays above its floor", || {
            format!("{down} members are down for a try, {slots} may be; {}", member.describe())
        });
        self.must(on_trial <= slots, "I10 what is not known lets nobody more try", || {
            format!("{on_trial} members are on trial, {slots} may be; {}", member.describe())
        });
    }

    /// A deploy has begun, by which so many may try a release at once, and so many before any has proven it.
    pub(super) fn begun(&mut self, release: Release, slots: u32, first: u32) {
        for truth in self.members.iter_mut().filter(|truth| truth.rests) {
            self.holding -= u32::from(truth.holds);
            (truth.holds, truth.rests) = (false, false);
        }
        self.slots = if self.unsure { self.slots.max(slots) } else { slots.max(self.holding) };
        let tried = self.tried[release.index()];
        let before = &mut self.first[release.index()];
        *before = tried.max(*before) + first;
    }

    /// Control gave a slot.
    pub(super) fn granted(&mut self, index: usize, epoch: Epoch, bake: Millis) {
        if let Some(truth) = self.members.get_mut(index).filter(|truth| truth.alive) {
            self.holding += u32::from(!truth.holds);
            (truth.granted, truth.bake) = (epoch, bake);
            (truth.holds, truth.rests) = (true, false);
        }
    }

    /// Control gave slots, of which there are so many in this phase for a fleet as it is now.
    pub(super) fn gave(&mut self, slots: u32) {
        if self.unsure {
            self.slots = self.slots.max(slots);
            return;
        }
        let holding = self.holding;
        self.must(holding <= slots, "I10 never more slots are given than a fleet of this size has", || {
            format!("{holding} members have slots, of which there are {slots}")
        });
        self.slots = slots;
    }

    /// How many members there are, as the server knows best that has not heard yet who has left.
    pub(super) fn believed(&mut self) -> u32 {
        while self.gone.front().is_some_and(|at| self.now.since(*at) > BELIEVED) {
            self.gone.pop_front();
        }
        // Others may have come since, who are there beside them.
        self.alive + u32::try_from(self.gone.len()).unwrap_or(u32::MAX)
    }

    /// Control did something by itself: gave slots, took them back, or proposed a deploy.
    pub(super) fn acted(&mut self, what: &str) {
        let (now, since) = (self.now, self.mass_silence);
        let blind = since.is_some_and(|since| now.since(since) > SILENCE_SHOWS);
        self.must(!blind, "I9 nothing is done in a mass silence", || format!("control did: {what}"));
    }

    /// A server counts so many members as proven.
    pub(super) fn counted(&mut self, proven: u32, release: Release) {
        let committed = self.committed[release.index()];
        self.must(proven <= committed, "I3 nobody counts as proven who is not", || {
            format!("{proven} members count as proven, {committed} are")
        });
    }

    /// Whether a member has ever committed a release.
    pub(super) fn has_committed(&self, index: usize, release: Release) -> bool {
        self.members.get(index).is_some_and(|truth| truth.committed & release.bit() != 0)
    }

    /// How many members have ever tried a release.
    pub(super) fn tried(&self, release: Release) -> u32 {
        self.tried[release.index()]
    }

    pub(super) const fn on_trial(&self) -> u32 {
        self.on_trial
    }

    /// How many generations run now.
    pub(super) const fn generations(&self) -> u32 {
        self.generations
    }

    /// How many members have something under way that ends by itself.
    pub(super) const fn busy(&self) -> u32 {
        self.busy
    }

    /// How many members serve which release.
    pub(super) const fn serving(&self) -> &[u32; RELEASES] {
        &self.serving
    }
}
