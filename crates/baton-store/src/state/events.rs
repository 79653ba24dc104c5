//! The log of events: numbered, append-only, bounded.

use std::collections::VecDeque;

use baton_core::event::Event;
use baton_core::ids::ServiceName;

/// How many events are kept, the newest of all services together: about the last four deploys of a fleet of
/// 4,000, and some ten megabytes of memory.
pub const EVENTS_MAX: usize = 50_000;

/// An event and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Greater than that of every event before it.
    pub number: u64,
    /// The event.
    pub event: Event,
}

/// The events that are kept. Where a store has lost some that others may have told, there is a gap in their numbers.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    kept: VecDeque<Numbered>,
}

impl EventLog {
    /// The log with these events, oldest first.
    pub(super) fn of(events: Vec<Numbered>) -> Self {
        Self { kept: events.into() }
    }

    /// The last event.
    pub(super) fn last(&self) -> Option<&Numbered> {
        self.kept.back()
    }

    /// The event of this number.
    pub(super) fn find(&self, number: u64) -> Option<&Numbered> {
        let at = self.kept.binary_search_by_key(&number, |event| event.number).ok()?;
        self.kept.get(at)
    }

    /// The number that the next event will have.
    pub(super) fn next(&self) -> u64 {
        self.kept.back().map_or(1, |last| last.number + 1)
    }

    /// These events with the numbers that they will have. They are not in the log yet.
    pub(super) fn number(&self, events: Vec<Event>) -> Vec<Numbered> {
        (self.next()..).zip(events).map(|(number, event)| Numbered { number, event }).collect()
    }

    /// Adds events that were numbered by [`EventLog::number`], and drops what is too old.
    pub(super) fn add(&mut self, events: Vec<Numbered>) {
        self.kept.extend(events);
        let too_many = self.kept.len().saturating_sub(EVENTS_MAX);
        self.kept.drain(..too_many);
    }

    /// All that are kept, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Numbered> {
        self.kept.iter()
    }

    pub(super) fn read(&self, service: Option<&ServiceName>, from: u64, max: usize) -> Vec<Numbered> {
        let start = self.kept.partition_point(|event| event.number < from);
        let wanted = |event: &&Numbered| service.is_none_or(|service| event.event.service == *service);
        self.kept.range(start..).filter(wanted).take(max).cloned().collect()
    }
}
