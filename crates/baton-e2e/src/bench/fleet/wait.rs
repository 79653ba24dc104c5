//! Conditions that are waited for.

use std::time::{Duration, Instant};

use anyhow::ensure;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(180);
/// How often it is looked.
const GLANCE: Duration = Duration::from_millis(2);

/// Waits until a condition holds.
///
/// # Errors
/// When it does not in time, or cannot be told.
pub fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < LIMIT, "{what}: not within {} s", LIMIT.as_secs());
        std::thread::park_timeout(GLANCE);
    }
    Ok(())
}
