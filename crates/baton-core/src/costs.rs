//! What a release costs the members that run it, and when it costs remarkably more than the one before it.

use alloc::vec::Vec;
use core::fmt;

use crate::units::{Bytes, Micros, Millis};

/// What costs this much more than with the last proven release is remarkable, in percent.
pub const MORE_BY_PERCENT: u64 = 40;
/// A smaller difference of starts says nothing: the first probes are 100 ms apart, and a busy machine adds as much.
const SLOWER_BY_MIN: Millis = Millis(250);
/// A smaller difference of memory says nothing: an allocator keeps as much.
const LARGER_BY_MIN: Bytes = Bytes(16 << 20);
/// How many members must have compared the two releases before a gate closes, where that many try it: one may be busy.
pub const COMPARED_MIN: u32 = 3;

/// What a release has cost one member, and what the release before it did there. What is not known is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Costs {
    /// How long after its launch it was healthy for the first time.
    pub startup: Option<Millis>,
    /// The same of the last proven one.
    pub startup_before: Option<Millis>,
    /// The most memory it has used until it was proven.
    pub memory: Option<Bytes>,
    /// The same of the last proven one.
    pub memory_before: Option<Bytes>,
    /// How much of it was not on the member's disk.
    pub fetched: Option<Bytes>,
    /// How long after it was known to be healthy it got the new connections of the one before it.
    pub handover: Option<Micros>,
}

/// What may cost too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// The time until it is healthy.
    Startup,
    /// Memory.
    Memory,
}

/// What a release costs the members that have told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Learnt {
    /// How long it takes to start.
    pub startup: Option<Measured<Millis>>,
    /// How much memory it takes.
    pub memory: Option<Measured<Bytes>>,
    /// What members have fetched of it together.
    pub fetched: Bytes,
    /// How long it takes to take over, the middle one.
    pub handover: Option<Micros>,
}

/// One cost, over several members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured<T> {
    /// The middle one.
    pub median: T,
    /// The middle one of the release before, on the members that know both.
    pub before: Option<T>,
    /// How many members know both.
    pub compared: u32,
    /// On how many of these it is remarkably more.
    pub more: u32,
}

impl<T> Measured<T> {
    /// Whether it is remarkably more on most of the members that know.
    pub const fn is_more(&self) -> bool {
        2 * self.more > self.compared
    }
}

impl Cost {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Startup, Self::Memory];

    /// The cost with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cost| cost.code() == code)
    }

    /// A stable word for settings and the API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Memory => "memory",
        }
    }
}

impl Costs {
    /// Whether a cost is known to be remarkably more than it was.
    pub fn is_more(&self, cost: Cost) -> bool {
        match cost {
            Cost::Startup => {
                self.startup.zip(self.startup_before).is_some_and(|(now, was)| is_slower(now, was))
            }
            Cost::Memory => self.memory.zip(self.memory_before).is_some_and(|(now, was)| is_larger(now, was)),
        }
    }
}

impl Learnt {
    /// What these members have told.
    pub fn of<'a>(all: impl Iterator<Item = &'a Costs>) -> Self {
        let (mut startup, mut memory, mut handover) = (Vec::new(), Vec::new(), Vec::new());
        let mut fetched = 0_u64;
        for costs in all {
            handover.extend(costs.handover);
            startup.extend(costs.startup.map(|startup| (startup, costs.startup_before)));
            memory.extend(costs.memory.map(|memory| (memory, costs.memory_before)));
            fetched = fetched.saturating_add(costs.fetched.unwrap_or_default().0);
        }
        Self {
            startup: measured(startup, is_slower),
            memory: measured(memory, is_larger),
            fetched: Bytes(fetched),
            handover: median(handover),
        }
    }

    /// Whether a cost is remarkably more on most of the members that know, and on how many of how many.
    pub fn more(&self, cost: Cost) -> Option<(u32, u32)> {
        let (more, of, is_more) = match cost {
            Cost::Startup => self.startup.map(|one| (one.more, one.compared, one.is_more()))?,
            Cost::Memory => self.memory.map(|one| (one.more, one.compared, one.is_more()))?,
        };
        is_more.then_some((more, of))
    }
}

fn measured<T: Copy + Ord>(all: Vec<(T, Option<T>)>, is_more: fn(T, T) -> bool) -> Option<Measured<T>> {
    let both: Vec<(T, T)> = all.iter().filter_map(|(now, before)| Some((*now, (*before)?))).collect();
    Some(Measured {
        median: median(all.into_iter().map(|(now, _)| now).collect())?,
        before: median(both.iter().map(|(_, before)| *before).collect()),
        compared: both.len() as u32,
        more: both.iter().filter(|(now, before)| is_more(*now, *before)).count() as u32,
    })
}

/// The middle one; of an even number the lower of the two.
fn median<T: Copy + Ord>(mut all: Vec<T>) -> Option<T> {
    let middle = all.len().checked_sub(1)? / 2;
    Some(*all.select_nth_unstable(middle).1)
}

/// Whether a start that took `took` is remarkably slower than the last proven one.
pub fn is_slower(took: Millis, proven: Millis) -> bool {
    took.since(proven) >= SLOWER_BY_MIN && is_more(took.0, proven.0)
}

/// Whether so much memory is remarkably more than the last proven release has used.
pub const fn is_larger(used: Bytes, proven: Bytes) -> bool {
    used.0.saturating_sub(proven.0) >= LARGER_BY_MIN.0 && is_more(used.0, proven.0)
}

const fn is_more(now: u64, before: u64) -> bool {
    now.saturating_sub(before) as u128 * 100 >= before as u128 * MORE_BY_PERCENT as u128
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "time to start",
            Self::Memory => "memory",
        })
    }
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
        let mib = |mib: u64| Bytes(mib << 20);
        for (proven, used, larger) in
            [(100, 139, false), (100, 140, true), (10, 25, false), (10, 26, true), (100, 50, false)]
        {
            assert_eq!(is_larger(mib(used), mib(proven)), larger, "{used} MiB after {proven} MiB");
        }
    }

    fn costs(startup: u64, before: Option<u64>) -> Costs {
        Costs {
            startup: Some(Millis(startup)),
            startup_before: before.map(Millis),
            fetched: Some(Bytes(10)),
            handover: Some(Micros(startup / 10)),
            ..Costs::default()
        }
    }

    #[test]
    fn a_cost_is_more_when_it_is_on_most_of_the_members_that_can_compare() {
        let all =
            [costs(5000, None), costs(2000, Some(1000)), costs(1000, Some(1000)), costs(3000, Some(2000))];
        let learnt = Learnt::of(all.iter());
        let startup = learnt.startup.unwrap();
        assert_eq!((startup.median, startup.before), (Millis(2000), Some(Millis(1000))));
        assert_eq!((startup.compared, startup.more, learnt.more(Cost::Startup)), (3, 2, Some((2, 3))));
        assert_eq!((learnt.fetched, learnt.memory, learnt.more(Cost::Memory)), (Bytes(40), None, None));
        assert_eq!(learnt.handover, Some(Micros(200)), "the middle one");
        let half = Learnt::of(all[1..3].iter());
        assert_eq!(half.more(Cost::Startup), None, "one of two is not most");
        assert_eq!(Learnt::of([].iter()), Learnt::default());
    }
}
