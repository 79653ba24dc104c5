//! Watches a simulation from outside, with knowledge that no actor has, and names the invariant that breaks.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::member::{Glance, Member, Release};
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
    committed: [bool; 4],
    touched: bool,
}

/// Checks every step against the invariants, in time that does not depend on the size of the fleet.
pub(super) struct Observer {
    pub now: Millis,
    pub broken: Option<Broken>,
    /// How many members may be on trial, or down because of it, at once.
    pub slots: u32,
    /// How many may have tried the new release before any has proven it.
    pub first_slots: u32,
    /// How many generations may run at once.
    pub generations_max: u32,
    /// Since when most of the fleet cannot be heard.
    pub mass_silence: Option<Millis>,
    pub touched: u32,
    /// How many members serve with the new release.
    pub exposed: u32,
    pub on_trial_most: u32,
    members: Vec<Truth>,
    on_trial: u32,
    down: u32,
    generations: u32,
    committed: [u32; 4],
}

/// By then every member that cannot be heard has run out of its lease, and all that it said before has come.
const SILENCE_SHOWS: Millis = Millis(LEASE.0 + super::HEARTBEAT.0 + super::DELAY_MAX.0);

impl Observer {
    pub(super) const fn new(slots: u32, first_slots: u32) -> Self {
        Self {
            now: Millis::ZERO,
            broken: None,
            slots,
            first_slots,
            generations_max: u32::MAX,
            mass_silence: None,
            touched: 0,
            exposed: 0,
            on_trial_most: 0,
            members: Vec::new(),
            on_trial: 0,
            down: 0,
            generations: 0,
            committed: [0; 4],
        }
    }

    pub(super) fn joined(&mut self, release: Release) {
        let mut committed = [false; 4];
        committed[usize::from(release.0)] = true;
        self.committed[usize::from(release.0)] += 1;
        self.generations += 1;
        let (granted, bake, switched_at) = (Epoch(0), Millis::ZERO, Millis::ZERO);
        self.members.push(Truth { granted, bake, switched_at, committed, touched: false });
    }

    pub(super) fn left(&mut self, last: Glance) {
        self.on_trial -= u32::from(last.trial.is_some());
        self.down -= u32::from(last.down_for_trial);
        self.generations -= last.generations;
        self.exposed -= last.exposed();
    }

    fn expect(&mut self, holds: bool, invariant: &'static str, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(Broken { invariant, at: self.now, what: what() });
        }
    }

    /// A member has changed.
    pub(super) fn changed(&mut self, index: usize, before: Glance, after: Glance, member: &Member) {
        if before == after {
            return;
        }
        let Some(truth) = self.members.get_mut(index) else { return };
        let mut truth = *truth_of(truth, after, before, self.now);
        self.expect(after.seen >= before.seen, "I4 epochs never decrease on a member", || member.describe());
        if after.trial.is_some() && before.trial.is_none() {
            self.expect(truth.granted == after.seen, "I5 nobody tries a release without a slot", || {
                format!("{}; granted in {}, seen {}", member.describe(), truth.granted, after.seen)
            });
            if after.trial == Some(super::member::NEW) && !truth.touched {
                truth.touched = true;
                self.touched += 1;
            }
        }
        let known = [None, Some(after.committed), after.trial].contains(&after.serving);
        self.expect(known, "I5 what runs is committed or on trial", || member.describe());
        if after.committed != before.committed {
            let baked = self.now.since(truth.switched_at) >= truth.bake;
            let first = before.trial == Some(after.committed);
            self.expect(first && baked, "I3 nothing is committed that has not baked", || member.describe());
            let release = usize::from(after.committed.0);
            self.committed[release] += u32::from(!truth.committed[release]);
            truth.committed[release] = true;
        }
        self.members[index] = truth;
        self.count(before, after, member);
    }

    fn count(&mut self, before: Glance, after: Glance, member: &Member) {
        self.on_trial += u32::from(after.trial.is_some());
        self.on_trial -= u32::from(before.trial.is_some());
        self.on_trial_most = self.on_trial_most.max(self.on_trial);
        self.exposed = self.exposed + after.exposed() - before.exposed();
        self.down += u32::from(after.down_for_trial);
        self.down -= u32::from(before.down_for_trial);
        self.generations = self.generations + after.generations - before.generations;
        let (generations, most) = (self.generations, self.generations_max);
        self.expect(generations <= most, "I16 no more generations run than may", || {
            format!("{generations} generations run, {most} may; {}", member.describe())
        });
        let (down, on_trial, slots) = (self.down, self.on_trial, self.slots);
        self.expect(down <= slots, "I1 capacity stays above its floor", || {
            format!("{down} members are down for a try, {slots} may be; {}", member.describe())
        });
        self.expect(on_trial <= slots, "I10 what is not known lets nobody more try", || {
            format!("{on_trial} members are on trial, {slots} may be; {}", member.describe())
        });
        let proof = self.committed[usize::from(super::member::NEW.0)] > 0;
        let (touched, first) = (self.touched, self.first_slots);
        self.expect(proof || touched <= first, "I2 before the first proof only the first slots try", || {
            format!("{touched} members tried it, {first} may have")
        });
    }

    /// Control gave a slot.
    pub(super) fn granted(&mut self, index: usize, epoch: Epoch, bake: Millis) {
        if let Some(truth) = self.members.get_mut(index) {
            (truth.granted, truth.bake) = (epoch, bake);
        }
    }

    /// Control did something by itself: gave slots, took them back, or proposed a deploy.
    pub(super) fn acted(&mut self, what: &str) {
        let (now, since) = (self.now, self.mass_silence);
        let blind = since.is_some_and(|since| now.since(since) > SILENCE_SHOWS);
        self.expect(!blind, "I9 nothing is done in a mass silence", || format!("control did: {what}"));
    }

    /// Control has decided while this was in force.
    pub(super) fn decided(&mut self, halted: bool, granted: usize, proven: u32, release: Release) {
        self.expect(!halted || granted == 0, "I7 a halt is sticky", || format!("{granted} slots were given"));
        let committed = self.committed[usize::from(release.0)];
        self.expect(proven <= committed, "I3 nobody counts as proven who is not", || {
            format!("{proven} members count as proven, {committed} are")
        });
    }

    /// Whether a member has ever committed a release.
    pub(super) fn has_committed(&self, index: usize, release: Release) -> bool {
        self.members.get(index).is_some_and(|truth| truth.committed[usize::from(release.0)])
    }

    /// Something else that must hold.
    pub(super) fn must(&mut self, holds: bool, invariant: &'static str, what: impl FnOnce() -> String) {
        self.expect(holds, invariant, what);
    }

    pub(super) const fn on_trial(&self) -> u32 {
        self.on_trial
    }
}

/// Notes when a release on trial was switched to.
fn truth_of(truth: &mut Truth, after: Glance, before: Glance, now: Millis) -> &mut Truth {
    if after.trial.is_some() && after.serving == after.trial && before.serving != after.serving {
        truth.switched_at = now;
    }
    truth
}
