//! A store from which is removed what nobody needs, while others push to it.

use std::collections::BTreeSet;

use baton_core::collection::{self, Fate, Pack};
use baton_core::ids::ReleaseId;
use baton_core::units::Millis;
use baton_release::collect::{self, Needed};
use baton_release::fetch::fetch;
use baton_release::pack;
use baton_release::store::memory::MemoryStore;
use baton_release::store::{ArtefactStore, Custody, Kind, StoreError};
use proptest::prelude::*;

use crate::sample::{Nodes, chunk, file, nodes, noise, open, push_dir, push_nodes, write};

/// All but these go, and every pack that is older than `grace`.
fn prune(store: &MemoryStore, kept: &[ReleaseId], grace: Millis) -> Result<Vec<Fate>, StoreError> {
    let mut needed = Needed::default();
    kept.iter().for_each(|id| needed.count_release(*id, store).unwrap());
    let goes: Vec<ReleaseId> = store.list()?.into_iter().filter(|id| !kept.contains(id)).collect();
    let packs = collect::packs(store)?;
    let fates = collection::packs(&packs, |id| needed.has(id), grace);
    collect::remove(store, &goes, &fates, &|| Ok(()))?;
    Ok(fates.into_iter().map(|(_, fate)| fate).collect())
}

/// Whether a member gets all of a release.
fn is_whole(store: &MemoryStore, id: ReleaseId) {
    let dir = tempfile::tempdir().unwrap();
    fetch(id, store, &open(dir.path()), &|_| {}).unwrap();
}

/// A release of these files, each of which fills a frame by itself.
fn of(numbers: &[u8]) -> Nodes {
    numbers.iter().map(|number| (format!("f{number}"), file(&noise(*number, 300_000)))).collect()
}

#[test]
fn what_only_others_needed_goes_and_a_pack_of_which_little_is_needed_is_repacked() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    write(&dir.path().join("first"), &of(&[1, 2, 3, 4, 5, 6]));
    let first = push_dir(&dir.path().join("first"), &store).id;
    // The second release needs one file of the first one's pack.
    let second = push_nodes(&of(&[6, 7]), &store).id;
    let before: u64 = store.packs().unwrap().iter().map(|pack| pack.index.packed()).sum();
    let fates = prune(&store, &[second], Millis(0)).unwrap();
    assert!(fates.iter().any(|fate| matches!(fate, Fate::Repacked(_))), "{fates:?}");
    let after: u64 = store.packs().unwrap().iter().map(|pack| pack.index.packed()).sum();
    assert!(after * 2 < before, "{after} of {before} bytes are left");
    assert_eq!(store.list().unwrap(), [second]);
    is_whole(&store, second);
    // A push brings again what is not there any more.
    assert_eq!(push_dir(&dir.path().join("first"), &store).id, first);
    is_whole(&store, first);
    is_whole(&store, second);
}

#[test]
fn f76_what_a_push_under_way_has_put_stays_and_what_it_counted_on_is_brought_again() {
    let store = MemoryStore::new();
    push_nodes(&nodes(1), &store);
    // Of a push that has not published yet.
    let put = pack::of(b"put a moment ago").unwrap();
    store.put(&put).unwrap();
    let grace = Millis::from_secs(3600);
    prune(&store, &[], grace).unwrap();
    assert_eq!(store.missing(&[chunk(b"put a moment ago").id]).unwrap(), []);
    // Without grace all of it goes, and whoever counted on it is told what is missing.
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("source"), &nodes(2));
    let id = push_dir(&dir.path().join("source"), &store).id;
    let outline = store.outline(id).unwrap();
    prune(&store, &[], Millis(0)).unwrap();
    assert_eq!(store.packs().unwrap(), []);
    assert_eq!(store.publish(id, &outline).unwrap_err().kind, Kind::Missing);
    push_dir(&dir.path().join("source"), &store);
    is_whole(&store, id);
}

#[test]
fn p28_whatever_call_of_the_store_fails_what_is_needed_is_there() {
    let all = [of(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), of(&[6, 21]), of(&[22]), of(&[22, 23])];
    let scene = || {
        let store = MemoryStore::new();
        let ids = all.each_ref().map(|nodes| push_nodes(nodes, &store).id);
        let kept = [ids[1], ids[3]];
        // The looks, which change nothing, need not fail.
        let mut needed = Needed::default();
        kept.iter().for_each(|id| needed.count_release(*id, &store).unwrap());
        let packs = store.packs().unwrap().into_iter();
        let packs: Vec<Pack> =
            packs.map(|pack| Pack { id: pack.id, age: Millis(1), index: pack.index }).collect();
        (store, ids, kept, needed, packs)
    };
    let (store, ids, _, needed, packs) = scene();
    let before = store.calls();
    let fates = collection::packs(&packs, |id| needed.has(id), Millis(0));
    assert!(fates.iter().any(|(_, fate)| matches!(fate, Fate::Repacked(_))));
    collect::remove(&store, &[ids[0], ids[2]], &fates, &|| Ok(())).unwrap();
    let calls = store.calls() - before;
    assert!(calls >= 5, "only {calls} calls");
    for call in 1..=calls {
        let (store, ids, kept, needed, packs) = scene();
        let fates = collection::packs(&packs, |id| needed.has(id), Millis(0));
        store.fail_call(call, Kind::Unavailable);
        collect::remove(&store, &[ids[0], ids[2]], &fates, &|| Ok(())).unwrap_err();
        kept.iter().for_each(|id| is_whole(&store, *id));
        // The next one does the rest.
        prune(&store, &kept, Millis(0)).unwrap();
        kept.iter().for_each(|id| is_whole(&store, *id));
        assert_eq!(store.list().unwrap().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(kept));
    }
}

#[test]
fn a_release_that_cannot_be_read_is_told_and_a_damaged_frame_is_not_repacked() {
    let store = MemoryStore::new();
    let id = push_nodes(&nodes(1), &store).id;
    let absent = ReleaseId::from_bytes([9; 32]);
    assert!(Needed::default().count_release(absent, &store).is_err());
    let part = store.packs().unwrap()[0].index.frames()[0].clone();
    let lying = Pack {
        id: store.packs().unwrap()[0].id,
        index: store.packs().unwrap()[0].index.clone(),
        age: Millis(0),
    };
    store.plant_frame(part, b"damaged".to_vec());
    let wrong = store.packs().unwrap().into_iter().find(|pack| pack.id != lying.id).unwrap();
    let wrong = Pack { id: wrong.id, index: wrong.index, age: Millis(0) };
    let error = collect::remove(&store, &[id], &[(&wrong, Fate::Repacked(vec![0]))], &|| Ok(())).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    assert_eq!(store.list().unwrap(), [id], "nothing was removed");
}

#[test]
fn f43_of_two_copies_the_damaged_one_is_not_the_one_that_stays() {
    let store = MemoryStore::new();
    let id = push_nodes(&of(&[1, 2]), &store).id;
    let mut needed = Needed::default();
    needed.count_release(id, &store).unwrap();
    let before = store.packs().unwrap();
    // All of it again, younger and so what is kept, and damaged.
    for frame in before.iter().flat_map(|pack| pack.index.frames()) {
        store.plant_frame(frame.clone(), b"damaged".to_vec());
    }
    let is_old = |id| before.iter().any(|pack| pack.id == id);
    let packs: Vec<Pack> = store
        .packs()
        .unwrap()
        .into_iter()
        .map(|pack| Pack { id: pack.id, age: Millis(is_old(pack.id).into()), index: pack.index })
        .collect();
    let fates = collection::packs(&packs, |id| needed.has(id), Millis(1));
    assert!(fates.iter().any(|(pack, fate)| is_old(pack.id) && *fate == Fate::Goes), "{fates:?}");
    let error = collect::check_copies(&store, &fates, &needed).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Pushes and prunes in any order, each with any of the releases kept: those are whole at any time.
    #[test]
    fn p28_in_any_order_of_pushes_and_prunes_what_is_kept_is_whole(
        steps in prop::collection::vec((any::<bool>(), prop::collection::btree_set(0..6u8, 1..5)), 1..8),
    ) {
        let store = MemoryStore::new();
        let mut kept: Vec<ReleaseId> = Vec::new();
        for (push, numbers) in steps {
            if push {
                kept.push(push_nodes(&of(&numbers.into_iter().collect::<Vec<_>>()), &store).id);
            } else {
                let mut at = 0;
                kept.retain(|_| { at += 1; !numbers.contains(&(at - 1)) });
                prune(&store, &kept, Millis(0)).unwrap();
            }
            kept.iter().for_each(|id| is_whole(&store, *id));
        }
    }
}
