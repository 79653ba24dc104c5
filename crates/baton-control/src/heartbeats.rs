//! Signs of life that wait for the keeper: the last one of each member. Nobody is woken for them, since nothing follows from
//! most of them; all are taken in at once, at the next tick.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_core::ids::{MemberId, ServiceName};
use baton_core::report::Stamp;
use baton_core::units::Millis;

/// Those of each service: who was heard, what it said, and when.
pub(crate) type Heard = BTreeMap<ServiceName, HashMap<MemberId, (Stamp, Millis)>>;

/// Where sessions leave them, and the keeper finds them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heartbeats(Arc<Mutex<Heard>>);

impl Heartbeats {
    /// A member was heard.
    pub(crate) fn add(&self, service: &ServiceName, member: &MemberId, stamp: Stamp, now: Millis) {
        let mut heard = self.lock();
        match heard.get_mut(service) {
            Some(members) => drop(members.insert(member.clone(), (stamp, now))),
            None => drop(heard.insert(service.clone(), HashMap::from([(member.clone(), (stamp, now))]))),
        }
    }

    /// Whether one of a member is among them.
    pub(crate) fn has(&self, service: &ServiceName, member: &MemberId) -> bool {
        self.lock().get(service).is_some_and(|members| members.contains_key(member))
    }

    /// All that were heard since this was asked last.
    pub(crate) fn take(&self) -> Heard {
        mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        // What is there is replaced in one step, so a panic of another holder does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
