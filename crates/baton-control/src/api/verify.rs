//! Checking all that the artefact store has, a part at a time: so nobody waits long for an answer, and who asks sees how far it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use baton_core::ids::PackId;
use baton_release::check;
use baton_release::store::{Custody, StoreError};
use baton_wire::api::{DamagedView, Verified, Verify};

use super::extract::Sent;
use super::releases::refused;
use super::{Refusal, Shared, blocking};
use crate::chain::chain;

/// How many bytes of packs are read for one answer: a few seconds of a bucket.
const BYTES_MAX: u64 = 64 << 20;

pub(super) async fn verify(
    State(shared): State<Shared>,
    Sent(asked): Sent<Verify>,
) -> Result<Json<Verified>, Refusal> {
    let after = asked.after.as_deref().map(str::parse::<PackId>).transpose()?;
    let artefacts = Arc::clone(&shared.artefacts);
    let verified = blocking(move || packs(&*artefacts, after)).await?;
    Ok(Json(verified.map_err(|error| refused(&error))?))
}

/// Checks packs in the order of their names, and when there are none left, the releases.
fn packs(store: &dyn Custody, after: Option<PackId>) -> Result<Verified, StoreError> {
    let mut all = store.packs()?;
    all.sort_unstable_by_key(|pack| pack.id);
    let length =
        |pack: &baton_release::store::StoredPack| pack.index.to_text().len() as u64 + pack.index.packed();
    let mut verified = Verified {
        packs: 0,
        releases: 0,
        bytes: 0,
        bytes_all: all.iter().map(length).sum(),
        damaged: Vec::new(),
        next: None,
    };
    for pack in all.iter().filter(|pack| after.is_none_or(|after| pack.id > after)) {
        let (bytes, damage) = check::pack(store, pack.id)?;
        verified.packs += 1;
        verified.bytes += bytes;
        verified.damaged.extend(damage.map(|damage| damaged("pack", &pack.id, &damage)));
        if verified.bytes >= BYTES_MAX {
            verified.next = Some(pack.id.to_string());
            return Ok(verified);
        }
    }
    for id in store.list()? {
        let damage = check::release(store, id)?;
        verified.releases += 1;
        verified.damaged.extend(damage.map(|damage| damaged("release", &id, &damage)));
    }
    Ok(verified)
}

fn damaged(what: &str, id: &impl ToString, damage: &check::Damage) -> DamagedView {
    DamagedView { what: what.to_owned(), id: id.to_string(), why: chain(damage) }
}
