//! The two clocks: one that decides, one for people.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use baton_core::units::Millis;

/// The server's monotonic clock, which starts with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// One that was started so long ago.
    #[cfg(test)]
    pub(crate) fn started_ago(ago: Millis) -> Self {
        Self { started: Instant::now() - std::time::Duration::from_millis(ago.0) }
    }

    pub(crate) fn now(self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Milliseconds since 1970. Nothing is decided by it.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
