//! How much of a release has come, told now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_core::report::Fetching;
use baton_core::units::Bytes;
use baton_release::fetch::Step;

/// How often it is told: about as often as a member gives a sign of life anyway, since a whole fleet fetches at once.
const TELL: Duration = Duration::from_secs(2);

/// A release on its way.
pub(super) struct Coming<T> {
    tell: T,
    known: Mutex<Known>,
}

struct Known {
    fetching: Fetching,
    /// What comes at once is not worth telling.
    next: Instant,
}

impl<T: Fn(Fetching)> Coming<T> {
    /// Nothing has come yet.
    pub(super) fn new(tell: T) -> Self {
        let fetching = Fetching { fetched: Bytes(0), total: Bytes(0) };
        Self { tell, known: Mutex::new(Known { fetching, next: Instant::now() + TELL }) }
    }

    /// Takes in what the fetch does.
    pub(super) fn step(&self, step: Step) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Step::Lacking { bytes } => known.fetching.total = Bytes(bytes),
            Step::Fetched { bytes } => {
                known.fetching.fetched.0 += bytes;
                if Instant::now() >= known.next {
                    known.next = Instant::now() + TELL;
                    (self.tell)(known.fetching);
                }
            }
            Step::Planned { .. } | Step::Created | Step::Copied { .. } | Step::Sealed => {}
        }
    }
}
