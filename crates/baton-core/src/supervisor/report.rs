//! What the supervisor tells: single facts as they happen, and the whole as it is.

use alloc::format;
use alloc::string::String;
use core::fmt;

use super::generation::Illegal;
use super::plan::{Running, Ticket};
use super::trial::Trial;
use super::{State, Supervisor};
use crate::bake::TRAFFIC_PATIENCE;
use crate::exit::Exit;
use crate::ids::GenerationId;
use crate::report::Cause;
use crate::run::NoRoom;
use crate::units::{Bytes, Micros, Millis, Share};
use crate::words::Words;

/// Why a generation was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its main process ended.
    Ended {
        /// How.
        exit: Exit,
        /// How long after its launch.
        after: Millis,
        /// It left other processes behind, which run on.
        behind: bool,
    },
    /// It did not get healthy in time; what its last probe found.
    NotHealthyIn(Millis, Option<Words>),
    /// It failed too many probes; what the last one found.
    Unhealthy(Option<Words>),
    /// It gave no sign of life for so long or, without a time, said itself that it hangs.
    Hung(Option<Millis>),
    /// Its progress file stayed as it is for so long.
    NoProgress(Millis),
    /// There was no memory for it beside what runs: it was not launched.
    NoRoom(NoRoom),
    /// Whoever ordered the trial took it back.
    TakenBack,
    /// Another trial took its place.
    Superseded,
}

impl Reason {
    /// What it comes to for the release; nothing when the release is not to blame.
    pub fn blames(&self) -> Option<Cause> {
        match self {
            Self::Ended { exit: Exit::FailedToStart { .. }, .. } => Some(Cause::Launch),
            Self::Ended { exit: Exit::OutOfMemory { .. }, .. } => Some(Cause::Memory),
            Self::Ended { .. } => Some(Cause::Exit),
            Self::NotHealthyIn(..) => Some(Cause::Startup),
            Self::Unhealthy(_) | Self::Hung(_) | Self::NoProgress(_) => Some(Cause::Unhealthy),
            Self::NoRoom(_) => Some(Cause::NoRoom),
            Self::TakenBack | Self::Superseded => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What makes itself a daemon ends well, and what was to serve is behind its back.
            Self::Ended { exit: exit @ Exit::Code(0), after, behind: true } => write!(
                f,
                "{}, and left processes behind: a program that makes itself a daemon must be told to stay in the \
                 foreground",
                exit.sentence(*after)
            ),
            Self::Ended { exit, after, .. } => f.write_str(&exit.sentence(*after)),
            Self::NotHealthyIn(limit, None) => write!(f, "not healthy within {limit}"),
            Self::NotHealthyIn(limit, Some(found)) => write!(f, "not healthy within {limit}: {found}"),
            Self::Unhealthy(None) => f.write_str("failed its probes"),
            Self::Unhealthy(Some(found)) => write!(f, "failed its probes: {found}"),
            Self::Hung(Some(limit)) => write!(f, "no sign of life (WATCHDOG=1) for {limit}"),
            Self::Hung(None) => f.write_str("it said that it hangs (WATCHDOG=trigger)"),
            Self::NoProgress(limit) => write!(f, "no progress for {limit} (run.progress.file)"),
            Self::NoRoom(lack) => lack.fmt(f),
            Self::TakenBack => f.write_str("taken back"),
            Self::Superseded => f.write_str("superseded by another trial"),
        }
    }
}

/// Something worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A generation was launched.
    Launched(GenerationId, Running),
    /// A generation serves; so long after its launch.
    Serving(GenerationId, Running, Millis),
    /// That took remarkably longer than the last proven start.
    SlowStart(GenerationId, Millis, Millis),
    /// A generation waits until no process of another one is left, as it must be alone.
    Waits(GenerationId, Running),
    /// There is no memory for a generation; it waits for that of others, which are finishing.
    WaitsForRoom(GenerationId, Running, NoRoom),
    /// A generation was asked to take no new work; when it is asked to stop at the latest.
    Quiescing(GenerationId, Millis),
    /// A generation reads its settings again.
    Reloads(GenerationId),
    /// A generation has baked for long enough, and lacks connections: so many of so many.
    WaitsForTraffic(GenerationId, Option<u64>, u32),
    /// Its wait for connections is over: it is proven with those that there were.
    TooLittleTraffic(GenerationId, Option<u64>, u32),
    /// A generation stayed healthy for the whole bake.
    Proven(GenerationId, Running),
    /// A try failed before the switch and is repeated.
    Retried(GenerationId, Reason),
    /// A trial ended without success.
    Refused(GenerationId, Running, Reason),
    /// The serving generation was given up for the one that stood by.
    HandedBack {
        /// Who had served.
        from: GenerationId,
        /// Who serves again.
        to: GenerationId,
    },
    /// The serving generation failed with nobody standing by; the same is launched again after this wait.
    Restarting(GenerationId, Reason, Millis),
    /// One copy of the serving generation has ended, and is launched again after this wait; the others serve.
    CopyRestarting {
        /// Whose.
        id: GenerationId,
        /// Which.
        copy: u32,
        /// How it ended.
        cause: Reason,
        /// When it is launched again.
        wait: Millis,
    },
    /// A generation ended by its own wish, and is launched again.
    Left(GenerationId, Reason),
    /// A trial failed with nobody standing by: what was proven before it is launched again.
    GoingBack(Running),
    /// A generation gets this part of the new connections while it bakes, and another one the rest.
    Split(GenerationId, Share, GenerationId),
    /// A generation stands by so long, though its successor is proven.
    KeptWarm(GenerationId, Millis),
    /// The generation that stood by was asked to stop, since memory was running out.
    StandbyLetGo(GenerationId),
    /// The generation that stood by has ended.
    StandbyLost(GenerationId, Reason),
    /// It failed too often, or was told not to restart.
    GivenUp(GenerationId, Reason),
    /// No process of a generation is left.
    Gone(GenerationId, Option<Reason>),
    /// A reload was asked for while the candidate of another one is being judged.
    ReloadWaits,
    /// A generation uses more memory than this, for longer than it may: it is replaced.
    Recycled(GenerationId, Bytes, Bytes),
    /// A generation's drain, which the platform cuts when it stops the container, its limit, and what is left.
    DrainCut(GenerationId, Millis, Millis, Millis),
    /// The container is being stopped.
    Stopping,
    /// A fault in the bootloader itself.
    Fault(GenerationId, Illegal),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launched(id, release) => write!(f, "generation {id} ({release}) launched"),
            Self::Serving(id, release, after) => {
                write!(f, "generation {id} ({release}) serves, {after} after its launch")
            }
            Self::SlowStart(id, took, proven) => write!(
                f,
                "generation {id} took {took} to start, much longer than the last proven one ({proven})"
            ),
            Self::Waits(id, release) => {
                write!(f, "generation {id} ({release}) waits until no process of the others is left")
            }
            Self::WaitsForRoom(id, release, lack) => {
                write!(f, "generation {id} ({release}) waits until others are gone: {lack}")
            }
            Self::Quiescing(id, limit) => {
                write!(
                    f,
                    "generation {id} was asked to take no new work, and to stop in {limit} at the latest"
                )
            }
            Self::Reloads(id) => write!(f, "generation {id} reloads"),
            Self::WaitsForTraffic(id, accepted, wanted) => write!(
                f,
                "generation {id} has baked, and waits for connections: {} of {wanted}, for {TRAFFIC_PATIENCE} at the most",
                Counted(*accepted)
            ),
            Self::TooLittleTraffic(id, accepted, wanted) => write!(
                f,
                "generation {id} is taken for good with {} of {wanted} connections: no more came in {TRAFFIC_PATIENCE}",
                Counted(*accepted)
            ),
            Self::Proven(id, release) => write!(f, "generation {id} ({release}) is proven"),
            Self::Retried(id, cause) => write!(f, "generation {id} failed ({cause}); trying once more"),
            Self::Refused(id, release, cause) => write!(f, "generation {id} ({release}) refused: {cause}"),
            Self::HandedBack { from, to } => write!(f, "handed back from generation {from} to {to}"),
            Self::Restarting(id, cause, Millis::ZERO) => {
                write!(f, "generation {id} failed ({cause}); launching it again")
            }
            Self::Restarting(id, cause, wait) => {
                write!(f, "generation {id} failed ({cause}); launching it again in {wait}")
            }
            Self::CopyRestarting { id, copy, cause, wait: Millis::ZERO } => {
                write!(f, "copy {copy} of generation {id} failed ({cause}); launching it again")
            }
            Self::CopyRestarting { id, copy, cause, wait } => {
                write!(f, "copy {copy} of generation {id} failed ({cause}); launching it again in {wait}")
            }
            Self::Left(id, cause) => {
                write!(f, "generation {id} ended by its own wish ({cause}); launching it again")
            }
            Self::GoingBack(release) => write!(f, "going back to {release}"),
            Self::Split(id, share, rest) => {
                write!(
                    f,
                    "generation {id} gets {share} of the new connections while it bakes, generation {rest} the rest"
                )
            }
            Self::KeptWarm(id, time) => write!(f, "generation {id} stands by for {time} more"),
            Self::StandbyLetGo(id) => {
                write!(f, "generation {id}, which stood by, is stopped: memory is running out")
            }
            Self::StandbyLost(id, cause) => write!(f, "generation {id}, which stood by, has ended ({cause})"),
            Self::GivenUp(id, cause) => write!(f, "generation {id} failed ({cause}); not launching it again"),
            Self::Gone(id, None) => write!(f, "generation {id} is gone"),
            Self::Gone(id, Some(cause)) => write!(f, "generation {id} is gone: {cause}"),
            Self::ReloadWaits => f.write_str("a reload is under way; reloading once more when it is judged"),
            Self::Recycled(id, used, threshold) => {
                write!(f, "generation {id} uses {used} of memory, more than {threshold}; replacing it")
            }
            Self::DrainCut(id, drain, limit, left) => write!(
                f,
                "run.drain of generation {id} is {drain}, and the platform kills everything {limit} after it has \
                 asked for a stop (BATON_STOP_LIMIT): at a stop there are {left}; raise the platform's limit, or \
                 lower run.drain"
            ),
            Self::Stopping => f.write_str("stopping"),
            Self::Fault(id, illegal) => write!(f, "fault in generation {id}: {illegal}; please report this"),
        }
    }
}

/// A number that nobody may know.
struct Counted(Option<u64>);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(count) => count.fmt(f),
            None => f.write_str("nobody knows how many"),
        }
    }
}

/// How the trial under way, or the last one, stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialState {
    /// The candidate is starting or being judged.
    Trying,
    /// The candidate serves and bakes.
    Proving,
    /// It stayed healthy for the whole bake.
    Proven,
    /// It failed.
    Refused {
        /// Why, for machines.
        cause: Cause,
        /// Why, for people.
        detail: String,
        /// The generation that failed.
        generation: GenerationId,
    },
    /// It was taken back or superseded: it may be good.
    Dropped,
}

impl TrialState {
    /// How a trial ended. The generation's own words on how it was stand beneath the reason.
    pub(super) fn ended(generation: GenerationId, reason: &Reason, said: Option<&Words>) -> Self {
        match reason.blames() {
            Some(cause) => {
                let said = said.map(|words| format!("\nits status: {words}")).unwrap_or_default();
                Self::Refused { cause, detail: format!("{reason}{said}"), generation }
            }
            None => Self::Dropped,
        }
    }
}

/// Everything about the member's generations that others need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Who serves.
    pub serving: Option<Running>,
    /// The serving generation is healthy now.
    pub healthy: bool,
    /// How the serving generation is, in its own words.
    pub said: Option<Words>,
    /// How long after its launch the serving generation was healthy for the first time.
    pub started_in: Option<Millis>,
    /// How long after that was known it got the new connections of another one, if there was one.
    pub handed_over_in: Option<Micros>,
    /// How many connections it has accepted since, where that is counted and can be.
    pub accepted: Option<u64>,
    /// How long after its launch the last generation that was proven was healthy for the first time.
    pub proven_in: Option<Millis>,
    /// Who stands by, to be handed back to.
    pub standby: Option<Running>,
    /// The trial under way that somebody asked for or, when none is, the last one. What the member launches by
    /// itself, to run what it runs anyway, is none.
    pub trial: Option<(Ticket, TrialState)>,
    /// What the member runs anyway was launched, and is being judged.
    pub restoring: bool,
    /// How many generations are finishing.
    pub draining: usize,
}

impl Supervisor {
    /// How things stand.
    pub fn status(&self) -> Status {
        let count = |state| self.generations.iter().filter(|g| g.state == state).count();
        let serving = self.serving.and_then(|id| self.find(id));
        let trial = self.trial.as_ref().filter(|trial| !trial.replaces_the_serving());
        Status {
            serving: serving.filter(|g| g.state == State::Serving).map(|g| g.plan.release),
            healthy: serving.is_some_and(|g| g.state == State::Serving && g.healthy_since.is_some()),
            standby: self.standby().and_then(|id| self.find(id)).map(|g| g.plan.release),
            said: serving.and_then(|g| g.said.clone()),
            started_in: serving.and_then(|g| g.started_in),
            handed_over_in: serving.and_then(|g| g.handed_over_in),
            accepted: serving.and_then(|g| g.accepted),
            proven_in: self.proven.as_ref().and_then(|proven| proven.started_in),
            trial: trial.map(Trial::standing).or_else(|| self.last_trial.clone()),
            restoring: self.trial.as_ref().is_some_and(Trial::restores),
            draining: count(State::Draining) + count(State::Quiescing),
        }
    }
}
