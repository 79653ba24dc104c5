//! What the suite proposes, reports and notes.

use baton_core::deploy::{Deploy, Policy};
use baton_core::event::{Event, What};
use baton_core::fleet::LEASE;
use baton_core::history::{Backing, Proposal, Wish};
use baton_core::ids::{DeployId, InvalidId, ReleaseId, ServiceName};
use baton_core::units::Millis;

use crate::state::{StateError, StateStore};

/// The moment at which everything happens: a lease after the store was opened, so that it has listened.
pub(super) const NOW: Millis = LEASE;

pub(super) fn service(name: &str) -> Result<ServiceName, InvalidId> {
    name.parse()
}

pub(super) const fn id(number: u8) -> DeployId {
    DeployId::from_bytes([number; 16])
}

pub(super) const fn release(number: u8) -> ReleaseId {
    ReleaseId::from_bytes([number; 32])
}

/// A quarter of the fleet at a time.
pub(super) fn policy() -> Policy {
    Policy::fast()
}

pub(super) fn wish(number: u8, parent: Option<DeployId>, wish: Wish) -> Proposal {
    let (reason, actor) = ("because".to_owned(), "ada".to_owned());
    Proposal {
        id: id(number),
        parent,
        wish,
        reason,
        actor,
        created: 1_700_000_000_000,
        backing: Backing::InForce,
        blame: None,
    }
}

/// The proposal to deploy the release of this number.
pub(super) fn rollout(number: u8, parent: Option<DeployId>) -> Proposal {
    wish(number, parent, Wish::Rollout { release: release(number), policy: policy(), again: false })
}

pub(super) fn halt(number: u8, parent: Option<DeployId>) -> Proposal {
    wish(number, parent, Wish::Halt { hand_back: false })
}

/// Deploys the release of this number after whatever is in force.
pub(super) fn deploy(
    store: &dyn StateStore,
    service: &ServiceName,
    number: u8,
) -> Result<Deploy, StateError> {
    let parent = store.service(service, NOW)?.history().in_force().map(|deploy| deploy.id);
    Ok(store.propose(service, rollout(number, parent), NOW)?.deploy)
}

pub(super) fn event(service: &ServiceName, what: What) -> Event {
    let service = service.clone();
    Event { at: 1_700_000_000_000, service, deploy: None, member: None, what, text: "it happened".to_owned() }
}
