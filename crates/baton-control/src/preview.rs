//! What a deploy would do: the same functions that would do it.

use baton_core::costs::Learnt;
use baton_core::deploy::{Deploy, Kind};
use baton_core::fleet::{Fleet, Member, Presence, Tie};
use baton_core::forecast::forecast;
use baton_core::rollout::{Rollout, order};
use baton_core::units::Millis;
use baton_wire::api::{Preview, PreviewPhase};

use crate::view;

/// Looks ahead: what a deploy that was accepted now would do if nothing failed.
pub(crate) fn preview(fleet: &Fleet, deploy: &Deploy, now: Millis) -> Preview {
    let mut fleet = fleet.clone();
    fleet.begin(deploy.clone(), now);
    let live = fleet.members().filter(|(_, member)| member.presence(now) == Presence::Live);
    let live = u32::try_from(live.count()).unwrap_or(u32::MAX);
    let rollout = Rollout::of(&fleet, now).filter(|_| !matches!(deploy.kind, Kind::Halt { .. }));
    let startup = startup(&fleet);
    let phase = |(slots, bake): (u32, Millis)| PreviewPhase { slots, bake_ms: bake.0 };
    Preview {
        release: deploy.release.to_string(),
        members: live,
        phases: rollout.iter().flat_map(Rollout::phases).map(phase).collect(),
        deploy: Some(view::deploy_at(deploy, false)),
        bake_connections: deploy.bake(Millis::ZERO).connections,
        startup_ms: startup.map(|startup| startup.0),
        expected_ms: rollout.as_ref().zip(startup).and_then(expected).map(|expected| expected.0),
        order: rollout.as_ref().map_or_else(Vec::new, |rollout| names(rollout, now)),
        protected: false,
    }
}

/// How long what runs now takes to start, the middle one of all members.
fn startup(fleet: &Fleet) -> Option<Millis> {
    let reports = fleet.members().filter_map(|(_, member)| member.report());
    Learnt::of(reports.map(|report| &report.costs)).startup.map(|startup| startup.median)
}

fn expected((rollout, startup): (&Rollout<'_>, Millis)) -> Option<Millis> {
    forecast(&rollout.phases(), rollout.wanted(), startup)
}

fn names(rollout: &Rollout<'_>, now: Millis) -> Vec<String> {
    let deploy = rollout.deploy();
    let waits = |member: &Member| {
        let may = member.report().is_some_and(|report| deploy.policy.target.means(&report.labels));
        may && member.presence(now) == Presence::Live && member.tie() != Tie::Found
    };
    let members = rollout.fleet().members().filter(|(_, member)| waits(member));
    let mut names: Vec<_> = members.map(|(id, _)| id).collect();
    names.sort_by_key(|id| order(deploy.id, id));
    names.into_iter().take(rollout.wanted() as usize).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use baton_core::deploy::Policy;
    use baton_core::ids::{DeployId, Epoch, ReleaseId};

    use super::*;

    #[test]
    fn members_wait_for_connections_on_the_way_forward_only() {
        let deploy = |kind| Deploy {
            id: DeployId::from_bytes([2; 16]),
            service: "web".parse().unwrap(),
            epoch: Epoch(2),
            kind,
            parent: None,
            release: ReleaseId::from_bytes([2; 32]),
            fallback: None,
            policy: Policy { bake_connections: 20, ..Policy::safe() },
            reason: String::new(),
            actor: String::new(),
            created: 0,
            warrant: None,
            blame: None,
        };
        let fleet = Fleet::restore([], None, Epoch(1), Millis::ZERO);
        let of = DeployId::from_bytes([1; 16]);
        for (kind, expected) in [(Kind::Rollout, 20), (Kind::Rollback { of }, 0)] {
            assert_eq!(preview(&fleet, &deploy(kind), Millis::ZERO).bake_connections, expected, "{kind:?}");
        }
    }
}
