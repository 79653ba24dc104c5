//! Ends of waiting for a deploy that are not the wanted one.

use crate::exit::Exit;

/// How waiting for a deploy ended, other than well. What exactly happened was told as the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// Only members are left that refuse the release or cannot get it.
    #[error("the release is not on every member that shall have it")]
    Incomplete,
    /// The rollout, or the rollback, stopped where it was.
    #[error("the rollout was halted")]
    Halted,
    /// It was taken back.
    #[error("the release was rolled back")]
    RolledBack,
    /// Somebody deployed something else.
    #[error("another deploy took over")]
    Superseded,
    /// It takes longer than `--timeout`.
    #[error("timed out waiting; the rollout goes on")]
    TimedOut,
}

impl End {
    /// How the program ends because of it.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Incomplete => Exit::Failed,
            Self::Halted | Self::RolledBack => Exit::Halted,
            Self::Superseded => Exit::Conflict,
            Self::TimedOut => Exit::TimedOut,
        }
    }

    /// A stable word for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Halted => "halted",
            Self::RolledBack => "rolled-back",
            Self::Superseded => "superseded",
            Self::TimedOut => "timed-out",
        }
    }
}
