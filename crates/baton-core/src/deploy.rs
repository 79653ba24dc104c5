//! The wish "this service runs that release, rolled out like so": immutable, numbered, with a parent.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bake::Bake;
use crate::blame::Blame;
use crate::costs::Cost;
use crate::ids::{DeployId, Epoch, ReleaseId, ServiceName};
use crate::limits::{InvalidLimits, Limits};
use crate::metric::{InvalidGate, MetricGate};
use crate::target::Target;
use crate::trust::{Signed, Warrant};
use crate::units::{Millis, Share};

/// One deploy. It is never edited: halting and rolling back are new deploys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// Its own id.
    pub id: DeployId,
    /// The service whose members it is for.
    pub service: ServiceName,
    /// Its number: greater than that of every deploy of the service before it.
    pub epoch: Epoch,
    /// What it is for.
    pub kind: Kind,
    /// The deploy that was in force when it was proposed; the first of a service has none.
    pub parent: Option<DeployId>,
    /// What members shall run in the end. Of a halt: the release of the rollout it stops.
    pub release: ReleaseId,
    /// The release of the last switched, unmarked deploy when this one was proposed: where a rollback goes.
    pub fallback: Option<ReleaseId>,
    /// How it is rolled out.
    pub policy: Policy,
    /// Why, in the words of whoever asked for it.
    pub reason: String,
    /// Who asked for it: a person's name, or `baton` for what control decided itself.
    pub actor: String,
    /// Milliseconds since 1970, for people; nothing is decided by it.
    pub created: u64,
    /// The signed deploy that it stands on: its own, or, for a halt or a return by control, the one that allows it.
    pub warrant: Option<Signed<Warrant>>,
    /// What has stopped the deploy before, where control decided itself on this one.
    pub blame: Option<Blame>,
}

/// What a deploy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bring a release to the fleet.
    Rollout,
    /// Stop a rollout where it is.
    Halt {
        /// The rollout that is stopped.
        of: DeployId,
        /// Whether members on trial give up the release at once. A person's halt lets running bakes finish;
        /// the halt of a failing release does not.
        hand_back: bool,
    },
    /// Go back to the fallback.
    Rollback {
        /// The rollout that is taken back.
        of: DeployId,
    },
}

impl Deploy {
    /// What a member goes through that has a slot of a phase with this bake. On the way back nobody waits for connections.
    pub fn bake(&self, time: Millis) -> Bake {
        let connections = match self.kind {
            Kind::Rollout => self.policy.bake_connections,
            Kind::Halt { .. } | Kind::Rollback { .. } => 0,
        };
        Bake { time, connections }
    }
}

/// How a release is brought to the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which members shall run the release.
    pub target: Target,
    /// The greatest share of the fleet that may be unproven at once.
    pub max_unhealthy: Share,
    /// Whether that may be all of it: never by mistake, so it is said on its own.
    pub all_at_once: bool,
    /// The phases in order; never empty. The last one runs to the end.
    pub phases: Vec<Phase>,
    /// The share of tries that may fail before the rollout halts.
    pub failure_limit: Share,
    /// Whether a halt by verdict takes the release back by itself.
    pub auto_rollback: bool,
    /// Whether a rollback locks the service, so that somebody looks before the next deploy.
    pub lock_after_rollback: bool,
    /// What it must keep to whatever the size of the fleet.
    pub limits: Limits,
    /// What a release must not cost remarkably more of than the one before it; in their order, each once.
    pub gates: Vec<Cost>,
    /// What must stay within bounds meanwhile, where something is measured.
    pub metric: Option<MetricGate>,
    /// How many connections a member must have accepted to count as proven, see [`crate::bake`].
    pub bake_connections: u32,
}

/// One phase of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// How much of the fleet may try at once.
    pub size: PhaseSize,
    /// How long a member must stay healthy on the new release before it counts as proven.
    pub bake: Millis,
}

/// How much of the fleet may try at once in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseSize {
    /// A single member.
    One,
    /// A share of the live members, never less than one member.
    Share(Share),
}

/// Most phases of a policy: more than that is a mistake.
const PHASES_MAX: usize = 100;
/// Longest bake: a day. Longer ones would outlive every patience, and every restart for other reasons.
const BAKE_MAX: Millis = Millis::from_secs(24 * 60 * 60);

/// The greatest share of a fleet that may be unproven at once where `all_at_once` is not said: with more of it a bad release is
/// on most of the fleet before anything is known, which is what phases are there to prevent.
pub const MOST_UNHEALTHY: Share = Share::from_percent(50);

/// Why a policy cannot be rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// There is no phase.
    #[error("the policy has no phases: give at least one")]
    NoPhases,
    /// Most of the fleet could be on trial at once.
    #[error(
        "max_unhealthy is {0}, which would try the release on most of the fleet at once: choose {MOST_UNHEALTHY} at the most, \
         or say --all-at-once"
    )]
    AllAtOnce(Share),
    /// No member is meant.
    #[error("target is nobody, so no member would run the release: choose more, such as 10%")]
    Nobody,
    /// There are too many phases.
    #[error("the policy has {0} phases: give at most {PHASES_MAX}")]
    Phases(usize),
    /// A limit leaves nobody a turn.
    #[error(transparent)]
    Limits(#[from] InvalidLimits),
    /// The metric cannot be.
    #[error(transparent)]
    Metric(#[from] InvalidGate),
    /// A bake is too long.
    #[error("the policy has a bake of {0}: give at most {BAKE_MAX}")]
    Bake(Millis),
}

impl Policy {
    /// Whether the policy can be rolled out.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        if self.phases.is_empty() {
            Err(InvalidPolicy::NoPhases)
        } else if self.phases.len() > PHASES_MAX {
            Err(InvalidPolicy::Phases(self.phases.len()))
        } else if let Some(long) = self.phases.iter().find(|phase| phase.bake > BAKE_MAX) {
            Err(InvalidPolicy::Bake(long.bake))
        } else if self.max_unhealthy > MOST_UNHEALTHY && !self.all_at_once {
            Err(InvalidPolicy::AllAtOnce(self.max_unhealthy))
        } else if self.target.is_nobody() {
            Err(InvalidPolicy::Nobody)
        } else {
            self.metric.as_ref().map_or(Ok(()), MetricGate::check)?;
            Ok(self.limits.check()?)
        }
    }

    /// The share of the fleet that may be unproven at once, where nothing else is said.
    const MAX_UNHEALTHY: Share = Share::from_percent(25);
    /// The share of tries that may fail, where nothing else is said: above what flaky starts cause.
    const FAILURE_LIMIT: Share = Share::from_percent(5);

    fn with_phases(phases: Vec<Phase>) -> Self {
        Self {
            target: Target::ALL,
            max_unhealthy: Self::MAX_UNHEALTHY,
            all_at_once: false,
            phases,
            failure_limit: Self::FAILURE_LIMIT,
            auto_rollback: true,
            lock_after_rollback: false,
            limits: Limits::default(),
            gates: Vec::new(),
            metric: None,
            bake_connections: 0,
        }
    }

    /// The default: one member, then 5 %, then 25 % of the fleet at a time.
    pub fn safe() -> Self {
        let share = |percent, bake| Phase { size: PhaseSize::Share(Share::from_percent(percent)), bake };
        Self::with_phases(alloc::vec![
            Phase { size: PhaseSize::One, bake: Millis::from_secs(10) },
            share(5, Millis::from_secs(5)),
            share(25, Millis::from_secs(5)),
        ])
    }

    /// A quarter of the fleet at a time, with a short bake.
    pub fn fast() -> Self {
        Self::with_phases(alloc::vec![Phase {
            size: PhaseSize::Share(Share::from_percent(25)),
            bake: Millis::from_secs(1),
        }])
    }

    /// The whole fleet at once, with the bake of the last phase of this one: for what cannot wait.
    #[must_use]
    pub fn at_once(self) -> Self {
        let bake = self.phases.last().map_or(Millis::ZERO, |phase| phase.bake);
        let phases = alloc::vec![Phase { size: PhaseSize::Share(Share::ALL), bake }];
        Self { max_unhealthy: Share::ALL, all_at_once: true, phases, ..self }
    }

    /// The same, but not the whole fleet at once.
    #[must_use]
    pub fn in_turns(self) -> Self {
        let max_unhealthy = if self.all_at_once { Self::MAX_UNHEALTHY } else { self.max_unhealthy };
        Self { max_unhealthy, all_at_once: false, ..self }
    }

    /// One member, then 1 %, 5 % and 10 % at a time, each with a bake of a minute.
    pub fn careful() -> Self {
        let bake = Millis::from_secs(60);
        let share = |percent| Phase { size: PhaseSize::Share(Share::from_percent(percent)), bake };
        Self::with_phases(alloc::vec![Phase { size: PhaseSize::One, bake }, share(1), share(5), share(10),])
    }
}
