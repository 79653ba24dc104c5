//! Checking all that the artefact store has, a part at a time: so nobody waits long for an answer, and who asks sees how far it is.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use baton_core::collection::{self, Why};
use baton_core::ids::{PackId, ReleaseId};
use baton_release::check;
use baton_release::store::{Custody, StoreError, StoredPack};
use baton_wire::api::{DamagedView, Verified, Verify};

use super::extract::Sent;
use super::releases::refused;
use super::{Refusal, Shared, blocking};
use crate::board::Board;
use crate::chain::chain;

/// How many bytes of packs are read for one answer: a few seconds of a bucket.
const BYTES_MAX: u64 = 64 << 20;
/// How many releases are looked up for one answer: each is a manifest, which may be long.
const RELEASES_MAX: u64 = 32;

/// Where the next part begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Behind this pack.
    Pack(PackId),
    /// Behind all packs and this release.
    Release(ReleaseId),
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pack(id) => write!(f, "packs/{id}"),
            Self::Release(id) => write!(f, "manifests/{id}"),
        }
    }
}

impl FromStr for After {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let no = || Refusal::invalid(format!("{text:?} is no place to go on: give what `next` says"));
        match text.split_once('/') {
            Some(("packs", id)) => id.parse().map(Self::Pack).map_err(|_| no()),
            Some(("manifests", id)) => id.parse().map(Self::Release).map_err(|_| no()),
            Some(_) | None => Err(no()),
        }
    }
}

pub(super) async fn verify(
    State(shared): State<Shared>,
    Sent(asked): Sent<Verify>,
) -> Result<Json<Verified>, Refusal> {
    let after = asked.after.as_deref().map(str::parse).transpose()?;
    let board = shared.known()?;
    let named = named(&board);
    let artefacts = Arc::clone(&shared.artefacts);
    let verified = blocking(move || part(&*artefacts, &named, after)).await?;
    Ok(Json(verified.map_err(|error| refused(&error))?))
}

/// The releases that services need, each with the most important reason. What only a member has may have been removed here.
fn named(board: &Board) -> BTreeMap<ReleaseId, Why> {
    let mut named = BTreeMap::new();
    for posted in board.services.values() {
        let names = collection::named(posted.service.history(), posted.service.fleet());
        for (release, why) in names.into_iter().filter(|(_, why)| !matches!(why, Why::Member(..))) {
            named.entry(release).or_insert(why);
        }
    }
    named
}

/// Checks packs in the order of their names, and when there are none left, the releases: those that are there, and those that
/// should be.
fn part(
    store: &dyn Custody,
    named: &BTreeMap<ReleaseId, Why>,
    after: Option<After>,
) -> Result<Verified, StoreError> {
    let mut all = store.packs()?;
    all.sort_unstable_by_key(|pack| pack.id);
    let length = |pack: &StoredPack| pack.index.to_text().len() as u64 + pack.index.packed();
    let mut verified = Verified { bytes_all: all.iter().map(length).sum(), ..Verified::default() };
    let (pack, release) = match after {
        None => (None, None),
        Some(After::Pack(id)) => (Some(id), None),
        Some(After::Release(id)) => (all.last().map(|last| last.id), Some(id)),
    };
    for id in all.iter().map(|pack| pack.id).filter(|id| Some(*id) > pack) {
        let (bytes, damage) = check::pack(store, id)?;
        verified.packs += 1;
        verified.bytes += bytes;
        verified.damaged.extend(damage.map(|damage| damaged("pack", &id, chain(&damage))));
        if verified.bytes >= BYTES_MAX {
            verified.next = Some(After::Pack(id).to_string());
            return Ok(verified);
        }
    }
    let mut releases = store.list()?;
    releases.extend(named.keys());
    releases.sort_unstable();
    releases.dedup();
    for id in releases.into_iter().filter(|id| Some(*id) > release) {
        if verified.releases >= RELEASES_MAX {
            return Ok(verified);
        }
        let damage = check::release(store, id)?;
        verified.releases += 1;
        verified.damaged.extend(damage.map(|damage| {
            let why = chain(&damage);
            let why = named.get(&id).map_or_else(|| why.clone(), |needed| format!("{why} ({needed})"));
            damaged("release", &id, why)
        }));
        verified.next = Some(After::Release(id).to_string());
    }
    verified.next = None;
    Ok(verified)
}

fn damaged(what: &str, id: &impl ToString, why: String) -> DamagedView {
    DamagedView { what: what.to_owned(), id: id.to_string(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_go_on_is_read_as_it_was_told() {
        for after in [After::Pack(PackId::of(b"one")), After::Release(ReleaseId::from_bytes([7; 32]))] {
            assert_eq!(after.to_string().parse::<After>().ok(), Some(after));
        }
        let id = ReleaseId::from_bytes([7; 32]);
        for text in
            [String::new(), id.to_string(), format!("corrupt/{id}"), format!("packs/{id}/"), "packs/".into()]
        {
            assert!(text.parse::<After>().is_err(), "{text}");
        }
    }
}
