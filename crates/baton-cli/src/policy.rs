//! The rollout policy that is meant: by name, by settings, and by single values.

use baton_core::deploy::{InvalidPolicy, Policy};
use baton_core::ids::ServiceName;
use baton_core::target::Target;
use baton_core::units::{Millis, Share};
use baton_wire::api::Preview;

use crate::args::{Deploy, PolicyName};
use crate::context::Context;
use crate::failure::Failure;
use crate::render::{count, id};

/// What the typed values make of the policy of the settings that are here; where none of this service are, of the one of its
/// deploy in force: what a service needs of every rollout does not end where somebody deploys from another directory.
///
/// # Errors
/// The result cannot be rolled out, or control does not tell how the service stands.
pub fn of_service(
    service: &ServiceName,
    settings: Option<Policy>,
    typed: &Deploy,
    context: &Context,
) -> Result<Policy, Failure> {
    let is_here = settings.is_some();
    // Before anybody is asked: what was typed makes sense.
    let policy = meant(settings, typed)?;
    if is_here {
        return Ok(policy);
    }
    let services = context.client.services()?;
    let known = services.into_iter().find(|status| status.service == service.as_str());
    let Some(deploy) = known.and_then(|status| status.deploy) else { return Ok(policy) };
    let last = deploy.policy.policy().map_err(|error| Failure::Usage(format!("{service}: {error}")))?;
    context.ui.remark(&format!(
        "{service} is rolled out as its last deploy was, {}: there is no baton.toml of it here",
        deploy.id
    ));
    Ok(meant(Some(of_the_next(last)), typed)?)
}

/// What holds of the deploy after one with this policy: not for whom that was meant, nor that it went everywhere at once.
fn of_the_next(policy: Policy) -> Policy {
    Policy { target: Target::ALL, ..policy.in_turns() }
}

/// What the typed values make of a policy, or of the default.
///
/// # Errors
/// The result cannot be rolled out.
fn meant(settings: Option<Policy>, typed: &Deploy) -> Result<Policy, InvalidPolicy> {
    let mut policy = paced(settings, typed.policy, typed.max_unhealthy, typed.bake);
    policy.target.amount = typed.target.unwrap_or(policy.target.amount);
    policy.target.label = typed.label.clone().or(policy.target.label);
    if typed.all_at_once {
        policy = policy.at_once();
    }
    policy.check()?;
    Ok(policy)
}

/// The policy of the settings, else the default, with the pace that was typed: its name, how many may try at once, and how
/// long each bakes.
pub fn paced(
    settings: Option<Policy>,
    name: Option<PolicyName>,
    max_unhealthy: Option<Share>,
    bake: Option<Millis>,
) -> Policy {
    let mut policy = settings.unwrap_or_else(Policy::safe);
    // What limits the rollout is not lifted by how fast it shall be.
    policy.phases = name.map(named).map_or(policy.phases, |named| named.phases);
    policy.max_unhealthy = max_unhealthy.unwrap_or(policy.max_unhealthy);
    for phase in &mut policy.phases {
        phase.bake = bake.unwrap_or(phase.bake);
    }
    policy
}

/// Whether anybody could ever try a release, as control has looked ahead. Where there are no members yet, any that come can.
///
/// # Errors
/// A limit leaves no room for a single try, with as many members as there are.
pub fn has_room(policy: &Policy, preview: &Preview) -> Result<(), Failure> {
    if preview.members == 0 || preview.phases.iter().any(|phase| phase.slots > 0) {
        return Ok(());
    }
    let limit = policy.limits.that_blocks(preview.members);
    let limit = limit.map_or_else(|| "a limit leaves no room".to_owned(), |limit| limit.to_string());
    let members = count(preview.members.into(), "member");
    Err(Failure::Usage(format!(
        "of {members} none could ever try release {}: {limit}; start more members, or give another limit in baton.toml",
        id(&preview.release)
    )))
}

/// The policy of this name.
pub fn named(name: PolicyName) -> Policy {
    match name {
        PolicyName::Safe => Policy::safe(),
        PolicyName::Fast => Policy::fast(),
        PolicyName::Careful => Policy::careful(),
    }
}

#[cfg(test)]
mod tests {
    use baton_core::limits::Limits;
    use baton_wire::api::PreviewPhase;
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::exit::Exit;
    use crate::sample;

    fn typed(arguments: &[&str]) -> Deploy {
        match Cli::try_parse_from(["baton", "deploy"].iter().chain(arguments)).unwrap().command {
            Command::Deploy(deploy) => deploy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_typed_goes_over_the_settings_and_those_over_the_default() {
        let settings = Policy {
            target: Share::from_percent(50).into(),
            max_unhealthy: Share::from_percent(10),
            auto_rollback: false,
            ..Policy::fast()
        };
        assert_eq!(meant(None, &typed(&[])), Ok(Policy::safe()));
        assert_eq!(meant(Some(settings.clone()), &typed(&[])), Ok(settings.clone()));
        let careful = Policy { phases: Policy::careful().phases, ..settings.clone() };
        assert_eq!(meant(Some(settings.clone()), &typed(&["--policy", "careful"])), Ok(careful));
        let single =
            meant(Some(settings), &typed(&["--target", "10%", "--max-unhealthy", "5%", "--bake", "1m"]));
        let single = single.unwrap();
        assert_eq!(
            (single.target, single.max_unhealthy),
            (Share::from_percent(10).into(), Share::from_percent(5))
        );
        assert!(single.phases.iter().all(|phase| phase.bake == Millis::from_secs(60)));
    }

    #[test]
    fn limits_go_on_with_the_next_deploy_but_not_for_whom_one_was_meant_nor_that_it_went_at_once() {
        let limited = Policy { auto_rollback: false, ..Policy::careful() };
        let last = Policy { target: Share::from_percent(50).into(), ..limited.clone() };
        assert_eq!(of_the_next(last), limited);
        let next = of_the_next(limited.at_once());
        assert!(!next.all_at_once && !next.auto_rollback && next.check().is_ok());
    }

    #[test]
    fn p11_everything_at_once_is_refused_unless_it_is_said_on_its_own() {
        assert_eq!(
            meant(None, &typed(&["--max-unhealthy", "100%"])),
            Err(InvalidPolicy::AllAtOnce(Share::ALL))
        );
        let at_once = meant(Some(Policy::careful()), &typed(&["--all-at-once"])).unwrap();
        assert_eq!(at_once, Policy::careful().at_once());
        assert!(at_once.all_at_once && at_once.max_unhealthy == Share::ALL && at_once.phases.len() == 1);
    }

    #[test]
    fn a_bake_beyond_a_day_is_refused_before_anything_is_pushed() {
        let error = meant(None, &typed(&["--bake", "25h"])).unwrap_err();
        assert_eq!(error.to_string(), "the policy has a bake of 25 h: give at most 24 h");
        assert!(meant(None, &typed(&["--bake", "24h"])).is_ok());
    }

    #[test]
    fn members_are_chosen_by_number_and_label() {
        let policy = meant(None, &typed(&["--target", "3", "--label", "zone=eu-1"])).unwrap();
        assert_eq!(policy.target.to_string(), "3 members of zone=eu-1");
        assert_eq!(
            meant(None, &typed(&["--label", "canary"])).unwrap().target.to_string(),
            "100 % of canary"
        );
    }

    #[test]
    fn a_rollout_to_nobody_is_refused() {
        assert_eq!(meant(None, &typed(&["--target", "0%"])), Err(InvalidPolicy::Nobody));
    }

    #[test]
    fn a_rollout_that_no_member_could_ever_try_is_refused_where_it_is_looked_at_ahead() {
        let policy =
            Policy { limits: Limits { min_available: Some(10), ..Limits::default() }, ..Policy::fast() };
        let preview = |members, slots: &[u32]| Preview {
            release: sample::release(),
            members,
            phases: slots.iter().map(|&slots| PreviewPhase { slots, bake_ms: 5000 }).collect(),
            order: Vec::new(),
            startup_ms: None,
            expected_ms: None,
            bake_connections: 0,
            deploy: None,
            protected: false,
        };
        let refused = has_room(&policy, &preview(1, &[0, 0])).unwrap_err();
        assert_eq!(refused.exit(), Exit::Usage);
        assert_eq!(
            refused.message(),
            "of 1 member none could ever try release 9f3a2b7c1d5e: 1 members serve, and min_available is 10; start more \
             members, or give another limit in baton.toml"
        );
        // Members that are silent count where nobody may be too many.
        assert!(
            has_room(&Policy::fast(), &preview(2, &[0]))
                .unwrap_err()
                .message()
                .contains("a limit leaves no room")
        );
        for (members, slots) in [(11, &[1, 1][..]), (20, &[0, 10]), (0, &[0, 0])] {
            assert!(has_room(&policy, &preview(members, slots)).is_ok(), "{members}");
        }
    }
}
