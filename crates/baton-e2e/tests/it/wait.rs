//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Long enough for anything here on the busiest machine: reaching it is a failure.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Waits until there is a value.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_or_tell(|| what.to_owned(), condition)
}

/// The same, with something to tell that is known only when the wait was in vain.
pub fn wait_or_tell<T>(what: impl Fn() -> String, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "gave up waiting for {}", what());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
