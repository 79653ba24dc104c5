//! A state store in memory, for tests: it fails when it is told to, in the ways a real one could.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use baton_core::event::Event;
use baton_core::fleet::{Grant, Heard};
use baton_core::history::Proposal;
use baton_core::ids::{DeployId, Epoch, MemberId, ServiceName};
use baton_core::units::Millis;

use super::events::EventLog;
use super::held::Held;
use super::{Accepted, Milestone, News, Numbered, Service, StateError, StateStore};

/// A state store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    held: Mutex<Held>,
    changed: Condvar,
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    calls: u64,
    planned: BTreeMap<u64, Fault>,
}

/// How a call fails. To the caller both look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store was not reached, and nothing has happened.
    Unreached,
    /// What was asked for has happened, but the answer is lost.
    AnswerLost,
}

impl MemoryStore {
    /// An empty store that works, opened at the moment `now`.
    pub fn new(now: Millis) -> Self {
        Self {
            held: Mutex::new(Held::new(BTreeMap::new(), EventLog::default(), now)),
            changed: Condvar::new(),
            faults: Mutex::default(),
        }
    }

    /// Makes one call fail: 1 is the next one.
    pub fn fail_call(&self, number: u64, fault: Fault) {
        let mut faults = lock(&self.faults);
        let call = faults.calls + number;
        faults.planned.insert(call, fault);
    }

    fn call<T>(&self, act: impl FnOnce(&mut Held) -> Result<T, StateError>) -> Result<T, StateError> {
        let fault = {
            let mut faults = lock(&self.faults);
            faults.calls += 1;
            let call = faults.calls;
            faults.planned.remove(&call)
        };
        let failed = |attempted: &str| StateError::Unavailable {
            attempted: attempted.to_owned(),
            source: "a test wants it so".into(),
        };
        if fault == Some(Fault::Unreached) {
            return Err(failed("reach the state store"));
        }
        let answer = act(&mut lock(&self.held));
        self.changed.notify_all();
        if fault == Some(Fault::AnswerLost) {
            Err(failed("read the answer of the state store"))
        } else {
            answer
        }
    }
}

impl StateStore for MemoryStore {
    fn services(&self) -> Result<Vec<ServiceName>, StateError> {
        self.call(|held| Ok(held.names()))
    }

    fn service(&self, name: &ServiceName, now: Millis) -> Result<Service, StateError> {
        self.call(|held| Ok(held.look(name, now)))
    }

    fn propose(
        &self,
        service: &ServiceName,
        proposal: Proposal,
        now: Millis,
    ) -> Result<Accepted, StateError> {
        self.call(|held| held.write(service, |next| next.propose(service, proposal, now), |_| Ok(())))
    }

    fn grant(
        &self,
        service: &ServiceName,
        epoch: Epoch,
        members: &[MemberId],
        now: Millis,
    ) -> Result<Grant, StateError> {
        self.call(|held| held.write(service, |next| next.grant(service, epoch, members, now), |_| Ok(())))
    }

    fn reach(
        &self,
        service: &ServiceName,
        deploy: DeployId,
        milestone: Milestone,
        at: u64,
    ) -> Result<(), StateError> {
        self.call(|held| held.write(service, |next| next.reach(service, deploy, milestone, at), |_| Ok(())))
    }

    fn hear(&self, service: &ServiceName, news: News, now: Millis) -> Result<Heard, StateError> {
        self.call(|held| Ok(held.hear(service, news, now)))
    }

    fn append(&self, events: Vec<Event>) -> Result<(), StateError> {
        self.call(|held| {
            let numbered = held.events().number(events);
            held.add_events(numbered);
            Ok(())
        })
    }

    fn events(
        &self,
        service: Option<&ServiceName>,
        from: u64,
        max: usize,
    ) -> Result<Vec<Numbered>, StateError> {
        self.call(|held| Ok(held.events().read(service, from, max)))
    }

    fn changed(&self, since: u64, limit: Duration) -> Result<u64, StateError> {
        self.call(|_| Ok(()))?;
        let unchanged = |held: &mut Held| held.version() == since;
        let waited = self.changed.wait_timeout_while(lock(&self.held), limit, unchanged);
        Ok(waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.version())
    }
}

/// Everything behind the locks is whole between two steps, so a panic of another holder does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Retry, conformance};
    use super::*;
    use baton_core::deploy::Policy;
    use baton_core::history::Wish;
    use baton_core::ids::ReleaseId;

    #[test]
    fn the_memory_store_conforms() {
        conformance::run(|| MemoryStore::new(Millis::ZERO)).unwrap();
    }

    #[test]
    fn p32_a_caller_that_got_no_answer_tries_again_and_causes_one_deploy() {
        for fault in [Fault::Unreached, Fault::AnswerLost] {
            let (store, web) = (MemoryStore::new(Millis::ZERO), "web".parse().unwrap());
            let release = ReleaseId::from_bytes([1; 32]);
            let proposal = Proposal {
                id: DeployId::from_bytes([1; 16]),
                parent: None,
                wish: Wish::Rollout { release, policy: Policy::safe(), again: false },
                reason: String::new(),
                actor: "ada".to_owned(),
                created: 0,
            };
            store.fail_call(1, fault);
            let error = store.propose(&web, proposal.clone(), Millis::ZERO).unwrap_err();
            assert_eq!((error.kind(), error.retry()), (Kind::Unavailable, Retry::Later));
            let accepted = store.propose(&web, proposal, Millis::ZERO).unwrap();
            assert_eq!((accepted.deploy.epoch, accepted.again), (Epoch(1), fault == Fault::AnswerLost));
            assert_eq!(store.service(&web, Millis::ZERO).unwrap().history().past().len(), 1);
        }
    }
}
