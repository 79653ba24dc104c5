//! The one shape of a state store: everything is held in memory, and a change is held once a medium keeps it.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use baton_core::event::Event;
use baton_core::fleet::{Grant, Heard};
use baton_core::history::{Lock, Proposal, Tag, TagName};
use baton_core::ids::{DeployId, Epoch, MemberId, ServiceName};
use baton_core::units::Millis;

use super::held::Held;
use super::{Accepted, Milestone, News, Numbered, Service, StateError, StateStore};

/// A state store for one server, over what keeps its changes.
#[derive(Debug)]
pub struct Store<M> {
    state: Mutex<State<M>>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State<M> {
    pub(super) held: Held,
    pub(super) medium: M,
}

/// What keeps the changes of a store.
pub trait Medium: Sized {
    /// Keeps what differs from what it has. On return all of it is durable; after an error none of it counts.
    fn save(&mut self, services: &[(&ServiceName, &Service)], events: &[Numbered]) -> Result<(), StateError>;

    /// Keeps these bytes as the list of who may do what. On return they are durable; after an error they do not count.
    fn save_access(&mut self, access: &[u8]) -> Result<(), StateError>;

    /// Gives away the space that is kept for what stops harm, and says whether there was any.
    fn make_room(&mut self) -> bool {
        false
    }

    /// Makes it fit to keep the next change: where one has failed, it keeps what is held and nothing else.
    fn mend(&mut self, held: &Held) -> Result<(), StateError>;

    /// Carries out one call of whoever uses the store.
    fn call<T>(
        &mut self,
        held: &mut Held,
        act: impl FnOnce(&mut Held, &mut Self) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        act(held, self)
    }
}

impl<M> Store<M> {
    pub(super) const fn over(held: Held, medium: M) -> Self {
        Self { state: Mutex::new(State { held, medium }), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<M>> {
        // What is held is replaced in one step, so a panic of another holder does no harm.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<M: Medium> Store<M> {
    fn call<T>(&self, act: impl FnOnce(&mut Held, &mut M) -> Result<T, StateError>) -> Result<T, StateError> {
        let State { held, medium } = &mut *self.lock();
        let before = held.version();
        let answer = medium.call(held, act);
        if held.version() != before {
            self.changed.notify_all();
        }
        answer
    }

    fn write<T>(
        &self,
        name: &ServiceName,
        change: impl FnOnce(&mut Service, &Held) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.call(|held, medium| {
            medium.mend(held)?;
            held.write(name, change, |next| medium.save(&[(name, next)], &[]))
        })
    }
}

impl<M: Medium + Send> StateStore for Store<M> {
    fn ready(&self) -> Result<(), StateError> {
        self.call(|held, medium| medium.mend(held))
    }

    fn services(&self) -> Result<Vec<ServiceName>, StateError> {
        self.call(|held, _| Ok(held.names()))
    }

    fn service(&self, name: &ServiceName, now: Millis) -> Result<Service, StateError> {
        self.call(|held, _| Ok(held.look(name, now)))
    }

    fn propose(
        &self,
        service: &ServiceName,
        proposal: Proposal,
        now: Millis,
    ) -> Result<Accepted, StateError> {
        let only_stops = proposal.wish.only_stops();
        let propose = |next: &mut Service, held: &Held| {
            next.propose(service, proposal.clone(), held.lock_above(service), now)
        };
        match self.write(service, propose) {
            Err(StateError::DiskFull { .. }) if only_stops && self.lock().medium.make_room() => {
                self.write(service, propose)
            }
            done => done,
        }
    }

    fn grant(
        &self,
        service: &ServiceName,
        epoch: Epoch,
        members: &[MemberId],
        now: Millis,
    ) -> Result<Grant, StateError> {
        self.write(service, |next, _| next.grant(service, epoch, members, now))
    }

    fn reach(
        &self,
        service: &ServiceName,
        deploy: DeployId,
        milestone: Milestone,
        at: u64,
    ) -> Result<(), StateError> {
        self.write(service, |next, _| next.reach(service, deploy, milestone, at))
    }

    fn set_lock(&self, service: &ServiceName, lock: Option<Lock>) -> Result<(), StateError> {
        let only_stops = lock.is_some();
        match self.write(service, |next, _| next.set_lock(service, lock.clone())) {
            Err(StateError::DiskFull { .. }) if only_stops && self.lock().medium.make_room() => {
                self.write(service, |next, _| next.set_lock(service, lock))
            }
            done => done,
        }
    }

    fn set_tag(&self, service: &ServiceName, name: &TagName, tag: Option<Tag>) -> Result<(), StateError> {
        self.write(service, |next, _| next.set_tag(service, name, tag))
    }

    fn hear(&self, service: &ServiceName, news: News, now: Millis) -> Result<Heard, StateError> {
        self.call(|held, _| Ok(held.hear(service, news, now)))
    }

    fn append(&self, events: Vec<Event>) -> Result<(), StateError> {
        self.call(|held, medium| {
            medium.mend(held)?;
            let events = held.events().number(events);
            // What members said is saved along, as after every other durable write.
            medium.save(&held.services_of(&events), &events)?;
            held.add_events(events);
            Ok(())
        })
    }

    fn events(
        &self,
        service: Option<&ServiceName>,
        from: u64,
        max: usize,
    ) -> Result<Vec<Numbered>, StateError> {
        self.call(|held, _| Ok(held.events().read(service, from, max)))
    }

    fn access(&self) -> Result<Option<Vec<u8>>, StateError> {
        self.call(|held, _| Ok(held.access().map(<[u8]>::to_vec)))
    }

    fn set_access(&self, seen: Option<&[u8]>, next: &[u8]) -> Result<bool, StateError> {
        self.call(|held, medium| {
            medium.mend(held)?;
            if held.access() != seen {
                return Ok(false);
            }
            medium.save_access(next)?;
            held.set_access(next);
            Ok(true)
        })
    }

    fn changed(&self, since: u64, limit: Duration) -> Result<u64, StateError> {
        self.call(|_, _| Ok(()))?;
        let unchanged = |state: &mut State<M>| state.held.version() == since;
        let waited = self.changed.wait_timeout_while(self.lock(), limit, unchanged);
        Ok(waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.held.version())
    }
}
