//! A simulated member: it stages, tries, bakes, commits and hands back as a bootloader does.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::prng::Prng;
use super::scenario::Program;
use crate::costs::Costs;
use crate::ids::{DeployId, Epoch, MemberId, ReleaseId};
use crate::report::{Cause, Refusal, Report, Seen, Stamp, Standing};
use crate::units::Millis;

/// A release of the simulation. The trouble, if any, is in [`NEW`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Release(pub u8);

pub(super) const OLD: Release = Release(1);
pub(super) const NEW: Release = Release(2);
pub(super) const OTHER: Release = Release(3);

impl Release {
    pub(super) const fn id(self) -> ReleaseId {
        ReleaseId::from_bytes([self.0; 32])
    }
    pub(super) const fn of(id: ReleaseId) -> Self {
        Self(id.as_bytes()[0])
    }
}

/// What control tells a member.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Wish { seen: Seen, release: Release },
    Grant { deploy: DeployId, bake: Millis },
    HandBack { deploy: DeployId },
}

/// What a member wants from the world.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// Its report has changed.
    Report,
    /// It wants [`Member::wake`] with this token after this time.
    Wake { after: Millis, token: u32 },
    /// The generation that serves now will crash after this time.
    Crash { after: Millis, launch: u32 },
}

/// What it is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Idle,
    Fetching,
    Trying(Trial),
    Proving(Trial),
    /// Relaunching the committed release after a failed try without a standby.
    Returning(Option<(Cause, Trial)>),
    /// Relaunching the committed release after it crashed or the bootloader was restarted.
    Relaunching {
        baking: Option<Millis>,
    },
    /// Baking a proven release again.
    Rebaking,
    Draining,
    /// Waiting to try again what it refused.
    Resting(Cause, Option<Trial>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trial {
    release: Release,
    bake: Millis,
    /// Whether the next failure before the switch is the last.
    again: bool,
}

/// What chance and trouble a member meets.
pub(super) struct Fate<'a> {
    pub prng: &'a mut Prng,
    pub program: Program,
    pub overlap: bool,
}

impl Fate<'_> {
    fn fetch(&mut self) -> Millis {
        let (least, most) = self.program.fetch;
        self.prng.between(least, most)
    }

    fn start(&mut self) -> Millis {
        let (least, most) = self.program.start;
        self.prng.between(least, most)
    }

    fn relaunch(&mut self) -> Millis {
        let (least, most) = self.program.relaunch;
        self.prng.between(least, most)
    }
}

/// What the observer compares before and after every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glance {
    pub seen: Epoch,
    pub committed: Release,
    pub serving: Option<Release>,
    /// The release on trial.
    pub trial: Option<Release>,
    /// Not serving because of a try.
    pub down_for_trial: bool,
    /// How many generations run: what serves, a candidate beside it, what stands by or drains.
    pub generations: u32,
}

impl Glance {
    /// One where the new release serves.
    pub(super) fn exposed(&self) -> u32 {
        u32::from(self.serving == Some(NEW))
    }
}

pub(super) struct Member {
    pub id: MemberId,
    pub alive: bool,
    pub reachable: bool,
    /// Whether control has what it last said.
    pub heard: bool,
    /// 0 when all goes well here, 1 when the new release never starts, 2 when it cannot be fetched.
    pub curse: u8,
    stamp: Stamp,
    reported: Stamp,
    seen: Option<Seen>,
    goal: Release,
    committed: (Release, Epoch),
    serving: Option<Release>,
    standby: Option<Release>,
    activity: Activity,
    on_disk: [bool; 4],
    attempts: u32,
    relapses: u32,
    drained: bool,
    token: u32,
    launch: u32,
}

/// How long a bootloader waits before it tries again what it refused.
const RETRY: Millis = Millis::from_secs(60);

impl Member {
    /// A member that serves `release` and has not heard of any deploy.
    pub(super) fn new(id: MemberId, release: Release, life: u64) -> Self {
        let mut on_disk = [false; 4];
        on_disk[usize::from(release.0)] = true;
        Self {
            id,
            alive: true,
            reachable: true,
            heard: false,
            curse: 0,
            stamp: Stamp { life, sequence: 0 },
            reported: Stamp { life, sequence: 0 },
            seen: None,
            goal: release,
            committed: (release, Epoch(0)),
            serving: Some(release),
            standby: None,
            activity: Activity::Idle,
            on_disk,
            attempts: 0,
            relapses: 0,
            drained: true,
            token: 0,
            launch: 0,
        }
    }

    /// It has heard of this deploy already.
    pub(super) fn knowing(mut self, seen: Seen) -> Self {
        self.seen = Some(seen);
        self
    }

    pub(super) fn glance(&self) -> Glance {
        let trial = self.trial().map(|trial| trial.release);
        let returning = matches!(self.activity, Activity::Returning(_));
        Glance {
            seen: self.seen.map_or(Epoch(0), |seen| seen.epoch),
            committed: self.committed.0,
            serving: self.serving,
            trial,
            down_for_trial: self.serving.is_none() && (trial.is_some() || returning),
            generations: self.generations(),
        }
    }

    fn generations(&self) -> u32 {
        let starting = match self.activity {
            Activity::Trying(_) | Activity::Returning(_) | Activity::Relaunching { .. } => 1,
            Activity::Idle
            | Activity::Fetching
            | Activity::Proving(_)
            | Activity::Rebaking
            | Activity::Draining
            | Activity::Resting(..) => 0,
        };
        let draining = self.standby.is_none() && !self.drained;
        u32::from(self.serving.is_some()) + starting + u32::from(self.standby.is_some()) + u32::from(draining)
    }

    fn trial(&self) -> Option<Trial> {
        if let Activity::Trying(trial) | Activity::Proving(trial) = self.activity {
            Some(trial)
        } else {
            None
        }
    }

    /// The stamp of the next thing it says.
    pub(super) fn next_stamp(&mut self) -> Stamp {
        self.stamp.sequence += 1;
        self.stamp
    }

    /// Whether this is the stamp of its latest full report.
    pub(super) fn is_latest(&self, stamp: Stamp) -> bool {
        stamp == self.reported
    }

    pub(super) fn report(&mut self) -> Report {
        self.reported = self.next_stamp();
        Report {
            member: self.id.clone(),
            stamp: self.reported,
            seen: self.seen,
            committed: Some((self.committed.0.id(), self.committed.1)),
            running: self.serving.map(Release::id),
            healthy: self.serving.is_some(),
            standing: self.standing(),
            fetching: None,
            attempts: self.attempts,
            relapses: self.relapses,
            standby: self.standby.map(Release::id),
            drained: self.drained,
            bake_connections: 1,
            costs: Costs::default(),
            labels: Vec::new(),
        }
    }

    fn standing(&self) -> Standing {
        let refused = |cause| Standing::Refused(Refusal { cause, detail: String::new() });
        match self.activity {
            Activity::Trying(_) | Activity::Returning(_) => Standing::Trying,
            Activity::Proving(_) | Activity::Rebaking => Standing::Proving,
            Activity::Relaunching { baking: Some(_) } => Standing::Proving,
            Activity::Resting(cause, _) => refused(cause),
            Activity::Idle
            | Activity::Fetching
            | Activity::Draining
            | Activity::Relaunching { baking: None } => {
                if self.committed.0 == self.goal {
                    Standing::Proven
                } else if self.on_disk[usize::from(self.goal.0)] {
                    Standing::Staged
                } else {
                    Standing::Behind
                }
            }
        }
    }

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
        if let Some(after) = fate.program.crashes_after.filter(|_| release == Some(NEW)) {
            effects.push(Effect::Crash { after, launch: self.launch });
        }
    }

    /// Obeys control, or does not: a lower epoch, or an equal one under another id, is none of ours.
    pub(super) fn obey(&mut self, order: Order, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        match order {
            Order::Wish { seen, release } => {
                let before = self.seen.map_or(Epoch(0), |seen| seen.epoch);
                if seen.epoch > before {
                    self.take_up(seen, release, fate, effects);
                } else {
                    effects.push(Effect::Report);
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
        (self.attempts, self.relapses) = (0, 0);
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
        if self.on_disk[usize::from(self.goal.0)] {
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
        let takes = fate.start();
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
    pub(super) fn wake(&mut self, token: u32, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
        if token != self.token || !self.alive {
            return;
        }
        match self.activity {
            Activity::Idle => {}
            Activity::Fetching if self.curse == 2 && self.goal == NEW => {
                self.start(Activity::Resting(Cause::Disk, None), RETRY, effects);
                effects.push(Effect::Report);
            }
            Activity::Fetching => {
                self.on_disk[usize::from(self.goal.0)] = true;
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
                self.start(Activity::Proving(trial), trial.bake, effects);
                effects.push(Effect::Report);
            }
            Activity::Proving(trial) => {
                let epoch = self.seen.map_or(Epoch(0), |seen| seen.epoch);
                self.committed = (trial.release, epoch);
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
        trial.release == NEW && (self.curse == 1 || fate.prng.chance(fate.program.start_crashes))
    }

    /// The serving generation crashes.
    pub(super) fn crash(&mut self, launch: u32, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
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
    pub(super) fn restart(&mut self, fate: &mut Fate<'_>, effects: &mut Vec<Effect>) {
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

    /// What it does, for messages about broken invariants.
    pub(super) fn describe(&self) -> String {
        format!("{}: {:?}, serves {:?}, committed {:?}", self.id, self.activity, self.serving, self.committed)
    }
}
