//! Something that may take long and is wanted often: it is done when it is wanted, and never takes more than a part of
//! the time of whoever does it.

use std::time::{Duration, Instant};

/// How much longer than it took it rests.
const REST: u32 = 10;
/// How long it rests at the most, unless it took longer itself. Once it may take long because the whole machine stands still, and
/// whoever wants it then must not wait for many times that.
const REST_MAX: Duration = Duration::from_secs(2);

/// When it is done.
#[derive(Debug, Default)]
pub struct Seldom {
    wanted: bool,
    rests_until: Option<Instant>,
}

impl Seldom {
    /// It is wanted.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// When it is to be done, if it is wanted.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.wanted.then(|| self.rests_until.map_or(now, |until| until.max(now)))
    }

    /// Does it, if it is wanted and has rested.
    pub fn take<T>(&mut self, now: impl Fn() -> Instant, what: impl FnOnce() -> T) -> Option<T> {
        let begun = now();
        if self.due(begun) != Some(begun) {
            return None;
        }
        self.wanted = false;
        let done = what();
        let ended = now();
        let took = ended.duration_since(begun);
        self.rests_until = Some(ended + (took * REST).min(took.max(REST_MAX)));
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_done_when_it_is_wanted_and_rests_ten_times_as_long_as_it_took() {
        let start = Instant::now();
        let clock = Cell::new(start);
        let mut seldom = Seldom::default();
        let take = |seldom: &mut Seldom, took: u64| {
            let work = || clock.set(clock.get() + Duration::from_millis(took));
            seldom.take(|| clock.get(), work).is_some()
        };
        assert!(!take(&mut seldom, 3) && seldom.due(start).is_none(), "nobody wants it");
        seldom.want();
        assert!(take(&mut seldom, 3));
        assert!(!take(&mut seldom, 3), "once is enough");
        seldom.want();
        let rested = start + Duration::from_millis(33);
        assert_eq!(seldom.due(clock.get()), Some(rested));
        clock.set(rested - Duration::from_millis(1));
        assert!(!take(&mut seldom, 3));
        clock.set(rested);
        assert!(take(&mut seldom, 0));
        // What takes no time is done whenever it is wanted.
        seldom.want();
        assert!(take(&mut seldom, 0));
    }

    #[test]
    fn p20_however_long_it_took_once_it_is_done_again_soon() {
        let start = Instant::now();
        for (took, again) in [(1, 3), (2, 4), (6, 12)] {
            let clock = Cell::new(start);
            let mut seldom = Seldom::default();
            seldom.want();
            let work = || clock.set(start + Duration::from_secs(took));
            assert!(seldom.take(|| clock.get(), work).is_some());
            seldom.want();
            assert_eq!(seldom.due(clock.get()), Some(start + Duration::from_secs(again)));
        }
    }
}
