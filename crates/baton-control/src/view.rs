//! What the core knows, in the words of the API: pure.

pub(crate) mod member;
pub(crate) mod status;

use baton_core::deploy::{Deploy, Kind};
use baton_core::history::{History, Lock, Past};
use baton_core::ids::ServiceName;
use baton_core::trust::Signed;
use baton_store::state::Numbered;
use baton_wire::api::{DeployName, DeployView, EventView, LockView, PolicyView};

/// The word of a kind.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Rollout => "rollout",
        Kind::Halt { .. } => "halt",
        Kind::Rollback { .. } => "rollback",
    }
}

/// The words of all kinds.
pub(crate) const KINDS: [&str; 3] = ["rollout", "halt", "rollback"];

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
        policy: PolicyView::of(&deploy.policy),
        reason: deploy.reason.clone(),
        actor: deploy.actor.clone(),
        created_ms: deploy.created,
        switched,
        accepted: "durable".to_owned(),
        warrant: deploy.warrant.as_ref().map(Signed::to_text),
        replaces: None,
        costs: None,
    }
}

/// Which deploy.
pub(crate) fn name(deploy: &Deploy) -> DeployName {
    DeployName {
        id: deploy.id.to_string(),
        epoch: deploy.epoch.0,
        kind: kind(deploy.kind).to_owned(),
        release: deploy.release.to_string(),
        actor: deploy.actor.clone(),
    }
}

/// The deploy that was in force before this one.
pub(crate) fn replaced(history: &History, deploy: &Deploy) -> Option<DeployName> {
    history.find(deploy.parent?).map(name)
}

/// A lock.
pub(crate) fn lock(lock: &Lock) -> LockView {
    LockView { reason: lock.reason.clone(), actor: lock.actor.clone(), since_ms: lock.since, service: None }
}

/// The lock of a service that the one which was asked about is a flavor of.
pub(crate) fn lock_of(base: &ServiceName, above: &Lock) -> LockView {
    LockView { service: Some(base.to_string()), ..lock(above) }
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
