//! A store gets back from members what it has lost.

use std::cell::RefCell;
use std::fs;
use std::sync::Arc;

use baton_core::ids::{ChunkId, PackId, ReleaseId};
use baton_core::release::Chunk;
use baton_release::fetch::fetch;
use baton_release::lending::Beginning;
use baton_release::manifest;
use baton_release::pack;
use baton_release::peers::Shelf;
use baton_release::regain::{Left, Lenders, RegainError, Regained, regain};
use baton_release::releases::{Papers, ReleasesDir};
use baton_release::store::memory::MemoryStore;
use baton_release::store::{ArtefactStore, Custody};
use tempfile::TempDir;

use crate::peers::many;
use crate::sample::{file, nodes, noise, open, push_nodes};

/// A member's disk.
struct Member {
    _state: TempDir,
    releases: Arc<ReleasesDir>,
    shelf: Shelf,
}

impl Member {
    fn having(release: ReleaseId, store: &MemoryStore) -> Self {
        let state = tempfile::tempdir().unwrap();
        let releases = Arc::new(open(&state.path().join("state")));
        fetch(release, store, &releases, &|_| {}).unwrap();
        Self { _state: state, shelf: Shelf::new(Arc::clone(&releases)), releases }
    }

    fn spoil(&self, release: ReleaseId, path: &str) {
        fs::write(self.releases.path(release).join(path), "something else").unwrap();
    }
}

/// Nothing of a release is left, and nothing of any other one.
fn lose_all(store: &MemoryStore, release: ReleaseId) {
    store.remove_release(release).unwrap();
    lose_packs(store);
}

fn lose_packs(store: &MemoryStore) {
    store.packs().unwrap().iter().for_each(|pack| store.remove_pack(pack.id).unwrap());
}

/// What a member answers.
type Lends<'a> = dyn Fn(&[ChunkId]) -> Result<Vec<u8>, String> + 'a;

/// What comes of asking these; each as it says.
fn regained(
    release: ReleaseId,
    store: &MemoryStore,
    members: &[&Lends<'_>],
) -> (Result<Regained, RegainError>, Vec<usize>, Vec<String>) {
    let ask = |at: usize, ids: &[ChunkId]| members[at](ids);
    let mut lenders = Lenders::new(members.len(), &ask);
    let done = regain(release, store, &mut lenders, &|_| true);
    let (gave, failed) = lenders.told();
    (done, gave, failed.into_iter().map(|(at, why)| format!("{at}: {why}")).collect())
}

/// Whether all of it is there, and right.
fn is_whole(release: ReleaseId, store: &MemoryStore) -> bool {
    let state = tempfile::tempdir().unwrap();
    let releases = open(&state.path().join("state"));
    fetch(release, store, &releases, &|_| {}).is_ok() && releases.verify_full(release).is_ok()
}

#[test]
fn f74_a_store_that_has_lost_all_of_a_release_gets_it_back_from_two_members() {
    let store = MemoryStore::default();
    // So many files that the outline of its manifest has an outline.
    let mut tree = many();
    (0..2500).for_each(|n| drop(tree.insert(format!("empty/{n}"), file(b""))));
    let release = push_nodes(&tree, &store).id;
    let [first, second] = [0, 1].map(|_| Member::having(release, &store));
    let approvals = "baton-approval 1\nof somebody\n".to_owned();
    first.releases.keep_papers(release, &Papers { approvals: approvals.clone(), warrant: None }).unwrap();
    lose_all(&store, release);
    let lends = |member: &Member, ids: &[ChunkId]| Ok(member.shelf.lend(release, ids));
    let (done, gave, failed) =
        regained(release, &store, &[&|ids| lends(&first, ids), &|ids| lends(&second, ids)]);
    let done = done.unwrap();
    assert_eq!((gave, failed), (vec![0, 1], vec![]), "both give a part of it");
    assert_eq!((done.left.as_ref(), done.is_known, done.manifest), (None, false, true));
    assert_eq!((done.service.as_str(), done.approvals), ("web", vec![approvals]));
    store.publish(release, &done.outline).unwrap();
    assert!(is_whole(release, &store));

    // Where only packs are lost, it is known all the same; and where nothing is, nobody is asked.
    lose_packs(&store);
    let (done, ..) = regained(release, &store, &[&|ids| lends(&second, ids)]);
    assert!(done.unwrap().is_known && is_whole(release, &store));
    let (done, ..) = regained(release, &store, &[&|_| panic!("it is asked")]);
    assert_eq!(done.unwrap().left, None);
}

#[test]
fn what_one_member_has_damaged_another_has_right_and_what_nobody_has_is_named() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let [first, second] = [0, 1].map(|_| Member::having(release, &store));
    first.spoil(release, "large");
    second.spoil(release, "lib/7");
    lose_packs(&store);
    let lends = |member: &Member, ids: &[ChunkId]| Ok(member.shelf.lend(release, ids));
    let (done, gave, failed) = regained(release, &store, &[&|ids| lends(&first, ids)]);
    assert_eq!((gave, failed), (vec![0], vec![]));
    let Some(Left::Nowhere { chunks, first: (id, path) }) = done.unwrap().left else { panic!("it is there") };
    assert_eq!(path.unwrap().as_str(), "large");
    assert!(chunks > 0 && store.missing(&[id]).unwrap() == [id]);
    assert!(!is_whole(release, &store));
    // What has come stays, and is not asked for again.
    let asked = RefCell::new(Vec::new());
    let (done, ..) = regained(
        release,
        &store,
        &[&|ids| {
            asked.borrow_mut().extend(ids.to_vec());
            lends(&second, ids)
        }],
    );
    assert_eq!(done.unwrap().left, None);
    assert!(is_whole(release, &store));
    assert!(!asked.borrow().contains(&ChunkId::of(&noise(9, 509))), "the first one had that");
}

#[test]
fn f72_whatever_a_member_says_nothing_else_comes_into_the_store_and_an_honest_one_is_asked() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let honest = Member::having(release, &store);
    let outline = store.outline(release).unwrap();
    let part = manifest::unpack_outline(release, &outline).unwrap().chunks()[0];
    lose_all(&store, release);
    let other = push_nodes(&nodes(77), &store).id;
    let other_outline = store.outline(other).unwrap();
    let kept: Vec<PackId> = store.packs().unwrap().iter().map(|pack| pack.id).collect();
    let begins =
        |outline: &[u8]| Beginning { outline: outline.to_vec(), approvals: String::new() }.to_bytes();
    let altered = pack::join(vec![pack::pack(vec![part], &vec![b'x'; part.bytes as usize]).unwrap()]);
    let longer = Chunk { bytes: part.bytes + 1, ..part };
    let longer = pack::join(vec![pack::pack(vec![longer], &vec![b'x'; longer.bytes as usize]).unwrap()]);
    // What it says of the beginning, and of any chunk.
    for (says, gives, why) in [
        (Vec::new(), Vec::new(), None),
        (b"rubbish".to_vec(), Vec::new(), Some("it says something else")),
        (begins(b"rubbish"), Vec::new(), Some("what it sends is refused")),
        (begins(&other_outline), Vec::new(), Some("what it sends is refused")),
        (begins(&outline), Vec::new(), None),
        (begins(&outline), b"rubbish".to_vec(), Some("what it sends is refused")),
        (begins(&outline), pack::of(b"something else").unwrap(), Some("was not asked for")),
        (begins(&outline), altered, Some("what it sends is refused")),
        (begins(&outline), longer, Some("what it sends is refused")),
    ] {
        let lies = |ids: &[ChunkId]| Ok(if ids.is_empty() { says.clone() } else { gives.clone() });
        let (done, gave, failed) = regained(release, &store, &[&lies]);
        assert!(matches!(done, Err(RegainError::Manifest(_))), "{why:?}: {done:?}");
        assert_eq!((store.packs().unwrap().len(), gave.len()), (kept.len(), 0), "{why:?}");
        assert_eq!(failed.len(), usize::from(why.is_some()), "{failed:?}");
        assert!(failed.iter().all(|failed| failed.contains(why.unwrap())), "{why:?}: {failed:?}");
        let lends = |ids: &[ChunkId]| Ok(honest.shelf.lend(release, ids));
        let (done, gave, _) = regained(release, &store, &[&lies, &lends]);
        store.publish(release, &done.unwrap().outline).unwrap();
        assert!(gave.contains(&1) && is_whole(release, &store), "{why:?}");
        store.remove_release(release).unwrap();
        let packs = store.packs().unwrap().into_iter().map(|pack| pack.id);
        packs.filter(|id| !kept.contains(id)).for_each(|id| store.remove_pack(id).unwrap());
    }
}

#[test]
fn p27_nobody_is_asked_twice_for_what_it_lacks_and_a_large_release_comes_in_parts() {
    let store = MemoryStore::default();
    let release = push_nodes(&many(), &store).id;
    let member = Member::having(release, &store);
    lose_packs(&store);
    let mut answers = 0;
    loop {
        let asked = RefCell::new(Vec::new());
        let ask = |at: usize, ids: &[ChunkId]| {
            asked.borrow_mut().extend(ids.iter().map(|id| (at, *id)));
            // The first one has nothing of all this.
            Ok(if at == 0 { Vec::new() } else { member.shelf.lend(release, ids) })
        };
        let mut lenders = Lenders::new(2, &ask);
        let done = regain(release, &store, &mut lenders, &|bytes| bytes == 0).unwrap();
        assert_eq!(lenders.told().0, [1]);
        let mut of_first: Vec<ChunkId> =
            asked.borrow().iter().filter(|(at, _)| *at == 0).map(|(_, id)| *id).collect();
        let count = of_first.len();
        of_first.sort_unstable();
        of_first.dedup();
        assert_eq!(count, of_first.len(), "each once");
        answers += 1;
        match done.left {
            Some(left) => assert!(left == Left::Unasked && done.bytes >= 1 << 20, "{left:?}"),
            None => break,
        }
    }
    assert!(answers >= 3, "{answers}");
    assert!(is_whole(release, &store));
}
