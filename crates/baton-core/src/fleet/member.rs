//! What is known of one member: what it said last, when it was heard, and what ties it to the deploy in force.

use alloc::sync::Arc;
use core::cmp::Ordering;

use crate::deploy::Deploy;
use crate::ids::{Epoch, ReleaseId};
use crate::report::{Refusal, Report, Seen, Stamp, Standing};
use crate::target::Target;
use crate::units::Millis;

/// A member that was not heard of for this long is silent. Three lost heartbeats in a row, not one.
pub const LEASE: Millis = Millis::from_secs(10);

/// What is known of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Shared with whoever else has it: copies of a fleet are many.
    pub(crate) report: Option<Arc<Report>>,
    /// Of what it said last, be that only that it lives. Where it has said nothing it means nothing.
    pub(crate) stamp: Stamp,
    pub(crate) heard_at: Millis,
    pub(crate) gone: bool,
    pub(crate) rank: u64,
    pub(crate) tie: Tie,
}

/// What ties a member to the deploy in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// Nothing.
    Nothing,
    /// It had a slot of the deploy before and has not said yet how that ended.
    Leftover,
    /// It had proven the release before this deploy gave it a slot.
    Found,
    /// It was given a slot.
    Slot(Grant),
}

impl Tie {
    /// What of it a state store keeps: what was found is found again with the first report.
    pub(crate) const fn as_stored(self) -> Self {
        match self {
            Self::Found | Self::Nothing => Self::Nothing,
            Self::Leftover | Self::Slot(_) => self,
        }
    }

    /// This tie, as a state store has it, with what reports have added to it here.
    pub(super) const fn known_here_as(self, here: Self) -> Self {
        match (self, here) {
            (Self::Slot(stored), Self::Slot(here)) => {
                Self::Slot(Grant { proven: stored.proven || here.proven, ..stored })
            }
            // Nobody stores it: it is found again with a report, unless something has happened since.
            (Self::Nothing, Self::Found) => Self::Found,
            (stored, Self::Nothing | Self::Leftover | Self::Found | Self::Slot(_)) => stored,
        }
    }
}

/// A slot given to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The phase in which it was given, counted from 0: the phases before it ended well.
    pub phase: usize,
    /// How long the member must stay healthy on the new release.
    pub bake: Millis,
    /// Whether it has proven the release since.
    pub proven: bool,
}

/// Whether a member can be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Heard of within the lease.
    Live,
    /// Not heard of within the lease: neither there nor gone.
    Silent {
        /// When it was last heard.
        since: Millis,
    },
    /// Silent for too long, or it left after the release had failed on it.
    Gone,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Heard {
    /// It was newer than what was known.
    News,
    /// It was older, or known already. It changed nothing and renewed no lease.
    Stale,
}

impl Member {
    pub(super) fn new(heard_at: Millis) -> Self {
        Self { report: None, stamp: Stamp::default(), heard_at, gone: false, rank: 0, tie: Tie::Nothing }
    }

    /// Its last report; none when it is known from the state store only.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_deref()
    }

    /// The stamp of what it said last, a report or a sign of life; none where it has said nothing.
    pub fn stamp(&self) -> Option<Stamp> {
        self.report.is_some().then_some(self.stamp)
    }

    /// What ties it to the deploy in force.
    pub const fn tie(&self) -> Tie {
        self.tie
    }

    /// Whether it is gone: it was silent for too long, or it left after the release had failed on it.
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    /// When it was last heard of.
    pub const fn heard_at(&self) -> Millis {
        self.heard_at
    }

    /// Whether it can be heard.
    pub fn presence(&self, now: Millis) -> Presence {
        if self.gone {
            Presence::Gone
        } else if now.since(self.heard_at) >= LEASE {
            Presence::Silent { since: self.heard_at }
        } else {
            Presence::Live
        }
    }

    /// How far it is with `deploy`; none when it has not heard of it yet.
    pub(crate) fn standing(&self, deploy: &Deploy) -> Option<&Standing> {
        self.report.as_ref().filter(|report| report.seen == Some(seen(deploy))).map(|report| &report.standing)
    }

    /// Why it refuses the release of `deploy`, if it does.
    pub(crate) fn refusal(&self, deploy: &Deploy) -> Option<&Refusal> {
        if let Some(Standing::Refused(refusal)) = self.standing(deploy) { Some(refusal) } else { None }
    }

    /// Whether the release of `deploy` crashed or lost its health there after it was proven.
    pub(crate) fn has_relapsed(&self, deploy: &Deploy) -> bool {
        self.standing(deploy).is_some() && self.report.as_ref().is_some_and(|report| report.relapses > 0)
    }

    /// Whether it last said that it has committed to the release of `deploy`: what it says is from after its proof.
    pub(crate) fn has_committed(&self, deploy: &Deploy) -> bool {
        let committed = self.report.as_ref().and_then(|report| report.committed);
        committed.is_some_and(|(release, _)| release == deploy.release)
    }

    /// The epoch that it obeys, if that is later than the one of `deploy`.
    pub(crate) fn ahead(&self, deploy: &Deploy) -> Option<Epoch> {
        let seen = self.report.as_ref().and_then(|report| report.seen)?;
        Some(seen.epoch).filter(|epoch| *epoch > deploy.epoch)
    }

    /// Whether it may be trying an unproven release, for whichever deploy: it last said so, or this server
    /// knows it from the state store only.
    pub(crate) fn may_be_on_trial(&self) -> bool {
        self.report.as_ref().is_none_or(|report| report.standing.on_trial())
    }

    /// Whether a deploy to this target is for it. Nobody knows of one that has not reported.
    pub(crate) fn is_meant(&self, target: &Target) -> bool {
        target.means(self.report.as_ref().map_or(&[], |report| &report.labels))
    }

    /// Whether it last said that something serves there, healthy.
    pub(crate) fn is_healthy(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.healthy)
    }

    /// Whether it last said that it runs the release of `deploy`, healthy and baked. What it says of its
    /// progress counts only together with the digest that it runs.
    pub(crate) fn proves(&self, deploy: &Deploy) -> bool {
        let Some(report) = &self.report else { return false };
        let baked = match self.standing(deploy) {
            Some(standing) => *standing == Standing::Proven,
            None => !report.standing.on_trial(),
        };
        let is_release = |release: ReleaseId| release == deploy.release;
        baked && report.healthy && report.running.is_some_and(is_release) && self.has_committed(deploy)
    }

    /// What becomes of a tie by the last report.
    pub(super) fn tied_by(&self, tie: Tie, deploy: &Deploy) -> Tie {
        let runs_other = || self.report.as_ref().and_then(|report| report.running) != Some(deploy.release);
        match tie {
            Tie::Slot(grant) => Tie::Slot(Grant { proven: grant.proven || self.proves(deploy), ..grant }),
            Tie::Leftover if self.standing(deploy).is_none() => Tie::Leftover,
            Tie::Leftover | Tie::Nothing if self.proves(deploy) => Tie::Found,
            Tie::Leftover | Tie::Nothing => Tie::Nothing,
            Tie::Found if self.standing(deploy).is_some() && runs_other() => Tie::Nothing,
            Tie::Found => Tie::Found,
        }
    }

    /// Takes in what it says, as it is now.
    pub(super) fn take_in(&mut self, report: Arc<Report>, deploy: Option<&Deploy>, now: Millis) -> Heard {
        let heard = self.presence(now) == Presence::Live;
        if self.report.as_ref().is_some_and(|last| is_stale(&report, (self.stamp, last.seen), heard)) {
            return Heard::Stale;
        }
        self.stamp = report.stamp;
        self.report = Some(report);
        // What another server has heard long ago makes nobody gone whom this one knows since it has started.
        self.heard_at = self.heard_at.max(now);
        self.gone = false;
        self.tie = deploy.map_or(self.tie, |deploy| self.tied_by(self.tie, deploy));
        Heard::News
    }

    /// It was heard at this moment. Tells whether anything follows: nothing does where it was heard anyway.
    pub(super) fn hear_again(&mut self, placed_at: Millis, at: Millis) -> bool {
        let was_heard = self.presence(placed_at) == Presence::Live;
        self.heard_at = self.heard_at.max(at);
        !was_heard
    }

    /// The tie that is left of it when another deploy takes the place of `deploy`.
    ///
    /// A refusal ends a slot where it was heard. A store keeps none: who has refused tries again every minute, so that a server which
    /// has started since, and has not heard it, takes it for one that may be at it.
    pub(super) fn leave_behind(&self, deploy: &Deploy) -> Tie {
        match self.tie {
            Tie::Leftover => Tie::Leftover,
            Tie::Slot(_) if !self.proves(deploy) && self.refusal(deploy).is_none() => Tie::Leftover,
            Tie::Slot(_) | Tie::Found | Tie::Nothing => Tie::Nothing,
        }
    }
}

/// What a member reports once it has heard of `deploy`.
const fn seen(deploy: &Deploy) -> Seen {
    Seen { epoch: deploy.epoch, deploy: deploy.id }
}

/// Whether a report tells nothing new after what was said last, with this stamp, by who had seen that. Within one life of a
/// bootloader the epoch it has seen never falls; a new life may have lost its disk. When who said it is not `heard` any more, an
/// earlier life that still speaks is another process of that name, or the machine's clock was put back.
fn is_stale(report: &Report, (last, seen): (Stamp, Option<Seen>), heard: bool) -> bool {
    let epoch = |seen: Option<Seen>| seen.map(|seen| seen.epoch);
    match report.stamp.life.cmp(&last.life) {
        Ordering::Less => heard,
        Ordering::Equal => report.stamp <= last || epoch(report.seen) < epoch(seen),
        Ordering::Greater => false,
    }
}
