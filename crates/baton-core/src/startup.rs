//! How long programs take to start, and when a release takes remarkably longer.

use crate::units::Millis;

/// A start that takes more than this much longer than the last proven one is remarkable, in percent.
const SLOWER_BY_PERCENT: u64 = 40;
/// A smaller difference says nothing: the first probes are 100 ms apart, and a busy machine adds as much.
const SLOWER_BY_MIN: Millis = Millis(250);

/// Whether a start that took `took` is remarkably slower than the last proven one.
pub fn is_slower(took: Millis, proven: Millis) -> bool {
    let longer = took.since(proven);
    let share = u128::from(longer.0) * 100;
    longer >= SLOWER_BY_MIN && share >= u128::from(proven.0) * u128::from(SLOWER_BY_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_is_great_in_both_senses_is_remarkable() {
        for (proven, took, slower) in [
            (1000, 1000, false),
            (1000, 500, false),
            (1000, 1399, false),
            (1000, 1400, true),
            (100, 349, false),
            (100, 350, true),
            (0, 249, false),
            (0, 250, true),
            (60_000, 83_999, false),
            (60_000, 84_000, true),
            (u64::MAX, u64::MAX, false),
            (0, u64::MAX, true),
        ] {
            assert_eq!(is_slower(Millis(took), Millis(proven)), slower, "{took} after {proven}");
        }
    }
}
