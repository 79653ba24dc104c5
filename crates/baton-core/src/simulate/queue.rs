//! Events in the order of virtual time.

use alloc::collections::{BTreeMap, VecDeque};

use crate::units::Millis;

/// Gives the earliest event first, and of several at one moment the one that was added first.
pub(super) struct Queue<E> {
    moments: BTreeMap<Millis, VecDeque<E>>,
    pushed: u64,
}

impl<E> Queue<E> {
    pub(super) const fn new() -> Self {
        Self { moments: BTreeMap::new(), pushed: 0 }
    }

    pub(super) fn push(&mut self, at: Millis, event: E) {
        self.pushed += 1;
        self.moments.entry(at).or_default().push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<(Millis, E)> {
        let mut first = self.moments.first_entry()?;
        let (at, event) = (*first.key(), first.get_mut().pop_front()?);
        // No moment is without events.
        if first.get().is_empty() {
            first.remove();
        }
        Some((at, event))
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.moments.first_key_value().map(|(at, _)| *at)
    }

    /// How many events there ever were.
    pub(super) const fn pushed(&self) -> u64 {
        self.pushed
    }
}
