use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::release::Chunk;
use crate::release::pack::Frame;

fn release(number: u8) -> ReleaseId {
    ReleaseId::from_bytes([number; 32])
}

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn stored(number: u8, idle: u64) -> Stored {
    Stored { release: release(number), service: Some(web()), idle: Millis(idle) }
}

fn chunk(number: u16) -> ChunkId {
    ChunkId::of(&number.to_le_bytes())
}

/// A pack of frames of these chunks, whose content cannot be compressed.
fn pack(age: u64, frames: &[Vec<u16>]) -> Pack {
    let frame = |chunks: &Vec<u16>| Frame {
        packed: 100 * chunks.len() as u32,
        chunks: chunks.iter().map(|number| Chunk { id: chunk(*number), bytes: 100 }).collect(),
    };
    let index = Index::of(frames.iter().map(frame).collect());
    Pack { id: PackId::of(index.to_text().as_bytes()), index, age: Millis(age) }
}

fn fates(all: &[Pack], needed: &[u16], grace: u64) -> Vec<Fate> {
    let needed: BTreeSet<ChunkId> = needed.iter().map(|number| chunk(*number)).collect();
    let fates = packs(all, |id| needed.contains(&id), Millis(grace));
    all.iter().map(|pack| fates.iter().find(|(found, _)| found.id == pack.id).unwrap().1.clone()).collect()
}

#[test]
fn p28_what_is_named_young_or_among_the_last_stays() {
    let rules = Rules { keep: 2, grace: Millis(10) };
    let all = [stored(1, 900), stored(2, 800), stored(3, 700), stored(4, 600), stored(5, 9), stored(6, 500)];
    let of_nobody = Stored { service: None, ..stored(7, 400) };
    let api = Stored { service: Some("api".parse().unwrap()), ..stored(8, 5000) };
    let all = [&all[..], &[of_nobody, api]].concat();
    let named =
        [(release(1), Why::InForce(web())), (release(1), Why::Last), (release(99), Why::InForce(web()))];
    let why = releases(&all, &named, rules);
    let expected = [
        (1, Some(Why::InForce(web()))),
        (2, None),
        (3, None),
        (4, None),
        (5, Some(Why::Young)),
        (6, Some(Why::Last)),
        (7, None),
        (8, Some(Why::Last)),
    ];
    assert_eq!(why, expected.map(|(number, why)| (release(number), why)).into());
    let rules = Rules { keep: 0, grace: Millis(0) };
    let gone = releases(&all, &named, rules).into_values().filter(Option::is_none).count();
    assert_eq!(gone, 7, "without grace only what is named stays");
}

#[test]
fn a_pack_goes_when_nobody_needs_any_of_it_and_is_repacked_when_little_is_needed() {
    let all = [
        pack(50, &[vec![1, 2], vec![3]]),
        pack(50, &[vec![10, 11, 12, 13], vec![14]]),
        pack(50, &[vec![20, 21], vec![22, 23]]),
        pack(5, &[vec![30]]),
    ];
    let expected = [Fate::Goes, Fate::Repacked(vec![1]), Fate::Stays, Fate::Stays];
    assert_eq!(fates(&all, &[14, 20], 10), expected);
}

#[test]
fn what_lies_twice_stays_once_and_what_is_young_counts() {
    let (small, large) = (pack(50, &[vec![1]]), pack(50, &[vec![1], vec![2]]));
    assert_eq!(fates(&[small.clone(), large], &[1, 2], 10), [Fate::Goes, Fate::Stays]);
    let young = pack(5, &[vec![1], vec![9]]);
    assert_eq!(fates(&[small.clone(), young.clone()], &[1], 10), [Fate::Goes, Fate::Stays]);
    // What is young and needed by nobody yet is what a push under way has brought.
    assert_eq!(fates(&[small, young], &[], 10), [Fate::Goes, Fate::Stays]);
}

proptest! {
    /// However packs overlap: every needed chunk that was there is there afterwards, and before: what is repacked is written
    /// first. Done again, there is nothing left to do.
    #[test]
    fn p28_nothing_that_is_needed_ever_goes(
        shapes in prop::collection::vec((0..20u64, prop::collection::vec(prop::collection::vec(0..40u16, 1..6), 1..6)), 0..12),
        needed in prop::collection::btree_set(0..40u16, 0..20),
        grace in 0..20u64,
    ) {
        let mut all: Vec<Pack> = shapes.iter().map(|(age, frames)| pack(*age, frames)).collect();
        all.sort_by_key(|pack| pack.id);
        all.dedup_by_key(|pack| pack.id);
        let needed: BTreeSet<ChunkId> = needed.iter().map(|number| chunk(*number)).collect();
        let is_needed = |id: ChunkId| needed.contains(&id);
        let chunks = |frames: &[Frame]| -> BTreeSet<ChunkId> {
            frames.iter().flat_map(|frame| &frame.chunks).map(|chunk| chunk.id).filter(|id| is_needed(*id)).collect()
        };
        let before: BTreeSet<ChunkId> = all.iter().flat_map(|pack| chunks(pack.index.frames())).collect();
        let mut after = Vec::new();
        for (pack, fate) in packs(&all, is_needed, Millis(grace)) {
            prop_assert!(pack.age >= Millis(grace) || fate == Fate::Stays);
            match fate {
                Fate::Stays => after.push(pack.clone()),
                Fate::Goes => {}
                Fate::Repacked(kept) => {
                    let frames = kept.iter().map(|at| pack.index.frames()[*at].clone()).collect();
                    let index = Index::of(frames);
                    after.push(Pack { id: PackId::of(index.to_text().as_bytes()), index, age: Millis(0) });
                }
            }
        }
        let there: BTreeSet<ChunkId> = after.iter().flat_map(|pack| chunks(pack.index.frames())).collect();
        prop_assert_eq!(there, before);
    }

    /// In any order of deploys, pushes and prunes, what the history names is in the store.
    #[test]
    fn p28_nothing_that_is_named_ever_goes(
        idle in prop::collection::vec(0..100u64, 1..20),
        named in prop::collection::btree_set(0..20u8, 0..10),
        keep in 0..5usize,
        grace in 0..100u64,
    ) {
        let all: Vec<Stored> = idle.iter().enumerate().map(|(at, idle)| stored(at as u8, *idle)).collect();
        let references: Vec<_> = named.iter().map(|number| (release(*number), Why::InForce(web()))).collect();
        let rules = Rules { keep, grace: Millis(grace) };
        let why = releases(&all, &references, rules);
        prop_assert_eq!(why.len(), all.len());
        for stored in &all {
            let is_named = references.iter().any(|(release, _)| *release == stored.release);
            let stays = why[&stored.release].is_some();
            prop_assert!(stays || (!is_named && stored.idle >= rules.grace));
        }
        prop_assert!(why.values().filter(|why| why.is_some()).count() >= keep.min(all.len()));
    }
}
