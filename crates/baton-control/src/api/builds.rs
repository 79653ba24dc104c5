//! Where the outputs of build steps are: records that are kept under the step's key, in the artefact store, so that all servers
//! that share one have the same.
//!
//! The outputs themselves are chunks there. A record is no promise: when chunks of it are gone, whoever asked runs the step. As
//! with the artefact store, a refusal is one line of text.

use std::sync::Arc;

use axum::extract::{Extension, Path as Part, State};
use baton_core::access::Scope;
use baton_core::ids::BuildKey;
use baton_release::manifest::pack_outline;
use baton_release::record::{RECORD_BYTES_MAX, Record};
use baton_release::store::{self, Custody, Kind, Seen, StoreError};

use super::artefacts::Line;
use super::{Shared, blocking, prune};
use crate::access::Caller;

/// Most records that are kept: years of one that is made anew every hour. The oldest go first.
const RECORDS_MAX: usize = 20_000;

/// What is kept under a key.
fn find(key: BuildKey, artefacts: &dyn Custody) -> Result<String, StoreError> {
    let text = artefacts.record(key)?;
    // What a disk has spoiled is not there.
    match Record::parse(&text) {
        Some(_) => Ok(text),
        None => Err(StoreError::new(Kind::Missing, format!("read the outputs of build {key}"))),
    }
}

/// Keeps a record when all of what it tells of is in the store.
fn keep(key: BuildKey, text: &str, artefacts: &dyn Custody) -> Result<(), StoreError> {
    let error = |kind| StoreError::new(kind, format!("keep the outputs of build {key}"));
    let record = Record::parse(text).ok_or_else(|| error(Kind::Corrupt))?;
    let outline = pack_outline(&record.outline).map_err(|cause| error(Kind::Unavailable).because(cause))?;
    let missing = |ids: &[_]| artefacts.missing(ids);
    // Steps are seldom run, and their outputs are not like a release.
    store::complete(record.id, &outline, &Seen::default(), || 0, missing, &|ids| artefacts.get(ids))?;
    artefacts.keep_record(key, text)?;
    make_room(RECORDS_MAX, artefacts);
    Ok(())
}

/// Removes the oldest records beyond so many. What cannot be removed is tried again with the next one.
fn make_room(max: usize, artefacts: &dyn Custody) {
    let Ok(mut all) = artefacts.records() else { return };
    if let Some(beyond) = all.len().checked_sub(max) {
        all.sort_unstable_by_key(|record| record.since);
        all.iter().take(beyond).for_each(|record| drop(artefacts.remove_record(record.key)));
    }
}

/// Longest body of a request.
pub(super) const BODY_BYTES_MAX: usize = RECORD_BYTES_MAX;

pub(super) async fn get(
    State(shared): State<Shared>,
    Part(key): Part<String>,
    Extension(caller): Extension<Caller>,
) -> Result<String, Line> {
    let (key, artefacts): (BuildKey, _) = (key.parse()?, Arc::clone(&shared.artefacts));
    let own = own_key(key, &caller);
    // What is kept for everybody comes from who may change every service.
    let get = move || match find(own, &*artefacts) {
        Err(error) if own != key && error.kind == Kind::Missing => find(key, &*artefacts),
        found => found,
    };
    Ok(blocking(get).await??)
}

/// Under which key records are for a caller. Who may push for some services only keeps records for itself: others would run what
/// it says their build steps have made.
fn own_key(key: BuildKey, caller: &Caller) -> BuildKey {
    match caller {
        Caller::Holder(token) => match &token.scope {
            Scope::Every => key,
            Scope::Only(services) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(key.as_bytes());
                // No name has a space in it.
                for service in services {
                    hasher.update(b" ").update(service.as_str().as_bytes());
                }
                BuildKey::from_bytes(*hasher.finalize().as_bytes())
            }
        },
        Caller::Anybody | Caller::Member(_) | Caller::Late(_) => key,
    }
}

pub(super) async fn put(
    State(shared): State<Shared>,
    Part(key): Part<String>,
    Extension(caller): Extension<Caller>,
    body: String,
) -> Result<(), Line> {
    let key = own_key(key.parse()?, &caller);
    let artefacts = Arc::clone(&shared.artefacts);
    let held = prune::needing(&shared).await?;
    let put = move || {
        // Also when nobody waits for the answer any more.
        let _held = held;
        keep(key, &body, &*artefacts)
    };
    Ok(blocking(put).await??)
}

#[cfg(test)]
mod tests {
    use baton_release::store::memory::MemoryStore;

    use super::*;

    #[test]
    fn beyond_the_most_the_oldest_records_go() {
        let store = MemoryStore::new();
        let keys = [3, 1, 2].map(|seed| BuildKey::from_bytes([seed; 32]));
        keys.iter().for_each(|key| store.keep_record(*key, "a record").unwrap());
        make_room(3, &store);
        assert_eq!(store.records().unwrap().len(), 3);
        make_room(2, &store);
        let mut left: Vec<BuildKey> = store.records().unwrap().iter().map(|record| record.key).collect();
        left.sort_unstable();
        assert_eq!(left, [keys[1], keys[2]]);
    }
}
