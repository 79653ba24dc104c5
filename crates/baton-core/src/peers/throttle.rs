//! No more than so many bytes a second: a token bucket that lends.

use crate::units::{Bytes, Millis};

/// How much may go at once after a pause: what goes in this time.
const BURST: Millis = Millis(100);

/// So many bytes a second.
#[derive(Debug, Clone)]
pub struct Throttle {
    rate: Bytes,
    /// When everything that was let through has had its time.
    free_at: Millis,
}

impl Throttle {
    /// At least one byte a second.
    pub fn new(rate: Bytes) -> Self {
        Self { rate: rate.max(Bytes(1)), free_at: Millis::ZERO }
    }

    /// Lets so many bytes through, and says how long to wait before they go. Who asks next waits for those too, so that all
    /// together keep to the rate.
    pub fn pass(&mut self, bytes: usize, now: Millis) -> Millis {
        let takes = (bytes as u64).saturating_mul(1000).div_ceil(self.rate.0);
        let idle_since = Millis(now.0.saturating_sub(BURST.0));
        self.free_at = self.free_at.max(idle_since) + Millis(takes);
        self.free_at.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn after_a_pause_a_little_goes_at_once() {
        let mut throttle = Throttle::new(Bytes(1000));
        let now = Millis::from_secs(10);
        assert_eq!(throttle.pass(100, now), Millis::ZERO);
        assert_eq!(throttle.pass(500, now), Millis(500));
        assert_eq!(throttle.pass(1, now), Millis(501));
        assert_eq!(throttle.pass(100, Millis::from_secs(99)), Millis::ZERO);
        assert_eq!(Throttle::new(Bytes(0)).pass(3, Millis::ZERO), Millis(3000));
    }

    proptest! {
        #[test]
        fn it_keeps_to_the_rate_over_any_time(
            rate in 1..10_000_000u64, asked in prop::collection::vec((0..100_000usize, 0..2000u64), 1..60),
        ) {
            let mut throttle = Throttle::new(Bytes(rate));
            let (mut now, mut sent, mut last) = (Millis::from_secs(1), 0u128, Millis::ZERO);
            let start = now;
            for (bytes, gap) in asked {
                now = now + Millis(gap);
                last = last.max(now + throttle.pass(bytes, now));
                sent += bytes as u128;
            }
            let time = u128::from(last.since(start).0 + BURST.0);
            prop_assert!(sent * 1000 <= time * u128::from(rate), "{} bytes in {} ms", sent, time);
        }
    }
}
