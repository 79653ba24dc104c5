//! Whether a generation is healthy, folded from the outcomes of its probes.

use crate::run::HealthCheck;
use crate::units::Millis;

/// The wait between the first probes of a start: short, so that a fast program is not held up.
pub const STARTUP_INTERVAL_MIN: Millis = Millis(100);
/// During a slow start the wait grows with the start's age, divided by this: readiness is noticed at
/// most 5 % late, and a start of ten minutes does not mean thousands of probes.
const STARTUP_AGE_DIVISOR: u64 = 20;

/// What one probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The generation answered as it should, in time.
    Success,
    /// It did not.
    Failure,
}

/// What is known of a generation's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// No probe has succeeded yet. Failures mean nothing; only `startup_timeout` ends this.
    Starting,
    /// It has answered, but not yet `successes` times in a row.
    Answering {
        /// Successes in a row.
        successes: u32,
        /// All failures since the first success, so that one that goes up and down is judged in the end.
        failures: u32,
    },
    /// It may serve.
    Healthy {
        /// Failures in a row; fewer than the limit.
        failures: u32,
    },
    /// It failed too often; `successes` in a row make it healthy again, should it be kept.
    Unhealthy {
        /// Successes in a row; fewer than needed.
        successes: u32,
    },
}

impl Health {
    /// What is known after one more probe.
    #[must_use]
    pub fn fold(self, check: &HealthCheck, outcome: Outcome) -> Self {
        use Outcome::{Failure, Success};
        match (self, outcome) {
            (Self::Starting, Failure) => Self::Starting,
            (Self::Starting, Success) => Self::rising(check, 1, 0),
            (Self::Answering { successes, failures }, Success) => {
                Self::rising(check, successes.saturating_add(1), failures)
            }
            (Self::Answering { failures, .. }, Failure) => match failures.saturating_add(1) {
                enough if enough >= check.failures => Self::Unhealthy { successes: 0 },
                failures => Self::Answering { successes: 0, failures },
            },
            (Self::Healthy { .. }, Success) => Self::Healthy { failures: 0 },
            (Self::Healthy { failures }, Failure) => match failures.saturating_add(1) {
                enough if enough >= check.failures => Self::Unhealthy { successes: 0 },
                failures => Self::Healthy { failures },
            },
            (Self::Unhealthy { successes }, Success) => match successes.saturating_add(1) {
                enough if enough >= check.successes => Self::Healthy { failures: 0 },
                successes => Self::Unhealthy { successes },
            },
            (Self::Unhealthy { .. }, Failure) => Self::Unhealthy { successes: 0 },
        }
    }

    fn rising(check: &HealthCheck, successes: u32, failures: u32) -> Self {
        if successes >= check.successes {
            Self::Healthy { failures: 0 }
        } else {
            Self::Answering { successes, failures }
        }
    }

    /// Whether the generation may serve.
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy { .. })
    }

    /// The wait from the end of one probe to the next, for a generation that was launched `age` ago.
    pub fn wait(self, check: &HealthCheck, age: Millis) -> Millis {
        match self {
            Self::Starting => {
                let growing = Millis(age.0 / STARTUP_AGE_DIVISOR);
                growing.max(STARTUP_INTERVAL_MIN).min(check.interval)
            }
            Self::Answering { .. } | Self::Healthy { .. } | Self::Unhealthy { .. } => check.interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Probe;
    use std::format;
    use std::vec::Vec;

    fn check(successes: u32, failures: u32) -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp,
            listener: Some("http".into()),
            interval: Millis::from_secs(2),
            timeout: Millis::from_secs(1),
            failures,
            successes,
        }
    }

    /// All sequences of up to `length` outcomes, as bits: 1 is a success.
    fn sequences(length: u32) -> impl Iterator<Item = Vec<Outcome>> {
        (0..=length).flat_map(|n| {
            (0u32..1 << n).map(move |bits| {
                (0..n).map(|i| if bits >> i & 1 == 1 { Outcome::Success } else { Outcome::Failure }).collect()
            })
        })
    }

    fn run(check: &HealthCheck, outcomes: &[Outcome]) -> Health {
        outcomes.iter().fold(Health::Starting, |health, outcome| health.fold(check, *outcome))
    }

    /// Calls `examine` with every check, every sequence, and the state before and after its last outcome.
    fn enumerate(examine: impl Fn(&HealthCheck, &[Outcome], Health, Health)) {
        for (successes, failures) in [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (3, 3)] {
            let check = check(successes, failures);
            for outcomes in sequences(9) {
                if let Some((_, before)) = outcomes.split_last() {
                    examine(&check, &outcomes, run(&check, before), run(&check, &outcomes));
                }
            }
        }
    }

    fn ends_with(outcomes: &[Outcome], outcome: Outcome) -> u32 {
        outcomes.iter().rev().take_while(|o| **o == outcome).count() as u32
    }

    #[test]
    fn starting_lasts_until_the_first_success_and_never_comes_back() {
        enumerate(|_, outcomes, _, after| {
            let answered = outcomes.contains(&Outcome::Success);
            assert_eq!(after == Health::Starting, !answered, "{outcomes:?}");
        });
    }

    #[test]
    fn health_comes_exactly_with_enough_successes_in_a_row() {
        enumerate(|check, outcomes, before, after| {
            if before.is_healthy() {
                return;
            }
            let enough = ends_with(outcomes, Outcome::Success) >= check.successes;
            assert_eq!(after.is_healthy(), enough, "{outcomes:?}");
        });
    }

    #[test]
    fn health_goes_exactly_with_enough_failures_in_a_row() {
        enumerate(|check, outcomes, before, after| {
            if !before.is_healthy() {
                return;
            }
            let enough = ends_with(outcomes, Outcome::Failure) >= check.failures;
            assert_eq!(after == Health::Unhealthy { successes: 0 }, enough, "{outcomes:?}");
            assert_eq!(after.is_healthy(), !enough, "{outcomes:?}");
        });
    }

    #[test]
    fn a_candidate_that_goes_up_and_down_is_judged_in_the_end() {
        let check = check(2, 3);
        let flapping = [Outcome::Success, Outcome::Failure].repeat(3);
        assert_eq!(run(&check, &flapping[..5]), Health::Answering { successes: 1, failures: 2 });
        assert_eq!(run(&check, &flapping), Health::Unhealthy { successes: 0 });
    }

    #[test]
    fn counts_stay_below_their_limits() {
        enumerate(|check, outcomes, _, after| {
            let within = match after {
                Health::Starting => true,
                Health::Answering { successes, failures } => {
                    successes < check.successes && failures < check.failures
                }
                Health::Healthy { failures } => failures < check.failures,
                Health::Unhealthy { successes } => successes < check.successes,
            };
            assert!(within, "{}", format!("{outcomes:?} gives {after:?}"));
        });
    }

    #[test]
    fn a_start_is_probed_fast_at_first_and_everything_else_at_the_interval() {
        let check = check(1, 3);
        for (age, wait) in [(0, 100), (2_000, 100), (10_000, 500), (40_000, 2_000), (600_000, 2_000)] {
            assert_eq!(Health::Starting.wait(&check, Millis(age)), Millis(wait), "at {age} ms");
        }
        let eager = HealthCheck { interval: Millis(50), ..check.clone() };
        assert_eq!(Health::Starting.wait(&eager, Millis::ZERO), Millis(50));
        for health in [
            Health::Answering { successes: 1, failures: 0 },
            Health::Healthy { failures: 1 },
            Health::Unhealthy { successes: 0 },
        ] {
            assert_eq!(health.wait(&check, Millis::ZERO), check.interval);
        }
    }
}
