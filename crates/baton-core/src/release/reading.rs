//! What to read of packs for the chunks that are needed: which of them to ask for at once, which frames to answer with, and
//! which ranges of a pack that takes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;

use super::Chunk;
use super::pack::{Frame, INDEX_BYTES_MAX, PACK_BYTES_MAX, PACK_CHUNKS_MAX};
use super::packing::PACK_CONTENT_BYTES;
use crate::ids::ChunkId;

/// Most packed bytes of an answer, so that with its index it is a pack. More than the content that [`asks`] asks for at once:
/// one answer is enough, unless much of its frames was not asked for.
pub(super) const ANSWER_BYTES_MAX: u64 = (PACK_BYTES_MAX - INDEX_BYTES_MAX) as u64;

/// Splits what is needed into questions that are answered with about one pack each.
pub fn asks(chunks: &[Chunk]) -> Vec<&[Chunk]> {
    let (mut asks, mut rest) = (Vec::new(), chunks);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |chunk: &&Chunk| {
            bytes += u64::from(chunk.bytes);
            bytes <= PACK_CONTENT_BYTES
        };
        let count = rest.iter().take(PACK_CHUNKS_MAX).take_while(fits).count().max(1);
        let (ask, after) = rest.split_at(count);
        asks.push(ask);
        rest = after;
    }
    asks
}

/// The frames that answer a question, each once, in the order of the chunks asked for; of those that do not fit into one
/// answer only the first ones, and at least one. `place` knows where a chunk is.
///
/// # Errors
/// The first chunk that has no place.
pub fn answer<'a, P: Ord + Copy>(
    asked: &[ChunkId],
    place: impl Fn(ChunkId) -> Option<(P, &'a Frame)>,
) -> Result<Vec<P>, ChunkId> {
    let (mut chosen, mut known) = (Vec::new(), BTreeSet::new());
    let (mut bytes, mut chunks) = (0, 0);
    for id in asked {
        let (at, frame) = place(*id).ok_or(*id)?;
        if known.contains(&at) {
            continue;
        }
        (bytes, chunks) = (bytes + u64::from(frame.packed), chunks + frame.chunks.len());
        if !chosen.is_empty() && (bytes > ANSWER_BYTES_MAX || chunks > PACK_CHUNKS_MAX) {
            break;
        }
        known.insert(at);
        chosen.push(at);
    }
    Ok(chosen)
}

/// The ranges to read for these places: sorted, and joined where less than `gap` bytes lie between, because those are read
/// sooner than another request is made.
pub fn ranges(places: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut sorted = places.to_vec();
    sorted.sort_unstable_by_key(|place| (place.start, place.end));
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for place in sorted {
        match ranges.last_mut() {
            Some(last) if place.start <= last.end.saturating_add(gap) => last.end = last.end.max(place.end),
            Some(_) | None => ranges.push(place),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::super::pack::{FRAME_BYTES_MAX, FRAME_PACKED_MAX, Index};
    use super::super::packing::plan;
    use super::*;
    use proptest::prelude::*;

    fn chunks(sizes: &[u32]) -> Vec<Chunk> {
        let chunk = |(n, bytes): (usize, &u32)| Chunk { id: ChunkId::of(&n.to_le_bytes()), bytes: *bytes };
        sizes.iter().enumerate().map(chunk).collect()
    }

    #[test]
    fn near_places_are_read_at_once() {
        for (places, gap, expected) in [
            (&[][..], 10, &[][..]),
            (&[(0, 5)], 0, &[(0, 5)]),
            (&[(0, 5), (5, 9)], 0, &[(0, 9)]),
            (&[(5, 9), (0, 5)], 0, &[(0, 9)]),
            (&[(0, 5), (6, 9)], 0, &[(0, 5), (6, 9)]),
            (&[(0, 5), (6, 9), (20, 21)], 1, &[(0, 9), (20, 21)]),
            (&[(0, 9), (2, 3)], 0, &[(0, 9)]),
            (&[(0, 9), (2, 30)], 0, &[(0, 30)]),
        ] {
            let places: Vec<Range<u64>> = places.iter().map(|(start, end)| *start..*end).collect();
            let found: Vec<(u64, u64)> =
                ranges(&places, gap).iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_does_not_fit_into_one_answer_comes_with_the_next() {
        let all = chunks(&[FRAME_BYTES_MAX; 9]);
        let ids: Vec<ChunkId> = all.iter().map(|chunk| chunk.id).collect();
        let frames: Vec<Frame> =
            all.iter().map(|chunk| Frame { packed: FRAME_PACKED_MAX, chunks: Vec::from([*chunk]) }).collect();
        let place = |id| ids.iter().position(|other| *other == id).map(|at| (at, &frames[at]));
        assert_eq!(answer(&ids, place), Ok(Vec::from([0, 1, 2, 3])));
        assert_eq!(answer(&ids[8..], place), Ok(Vec::from([8])));
        assert_eq!(answer(&[], place), Ok(Vec::new()));
        let other = ChunkId::of(b"other");
        assert_eq!(answer(&[ids[0], other], place), Err(other));
    }

    proptest! {
        #[test]
        fn a_plan_has_every_chunk_once_in_order_and_keeps_the_limits(
            sizes in prop::collection::vec(prop_oneof![1..3000u32, 1..=FRAME_BYTES_MAX], 0..400),
        ) {
            let all = chunks(&sizes);
            let packs = plan(&[&all]);
            prop_assert_eq!(packs.iter().flatten().flatten().copied().collect::<Vec<_>>(), all);
            for pack in &packs {
                let frame = |chunks: &Vec<Chunk>| {
                    let bytes: u32 = chunks.iter().map(|chunk| chunk.bytes).sum();
                    Frame { packed: bytes + (bytes >> 7) + 16, chunks: chunks.clone() }
                };
                let index = Index::of(pack.iter().map(frame).collect());
                prop_assert!(index.frames().iter().all(|frame| frame.bytes() <= FRAME_BYTES_MAX));
                let length = index.to_text().len() as u64 + index.packed();
                prop_assert!(length <= PACK_BYTES_MAX as u64);
            }
            // However well it fills them, no two neighbours would have fitted into one.
            let bytes: u64 = sizes.iter().map(|bytes| u64::from(*bytes)).sum();
            prop_assert!(packs.len() as u64 <= 1 + 2 * bytes / PACK_CONTENT_BYTES);
        }

        #[test]
        fn asking_until_all_is_there_ends(
            sizes in prop::collection::vec(1..=FRAME_BYTES_MAX, 1..60),
            order in any::<prop::sample::Index>(),
        ) {
            let mut wanted = chunks(&sizes);
            let frames: Vec<Frame> = plan(&[&wanted]).into_iter().flatten().map(|chunks| Frame { packed: 9, chunks }).collect();
            let place = |id| {
                let at = frames.iter().position(|frame| frame.chunks.iter().any(|chunk| chunk.id == id));
                at.map(|at| (at, &frames[at]))
            };
            let middle = order.index(wanted.len());
            wanted.rotate_left(middle);
            prop_assert_eq!(asks(&wanted).concat(), wanted.clone());
            for ask in asks(&wanted) {
                prop_assert!(ask.len() == 1 || ask.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>() <= PACK_CONTENT_BYTES);
                let mut left: Vec<ChunkId> = ask.iter().map(|chunk| chunk.id).collect();
                while !left.is_empty() {
                    let before = left.len();
                    let frames_of = answer(&left, place).unwrap();
                    left.retain(|id| !frames_of.contains(&place(*id).unwrap().0));
                    prop_assert!(left.len() < before);
                }
            }
        }
    }
}
