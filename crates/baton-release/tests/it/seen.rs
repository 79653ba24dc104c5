//! A store makes sure of a release at the cost of what is new in it.

use std::sync::atomic::{AtomicUsize, Ordering};

use baton_core::ids::ReleaseId;
use baton_release::store::memory::MemoryStore;
use baton_release::store::{ArtefactStore, Kind, Seen, StoreError, complete};

use crate::sample::{Nodes, chunk, file, push_nodes};

/// How many chunks were looked for, and how many were read, to make sure of a release.
fn made_sure(
    id: ReleaseId,
    store: &MemoryStore,
    seen: &Seen,
    losses: u64,
) -> Result<(usize, usize), StoreError> {
    let (looked, read) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let missing = |ids: &[_]| {
        looked.fetch_add(ids.len(), Ordering::Relaxed);
        store.missing(ids)
    };
    let get = |ids: &[_]| {
        read.fetch_add(ids.len(), Ordering::Relaxed);
        store.get(ids)
    };
    complete(id, &store.outline(id)?, seen, || losses, missing, &get)?;
    Ok((looked.into_inner(), read.into_inner()))
}

fn content(n: usize) -> Vec<u8> {
    format!("file {n}").into_bytes()
}

fn tree(files: usize) -> Nodes {
    (0..files).map(|n| (format!("file-{n:03}"), file(&content(n)))).collect()
}

#[test]
fn what_was_found_there_is_not_looked_for_again_until_something_is_lost() {
    let (store, seen) = (MemoryStore::new(), Seen::default());
    let first = push_nodes(&tree(500), &store).id;
    let mut changed = tree(500);
    changed.insert("file-250".to_owned(), file(b"changed"));
    let second = push_nodes(&changed, &store).id;

    let (looked, read) = made_sure(first, &store, &seen, 0).unwrap();
    assert!(looked > 500 && read > 20, "{looked} looked for, {read} read");
    let (looked, read) = made_sure(second, &store, &seen, 0).unwrap();
    assert!(looked < 60 && read < 8, "{looked} looked for, {read} read");
    let outline = store.outline(second).unwrap();
    let other = complete(first, &outline, &seen, || 0, |ids| store.missing(ids), &|ids| store.get(ids));
    assert_eq!(other.unwrap_err().kind, Kind::Corrupt, "it is seen by its id as well");

    let lost = chunk(&content(499)).id;
    store.lose_chunk(lost);
    let refused = made_sure(first, &store, &seen, 1).unwrap_err();
    assert_eq!(refused.kind, Kind::Missing);
}

#[test]
fn services_that_are_pushed_in_turns_find_what_was_seen_of_them() {
    let (store, seen) = (MemoryStore::new(), Seen::default());
    let other: Nodes =
        (0..500).map(|n| (format!("other-{n:03}"), file(format!("other {n}").as_bytes()))).collect();
    let ids = [tree(500), other].map(|nodes| push_nodes(&nodes, &store).id);
    let mut first = ids.map(|id| made_sure(id, &store, &seen, 0).unwrap().0);
    first.sort_unstable();
    assert!(first[0] > 500, "{first:?}");
    let again = ids.map(|id| made_sure(id, &store, &seen, 0).unwrap().0);
    assert!(again.iter().all(|looked| *looked < 60), "{again:?}");
}
