//! A state store in memory, for tests: it fails when it is told to, in the ways a real one could.

use std::collections::BTreeMap;

use baton_core::ids::ServiceName;
use baton_core::units::Millis;

use super::events::EventLog;
use super::held::Held;
use super::store::{Medium, Store};
use super::{Numbered, Service, StateError};

/// A state store in memory.
pub type MemoryStore = Store<Memory>;

/// A medium that keeps nothing beyond what the store holds, and the failures that are planned.
#[derive(Debug, Default)]
pub struct Memory {
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
        Self::over(Held::new(BTreeMap::new(), EventLog::default(), now), Memory::default())
    }

    /// Makes one call fail: 1 is the next one.
    pub fn fail_call(&self, number: u64, fault: Fault) {
        let memory = &mut self.lock().medium;
        memory.planned.insert(memory.calls + number, fault);
    }

    /// Answers nobody while `meanwhile` runs, as a store that hangs.
    pub fn hang<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let _lock = self.lock();
        meanwhile()
    }
}

impl Medium for Memory {
    fn save(&mut self, _: &[(&ServiceName, &Service)], _: &[Numbered]) -> Result<(), StateError> {
        Ok(())
    }

    fn save_access(&mut self, _: &[u8]) -> Result<(), StateError> {
        Ok(())
    }

    fn mend(&mut self, _: &Held) -> Result<(), StateError> {
        Ok(())
    }

    fn call<T>(
        &mut self,
        held: &mut Held,
        act: impl FnOnce(&mut Held, &mut Self) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.calls += 1;
        let failed = |attempted: &str| StateError::Unavailable {
            attempted: attempted.to_owned(),
            source: "a test wants it so".into(),
        };
        match self.planned.remove(&self.calls) {
            None => act(held, self),
            Some(Fault::Unreached) => Err(failed("reach the state store")),
            Some(Fault::AnswerLost) => {
                drop(act(held, self));
                Err(failed("read the answer of the state store"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, StateStore, conformance};
    use super::*;
    use baton_core::deploy::Policy;
    use baton_core::history::{Backing, Proposal, Wish};
    use baton_core::ids::{DeployId, Epoch, ReleaseId};

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
                backing: Backing::InForce,
                blame: None,
            };
            store.fail_call(1, fault);
            let error = store.propose(&web, proposal.clone(), Millis::ZERO).unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            let accepted = store.propose(&web, proposal, Millis::ZERO).unwrap();
            assert_eq!((accepted.deploy.epoch, accepted.again), (Epoch(1), fault == Fault::AnswerLost));
            assert_eq!(store.service(&web, Millis::ZERO).unwrap().history().past().len(), 1);
        }
    }
}
