//! How the clock of this machine differs from that of Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::said::millis;

/// By how many milliseconds this machine's clock is ahead of that of Redis, below 0: behind it, as it was found last. All that
/// were cloned from one are one, and whoever reads it waits for nobody.
#[derive(Debug, Clone, Default)]
pub(super) struct Skew(Arc<AtomicI64>);

impl Skew {
    pub(super) fn ahead_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes in that Redis had this time at some moment between these two.
    pub(super) fn see(&self, before: u64, store: u64, after: u64) {
        self.0.store(ahead_ms(before, store, after), Ordering::Relaxed);
    }
}

/// Milliseconds since 1970, by this machine.
pub(super) fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// What is sure of the difference: an answer that takes long is no wrong clock, nor one that was put back or forward meanwhile.
fn ahead_ms(before: u64, store: u64, after: u64) -> i64 {
    let (first, last) = (before.min(after), before.max(after));
    let apart = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    apart(first.saturating_sub(store)) - apart(store.saturating_sub(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f46_only_what_is_surely_apart_counts_however_long_an_answer_takes() {
        for (before, store, after, ahead) in [
            (1000, 1000, 1000, 0),
            (1000, 1400, 1800, 0),
            (1000, 1000, 61_000, 0),
            (1000, 900, 1800, 100),
            (1000, 2000, 1800, -200),
            (172_800_000, 0, 172_800_001, 172_800_000),
            (0, 172_800_000, 1, -172_799_999),
            // Set while the answer was on its way.
            (90_000, 40_000, 30_000, 0),
            (90_000, 20_000, 30_000, 10_000),
            (0, u64::MAX, 0, -i64::MAX),
            (u64::MAX, 0, u64::MAX, i64::MAX),
        ] {
            let skew = Skew::default();
            skew.clone().see(before, store, after);
            assert_eq!(skew.ahead_ms(), ahead, "{before} {store} {after}");
        }
    }
}
