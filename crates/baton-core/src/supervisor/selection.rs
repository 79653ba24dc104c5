//! Who gets new connections, and which part of them.

use alloc::vec::Vec;

use super::{Command, Slot, Supervisor};
use crate::units::Share;

/// Who gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// Whom everybody reaches.
    pub serving: Slot,
    /// Whom probes reach.
    pub private: Slot,
    /// Set while only a part of everybody is to reach the serving slot.
    pub split: Option<Split>,
}

impl Selection {
    /// Everybody and probes to one slot.
    pub fn of(slot: Slot) -> Self {
        Self { serving: slot, private: slot, split: None }
    }
}

/// New connections are divided between a release that bakes, which serves, and what stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Which part goes to the serving slot.
    pub share: Share,
    /// Who gets the rest.
    pub rest: Slot,
}

impl Supervisor {
    /// Everybody to who serves, or a part of them; private connections to the candidate.
    pub(super) fn select(&self, out: &mut Vec<Command>) {
        let (serving, private) = (self.serving_slot, self.private_slot());
        out.push(Command::Select(Selection { serving, private, split: self.split() }));
    }

    pub(super) fn select_serving_alone(&self, out: &mut Vec<Command>) {
        out.push(Command::Select(Selection::of(self.serving_slot)));
    }

    /// How new connections are divided now. Without a generation that stands by all go to what serves.
    pub(super) fn split(&self) -> Option<Split> {
        let share = self.trial.as_ref()?.split()?;
        let rest = self.standby().and_then(|standby| self.find(standby))?.slot;
        Some(Split { share, rest })
    }
}
