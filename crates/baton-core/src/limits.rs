//! Limits of a rollout that are numbers, whatever the size of the fleet: what a database, a broker or a licence allows.
//!
//! They count *generations*: a member runs one, and two while it tries a release beside the one that serves and until the
//! old one has drained. What a member does without a slot (it replaces a program that hangs or leaks) is not counted.

use core::fmt;

use crate::counts::Counts;
use crate::deploy::Kind;

/// What a rollout must keep to beside its slots. The default allows everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Two generations of a member never run side by side, and one member tries at a time. Only releases that stop
    /// the old generation first (`run.overlap = false`) are rolled out.
    pub singleton: bool,
    /// Most generations of the fleet.
    pub never_more_than: Option<u32>,
    /// Connections to something that has only so many.
    pub connections: Option<Connections>,
    /// Fewest members that serve, healthy, without being on trial. A rollback does not wait for it: who does not
    /// serve then may be what is to be replaced.
    pub min_available: Option<u32>,
}

/// A budget of connections that all generations share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// How many there are for the whole fleet.
    pub budget: u32,
    /// How many a generation may take.
    pub each: u32,
}

/// Why limits make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    /// Nobody could ever try a release.
    #[error(
        "never_more_than is {0}, and a try runs two generations side by side: allow at least 2, or set singleton"
    )]
    NeverMoreThan(u32),
    /// A generation takes none.
    #[error("connections_each is 0: say how many connections a generation takes, or leave the budget out")]
    NoConnections,
    /// Nobody could ever try a release.
    #[error(
        "max_connections_budget is {budget}, and two generations side by side take {each} connections each: \
         allow at least twice as many"
    )]
    Budget {
        /// How many there are.
        budget: u32,
        /// How many a generation takes.
        each: u32,
    },
}

/// A limit that keeps members from their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So many generations run, or may be running.
    NeverMoreThan {
        /// Most that may.
        most: u32,
        /// How many do.
        run: u32,
    },
    /// So many connections may be taken.
    Connections {
        /// How many there are.
        budget: u32,
        /// How many may be taken.
        taken: u32,
    },
    /// So many members serve.
    MinAvailable {
        /// Fewest that shall.
        least: u32,
        /// How many do.
        available: u32,
    },
}

impl Limits {
    /// Whether the limits leave anybody a turn.
    ///
    /// # Errors
    /// Says which does not.
    pub const fn check(&self) -> Result<(), InvalidLimits> {
        let beside = if self.singleton { 1 } else { 2 };
        if let Some(most) = self.never_more_than
            && most < beside
        {
            return Err(InvalidLimits::NeverMoreThan(most));
        }
        match self.connections {
            Some(Connections { each: 0, .. }) => Err(InvalidLimits::NoConnections),
            Some(Connections { budget, each }) if budget / each < beside => {
                Err(InvalidLimits::Budget { budget, each })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The limit that leaves nobody of so many healthy members a turn, if there is one.
    pub fn that_blocks(&self, members: u32) -> Option<Limit> {
        self.of_healthy(members).filter(|(more, _)| *more == 0).map(|(_, limit)| limit)
    }

    /// How many of so many healthy members may be on trial at once, and the limit that says so.
    pub(crate) fn of_healthy(&self, members: u32) -> Option<(u32, Limit)> {
        self.tightest(Kind::Rollout, members, members)
    }

    /// How many members may be on trial at once if all others were healthy and drained, and the limit that says so.
    pub(crate) fn slots(&self, kind: Kind, counts: &Counts) -> Option<(u32, Limit)> {
        self.tightest(kind, counts.present(), counts.live)
    }

    /// How many more members may begin a try now, and the limit that says so.
    pub(crate) fn room(&self, kind: Kind, counts: &Counts) -> Option<(u32, Limit)> {
        self.tightest(kind, counts.present() + counts.beside, counts.available)
    }

    /// With so many generations and so many members that serve: how many more may try, by the tightest limit.
    fn tightest(&self, kind: Kind, run: u32, available: u32) -> Option<(u32, Limit)> {
        // Under `singleton` a try takes the place of what ran.
        let never = self.never_more_than.filter(|_| !self.singleton);
        let never = never.map(|most| (most.saturating_sub(run), Limit::NeverMoreThan { most, run }));
        let connections = self.connections.filter(|_| !self.singleton).map(|Connections { budget, each }| {
            let most = budget.checked_div(each).unwrap_or(0);
            (most.saturating_sub(run), Limit::Connections { budget, taken: run.saturating_mul(each) })
        });
        let least = self.min_available.filter(|_| kind == Kind::Rollout);
        let least =
            least.map(|least| (available.saturating_sub(least), Limit::MinAvailable { least, available }));
        [never, connections, least].into_iter().flatten().min_by_key(|(more, _)| *more)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverMoreThan { most, run } => {
                write!(f, "{run} generations run or drain, and never_more_than is {most}")
            }
            Self::Connections { budget, taken } => {
                write!(f, "{taken} connections may be taken, and max_connections_budget is {budget}")
            }
            Self::MinAvailable { least, available } => {
                write!(f, "{available} members serve, and min_available is {least}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_leave_nobody_a_turn_are_refused() {
        let never = |most, singleton| Limits { never_more_than: Some(most), singleton, ..Limits::default() };
        let budget =
            |budget, each| Limits { connections: Some(Connections { budget, each }), ..Limits::default() };
        for (limits, expected) in [
            (Limits::default(), Ok(())),
            (never(1, false), Err(InvalidLimits::NeverMoreThan(1))),
            (never(2, false), Ok(())),
            (never(0, true), Err(InvalidLimits::NeverMoreThan(0))),
            (never(1, true), Ok(())),
            (budget(100, 0), Err(InvalidLimits::NoConnections)),
            (budget(99, 50), Err(InvalidLimits::Budget { budget: 99, each: 50 })),
            (budget(100, 50), Ok(())),
        ] {
            assert_eq!(limits.check(), expected, "{limits:?}");
        }
    }

    #[test]
    fn a_limit_below_the_fleet_is_told() {
        let never = Limits { never_more_than: Some(10), ..Limits::default() };
        assert_eq!(never.that_blocks(9), None);
        assert_eq!(never.that_blocks(10), Some(Limit::NeverMoreThan { most: 10, run: 10 }));
        assert_eq!(Limits { singleton: true, ..never }.that_blocks(10), None);
        let budget = Limits { connections: Some(Connections { budget: 79, each: 8 }), ..Limits::default() };
        assert_eq!(budget.that_blocks(8), None);
        assert_eq!(budget.that_blocks(9), Some(Limit::Connections { budget: 79, taken: 72 }));
        let least = Limits { min_available: Some(3), ..Limits::default() };
        assert_eq!(least.that_blocks(4), None);
        assert_eq!(least.that_blocks(3), Some(Limit::MinAvailable { least: 3, available: 3 }));
    }

    #[test]
    fn the_tightest_limit_decides_and_none_is_no_limit() {
        let counts = Counts { live: 9, silent: 1, beside: 3, available: 7, ..Counts::default() };
        let all = Limits {
            singleton: false,
            never_more_than: Some(16),
            connections: Some(Connections { budget: 310, each: 20 }),
            min_available: Some(6),
        };
        let room = |limits: Limits, kind| limits.room(kind, &counts);
        let of = crate::ids::DeployId::from_bytes([1; 16]);
        assert_eq!(room(Limits::default(), Kind::Rollout), None);
        assert_eq!(room(all, Kind::Rollout), Some((1, Limit::MinAvailable { least: 6, available: 7 })));
        // A rollback does not wait for members that serve, and keeps to what there is room for.
        let connections = Limit::Connections { budget: 310, taken: 260 };
        assert_eq!(room(all, Kind::Rollback { of }), Some((2, connections)));
        let fewer = Limits { connections: None, ..all };
        let never = Limit::NeverMoreThan { most: 16, run: 13 };
        assert_eq!(room(fewer, Kind::Rollback { of }), Some((3, never)));
        assert_eq!(room(Limits { singleton: true, ..fewer }, Kind::Rollback { of }), None);
        assert_eq!(
            all.slots(Kind::Rollout, &counts).map(|(slots, _)| slots),
            Some(3),
            "9 live, of whom 6 serve on"
        );
    }
}
