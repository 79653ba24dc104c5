//! This server's wall clock, beside that of the state store that it shares with others.

use baton_core::units::Millis;

/// How far the two may be apart before that is told: clocks that are kept right differ by less than a tenth of a second, and the
/// shortest time that is told by one of them and judged by another is minutes.
const APART_MAX_MS: u64 = 5_000;
/// For how long they must agree before that is told, and the next difference again: a clock that hops is told once.
const CALM: Millis = Millis::from_secs(600);
/// By how much a difference must grow to be told once more.
const GROWTH: u64 = 10;

/// What was told of it.
#[derive(Debug, Default)]
pub(crate) struct Skew {
    told: Option<Told>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    /// How far apart they were then.
    apart_ms: u64,
    /// When they were apart last.
    last: Millis,
}

impl Skew {
    /// What there is to tell, now that this clock is found to be so far ahead, at the monotonic moment `now`.
    pub(crate) fn see(&mut self, ahead_ms: i64, now: Millis) -> Option<String> {
        let apart_ms = ahead_ms.unsigned_abs();
        let Some(warning) = warning(ahead_ms) else {
            self.told.take_if(|told| now.since(told.last) >= CALM)?;
            return Some("this server's clock agrees with that of the state store again".to_owned());
        };
        match &mut self.told {
            Some(told) if apart_ms < told.apart_ms.saturating_mul(GROWTH) => {
                told.last = now;
                None
            }
            told => {
                *told = Some(Told { apart_ms, last: now });
                Some(warning)
            }
        }
    }
}

/// What there is to say of clocks that are so far apart.
pub(crate) fn warning(ahead_ms: i64) -> Option<String> {
    let apart_ms = ahead_ms.unsigned_abs();
    if apart_ms <= APART_MAX_MS {
        return None;
    }
    let (apart, side) = (Millis(apart_ms), if ahead_ms > 0 { "ahead of" } else { "behind" });
    Some(format!(
        "this server's clock is {apart} {side} that of the state store: set the one that is wrong (`timedatectl`, `chronyc \
         tracking`); by it go the times of events and of the audit log, and when certificates, credentials and tokens end"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told in a course of seconds and of seconds ahead: whether it is a warning.
    fn told(course: impl IntoIterator<Item = (u64, i64)>) -> Vec<(u64, bool)> {
        let mut skew = Skew::default();
        let see = |(at, ahead): (u64, i64)| {
            let told = skew.see(ahead * 1000, Millis::from_secs(at))?;
            Some((at, told.contains("set the one that is wrong")))
        };
        course.into_iter().filter_map(see).collect()
    }

    #[test]
    fn f46_a_clock_that_is_some_seconds_off_is_told_with_its_direction() {
        assert_eq!(warning(5_000), None);
        assert_eq!(warning(-5_000), None);
        assert!(warning(172_800_000).unwrap().contains("48 h ahead of"));
        assert!(warning(-5_001).unwrap().contains("5 s behind"));
        assert!(warning(i64::MIN).is_some());
    }

    #[test]
    fn f46_a_clock_that_is_off_is_told_once_and_once_more_when_it_agrees_again() {
        assert_eq!(told([(0, 0), (1, 5), (2, -5)]), []);
        assert_eq!(told((1..100).map(|at| (at, 60))), [(1, true)]);
        let mended = (1..2000).map(|at| (at, if at < 10 { 60 } else { 0 }));
        assert_eq!(told(mended), [(1, true), (609, false)]);
        assert_eq!(told([(0, 60), (10, 0), (700, 0), (800, -60)]), [(0, true), (700, false), (800, true)]);
    }

    #[test]
    fn f46_a_clock_that_hops_is_told_once_and_one_that_runs_away_a_few_times() {
        let hops = (0..86_400).map(|at| (at, [60, 0, -60, 3][at as usize / 100 % 4]));
        assert_eq!(told(hops), [(0, true)]);
        let away = (0..86_400).map(|at| (at, at as i64 * 2));
        assert_eq!(told(away), [(3, true), (30, true), (300, true), (3000, true), (30_000, true)]);
    }
}
