//! The events that all servers tell and read.

use std::time::Instant;

use baton_core::event::Event;
use baton_core::ids::ServiceName;
use redis::{Value, pipe};

use super::super::RACES_MAX;
use super::super::log::{self, By, Part};
use super::Shared;
use crate::state::{Numbered, StateError};

impl Shared {
    /// Adds events that no other server has told. Returns the services that they are about.
    pub(in crate::state::redis) fn append(
        &mut self,
        mut events: Vec<Event>,
    ) -> Result<Vec<ServiceName>, StateError> {
        events.extend(self.tales.iter().cloned());
        let mut services: Vec<_> = events.iter().map(|event| event.service.clone()).collect();
        services.sort();
        services.dedup();
        services.retain(|service| self.held.services().contains_key(service));
        for (before, batch) in events.chunks(log::BATCH).enumerate() {
            if let Err(error) = self.append_batch(batch) {
                // All of it is told again.
                let now = Instant::now();
                let written = &events[..before * log::BATCH];
                written.iter().for_each(|event| self.told.note(event, By::Us, now));
                return Err(error);
            }
        }
        self.tales.clear();
        if !events.is_empty() {
            self.link.hint(&self.keys.hints());
        }
        Ok(services)
    }

    fn append_batch(&mut self, batch: &[Event]) -> Result<(), StateError> {
        let mut new = batch.to_vec();
        for _ in 0..RACES_MAX {
            self.watch_keys(&[self.keys.events()])?;
            let mut ask = pipe();
            log::ask_last(&self.keys, &mut ask);
            let answers = self.ask(&ask)?;
            let last = self.read_last_event(&answers)?;
            if last < self.last_event() {
                self.write_events_back(last)?;
                continue;
            }
            self.read_events(last)?;
            let now = Instant::now();
            new.retain(|event| !self.told.take(event, now));
            // What is there and is no event has used its number up.
            let next = last.max(self.last_event()).saturating_add(1);
            let numbered: Vec<_> =
                (next..).zip(&new).map(|(number, event)| Numbered { number, event: event.clone() }).collect();
            if numbered.is_empty() {
                self.unwatch();
                return Ok(());
            }
            if self.write_events(&numbered)? {
                self.held.add_events(numbered);
                return Ok(());
            }
        }
        Err(self.too_busy())
    }

    fn write_events(&mut self, events: &[Numbered]) -> Result<bool, StateError> {
        let mut commands = pipe();
        log::write(&self.keys, &self.ours.server, events, &mut commands);
        self.link.transact(&mut commands).map_err(|error| self.failed(error))
    }

    pub(super) fn last_event(&self) -> u64 {
        self.held.events().next() - 1
    }

    /// Reads the events that others have added, up to the last one.
    pub(super) fn read_events(&mut self, last: u64) -> Result<(), StateError> {
        let mut from = self.last_event();
        while from < last {
            let mut ask = pipe();
            log::ask_after(&self.keys, from, &mut ask);
            let answers = self.ask(&ask)?;
            let read = answers.first().map_or_else(|| Ok(Part::default()), log::read);
            let Part { last: end, events } = read.map_err(|error| self.wrong(self.keys.events(), error))?;
            // The rest was taken out by hand.
            let Some(end) = end.filter(|end| *end > from) else { break };
            from = end;
            let (first, now) = (self.looked.is_none(), Instant::now());
            for (numbered, by) in events.iter().filter(|_| !first) {
                let by = if *by == self.ours.server { By::Us } else { By::Others };
                self.told.note(&numbered.event, by, now);
            }
            let events: Vec<_> = events.into_iter().map(|(event, _)| event).collect();
            if !events.is_empty() {
                self.held.add_events(events);
            }
        }
        Ok(())
    }

    /// The store has lost events: those after `last` are written again, under their numbers.
    pub(super) fn write_events_back(&mut self, mut last: u64) -> Result<(), StateError> {
        while last < self.last_event() {
            self.watch_keys(&[self.keys.events()])?;
            let mut ask = pipe();
            log::ask_last(&self.keys, &mut ask);
            let answers = self.ask(&ask)?;
            last = self.read_last_event(&answers)?;
            let lost = self.held.events().all().filter(|event| event.number > last);
            let lost: Vec<_> = lost.take(log::BATCH).cloned().collect();
            // When another server does the same at the same time, its part is found done.
            if lost.is_empty() || self.write_events(&lost)? {
                last += lost.len() as u64;
            }
        }
        Ok(())
    }

    fn read_last_event(&self, answers: &[Value]) -> Result<u64, StateError> {
        let last = answers.first().map_or(Ok(0), log::read_last);
        last.map_err(|error| self.wrong(self.keys.events(), error))
    }
}
