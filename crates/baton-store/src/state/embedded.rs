//! A state store in one file, for one server.

mod disk;

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use baton_core::event::Event;
use baton_core::fleet::{Grant, Heard};
use baton_core::history::Proposal;
use baton_core::ids::{DeployId, Epoch, MemberId, ServiceName};
use baton_core::units::Millis;

use super::held::Held;
use super::{Accepted, Milestone, News, Numbered, Service, StateError, StateStore};
use disk::Disk;

/// A state store in one file, which one process at a time may have open.
///
/// Everything is held in memory; the file is read once and then only written. What a call promises to be
/// durable is on the disk before the call returns and before any other call sees it.
#[derive(Debug)]
pub struct EmbeddedStore {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    held: Held,
    disk: Disk,
}

impl EmbeddedStore {
    /// Opens the store in this file, at the moment `now`; makes an empty one if there is none. The directory
    /// must exist.
    ///
    /// # Errors
    /// When another process has it open, when a newer version has written it, when anything in it is not as
    /// it was written, or when the disk fails.
    pub fn open(path: &Path, now: Millis) -> Result<Self, StateError> {
        let (disk, held) = Disk::open(path, now)?;
        Ok(Self { state: Mutex::new(State { held, disk }), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is held is replaced in one step, so a panic of another holder does no harm.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write<T>(
        &self,
        name: &ServiceName,
        change: impl FnOnce(&mut Service) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let State { held, disk } = &mut *self.lock();
        let answer = held.write(name, change, |next| disk.save(&[(name, next)], &[]))?;
        self.changed.notify_all();
        Ok(answer)
    }
}

impl StateStore for EmbeddedStore {
    fn services(&self) -> Result<Vec<ServiceName>, StateError> {
        Ok(self.lock().held.names())
    }

    fn service(&self, name: &ServiceName, now: Millis) -> Result<Service, StateError> {
        Ok(self.lock().held.look(name, now))
    }

    fn propose(
        &self,
        service: &ServiceName,
        proposal: Proposal,
        now: Millis,
    ) -> Result<Accepted, StateError> {
        self.write(service, |next| next.propose(service, proposal, now))
    }

    fn grant(
        &self,
        service: &ServiceName,
        epoch: Epoch,
        members: &[MemberId],
        now: Millis,
    ) -> Result<Grant, StateError> {
        self.write(service, |next| next.grant(service, epoch, members, now))
    }

    fn reach(
        &self,
        service: &ServiceName,
        deploy: DeployId,
        milestone: Milestone,
        at: u64,
    ) -> Result<(), StateError> {
        self.write(service, |next| next.reach(service, deploy, milestone, at))
    }

    fn hear(&self, service: &ServiceName, news: News, now: Millis) -> Result<Heard, StateError> {
        let heard = self.lock().held.hear(service, news, now);
        self.changed.notify_all();
        Ok(heard)
    }

    fn append(&self, events: Vec<Event>) -> Result<(), StateError> {
        let State { held, disk } = &mut *self.lock();
        let events = held.events().number(events);
        // What members said is saved along, as after every other durable write.
        let services: Vec<_> = held.services_of(&events);
        disk.save(&services, &events)?;
        held.add_events(events);
        self.changed.notify_all();
        Ok(())
    }

    fn events(
        &self,
        service: Option<&ServiceName>,
        from: u64,
        max: usize,
    ) -> Result<Vec<Numbered>, StateError> {
        Ok(self.lock().held.events().read(service, from, max))
    }

    fn changed(&self, since: u64, limit: Duration) -> Result<u64, StateError> {
        let unchanged = |state: &mut State| state.held.version() == since;
        let waited = self.changed.wait_timeout_while(self.lock(), limit, unchanged);
        Ok(waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.held.version())
    }
}
