//! A lock: a service that takes no new release for now, and says why.

use alloc::format;
use alloc::string::String;

use super::{History, ProposeError, Wish};
use crate::deploy::{Deploy, Kind};
use crate::ids::ServiceName;

/// A service that is locked. What brings a release forward is refused; what stops one or takes it back is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Why, in the words of whoever locked it.
    pub reason: String,
    /// Who locked it: a person's name, or `baton`.
    pub actor: String,
    /// Milliseconds since 1970, for people.
    pub since: u64,
}

impl Lock {
    /// The lock that a deploy leaves behind: a rollback does when its policy says so.
    pub(super) fn left_by(deploy: &Deploy) -> Option<Self> {
        let locks = matches!(deploy.kind, Kind::Rollback { .. }) && deploy.policy.lock_after_rollback;
        let why = if deploy.reason.is_empty() { String::new() } else { format!(": {}", deploy.reason) };
        locks.then(|| Self {
            reason: format!("a release was rolled back{why}"),
            actor: deploy.actor.clone(),
            since: deploy.created,
        })
    }
}

impl History {
    /// The same log of a service that is locked, or is not.
    #[must_use]
    pub fn with_lock(self, lock: Option<Lock>) -> Self {
        Self { lock, ..self }
    }

    /// Why the service takes no new release, if it does not.
    pub const fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    /// Locks the service, or unlocks it with none. Doing so twice changes nothing.
    ///
    /// # Errors
    /// It is locked already, by somebody else or for another reason, or it is not locked.
    pub fn set_lock(&mut self, lock: Option<Lock>) -> Result<(), ProposeError> {
        match (&self.lock, &lock) {
            (Some(before), Some(next)) if before != next => Err(before.refusal(&self.service)),
            (None, None) => Err(ProposeError::NotLocked),
            (Some(_), None | Some(_)) | (None, Some(_)) => {
                self.lock = lock;
                Ok(())
            }
        }
    }

    pub(super) fn check_own_lock(&self, wish: &Wish) -> Result<(), ProposeError> {
        self.lock.iter().try_for_each(|lock| self.check_lock(&self.service, lock, wish))
    }

    /// A lock, that of this service or of one that it is a flavor of, refuses what brings a release to members that do not
    /// have it, never the way back.
    ///
    /// # Errors
    /// It refuses this.
    pub fn check_lock(&self, of: &ServiceName, lock: &Lock, wish: &Wish) -> Result<(), ProposeError> {
        let goes_on_with = || match self.in_force().map(|deploy| deploy.kind) {
            Some(Kind::Halt { of, .. }) => self.find(of).map(|of| of.kind),
            Some(Kind::Rollout | Kind::Rollback { .. }) | None => None,
        };
        let forward = match wish {
            Wish::Rollout { .. } => true,
            Wish::Resume => goes_on_with() == Some(Kind::Rollout),
            Wish::Halt { .. } | Wish::Abort | Wish::RollBack { .. } => false,
        };
        if forward { Err(lock.refusal(of)) } else { Ok(()) }
    }
}

impl Lock {
    fn refusal(&self, service: &ServiceName) -> ProposeError {
        let (service, reason, actor) = (service.clone(), self.reason.clone(), self.actor.clone());
        ProposeError::Locked { service, reason, actor }
    }
}
