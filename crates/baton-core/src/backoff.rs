//! How soon a program that crashed is started again, and when the bootloader gives up.

use alloc::collections::VecDeque;

use crate::run::RESTART_WINDOW;
use crate::units::Millis;

/// The wait before the second restart in a row: too short to be noticed, long enough not to spin.
pub const DELAY_MIN: Millis = Millis(100);
/// The longest wait: a dependency that comes back is met within half a minute.
pub const DELAY_MAX: Millis = Millis::from_secs(30);
/// After this much health a crash is a new story, not the next one of a series.
pub const RESET_AFTER: Millis = Millis::from_secs(60);

/// The wait before a restart that follows `crashes` others in a row: none for the first, then
/// [`DELAY_MIN`] doubling up to [`DELAY_MAX`].
pub fn delay(crashes: u32) -> Millis {
    match crashes.checked_sub(1) {
        None => Millis::ZERO,
        Some(doublings) => {
            // A shift by 63 is already far beyond the cap; more would overflow.
            let factor = 1u64 << doublings.min(63);
            Millis(DELAY_MIN.0.saturating_mul(factor)).min(DELAY_MAX)
        }
    }
}

/// What follows a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start the program again after this wait.
    Restart(Millis),
    /// It was restarted `max_restarts` times within [`RESTART_WINDOW`]: leave, so that the engine sees it.
    GiveUp,
}

/// The restarts of one release in one member.
#[derive(Debug, Clone)]
pub struct Backoff {
    max_restarts: u32,
    crashes_in_a_row: u32,
    /// When the program was restarted, oldest first, within the window. The waits keep it short.
    restarts: VecDeque<Millis>,
}

impl Backoff {
    /// No crash yet; gives up on the restart after `max_restarts` within [`RESTART_WINDOW`].
    pub fn new(max_restarts: u32) -> Self {
        Self { max_restarts, crashes_in_a_row: 0, restarts: VecDeque::new() }
    }

    /// Counts a crash at `now` and says what follows. `healthy_since` is when the generation that crashed
    /// became healthy, if it ever did.
    pub fn next(&mut self, now: Millis, healthy_since: Option<Millis>) -> Next {
        if healthy_since.is_some_and(|since| now.since(since) >= RESET_AFTER) {
            self.crashes_in_a_row = 0;
        }
        while self.restarts.front().is_some_and(|at| now.since(*at) >= RESTART_WINDOW) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.max_restarts as usize {
            return Next::GiveUp;
        }
        let wait = delay(self.crashes_in_a_row);
        self.crashes_in_a_row = self.crashes_in_a_row.saturating_add(1);
        self.restarts.push_back(now + wait);
        Next::Restart(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_restart_is_at_once_and_each_further_wait_doubles_to_the_longest() {
        let waits = [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000];
        for (crashes, wait) in waits.into_iter().enumerate() {
            assert_eq!(delay(crashes as u32), Millis(wait), "after {crashes}");
        }
        assert_eq!(delay(u32::MAX), DELAY_MAX);
    }

    #[test]
    fn a_crash_loop_waits_longer_each_time_and_ends_when_the_budget_is_used_up() {
        let mut backoff = Backoff::new(4);
        let mut now = Millis::ZERO;
        for wait in [0, 100, 200, 400] {
            assert_eq!(backoff.next(now, None), Next::Restart(Millis(wait)));
            now = now + Millis(wait + 5);
        }
        assert_eq!(backoff.next(now, None), Next::GiveUp);
    }

    #[test]
    fn a_minute_of_health_starts_the_waits_anew_and_less_does_not() {
        for (health, wait) in [(59_999, 200), (60_000, 0)] {
            let mut backoff = Backoff::new(10);
            backoff.next(Millis(0), None);
            backoff.next(Millis(1), None);
            let since = Millis(500);
            assert_eq!(
                backoff.next(since + Millis(health), Some(since)),
                Next::Restart(Millis(wait)),
                "after {health} ms"
            );
        }
    }

    #[test]
    fn health_does_not_refill_the_budget_but_time_does() {
        let mut backoff = Backoff::new(2);
        assert_eq!(backoff.next(Millis::from_secs(0), None), Next::Restart(Millis::ZERO));
        let healthy = Some(Millis::from_secs(1));
        assert_eq!(backoff.next(Millis::from_secs(61), healthy), Next::Restart(Millis::ZERO));
        assert_eq!(backoff.clone().next(Millis::from_secs(599), healthy), Next::GiveUp);
        assert_eq!(backoff.next(Millis::from_secs(600), healthy), Next::Restart(Millis::ZERO));
    }

    #[test]
    fn without_a_budget_the_first_crash_ends_it() {
        assert_eq!(Backoff::new(0).next(Millis(7), None), Next::GiveUp);
    }

    proptest! {
        #[test]
        fn never_more_restarts_within_the_window_than_allowed(
            max in 0u32..12,
            gaps in proptest::collection::vec(0u64..120_000, 1..200),
        ) {
            let mut backoff = Backoff::new(max);
            let (mut now, mut restarts) = (Millis::ZERO, std::vec::Vec::new());
            for gap in gaps {
                let started = now;
                now = now + Millis(gap);
                if let Next::Restart(wait) = backoff.next(now, Some(started)) {
                    prop_assert!(wait <= DELAY_MAX);
                    now = now + wait;
                    restarts.push(now);
                }
            }
            for (index, at) in restarts.iter().enumerate() {
                let within = restarts[index..].iter().filter(|later| later.since(*at) < RESTART_WINDOW);
                prop_assert!(within.count() <= max as usize);
            }
        }
    }
}
