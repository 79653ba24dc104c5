//! What a simulated member does: it obeys, fetches, tries, bakes, drains, crashes and rests.

use alloc::vec::Vec;

use super::{Activity, Curse, Effect, Fate, Member, Order, Trial, more_by};
use crate::costs::Costs;
use crate::ids::{DeployId, Epoch};
use crate::member::RETRY;
use crate::report::{Cause, Seen, Stamp, Standing};
use crate::simulate::release::Release;
use crate::units::{Bytes, Millis};

/// What a generation uses of memory.
const MEMORY: Bytes = Bytes(128 << 20);

impl Member {
    fn start(&mut self, activity: Activity, takes: Millis, effects: &mut Vec<Effect>) {
        self.activity = activity;
        self.token += 1;
        effects.push(Effect::Wake { after: takes, token: self.token });
    }

    fn rest(&mut self, effects: &mut Vec<Effect>) {
        self.activity = Activity::Idle;
        self.token += 1;
        effects.push(Effect::Report);
    }

    fn serve(&mut self, release: Option<Release>, fate: &Fate<'_>, effects: &mut Vec<Effect>) {
        self.serving = release;
        self.launch += 1;
        if let Some(after) = release.and_then(|release| fate.flaws(release).crashes_after) {
            effects.push(Effect::Crash { after, launch: self.launch });
        }
    }

    /// Obeys control, or does not: a lower epoch, or an equal one under another id, is none of ours.
    pub(in crate::simulate) fn obey(&mut self, order: Order, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        match order {
            Order::Wish { seen, release } => {
                let before = self.seen.map_or(Epoch(0), |seen| seen.epoch);
                // What it knows changes nothing, and only what has changed is told.
                if seen.epoch > before {
                    self.take_up(seen, release, fate, effects);
                }
            }
            Order::Grant { deploy, bake } => {
                if self.obeys(deploy)
                    && self.activity == Activity::Idle
                    && self.standing() == Standing::Staged
                {
                    let trial = Trial { release: self.goal, bake, again: true };
                    self.try_out(trial, fate, effects);
                }
            }
            Order::HandBack { deploy } => {
                if self.obeys(deploy) && matches!(self.activity, Activity::Trying(_) | Activity::Proving(_)) {
                    self.give_up(None, fate, effects);
                }
            }
        }
    }

    fn obeys(&self, deploy: DeployId) -> bool {
        self.seen.is_some_and(|seen| seen.deploy == deploy)
    }

    fn take_up(&mut self, seen: Seen, release: Release, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        self.seen = Some(seen);
        self.goal = release;
        (self.attempts, self.relapses, self.costs) = (0, 0, Costs::default());
        effects.push(Effect::Report);
        match self.activity {
            // A candidate that nobody is switched to is dropped for another release.
            Activity::Trying(trial) if trial.release != release => self.give_up(None, fate, effects),
            Activity::Returning(_) => self.activity = Activity::Returning(None),
            Activity::Trying(_) | Activity::Proving(_) => {}
            Activity::Relaunching { .. } | Activity::Rebaking => {}
            Activity::Idle | Activity::Fetching | Activity::Draining | Activity::Resting(..) => {
                self.drained = true;
                self.stage(fate, effects);
            }
        }
    }

    /// Fetches what it lacks.
    fn stage(&mut self, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        if self.has(self.goal) {
            self.rest(effects);
        } else {
            let takes = fate.fetch();
            self.start(Activity::Fetching, takes, effects);
        }
    }

    fn try_out(&mut self, trial: Trial, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        self.attempts += 1;
        if !fate.overlap {
            self.serve(None, fate, effects);
        }
        let takes = fate.start(trial.release);
        let (least, most) = fate.program.start;
        self.costs.startup = Some(takes);
        self.costs.startup_before = Some(Millis(least.0.midpoint(most.0)));
        self.start(Activity::Trying(trial), takes, effects);
        effects.push(Effect::Report);
    }

    /// Ends a try: back to the generation that serves or stands by, or to a new one of the old release.
    fn give_up(&mut self, cause: Option<Cause>, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        let failed = cause.zip(self.trial());
        if let Activity::Proving(_) = self.activity {
            let standby = self.standby.take();
            self.serve(standby, fate, effects);
            self.drained = true;
        }
        if self.serving.is_none() {
            let takes = fate.relaunch();
            self.start(Activity::Returning(failed), takes, effects);
            effects.push(Effect::Report);
        } else {
            self.returned(failed, fate, effects);
        }
    }

    fn returned(&mut self, failed: Option<(Cause, Trial)>, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        match failed {
            Some((cause, trial)) => {
                self.start(Activity::Resting(cause, Some(trial)), RETRY, effects);
                effects.push(Effect::Report);
            }
            None => self.stage(fate, effects),
        }
    }

    /// Time has come for what it was busy with.
    pub(in crate::simulate) fn wake(&mut self, token: u32, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        if token != self.token || !self.alive {
            return;
        }
        match self.activity {
            Activity::Idle => {}
            Activity::Fetching if self.curse == Curse::CannotFetch(self.goal) => {
                self.start(Activity::Resting(Cause::Disk, None), RETRY, effects);
                effects.push(Effect::Report);
            }
            Activity::Fetching => {
                self.on_disk |= self.goal.bit();
                self.rest(effects);
            }
            Activity::Trying(trial) if self.crashes_at_start(trial, fate) => {
                if trial.again {
                    self.try_out(Trial { again: false, ..trial }, fate, effects);
                } else {
                    self.give_up(Some(Cause::Exit), fate, effects);
                }
            }
            Activity::Trying(trial) => {
                self.standby = self.serving;
                self.drained = false;
                self.serve(Some(trial.release), fate, effects);
                self.start(Activity::Proving(trial), fate.program.bakes_for(trial.bake), effects);
                effects.push(Effect::Report);
            }
            Activity::Proving(trial) => {
                let epoch = self.seen.map_or(Epoch(0), |seen| seen.epoch);
                self.committed = (trial.release, epoch);
                let larger = fate.flaws(trial.release).larger;
                self.costs.memory_before = Some(MEMORY);
                self.costs.memory = Some(more_by(MEMORY.0, larger).map_or(MEMORY, Bytes));
                if self.committed.0 == self.goal {
                    self.standby = None;
                    let takes = fate.prng.between(Millis(100), Millis::from_secs(5));
                    self.start(Activity::Draining, takes, effects);
                    effects.push(Effect::Report);
                } else {
                    self.standby = None;
                    self.drained = true;
                    self.stage(fate, effects);
                }
            }
            Activity::Returning(failed) => {
                self.serve(Some(self.committed.0), fate, effects);
                self.drained = true;
                self.returned(failed, fate, effects);
            }
            Activity::Relaunching { baking } => {
                self.serve(Some(self.committed.0), fate, effects);
                match baking {
                    Some(bake) => self.start(Activity::Rebaking, bake, effects),
                    None => self.stage(fate, effects),
                }
                effects.push(Effect::Report);
            }
            Activity::Rebaking => self.stage(fate, effects),
            Activity::Draining => {
                self.drained = true;
                self.rest(effects);
            }
            Activity::Resting(_, Some(trial)) => {
                self.try_out(Trial { again: true, ..trial }, fate, effects);
            }
            Activity::Resting(_, None) => {
                self.activity = Activity::Idle;
                self.stage(fate, effects);
            }
        }
    }

    fn crashes_at_start(&self, trial: Trial, fate: &mut Fate<'_>) -> bool {
        self.curse == Curse::NeverStarts(trial.release) || fate.prng.chance(fate.flaws(trial.release).crashes)
    }

    /// The serving generation crashes.
    pub(in crate::simulate) fn crash(&mut self, launch: u32, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        if launch != self.launch || !self.alive {
            return;
        }
        if let Activity::Proving(_) = self.activity {
            self.give_up(Some(Cause::Unhealthy), fate, effects);
            return;
        }
        let baking = (self.committed.0 == self.goal).then_some(Millis::from_secs(5));
        self.relapses += u32::from(baking.is_some());
        self.drained = true;
        self.relaunch(baking, fate, effects);
    }

    /// The bootloader is restarted: what it tried is lost, what it wrote down is not.
    pub(in crate::simulate) fn restart(&mut self, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        self.stamp = Stamp { life: self.stamp.life + 1, sequence: 0 };
        self.standby = None;
        self.drained = true;
        self.relaunch(None, fate, effects);
    }

    fn relaunch(&mut self, baking: Option<Millis>, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        self.serve(None, fate, effects);
        let takes = fate.relaunch();
        self.start(Activity::Relaunching { baking }, takes, effects);
        effects.push(Effect::Report);
    }
}
