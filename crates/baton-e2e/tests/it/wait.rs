//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Long enough for anything here on the busiest machine: reaching it is a failure.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until there is a value.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "gave up waiting for {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
