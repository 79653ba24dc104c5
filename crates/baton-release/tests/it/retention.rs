//! What stays on a member's disk, and what goes.

use std::collections::BTreeSet;

use baton_core::ids::{Epoch, ReleaseId};
use baton_release::fetch::fetch;
use baton_release::releases::Keep;
use baton_release::store::memory::MemoryStore;

use crate::sample::{left, nodes, open, push_nodes};

#[test]
fn p28_what_is_held_and_the_last_proven_releases_stay_and_the_rest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(dir.path()));
    let ids: Vec<ReleaseId> = (1..=8).map(|seed| push_nodes(&nodes(seed), &store).id).collect();
    for id in &ids {
        fetch(*id, &store, &releases, &|_| {}).unwrap();
    }
    for (index, epoch) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)] {
        releases.commit(ids[index], Epoch(epoch)).unwrap();
    }
    assert_eq!(releases.proven(ids[3]), Some(Epoch(4)));
    assert_eq!(releases.upkeep().unwrap().gone, [], "nobody has said what runs");

    let held = BTreeSet::from([ids[0], ids[5]]);
    releases.keep(Keep { held: held.clone(), proven: 2 });
    let done = releases.upkeep().unwrap();
    let gone: BTreeSet<ReleaseId> = done.gone.iter().copied().collect();
    // Held: the first and the sixth. Committed: the fifth. Proven last: the third and fourth.
    assert_eq!(gone, BTreeSet::from([ids[1], ids[6], ids[7]]));
    assert_eq!(done.gone.last(), Some(&ids[1]), "what was never proven goes first");
    let stays: BTreeSet<String> = [0, 2, 3, 4, 5].map(|index| format!("releases/{}", ids[index])).into();
    assert_eq!(left(dir.path()).into_iter().collect::<BTreeSet<_>>(), stays);
    [0, 2, 3, 4, 5].iter().for_each(|index| releases.verify_full(ids[*index]).unwrap());

    assert_eq!(releases.upkeep().unwrap().gone, [], "once");
    drop(releases);
    let releases = open(dir.path());
    releases.keep(Keep { held, proven: 2 });
    assert_eq!(releases.upkeep().unwrap().gone, [], "as it was before the restart");
}

#[test]
fn a_member_whose_record_is_damaged_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(dir.path()));
    let id = push_nodes(&nodes(1), &store).id;
    fetch(id, &store, &releases, &|_| {}).unwrap();
    std::fs::write(dir.path().join("committed"), "x").unwrap();
    releases.keep(Keep { held: BTreeSet::new(), proven: 0 });
    assert_eq!(releases.upkeep().unwrap().gone, []);
    assert!(releases.has(id));
}
