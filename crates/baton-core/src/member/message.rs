//! What a member hears of, and what it asks for.

use crate::bake::Bake;
use crate::deploy::Kind;
use crate::ids::{DeployId, Epoch, ReleaseId};
use crate::report::{Fetching, Refusal, Seen};
use crate::supervisor::{Status, Ticket};
use crate::units::Bytes;

/// The deploy in force, as far as a member must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Which deploy.
    pub seen: Seen,
    /// What it is for.
    pub purpose: Purpose,
    /// What to have on disk, and to run once there is a slot.
    pub release: ReleaseId,
    /// What a member that has nothing starts without a slot.
    pub base: Option<ReleaseId>,
}

/// What a deploy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Bring a release to the fleet.
    Rollout,
    /// Stop a rollout where it is.
    Halt,
    /// Go back.
    Rollback,
}

impl From<Kind> for Purpose {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Rollout => Self::Rollout,
            Kind::Halt { .. } => Self::Halt,
            Kind::Rollback { .. } => Self::Rollback,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Control says what is in force, and this member may obey it.
    Wish(Wish),
    /// Control says what is in force, and this member does not believe it.
    Untrusted(Seen, Refusal),
    /// Control says nothing any more.
    Parted,
    /// Control gives a slot.
    Grant {
        /// For which deploy.
        deploy: DeployId,
        /// What the release must go through after the switch.
        bake: Bake,
    },
    /// Control wants the trial ended.
    HandBack {
        /// In which deploy.
        deploy: DeployId,
    },
    /// What was to be remembered is on disk.
    Remembered(Seen),
    /// It could not be written down: the deploy is not obeyed, and heard as new when it is said again.
    NotRemembered(Seen),
    /// So much of a release has come.
    Fetching(ReleaseId, Fetching),
    /// A release is on disk, verified.
    Staged(ReleaseId),
    /// A release could not be brought to the disk.
    NotStaged(ReleaseId, Refusal),
    /// What was to be committed is on disk.
    Committed(ReleaseId, Epoch),
    /// What was to be committed could not be written down: the trial counts as failed.
    NotCommitted(ReleaseId, Refusal),
    /// What the member had committed to is not on its disk any more as it was.
    Lost(ReleaseId),
    /// What the member shall run without a slot is on its disk, and lacks something for now that it is launched with.
    Delayed(ReleaseId),
    /// A release was proven here, and has used so much memory until then; the one that was proven before it used so much.
    Used(ReleaseId, Bytes, Option<Bytes>),
    /// The generations stand like this now. The detail of a refusal has the program's last lines.
    Stands(Status),
    /// The deadline has passed.
    Woken,
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Write down that this deploy was seen; [`Input::Remembered`] follows.
    Remember(Seen),
    /// Bring a release to the disk; [`Input::Staged`] or [`Input::NotStaged`] follows.
    Stage(ReleaseId),
    /// Try a release.
    Try {
        /// Which.
        release: ReleaseId,
        /// On whose behalf.
        ticket: Ticket,
        /// How it bakes.
        bake: Bake,
    },
    /// End the trial under way.
    HandBack,
    /// Go back to a release that is kept warm; where it is not there any more, nothing.
    GoBack {
        /// Which.
        release: ReleaseId,
        /// On whose behalf.
        ticket: Ticket,
    },
}
