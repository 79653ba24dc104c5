//! What the core knows, in the words of the API: pure.

pub(crate) mod member;
pub(crate) mod status;

use std::collections::BTreeSet;

use baton_core::costs::Cost;
use baton_core::deploy::{Deploy, InvalidPolicy, Kind, Phase, PhaseSize, Policy};
use baton_core::history::{Lock, Past};
use baton_core::limits::{Connections, Limits};
use baton_core::metric::NoNumber;
use baton_core::target::{Amount, InvalidLabel, Target};
use baton_core::trust::Signed;
use baton_core::units::{Millis, Share};
use baton_store::state::Numbered;
use baton_wire::api::{DeployView, EventView, LimitsView, LockView, MetricView, PhaseView, PolicyView};

/// Why a policy cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPolicy {
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

/// The word of a kind.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Rollout => "rollout",
        Kind::Halt { .. } => "halt",
        Kind::Rollback { .. } => "rollback",
    }
}

/// A deploy and what became of it.
pub(crate) fn deploy(past: &Past) -> DeployView {
    deploy_at(&past.deploy, past.switched)
}

/// A deploy that did or did not reach its target.
pub(crate) fn deploy_at(deploy: &Deploy, switched: bool) -> DeployView {
    let of = match deploy.kind {
        Kind::Rollout => None,
        Kind::Halt { of, .. } | Kind::Rollback { of } => Some(of.to_string()),
    };
    DeployView {
        id: deploy.id.to_string(),
        service: deploy.service.to_string(),
        epoch: deploy.epoch.0,
        kind: kind(deploy.kind).to_owned(),
        parent: deploy.parent.map(|id| id.to_string()),
        of,
        release: deploy.release.to_string(),
        fallback: deploy.fallback.map(|id| id.to_string()),
        policy: policy(&deploy.policy),
        reason: deploy.reason.clone(),
        actor: deploy.actor.clone(),
        created_ms: deploy.created,
        switched,
        accepted: "durable".to_owned(),
        warrant: deploy.warrant.as_ref().map(Signed::to_text),
    }
}

/// A lock.
pub(crate) fn lock(lock: &Lock) -> LockView {
    LockView { reason: lock.reason.clone(), actor: lock.actor.clone(), since_ms: lock.since, service: None }
}

/// A policy.
pub(crate) fn policy(policy: &Policy) -> PolicyView {
    let phase = |phase: &Phase| PhaseView {
        size_ppm: match phase.size {
            PhaseSize::One => None,
            PhaseSize::Share(share) => Some(share.ppm()),
        },
        bake_ms: phase.bake.0,
    };
    PolicyView {
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
        phases: policy.phases.iter().map(phase).collect(),
        failure_limit_ppm: policy.failure_limit.ppm(),
        auto_rollback: policy.auto_rollback,
        lock_after_rollback: policy.lock_after_rollback,
        limits: limits(&policy.limits),
        gates: policy.gates.iter().map(|cost| cost.code().to_owned()).collect(),
        metric: policy.metric.as_ref().map(MetricView::of),
    }
}

/// The limits of a policy.
pub(crate) fn limits(limits: &Limits) -> LimitsView {
    LimitsView {
        singleton: limits.singleton,
        never_more_than: limits.never_more_than,
        max_connections_budget: limits.connections.map(|connections| connections.budget),
        connections_each: limits.connections.map(|connections| connections.each),
        min_available: limits.min_available,
    }
}

fn gates_of(gates: &[String]) -> Result<Vec<Cost>, BadPolicy> {
    let gate = |code: &String| Cost::from_code(code).ok_or_else(|| BadPolicy::Gate(code.clone()));
    // In their order, each once: so that the same gates are the same policy.
    let gates: BTreeSet<Cost> = gates.iter().map(gate).collect::<Result<_, _>>()?;
    Ok(gates.into_iter().collect())
}

fn limits_of(view: &LimitsView) -> Result<Limits, BadPolicy> {
    let connections = match (view.max_connections_budget, view.connections_each) {
        (Some(budget), Some(each)) => Some(Connections { budget, each }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(BadPolicy::HalfABudget),
    };
    let &LimitsView { singleton, never_more_than, min_available, .. } = view;
    Ok(Limits { singleton, never_more_than, connections, min_available })
}

/// The policy that somebody has sent.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn policy_of(view: &PolicyView) -> Result<Policy, BadPolicy> {
    let share = |field, ppm| Share::from_ppm(ppm).ok_or(BadPolicy::Share { field, ppm });
    let phase = |phase: &PhaseView| {
        let size = match phase.size_ppm {
            Some(ppm) => PhaseSize::Share(share("phases.size_ppm", ppm)?),
            None => PhaseSize::One,
        };
        Ok::<_, BadPolicy>(Phase { size, bake: Millis(phase.bake_ms) })
    };
    let policy = Policy {
        target: Target {
            amount: match view.target_members {
                Some(members) => Amount::Members(members),
                None => Amount::Share(share("target_ppm", view.target_ppm)?),
            },
            label: view.target_label.as_deref().map(str::parse).transpose()?,
        },
        max_unhealthy: share("max_unhealthy_ppm", view.max_unhealthy_ppm)?,
        all_at_once: view.all_at_once,
        phases: view.phases.iter().map(phase).collect::<Result<_, _>>()?,
        failure_limit: share("failure_limit_ppm", view.failure_limit_ppm)?,
        auto_rollback: view.auto_rollback,
        lock_after_rollback: view.lock_after_rollback,
        limits: limits_of(&view.limits)?,
        gates: gates_of(&view.gates)?,
        metric: view.metric.as_ref().map(MetricView::gate).transpose()?,
    };
    policy.check()?;
    Ok(policy)
}

/// An event.
pub(crate) fn event(numbered: Numbered) -> EventView {
    let event = numbered.event;
    EventView {
        sequence: numbered.number,
        at_ms: event.at,
        service: event.service.to_string(),
        kind: event.what.code().to_owned(),
        member: event.member.map(|member| member.to_string()),
        deploy: event.deploy.map(|deploy| deploy.to_string()),
        text: event.text,
    }
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
            ..Policy::safe()
        };
        for sent in [Policy::safe(), Policy::fast(), Policy::careful(), Policy::safe().at_once(), limited] {
            assert_eq!(policy_of(&policy(&sent)), Ok(sent));
        }
    }

    #[test]
    fn p36_impossible_policies_are_refused_with_the_field() {
        let bad = |change: fn(&mut PolicyView)| {
            let mut view = policy(&Policy::safe());
            change(&mut view);
            policy_of(&view).unwrap_err()
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
}
