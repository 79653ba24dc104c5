//! The rollout policy that is meant: by name, by settings, and by single values.

use baton_core::deploy::{InvalidPolicy, PhaseSize, Policy};
use baton_wire::api::{PhaseView, PolicyView};

use crate::args::{Deploy, PolicyName};

/// What the typed values make of the policy of the settings.
///
/// # Errors
/// The result cannot be rolled out.
pub fn meant(settings: Option<Policy>, typed: &Deploy) -> Result<Policy, InvalidPolicy> {
    let mut policy = settings.unwrap_or_else(Policy::safe);
    let named = typed.policy.map(named);
    // What limits the rollout is not lifted by how fast it shall be.
    policy.phases = named.map_or(policy.phases, |named| named.phases);
    policy.target = typed.target.unwrap_or(policy.target);
    policy.max_unhealthy = typed.max_unhealthy.unwrap_or(policy.max_unhealthy);
    for phase in &mut policy.phases {
        phase.bake = typed.bake.unwrap_or(phase.bake);
    }
    policy.check()?;
    Ok(policy)
}

/// The policy of this name.
pub fn named(name: PolicyName) -> Policy {
    match name {
        PolicyName::Safe => Policy::safe(),
        PolicyName::Fast => Policy::fast(),
        PolicyName::Careful => Policy::careful(),
    }
}

/// A policy as the API has it.
pub fn view(policy: &Policy) -> PolicyView {
    let size = |size| match size {
        PhaseSize::One => None,
        PhaseSize::Share(share) => Some(share.ppm()),
    };
    let phases =
        policy.phases.iter().map(|phase| PhaseView { size_ppm: size(phase.size), bake_ms: phase.bake.0 });
    PolicyView {
        target_ppm: policy.target.ppm(),
        max_unhealthy_ppm: policy.max_unhealthy.ppm(),
        phases: phases.collect(),
        failure_limit_ppm: policy.failure_limit.ppm(),
        auto_rollback: policy.auto_rollback,
    }
}

#[cfg(test)]
mod tests {
    use baton_core::units::{Millis, Share};
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn typed(arguments: &[&str]) -> Deploy {
        match Cli::try_parse_from(["baton", "deploy"].iter().chain(arguments)).unwrap().command {
            Command::Deploy(deploy) => deploy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_typed_goes_over_the_settings_and_those_over_the_default() {
        let settings = Policy {
            target: Share::from_percent(50),
            max_unhealthy: Share::from_percent(10),
            auto_rollback: false,
            ..Policy::fast()
        };
        assert_eq!(meant(None, &typed(&[])), Ok(Policy::safe()));
        assert_eq!(meant(Some(settings.clone()), &typed(&[])), Ok(settings.clone()));
        let careful = Policy { phases: Policy::careful().phases, ..settings };
        assert_eq!(meant(Some(settings.clone()), &typed(&["--policy", "careful"])), Ok(careful));
        let single =
            meant(Some(settings), &typed(&["--target", "10%", "--max-unhealthy", "5%", "--bake", "1m"]));
        let single = single.unwrap();
        assert_eq!((single.target, single.max_unhealthy), (Share::from_percent(10), Share::from_percent(5)));
        assert!(single.phases.iter().all(|phase| phase.bake == Millis::from_secs(60)));
    }

    #[test]
    fn everything_at_once_is_refused() {
        assert_eq!(meant(None, &typed(&["--max-unhealthy", "100%"])), Err(InvalidPolicy::AllAtOnce));
    }

    #[test]
    fn a_bake_beyond_a_day_is_refused_before_anything_is_pushed() {
        let error = meant(None, &typed(&["--bake", "25h"])).unwrap_err();
        assert_eq!(error.to_string(), "the policy has a bake of 25 h: give at most 24 h");
        assert!(meant(None, &typed(&["--bake", "24h"])).is_ok());
    }

    #[test]
    fn a_rollout_to_nobody_is_refused() {
        assert_eq!(meant(None, &typed(&["--target", "0%"])), Err(InvalidPolicy::Nobody));
    }

    #[test]
    fn the_api_gets_the_policy_as_it_is() {
        let view = view(&Policy::safe());
        assert_eq!((view.target_ppm, view.max_unhealthy_ppm), (1_000_000, 250_000));
        assert_eq!(view.phases[0], PhaseView { size_ppm: None, bake_ms: 10_000 });
        assert_eq!(view.phases[2], PhaseView { size_ppm: Some(250_000), bake_ms: 5000 });
    }
}
