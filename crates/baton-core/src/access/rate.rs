//! How often one caller may ask: a bucket that fills steadily and may be emptied at once.

use crate::units::Millis;

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, in a second.
    pub per_second: u32,
    /// At once, after a while without any.
    pub burst: u32,
}

impl Rate {
    /// So many callers together.
    pub const fn times(self, callers: u32) -> Self {
        Self {
            per_second: self.per_second.saturating_mul(callers),
            burst: self.burst.saturating_mul(callers),
        }
    }
}

/// What one caller has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// In thousandths.
    left: u64,
    at: Millis,
}

impl Bucket {
    /// One of a caller that has not asked yet.
    pub const fn full(rate: Rate, now: Millis) -> Self {
        Self { left: rate.burst as u64 * 1000, at: now }
    }

    /// Takes one, if there is one left.
    pub fn take(&mut self, rate: Rate, now: Millis) -> bool {
        self.fill(rate, now);
        let taken = self.left >= 1000;
        if taken {
            self.left -= 1000;
        }
        taken
    }

    /// Whether the caller is as one that has not asked yet, and need not be remembered.
    pub fn is_full(&mut self, rate: Rate, now: Millis) -> bool {
        self.fill(rate, now);
        self.left == u64::from(rate.burst) * 1000
    }

    fn fill(&mut self, rate: Rate, now: Millis) {
        // A thousandth a millisecond is one a second.
        let more = now.since(self.at).0.saturating_mul(u64::from(rate.per_second));
        self.left = self.left.saturating_add(more).min(u64::from(rate.burst) * 1000);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let mut bucket = Bucket::full(RATE, Millis(0));
        let taken = |bucket: &mut Bucket, now| (0..20).filter(|_| bucket.take(RATE, Millis(now))).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 99), 0);
        assert_eq!(taken(&mut bucket, 100), 1);
        assert_eq!(taken(&mut bucket, 50), 0, "a clock does not go back");
        assert!(!bucket.is_full(RATE, Millis(300)) && bucket.is_full(RATE, Millis(400)));
        assert_eq!(taken(&mut bucket, u64::MAX), 3);
    }

    proptest! {
        #[test]
        fn f105_nobody_gets_more_than_the_rate(waits in prop::collection::vec(0_u64..200, 1..300)) {
            let (mut bucket, mut now, mut taken) = (Bucket::full(RATE, Millis(0)), 0, 0);
            for wait in waits {
                now += wait;
                taken += u64::from(bucket.take(RATE, Millis(now)));
                prop_assert!(taken <= 3 + now / 100);
            }
        }
    }
}
