//! The watchdog: a program that is ready says so often enough that it is alive, or it hangs.

use crate::units::Millis;

/// When the next sign of life is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// Nobody asked for one, or the program is not ready yet.
    Off,
    /// Signs came in time; the next is due by then.
    Fed {
        /// When.
        until: Millis,
    },
    /// A sign is overdue. Should the program still be there then, it is treated as hung once more.
    Starved {
        /// When.
        until: Millis,
    },
}

impl Watchdog {
    /// When it bites.
    pub const fn due(self) -> Option<Millis> {
        match self {
            Self::Off => None,
            Self::Fed { until } | Self::Starved { until } => Some(until),
        }
    }

    /// After the first readiness, or when the program serves again.
    #[must_use]
    pub fn started(self, now: Millis, limit: Option<Millis>) -> Self {
        limit.map_or(self, |limit| Self::Fed { until: now + limit })
    }

    /// After a sign of life. Signs before readiness start nothing.
    #[must_use]
    pub fn fed(self, now: Millis, limit: Option<Millis>) -> Self {
        match self {
            Self::Off => Self::Off,
            Self::Fed { .. } | Self::Starved { .. } => self.started(now, limit),
        }
    }

    /// After it has bitten.
    #[must_use]
    pub fn bitten(self, now: Millis, limit: Option<Millis>) -> Self {
        match (self, limit) {
            (Self::Off, _) | (_, None) => Self::Off,
            (Self::Fed { .. } | Self::Starved { .. }, Some(limit)) => Self::Starved { until: now + limit },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_answers_everything_that_can_happen() {
        let (now, limit) = (Millis(50), Some(Millis(10)));
        let (fed, starved) = (Watchdog::Fed { until: Millis(55) }, Watchdog::Starved { until: Millis(55) });
        let (again, bitten) = (Watchdog::Fed { until: Millis(60) }, Watchdog::Starved { until: Millis(60) });
        let table = [
            // state        started fed            bitten
            (Watchdog::Off, again, Watchdog::Off, Watchdog::Off),
            (fed, again, again, bitten),
            (starved, again, again, bitten),
        ];
        for (state, when_started, when_fed, when_bitten) in table {
            assert_eq!(state.started(now, limit), when_started, "{state:?}");
            assert_eq!(state.fed(now, limit), when_fed, "{state:?}");
            assert_eq!(state.bitten(now, limit), when_bitten, "{state:?}");
        }
        assert_eq!(Watchdog::Off.started(now, None), Watchdog::Off);
    }
}
