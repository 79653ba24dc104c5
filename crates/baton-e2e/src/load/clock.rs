//! Moments that never go back and that other processes understand.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use baton_core::units::Millis;

/// Milliseconds since the Unix epoch, read once and then counted on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    epoch: Millis,
}

impl Clock {
    /// A clock that goes on from what the system's clock says now.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch: millis(since_epoch) }
    }

    /// The moment it is.
    pub fn now(&self) -> Millis {
        self.epoch + millis(self.started.elapsed())
    }
}

fn millis(duration: std::time::Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
