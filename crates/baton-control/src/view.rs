//! What the core knows, in the words of the API: pure.

pub(crate) mod member;
pub(crate) mod status;

use baton_core::deploy::{Deploy, InvalidPolicy, Kind, Phase, PhaseSize, Policy};
use baton_core::history::Past;
use baton_core::trust::Signed;
use baton_core::units::{Millis, Share};
use baton_store::state::Numbered;
use baton_wire::api::{DeployView, EventView, PhaseView, PolicyView};

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
        target_ppm: policy.target.ppm(),
        max_unhealthy_ppm: policy.max_unhealthy.ppm(),
        phases: policy.phases.iter().map(phase).collect(),
        failure_limit_ppm: policy.failure_limit.ppm(),
        auto_rollback: policy.auto_rollback,
    }
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
        target: share("target_ppm", view.target_ppm)?,
        max_unhealthy: share("max_unhealthy_ppm", view.max_unhealthy_ppm)?,
        phases: view.phases.iter().map(phase).collect::<Result<_, _>>()?,
        failure_limit: share("failure_limit_ppm", view.failure_limit_ppm)?,
        auto_rollback: view.auto_rollback,
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

    #[test]
    fn policies_come_back_as_they_were_sent() {
        for sent in [Policy::safe(), Policy::fast(), Policy::careful()] {
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
            BadPolicy::Invalid(InvalidPolicy::AllAtOnce)
        );
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
