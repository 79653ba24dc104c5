//! The policy of a rollout.

use std::collections::BTreeSet;

use baton_core::costs::Cost;
use baton_core::deploy::{InvalidPolicy, Phase, PhaseSize, Policy};
use baton_core::limits::{Connections, Limits};
use baton_core::metric::NoNumber;
use baton_core::target::{Amount, InvalidLabel, Target};
use baton_core::units::{Millis, Share};
use serde::{Deserialize, Serialize};

use super::MetricView;

/// How a release is rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// The share of the fleet that shall run the release; all of it, where `target_members` says how many.
    pub target_ppm: u32,
    /// So many members instead of a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_members: Option<u32>,
    /// Only members with this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_label: Option<String>,
    /// The greatest share of the fleet that may be unproven at once.
    pub max_unhealthy_ppm: u32,
    /// That may be all of it.
    #[serde(default)]
    pub all_at_once: bool,
    /// The phases in order.
    pub phases: Vec<PhaseView>,
    /// The share of tries that may fail.
    pub failure_limit_ppm: u32,
    /// Whether a failing release is taken back by itself.
    pub auto_rollback: bool,
    /// Whether a rollback locks the service.
    #[serde(default)]
    pub lock_after_rollback: bool,
    /// What it keeps to whatever the size of the fleet.
    #[serde(default)]
    pub limits: LimitsView,
    /// What a release must not cost remarkably more of than the one before it: `startup`, `memory`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// What must stay within bounds meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricView>,
    /// How many connections a member must have accepted in its bake.
    #[serde(default)]
    pub bake_connections: u32,
}

/// Limits of a rollout that are numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitsView {
    /// Two generations of a member never run side by side, and one member tries at a time.
    #[serde(default)]
    pub singleton: bool,
    /// Most generations of the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_more_than: Option<u32>,
    /// How many connections there are for the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_budget: Option<u32>,
    /// How many of them a generation may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_each: Option<u32>,
    /// Fewest members that serve without being on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_available: Option<u32>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseView {
    /// The share of the live members that may try at once; absent: one member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_ppm: Option<u32>,
    /// How long the release must stay healthy.
    pub bake_ms: u64,
}

/// Why a policy cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// A share is more than everything.
    #[error("policy.{field} is {ppm} parts per million: write at most 1000000")]
    Share {
        /// The field.
        field: &'static str,
        /// What it says.
        ppm: u32,
    },
    /// A budget of connections of which one half is missing.
    #[error("policy.limits needs both max_connections_budget and connections_each, or neither")]
    HalfABudget,
    /// A gate that is not known.
    #[error("policy.gates has {0:?}: write startup or memory")]
    Gate(String),
    /// A bound of the metric is none.
    #[error("policy.metric has a bound that is not valid")]
    Metric(#[from] NoNumber),
    /// The label is none.
    #[error("policy.target_label is not valid")]
    Label(#[from] InvalidLabel),
    /// It makes no sense.
    #[error("the policy is not usable")]
    Invalid(#[from] InvalidPolicy),
}

impl PolicyView {
    /// Of a policy.
    pub fn of(policy: &Policy) -> Self {
        Self {
            target_ppm: match policy.target.amount {
                Amount::Share(share) => share.ppm(),
                Amount::Members(_) => Share::ALL.ppm(),
            },
            target_members: match policy.target.amount {
                Amount::Share(_) => None,
                Amount::Members(members) => Some(members),
            },
            target_label: policy.target.label.as_ref().map(ToString::to_string),
            max_unhealthy_ppm: policy.max_unhealthy.ppm(),
            all_at_once: policy.all_at_once,
            phases: policy.phases.iter().map(PhaseView::of).collect(),
            failure_limit_ppm: policy.failure_limit.ppm(),
            auto_rollback: policy.auto_rollback,
            lock_after_rollback: policy.lock_after_rollback,
            limits: LimitsView::of(&policy.limits),
            gates: policy.gates.iter().map(|cost| cost.code().to_owned()).collect(),
            metric: policy.metric.as_ref().map(MetricView::of),
            bake_connections: policy.bake_connections,
        }
    }

    /// The policy, which makes sense.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn policy(&self) -> Result<Policy, BadPolicy> {
        let policy = Policy {
            target: Target {
                amount: match self.target_members {
                    Some(members) => Amount::Members(members),
                    None => Amount::Share(share("target_ppm", self.target_ppm)?),
                },
                label: self.target_label.as_deref().map(str::parse).transpose()?,
            },
            max_unhealthy: share("max_unhealthy_ppm", self.max_unhealthy_ppm)?,
            all_at_once: self.all_at_once,
            phases: self.phases.iter().map(PhaseView::phase).collect::<Result<_, _>>()?,
            failure_limit: share("failure_limit_ppm", self.failure_limit_ppm)?,
            auto_rollback: self.auto_rollback,
            lock_after_rollback: self.lock_after_rollback,
            limits: self.limits.limits()?,
            gates: gates(&self.gates)?,
            metric: self.metric.as_ref().map(MetricView::gate).transpose()?,
            bake_connections: self.bake_connections,
        };
        policy.check()?;
        Ok(policy)
    }
}

impl LimitsView {
    fn of(limits: &Limits) -> Self {
        Self {
            singleton: limits.singleton,
            never_more_than: limits.never_more_than,
            max_connections_budget: limits.connections.map(|connections| connections.budget),
            connections_each: limits.connections.map(|connections| connections.each),
            min_available: limits.min_available,
        }
    }

    fn limits(&self) -> Result<Limits, BadPolicy> {
        let connections = match (self.max_connections_budget, self.connections_each) {
            (Some(budget), Some(each)) => Some(Connections { budget, each }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(BadPolicy::HalfABudget),
        };
        let &Self { singleton, never_more_than, min_available, .. } = self;
        Ok(Limits { singleton, never_more_than, connections, min_available })
    }
}

impl PhaseView {
    fn of(phase: &Phase) -> Self {
        let size_ppm = match phase.size {
            PhaseSize::One => None,
            PhaseSize::Share(share) => Some(share.ppm()),
        };
        Self { size_ppm, bake_ms: phase.bake.0 }
    }

    fn phase(&self) -> Result<Phase, BadPolicy> {
        let size = match self.size_ppm {
            Some(ppm) => PhaseSize::Share(share("phases.size_ppm", ppm)?),
            None => PhaseSize::One,
        };
        Ok(Phase { size, bake: Millis(self.bake_ms) })
    }
}

fn share(field: &'static str, ppm: u32) -> Result<Share, BadPolicy> {
    Share::from_ppm(ppm).ok_or(BadPolicy::Share { field, ppm })
}

fn gates(gates: &[String]) -> Result<Vec<Cost>, BadPolicy> {
    let gate = |code: &String| Cost::from_code(code).ok_or_else(|| BadPolicy::Gate(code.clone()));
    // In their order, each once: so that the same gates are the same policy.
    let gates: BTreeSet<Cost> = gates.iter().map(gate).collect::<Result<_, _>>()?;
    Ok(gates.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::limits::InvalidLimits;

    #[test]
    fn policies_come_back_as_they_were_sent() {
        let limited = Policy {
            target: Target { amount: Amount::Members(3), label: "zone=eu-1".parse().ok() },
            limits: Limits {
                singleton: true,
                never_more_than: Some(9),
                connections: Some(Connections { budget: 500, each: 20 }),
                min_available: Some(2),
            },
            lock_after_rollback: true,
            gates: vec![Cost::Startup, Cost::Memory],
            bake_connections: 20,
            ..Policy::safe()
        };
        for sent in [Policy::safe(), Policy::fast(), Policy::careful(), Policy::safe().at_once(), limited] {
            assert_eq!(PolicyView::of(&sent).policy(), Ok(sent));
        }
    }

    #[test]
    fn p36_impossible_policies_are_refused_with_the_field() {
        let bad = |change: fn(&mut PolicyView)| {
            let mut view = PolicyView::of(&Policy::safe());
            change(&mut view);
            view.policy().unwrap_err()
        };
        let field = |error| match error {
            BadPolicy::Share { field, ppm: 1_000_001 } => field,
            other => panic!("{other}"),
        };
        assert_eq!(field(bad(|view| view.target_ppm = 1_000_001)), "target_ppm");
        assert_eq!(field(bad(|view| view.max_unhealthy_ppm = 1_000_001)), "max_unhealthy_ppm");
        assert_eq!(field(bad(|view| view.failure_limit_ppm = 1_000_001)), "failure_limit_ppm");
        assert_eq!(field(bad(|view| view.phases[1].size_ppm = Some(1_000_001))), "phases.size_ppm");
        assert_eq!(bad(|view| view.phases.clear()), BadPolicy::Invalid(InvalidPolicy::NoPhases));
        assert_eq!(
            bad(|view| view.max_unhealthy_ppm = 1_000_000),
            BadPolicy::Invalid(InvalidPolicy::AllAtOnce(Share::ALL))
        );
        assert_eq!(bad(|view| view.target_members = Some(0)), BadPolicy::Invalid(InvalidPolicy::Nobody));
        assert!(matches!(bad(|view| view.target_label = Some("a b".into())), BadPolicy::Label(_)));
        assert_eq!(bad(|view| view.limits.connections_each = Some(1)), BadPolicy::HalfABudget);
        let too_few = InvalidPolicy::Limits(InvalidLimits::NeverMoreThan(1));
        assert_eq!(bad(|view| view.limits.never_more_than = Some(1)), BadPolicy::Invalid(too_few));
        assert_eq!(bad(|view| view.target_ppm = 0), BadPolicy::Invalid(InvalidPolicy::Nobody));
        assert_eq!(
            bad(|view| view.phases[0].bake_ms = u64::MAX),
            BadPolicy::Invalid(InvalidPolicy::Bake(Millis(u64::MAX)))
        );
        assert_eq!(
            bad(|view| view.phases = vec![view.phases[0].clone(); 101]),
            BadPolicy::Invalid(InvalidPolicy::Phases(101))
        );
    }

    #[test]
    fn the_api_has_a_policy_in_parts_per_million_and_milliseconds() {
        let view = PolicyView::of(&Policy::safe());
        assert_eq!((view.target_ppm, view.max_unhealthy_ppm), (1_000_000, 250_000));
        assert_eq!(view.phases[0], PhaseView { size_ppm: None, bake_ms: 10_000 });
        assert_eq!(view.phases[2], PhaseView { size_ppm: Some(250_000), bake_ms: 5000 });
    }
}
