//! The state store in a file: it conforms, and what is in the file outlives the process and is believed only
//! when it is whole.

mod backup;
mod file;
mod full;
mod killed;
mod redis;
mod reopened;

use std::cell::Cell;

use baton_core::deploy::Policy;
use baton_core::fleet::LEASE;
use baton_core::history::{Backing, Proposal, Wish};
use baton_core::ids::{DeployId, ReleaseId, ServiceName};
use baton_core::units::Millis;
use baton_store::state::{EmbeddedStore, conformance};
use tempfile::TempDir;

/// A lease after the store was opened at the moment 0, so that it has listened.
const NOW: Millis = LEASE;

fn web() -> ServiceName {
    "web".parse().unwrap()
}

const fn id(number: u64) -> DeployId {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    DeployId::from_bytes([a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 1])
}

/// The proposal of a release of its own.
fn rollout(number: u64, parent: Option<DeployId>) -> Proposal {
    let release = ReleaseId::from_bytes([number as u8; 32]);
    let wish = Wish::Rollout { release, policy: Policy::fast(), again: false };
    Proposal {
        id: id(number),
        parent,
        wish,
        reason: "because".into(),
        actor: "ada".into(),
        created: 7,
        backing: Backing::InForce,
        blame: None,
    }
}

#[test]
fn the_embedded_store_conforms() {
    let directory = TempDir::new().unwrap();
    let stores = Cell::new(0);
    conformance::run(|| {
        stores.set(stores.get() + 1);
        let path = directory.path().join(format!("{}.redb", stores.get()));
        EmbeddedStore::open(&path, Millis::ZERO).unwrap()
    })
    .unwrap();
}
