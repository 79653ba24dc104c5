//! How far a release is on its way to a member's disk.

use crate::report::{Fetching, Refusal};
use crate::units::Millis;

/// Whether a release is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Staging {
    Wanted,
    /// It is on its way; how much of it has come, once that is known.
    Under(Option<Fetching>),
    Done,
    Failed {
        refusal: Refusal,
        again_at: Millis,
    },
}

impl Staging {
    /// Whether the release is to be fetched now; it is under way from then on.
    pub(super) fn begins(&mut self, now: Millis) -> bool {
        let begins = match self {
            Self::Wanted => true,
            Self::Failed { again_at, .. } => *again_at <= now,
            Self::Under(_) | Self::Done => false,
        };
        if begins {
            *self = Self::Under(None);
        }
        begins
    }

    /// Takes in how much has come. Said too late, it says nothing any more.
    pub(super) fn comes(&mut self, fetching: Fetching) {
        if let Self::Under(come) = self {
            *come = Some(fetching);
        }
    }

    pub(super) fn fetching(&self) -> Option<Fetching> {
        match self {
            Self::Under(fetching) => *fetching,
            Self::Wanted | Self::Done | Self::Failed { .. } => None,
        }
    }

    pub(super) fn again_at(&self) -> Option<Millis> {
        match self {
            Self::Failed { again_at, .. } => Some(*again_at),
            Self::Wanted | Self::Under(_) | Self::Done => None,
        }
    }
}
