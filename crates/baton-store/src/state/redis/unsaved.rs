//! The services whose members may have changed since they were saved.

use std::collections::BTreeSet;
use std::mem;
use std::time::{Duration, Instant};

use baton_core::ids::ServiceName;

/// How often it is saved who the members are, where nothing else is written: what is lost until then only slows a rollout
/// down, and every server reads what one of them writes.
const SAVE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Unsaved {
    services: BTreeSet<ServiceName>,
    /// When some were taken last.
    taken: Option<Instant>,
}

impl Unsaved {
    /// Members of these have changed, or could not be saved.
    pub(super) fn add(&mut self, services: impl IntoIterator<Item = ServiceName>) {
        self.services.extend(services);
    }

    /// Those whose members are to be saved now, if that is due.
    pub(super) fn take(&mut self, now: Instant) -> BTreeSet<ServiceName> {
        let is_early = |taken| now.duration_since(taken) < SAVE_EVERY;
        if self.services.is_empty() || self.taken.is_some_and(is_early) {
            return BTreeSet::new();
        }
        self.taken = Some(now);
        mem::take(&mut self.services)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_saved_at_once_and_what_failed_or_came_since_together_when_that_is_due() {
        let service = |name: &str| name.parse::<ServiceName>().unwrap();
        let (web, beat, none) = (service("web"), service("beat"), BTreeSet::new());
        let (mut unsaved, start) = (Unsaved::default(), Instant::now());
        assert_eq!(unsaved.take(start), none);
        unsaved.add([web.clone()]);
        assert_eq!(unsaved.take(start), [web.clone()].into(), "looks in vain are not counted");
        unsaved.add([web.clone()]);
        let almost = start + SAVE_EVERY - Duration::from_millis(1);
        assert_eq!(unsaved.take(almost), none);
        unsaved.add([beat.clone(), web.clone()]);
        assert_eq!(unsaved.take(start + SAVE_EVERY), [beat, web].into());
        assert_eq!(unsaved.take(start + 2 * SAVE_EVERY), none, "nothing was added");
    }
}
