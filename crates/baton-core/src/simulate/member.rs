//! A simulated member: it stages, tries, bakes, commits and hands back as a bootloader does.

mod course;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::prng::Prng;
use super::release::{Flaws, Program, RELEASES, Release};
use crate::bake::Bake;
use crate::costs::Costs;
use crate::ids::{DeployId, Epoch, MemberId};
use crate::report::{Cause, Refusal, Report, Seen, Stamp, Standing};
use crate::target::Label;
use crate::units::Millis;

/// What control tells a member.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Wish { seen: Seen, release: Release },
    Grant { deploy: DeployId, bake: Bake },
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
    bake: Bake,
    /// Whether the next failure before the switch is the last.
    again: bool,
}

/// What chance and trouble a member meets.
pub(super) struct Fate<'a> {
    pub prng: &'a mut Prng,
    pub program: Program,
    pub flaws: &'a [Flaws; RELEASES],
    pub overlap: bool,
}

impl Fate<'_> {
    fn fetch(&mut self) -> Millis {
        let (least, most) = self.program.fetch;
        self.prng.between(least, most)
    }

    fn start(&mut self, release: Release) -> Millis {
        let (least, most) = self.program.start;
        let takes = self.prng.between(least, most);
        more_by(takes.0, self.flaws(release).slower).map_or(takes, Millis)
    }

    fn flaws(&self, release: Release) -> Flaws {
        self.flaws[release.index()]
    }

    fn relaunch(&mut self) -> Millis {
        let (least, most) = self.program.relaunch;
        self.prng.between(least, most)
    }
}

/// So much more, in percent; nothing when that is none.
fn more_by(what: u64, percent: u32) -> Option<u64> {
    (percent > 0).then(|| what.saturating_add(what.saturating_mul(u64::from(percent)) / 100))
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
    /// Whether something is under way that ends by itself.
    pub busy: bool,
}

impl Glance {
    /// One where something new serves.
    pub(super) fn exposed(&self) -> u32 {
        u32::from(self.serving.is_some_and(|release| release != Release::OLD))
    }
}

/// What never works on a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curse {
    None,
    /// This release does not start.
    NeverStarts(Release),
    /// This release cannot be fetched.
    CannotFetch(Release),
}

pub(super) struct Member {
    pub id: MemberId,
    pub alive: bool,
    /// Whether its goodbye was heard: its session has ended with that.
    pub parted: bool,
    /// The server that it has a session with, counted from 0.
    pub session: usize,
    /// How many signs of life were not answered.
    pub missed: u32,
    /// The servers, one bit each, that do not hear it.
    pub mute: u8,
    /// The servers that it does not hear.
    pub deaf: u8,
    /// Since when the server of its session has what it last said.
    pub heard: Option<Millis>,
    pub curse: Curse,
    pub labels: Vec<Label>,
    stamp: Stamp,
    reported: Stamp,
    seen: Option<Seen>,
    goal: Release,
    committed: (Release, Epoch),
    serving: Option<Release>,
    standby: Option<Release>,
    activity: Activity,
    /// The releases on its disk, one bit each.
    on_disk: u16,
    costs: Costs,
    attempts: u32,
    relapses: u32,
    drained: bool,
    token: u32,
    launch: u32,
}

impl Member {
    /// A member that serves `release` and has not heard of any deploy.
    pub(super) fn new(id: MemberId, release: Release, life: u64) -> Self {
        Self {
            id,
            alive: true,
            parted: false,
            session: 0,
            missed: 0,
            mute: 0,
            deaf: 0,
            heard: None,
            curse: Curse::None,
            labels: Vec::new(),
            stamp: Stamp { life, sequence: 0 },
            reported: Stamp { life, sequence: 0 },
            seen: None,
            goal: release,
            committed: (release, Epoch(0)),
            serving: Some(release),
            standby: None,
            activity: Activity::Idle,
            on_disk: release.bit(),
            costs: Costs::default(),
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
            busy: self.activity != Activity::Idle,
        }
    }

    /// Whether a server can hear it.
    pub(super) const fn reaches(&self, server: usize) -> bool {
        self.alive && self.mute >> server & 1 == 0
    }

    /// Whether it can hear a server.
    pub(super) const fn hears(&self, server: usize) -> bool {
        self.alive && self.deaf >> server & 1 == 0
    }

    fn has(&self, release: Release) -> bool {
        self.on_disk & release.bit() != 0
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
            costs: self.costs,
            labels: self.labels.clone(),
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
                } else if self.has(self.goal) {
                    Standing::Staged
                } else {
                    Standing::Behind
                }
            }
        }
    }

    /// What it does, for messages about broken invariants.
    pub(super) fn describe(&self) -> String {
        let serves = self.serving.map_or("nothing".into(), |release| format!("{release}"));
        let (committed, epoch) = self.committed;
        format!("{}: {:?}, serves {serves}, committed {committed} in epoch {epoch}", self.id, self.activity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::script::NO_FLAWS;

    #[test]
    fn a_wish_that_is_known_is_not_answered() {
        let mut prng = Prng::new(1);
        let mut fate = Fate { prng: &mut prng, program: Program::QUICK, flaws: &NO_FLAWS, overlap: true };
        let mut member = Member::new("m-1".parse().unwrap(), Release::OLD, 1);
        let seen = Seen { epoch: Epoch(2), deploy: DeployId::from_bytes([2; 16]) };
        let mut hear = |seen| {
            let mut effects = Vec::new();
            member.obey(Order::Wish { seen, release: Release::NEW }, &mut fate, &mut effects);
            effects.iter().any(|effect| matches!(effect, Effect::Report))
        };
        assert!(hear(seen), "it is news");
        assert!(!hear(seen), "it is not, and control would say it again to whoever is behind");
        assert!(!hear(Seen { epoch: Epoch(1), ..seen }), "an earlier one is none either");
    }
}
