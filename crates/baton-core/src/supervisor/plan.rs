//! What a generation runs.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use crate::bake::Bake;
use crate::ids::{DeployId, Epoch, ReleaseId};
use crate::run::secrets::Values;
use crate::run::{HealthCheck, Probe, RunSettings};
use crate::units::Millis;

/// A release and its run settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which release.
    pub release: Running,
    /// How it is run.
    pub settings: RunSettings,
    /// The values of its secrets, for each of its launches.
    pub secrets: Values,
    /// How it is judged, where anything can be asked at all.
    pub(super) check: Option<HealthCheck>,
}

/// The release that a generation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// The command that the bootloader was given: what the container's image brought.
    Image,
    /// A release that was pushed.
    Release(ReleaseId),
}

impl Running {
    /// The id of a release that was pushed.
    pub fn id(self) -> Option<ReleaseId> {
        match self {
            Self::Image => None,
            Self::Release(id) => Some(id),
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image => f.write_str("image"),
            Self::Release(id) => f.write_str(&id.short()),
        }
    }
}

impl Plan {
    /// A plan to run this.
    pub fn new(release: Running, settings: RunSettings) -> Self {
        let check = settings.health.clone().or_else(|| settings.listen.first().map(|l| accepts(&l.name)));
        let mut plan = Self { release, settings, secrets: Values::default(), check };
        let each = plan.asks_each().then_some(plan.settings.workers);
        if let Some((check, workers)) = plan.check.as_mut().zip(each) {
            // They are asked in turn: what is healthy has answered by each of them.
            check.successes = check.successes.max(workers);
        }
        plan
    }

    /// The same plan with the values of its secrets.
    #[must_use]
    pub fn with_secrets(self, secrets: Values) -> Self {
        Self { secrets, ..self }
    }

    /// Whether each of its copies is asked, by a queue of its own.
    pub(super) fn asks_each(&self) -> bool {
        let asked = self.check.as_ref().and_then(|check| check.listener.as_ref());
        let listen = self.settings.listen.iter().find(|listen| Some(&listen.name) == asked);
        listen.is_some_and(|listen| self.settings.sockets(listen) > 1)
    }

    /// How it is judged, where anything can be asked at all.
    pub fn check(&self) -> Option<&HealthCheck> {
        self.check.as_ref()
    }
}

/// What a program that listens must do at the least: accept.
fn accepts(listener: &str) -> HealthCheck {
    HealthCheck {
        probe: Probe::Tcp,
        listener: Some(String::from(listener)),
        interval: Millis::from_secs(2),
        timeout: Millis::from_secs(1),
        failures: 3,
        successes: 1,
    }
}

/// On whose behalf a generation is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// What this member runs anyway: at its start, or after everything it had has crashed.
    Restore,
    /// The serving generation lost its health, and the same release is started beside it.
    Replace,
    /// Somebody asked this member to reload.
    Reload,
    /// A deploy, for which control granted a slot.
    Deploy {
        /// Which deploy.
        id: DeployId,
        /// Its number.
        epoch: Epoch,
    },
}

/// An order to try a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// What to try.
    pub plan: Arc<Plan>,
    /// On whose behalf.
    pub ticket: Ticket,
    /// How long it must stay healthy after the switch before it counts as proven.
    pub bake: Bake,
}
