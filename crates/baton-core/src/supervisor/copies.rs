//! The copies of a program that run side by side in one generation, on the same sockets.
//!
//! One that crashes while the others serve is launched again alone, and the others do not notice. When that does not
//! help, or none is left, the generation has crashed as one with a single process would have.

use alloc::vec::Vec;

use crate::backoff::{Backoff, Next};
use crate::run::RunSettings;
use crate::units::Millis;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    Runs,
    /// It is launched again at that time.
    Waits(Millis),
    Ended,
}

/// The copies of one generation, counted from 0.
#[derive(Debug, Clone)]
pub struct Copies {
    copies: Vec<Copy>,
    backoff: Backoff,
}

impl Copies {
    /// All of them run.
    pub(super) fn new(settings: &RunSettings) -> Self {
        let copies = alloc::vec![Copy::Runs; settings.workers.max(1) as usize];
        Self { copies, backoff: Backoff::new(settings.max_restarts) }
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.copies.iter().filter(|copy| **copy == Copy::Runs).count()
    }

    /// One has ended; whether others run.
    pub(super) fn ended(&mut self, copy: u32) -> bool {
        if let Some(copy) = self.copies.get_mut(copy as usize) {
            *copy = Copy::Ended;
        }
        self.running() > 0
    }

    /// What becomes of one that has ended while the others serve; `healthy_since`: since when they do.
    pub(super) fn next(&mut self, now: Millis, copy: u32, healthy_since: Option<Millis>) -> Next {
        let next = self.backoff.next(now, healthy_since);
        if let (Next::Restart(wait), Some(copy)) = (next, self.copies.get_mut(copy as usize)) {
            *copy = Copy::Waits(now + wait);
        }
        next
    }

    /// When the next one is to be launched again.
    pub(super) fn due(&self) -> Option<Millis> {
        let waits = |copy: &Copy| match copy {
            Copy::Waits(at) => Some(*at),
            Copy::Runs | Copy::Ended => None,
        };
        self.copies.iter().filter_map(waits).min()
    }

    /// One that is to be launched now. From here on it runs.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<u32> {
        let due = |copy: &Copy| matches!(copy, Copy::Waits(at) if *at <= now);
        let index = self.copies.iter().position(due)?;
        self.copies[index] = Copy::Runs;
        Some(index as u32)
    }
}
