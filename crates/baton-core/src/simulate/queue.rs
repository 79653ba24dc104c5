//! Events in the order of virtual time.

use alloc::collections::BinaryHeap;
use core::cmp::Ordering;

use crate::units::Millis;

/// Gives the earliest event first, and of several at one moment the one that was added first.
pub(super) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    pushed: u64,
}

struct Entry<E> {
    at: Millis,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(super) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }

    pub(super) fn push(&mut self, at: Millis, event: E) {
        self.pushed += 1;
        self.heap.push(Entry { at, number: self.pushed, event });
    }

    pub(super) fn pop(&mut self) -> Option<(Millis, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// How many events there ever were.
    pub(super) const fn pushed(&self) -> u64 {
        self.pushed
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    /// The heap gives the greatest first, so that must be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}
