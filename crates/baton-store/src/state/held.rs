//! What a store holds in memory: everything, so that reading never touches the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use baton_core::fleet::{Heard, Presence};
use baton_core::history::Lock;
use baton_core::ids::{MemberId, ServiceName};
use baton_core::units::Millis;

use super::events::EventLog;
use super::{Kept, News, Numbered, Service, StateError};

/// All services, the events, and the number of changes so far.
#[derive(Debug)]
pub struct Held {
    services: BTreeMap<ServiceName, Service>,
    events: EventLog,
    access: Option<Vec<u8>>,
    version: u64,
    opened: Millis,
    kept: Kept,
}

impl Held {
    pub(super) const fn new(
        services: BTreeMap<ServiceName, Service>,
        events: EventLog,
        opened: Millis,
    ) -> Self {
        Self { services, events, access: None, version: 1, opened, kept: Kept::Durable }
    }

    /// The same, of a store that keeps things so.
    pub(super) const fn keeping(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// The same, with this list of who may do what.
    pub(super) fn with_access(mut self, access: Option<Vec<u8>>) -> Self {
        self.access = access;
        self
    }

    fn unknown(&self, name: &ServiceName) -> Service {
        Service::unknown(name, self.opened).keeping(self.kept)
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) const fn services(&self) -> &BTreeMap<ServiceName, Service> {
        &self.services
    }

    pub(super) fn names(&self) -> Vec<ServiceName> {
        self.services.keys().cloned().collect()
    }

    /// A service, whether or not anything is known of it.
    pub(super) fn get(&self, name: &ServiceName) -> Service {
        self.services.get(name).cloned().unwrap_or_else(|| self.unknown(name))
    }

    /// The lock of a service that this one is a flavor of, and whose it is.
    pub(super) fn lock_above(&self, name: &ServiceName) -> Option<(ServiceName, Lock)> {
        name.bases().find_map(|base| {
            let lock = self.services.get(&base)?.history().lock()?.clone();
            Some((base, lock))
        })
    }

    pub(super) fn look(&mut self, name: &ServiceName, now: Millis) -> Service {
        match self.services.get_mut(name) {
            Some(service) => {
                service.sweep(now);
                service.clone()
            }
            None => self.unknown(name),
        }
    }

    /// Changes a service, in sight of all others, but only once `save` has made the change durable.
    pub(super) fn write<T>(
        &mut self,
        name: &ServiceName,
        change: impl FnOnce(&mut Service, &Self) -> Result<T, StateError>,
        save: impl FnOnce(&Service) -> Result<(), StateError>,
    ) -> Result<T, StateError> {
        let mut next = self.get(name);
        let answer = change(&mut next, self)?;
        save(&next)?;
        self.services.insert(name.clone(), next);
        self.note_change();
        Ok(answer)
    }

    /// What is known of a service from now on.
    pub(super) fn put(&mut self, name: &ServiceName, service: Service) {
        self.services.insert(name.clone(), service);
        self.note_change();
    }

    /// Another server has heard a member at the moment `at`.
    pub(super) fn renew(&mut self, name: &ServiceName, member: &MemberId, at: Millis, now: Millis) {
        let Some(service) = self.services.get_mut(name) else { return };
        let presence = |service: &Service| service.fleet().member(member).map(|member| member.presence(now));
        let before = presence(service);
        service.renew(member, at);
        if presence(service) != before {
            self.note_change();
        }
    }

    /// The store may have lost something: nobody trusts what is known until a lease has passed.
    pub(super) fn listen_anew(&mut self, now: Millis) {
        self.opened = now;
        self.services.values_mut().for_each(|service| service.listen_anew(now));
        self.note_change();
    }

    /// Members may have spoken where nobody has heard them: nobody is blamed for having been silent until now.
    pub(super) fn excuse(&mut self, now: Millis) {
        self.services.values_mut().for_each(|service| service.excuse(now));
    }

    pub(super) fn hear(&mut self, name: &ServiceName, news: News, now: Millis) -> Heard {
        let mut new = None;
        let service = match self.services.get_mut(name) {
            Some(service) => service,
            None => new.insert(Service::unknown(name, self.opened).keeping(self.kept)),
        };
        // Nobody needs to look again for a heartbeat, and most of what is said are heartbeats.
        let nothing_new = match &news {
            News::Heartbeat { member, .. } => {
                service.fleet().member(member).is_some_and(|member| member.presence(now) == Presence::Live)
            }
            News::Report(_) | News::Left(_) => false,
        };
        let heard = service.hear(news, now);
        if heard == Heard::News && !nothing_new {
            if let Some(service) = new {
                self.services.insert(name.clone(), service);
            }
            self.note_change();
        }
        heard
    }

    pub(super) const fn events(&self) -> &EventLog {
        &self.events
    }

    /// The services that events are about, of those that are known.
    pub(super) fn services_of(&self, events: &[Numbered]) -> Vec<(&ServiceName, &Service)> {
        let names: BTreeSet<_> = events.iter().map(|event| &event.event.service).collect();
        names.into_iter().filter_map(|name| self.services.get_key_value(name)).collect()
    }

    /// Adds events that have their numbers.
    pub(super) fn add_events(&mut self, events: Vec<Numbered>) {
        self.events.add(events);
        self.note_change();
    }

    /// Puts another log in the place of the one that is held, which is returned.
    pub(super) fn replace_events(&mut self, events: EventLog) -> EventLog {
        self.note_change();
        mem::replace(&mut self.events, events)
    }

    pub(super) fn access(&self) -> Option<&[u8]> {
        self.access.as_deref()
    }

    pub(super) fn set_access(&mut self, access: &[u8]) {
        self.access = Some(access.to_vec());
        self.note_change();
    }

    /// Who waits for a change looks again.
    pub(super) const fn note_change(&mut self) {
        self.version += 1;
    }
}
