//! The events that all servers tell and read.

use std::collections::BTreeMap;
use std::mem;
use std::time::Instant;

use baton_core::event::{Event, What};
use baton_core::ids::ServiceName;
use redis::pipe;

use super::super::RACES_MAX;
use super::super::link::LinkError;
use super::super::log::{self, By, Course, Ends, GAP, Part};
use super::{Looked, Shared};
use crate::state::events::EventLog;
use crate::state::{EVENTS_MAX, Numbered, StateError};

/// What came of writing events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    All,
    /// Another server was faster, and nothing is written.
    Nothing,
    /// Somebody has taken out by hand what had these numbers or higher ones, and Redis gives no number twice.
    UsedUp,
}

impl Shared {
    /// Adds events that no other server has told. Returns the services that they are about.
    pub(in crate::state::redis) fn append(
        &mut self,
        mut events: Vec<Event>,
    ) -> Result<Vec<ServiceName>, StateError> {
        let mut tales = mem::take(&mut self.tales);
        events.extend(tales.iter().cloned());
        if let Err(error) = self.append_all(&events) {
            tales.append(&mut self.tales);
            self.tales = tales;
            return Err(error);
        }
        if !events.is_empty() {
            self.link.hint(&self.keys.hints());
        }
        let mut services: Vec<_> = events.into_iter().map(|event| event.service).collect();
        services.sort();
        services.dedup();
        services.retain(|service| self.held.services().contains_key(service));
        Ok(services)
    }

    fn append_all(&mut self, events: &[Event]) -> Result<(), StateError> {
        let now = Instant::now();
        let events: Vec<_> = events.iter().map(|event| self.told.put_right(event, now)).collect();
        for (before, batch) in events.chunks(log::BATCH).enumerate() {
            if let Err(error) = self.append_batch(batch) {
                // All of it is told again.
                let now = Instant::now();
                let written = &events[..before * log::BATCH];
                written.iter().for_each(|event| self.told.note(event, By::Us, now));
                return Err(error);
            }
        }
        Ok(())
    }

    fn append_batch(&mut self, batch: &[Event]) -> Result<(), StateError> {
        let mut new = batch.to_vec();
        for _ in 0..RACES_MAX {
            let ends = self.watch_events()?;
            if self.follow_events(&ends)? == Looked::Repaired {
                continue;
            }
            let now = Instant::now();
            new.retain(|event| !self.told.take(event, now));
            let Some(first) = new.first() else {
                self.unwatch();
                return Ok(());
            };
            let service = first.service.clone();
            // What is there and is no event has used its number up.
            let next = ends.next.max(self.last_event() + 1).max(self.next_event);
            let number = |(number, event): (u64, &Event)| Numbered { number, event: event.clone() };
            let numbered: Vec<_> = (next..).zip(&new).map(number).collect();
            match self.write_events(&numbered, None, false)? {
                Written::All => {
                    self.held.add_events(numbered);
                    return Ok(());
                }
                Written::Nothing => {}
                Written::UsedUp => self.skip_events(&service, next),
            }
        }
        Err(self.too_busy())
    }

    /// Nobody knows how far the numbers went that are used up, so each time as many again are left out.
    fn skip_events(&mut self, service: &ServiceName, next: u64) {
        self.next_event = next.saturating_mul(2).max(next.saturating_add(GAP));
        let text = format!(
            "the newest events were taken out of the state store by hand: new ones are numbered {} or higher",
            self.next_event
        );
        self.tell(service, What::StoreRestored, text);
    }

    fn write_events(
        &mut self,
        events: &[Numbered],
        next: Option<u64>,
        anew: bool,
    ) -> Result<Written, StateError> {
        let mut commands = pipe();
        if anew {
            // A stream remembers its last number when everything was taken out of it, and would not take these.
            commands.cmd("DEL").arg(self.keys.events());
        }
        log::write(&self.keys, &self.ours.server, events, next, &mut commands);
        match self.link.transact(&mut commands) {
            Ok(true) => Ok(Written::All),
            Ok(false) => Ok(Written::Nothing),
            Err(LinkError::UsedUp) => Ok(Written::UsedUp),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(super) fn last_event(&self) -> u64 {
        self.held.events().last().map_or(0, |last| last.number)
    }

    fn watch_events(&mut self) -> Result<Ends, StateError> {
        self.watch_keys(&[self.keys.events()])?;
        let mut ask = pipe();
        log::ask_ends(&self.keys, self.last_event(), &mut ask);
        let answers = self.ask(&ask)?;
        let [newest, known] = &answers[..] else {
            return Err(self.wrong(self.keys.events(), "it is incomplete"));
        };
        Ends::read(newest, known).map_err(|error| self.wrong(self.keys.events(), error))
    }

    /// Takes in what the stream has up to its end, and makes good what it has lost.
    pub(super) fn follow_events(&mut self, ends: &Ends) -> Result<Looked, StateError> {
        match ends.compare(self.held.events()) {
            Course::GoesOn => {
                self.take_in_events(ends.last)?;
                Ok(Looked::Known)
            }
            Course::IsCut => {
                let next = self.last_event() + GAP;
                let written = self.write_events_back(Some(next))?;
                let lost = "were lost from the state store and written back";
                self.tell_events(&written, &format!("{lost}: new ones are numbered {next} or higher"));
                Ok(Looked::Repaired)
            }
            Course::IsOther => {
                self.join_events(ends.last)?;
                Ok(Looked::Known)
            }
        }
    }

    /// Holds what others have added, up to the event of this number.
    fn take_in_events(&mut self, last: u64) -> Result<(), StateError> {
        let first = self.looked.is_none();
        for events in self.read_events(self.last_event(), last)? {
            if !first {
                self.note_told(&events);
            }
            self.held.add_events(events.into_iter().map(|(event, _)| event).collect());
        }
        Ok(())
    }

    fn note_told(&mut self, events: &[(Numbered, String)]) {
        let now = Instant::now();
        for (numbered, by) in events {
            let by = if *by == self.ours.server { By::Us } else { By::Others };
            self.told.note(&numbered.event, by, now);
        }
    }

    /// Reads the events after `known` up to `last`, in batches.
    fn read_events(&mut self, known: u64, last: u64) -> Result<Vec<Vec<(Numbered, String)>>, StateError> {
        let (mut from, mut read) = (known, Vec::new());
        while from < last {
            let mut ask = pipe();
            log::ask_between(&self.keys, from, last, &mut ask);
            let answers = self.ask(&ask)?;
            let part = answers.first().map_or_else(|| Ok(Part::default()), log::read);
            let Part { last: end, events } = part.map_err(|error| self.wrong(self.keys.events(), error))?;
            // The rest was taken out by hand.
            let Some(end) = end.filter(|end| *end > from) else { break };
            from = end;
            if !events.is_empty() {
                read.push(events);
            }
        }
        Ok(read)
    }

    /// Writes the events again that the stream has lost at its end, under their numbers. New ones go on with the number `next`.
    /// Returns how many there were of which service.
    pub(super) fn write_events_back(
        &mut self,
        next: Option<u64>,
    ) -> Result<BTreeMap<ServiceName, usize>, StateError> {
        let mut written = BTreeMap::new();
        for _ in 0..EVENTS_MAX / log::BATCH + RACES_MAX {
            let ends = self.watch_events()?;
            if ends.compare(self.held.events()) != Course::IsCut {
                // Where another server has done the same at the same time, its part is found done.
                self.unwatch();
                return Ok(written);
            }
            let lost = self.held.events().all().filter(|event| event.number > ends.last);
            let lost: Vec<_> = lost.take(log::BATCH).cloned().collect();
            match self.write_events(&lost, next, ends.last == 0)? {
                Written::All => {
                    for event in lost {
                        *written.entry(event.event.service).or_default() += 1;
                    }
                }
                Written::Nothing => {}
                Written::UsedUp => {
                    self.join_events(ends.last)?;
                    return Ok(written);
                }
            }
        }
        Err(self.too_busy())
    }

    /// Knows what the stream has, in the place of what was known. What is not there, and not too old for it, is told again.
    fn join_events(&mut self, last: u64) -> Result<(), StateError> {
        let found = self.read_events(0, last)?.concat();
        let log = EventLog::of(found.iter().map(|(event, _)| event.clone()).collect());
        let first = log.all().next().map_or(0, |first| first.number);
        let known = self.held.replace_events(log);
        let new: Vec<_> =
            found.into_iter().filter(|(event, _)| known.find(event.number) != Some(event)).collect();
        self.note_told(&new);
        // Somebody has read the numbers that were known here.
        self.next_event = self.next_event.max(known.last().map_or(0, |last| last.number + 1));
        let now = self.held.events();
        let is_lost = |event: &&Numbered| event.number >= first && now.find(event.number) != Some(*event);
        let lost: Vec<_> = known.all().filter(is_lost).map(|lost| lost.event.clone()).collect();
        let mut counts = BTreeMap::new();
        for event in &lost {
            *counts.entry(event.service.clone()).or_default() += 1;
        }
        self.tales.extend(lost);
        self.tell_events(&counts, "were lost from the state store: they are told again, with new numbers");
        Ok(())
    }

    fn tell_events(&mut self, counts: &BTreeMap<ServiceName, usize>, what: &str) {
        for (service, count) in counts {
            self.tell(service, What::StoreRestored, format!("{count} events of {service} {what}"));
        }
    }
}
