//! What the supervisor tells: single facts as they happen, and the whole as it is.

use alloc::string::{String, ToString};
use core::fmt;

use super::generation::Illegal;
use super::plan::{Running, Ticket};
use crate::exit::Exit;
use crate::ids::GenerationId;
use crate::report::Cause;
use crate::units::Millis;

/// Why a generation was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its main process ended.
    Ended {
        /// How.
        exit: Exit,
        /// How long after its launch.
        after: Millis,
    },
    /// It did not get healthy in time.
    NotHealthyIn(Millis),
    /// It failed too many probes.
    Unhealthy,
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
            Self::NotHealthyIn(_) => Some(Cause::Startup),
            Self::Unhealthy => Some(Cause::Unhealthy),
            Self::TakenBack | Self::Superseded => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { exit, after } => f.write_str(&exit.sentence(*after)),
            Self::NotHealthyIn(limit) => write!(f, "not healthy within {limit}"),
            Self::Unhealthy => f.write_str("failed its probes"),
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
    /// The generation that stood by has ended.
    StandbyLost(GenerationId, Reason),
    /// It failed too often, or was told not to restart.
    GivenUp(GenerationId, Reason),
    /// No process of a generation is left.
    Gone(GenerationId, Option<Reason>),
    /// A reload was asked for while the candidate of another one is being judged.
    ReloadWaits,
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
            Self::StandbyLost(id, cause) => write!(f, "generation {id}, which stood by, has ended ({cause})"),
            Self::GivenUp(id, cause) => write!(f, "generation {id} failed ({cause}); not launching it again"),
            Self::Gone(id, None) => write!(f, "generation {id} is gone"),
            Self::Gone(id, Some(cause)) => write!(f, "generation {id} is gone: {cause}"),
            Self::ReloadWaits => f.write_str("a reload is under way; reloading once more when it is judged"),
            Self::Stopping => f.write_str("stopping"),
            Self::Fault(id, illegal) => write!(f, "fault in generation {id}: {illegal}; please report this"),
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
    pub(super) fn ended(generation: GenerationId, reason: &Reason) -> Self {
        match reason.blames() {
            Some(cause) => Self::Refused { cause, detail: reason.to_string(), generation },
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
    /// Who stands by, to be handed back to.
    pub standby: Option<Running>,
    /// The trial under way or, when none is, the last one.
    pub trial: Option<(Ticket, TrialState)>,
    /// How many generations are finishing.
    pub draining: usize,
}
