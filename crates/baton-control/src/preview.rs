//! What a deploy would do: the same functions that would do it.

use baton_core::deploy::{Deploy, Kind, PhaseSize};
use baton_core::fleet::{Fleet, Member, Presence, Tie};
use baton_core::rollout::{Rollout, order, slots};
use baton_core::units::Millis;
use baton_wire::api::{Preview, PreviewPhase};

use crate::view;

/// Looks ahead: what a deploy that was accepted now would do if nothing failed.
pub(crate) fn preview(fleet: &Fleet, deploy: &Deploy, now: Millis) -> Preview {
    let mut fleet = fleet.clone();
    fleet.begin(deploy.clone(), now);
    let live = fleet.members().filter(|(_, member)| member.presence(now) == Presence::Live);
    let live = u32::try_from(live.count()).unwrap_or(u32::MAX);
    Preview {
        release: deploy.release.to_string(),
        members: live,
        phases: phases(deploy, live),
        deploy: Some(view::deploy_at(deploy, false)),
        order: if matches!(deploy.kind, Kind::Halt { .. }) { Vec::new() } else { names(&fleet, deploy, now) },
    }
}

fn phases(deploy: &Deploy, live: u32) -> Vec<PreviewPhase> {
    let policy = &deploy.policy;
    let phase =
        |size, bake: Millis| PreviewPhase { slots: slots(size, policy.max_unhealthy, live), bake_ms: bake.0 };
    match deploy.kind {
        Kind::Rollout => policy.phases.iter().map(|next| phase(next.size, next.bake)).collect(),
        // Its release went through the phases before.
        Kind::Rollback { .. } => vec![phase(PhaseSize::Share(policy.max_unhealthy), Millis::ZERO)],
        Kind::Halt { .. } => Vec::new(),
    }
}

fn names(fleet: &Fleet, deploy: &Deploy, now: Millis) -> Vec<String> {
    let Some(rollout) = Rollout::of(fleet, now) else { return Vec::new() };
    let waits = |member: &Member| member.presence(now) == Presence::Live && member.tie() != Tie::Found;
    let members = fleet.members().filter(|(_, member)| waits(member));
    let mut names: Vec<_> = members.map(|(id, _)| id).collect();
    names.sort_by_key(|id| order(deploy.id, id));
    names.into_iter().take(rollout.wanted() as usize).map(ToString::to_string).collect()
}
