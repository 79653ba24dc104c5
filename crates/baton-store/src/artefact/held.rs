//! Which chunk is where: what the indexes of a store's packs say, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use baton_core::ids::{ChunkId, PackId};
use baton_core::release::pack::{Frame, Index};
use baton_core::release::reading;
use baton_release::pack;

/// A frame, and where in its pack it lies.
pub(super) type Place = (Frame, Range<u64>);

/// The packs of a store.
#[derive(Default)]
pub(super) struct Held {
    packs: BTreeMap<PackId, Vec<Place>>,
    /// For each chunk a pack, and which of its frames.
    chunks: HashMap<ChunkId, (PackId, usize)>,
    losses: u64,
}

impl Held {
    pub(super) fn has(&self, id: PackId) -> bool {
        self.packs.contains_key(&id)
    }

    /// What is in a pack.
    pub(super) fn places(&self, id: PackId) -> Vec<Place> {
        self.packs.get(&id).cloned().unwrap_or_default()
    }

    /// How long a pack is: its last frame ends with it.
    pub(super) fn length(&self, id: PackId) -> Option<u64> {
        let places = self.packs.get(&id)?;
        Some(places.last().map_or_else(|| index(places).to_text().len() as u64, |(_, place)| place.end))
    }

    /// Adds a pack with this index, whose frames lie there.
    pub(super) fn add(&mut self, id: PackId, index: &Index, places: Vec<Range<u64>>) {
        for (at, frame) in index.frames().iter().enumerate() {
            self.chunks.extend(frame.chunks.iter().map(|chunk| (chunk.id, (id, at))));
        }
        self.packs.insert(id, index.frames().iter().cloned().zip(places).collect());
    }

    /// Forgets the packs that are not among these.
    pub(super) fn keep(&mut self, there: &BTreeSet<PackId>) {
        let gone: Vec<PackId> = self.packs.keys().filter(|id| !there.contains(id)).copied().collect();
        gone.into_iter().for_each(|id| self.forget(id));
    }

    /// Forgets a pack. Chunks that lie in others too are found there from now on.
    pub(super) fn forget(&mut self, id: PackId) {
        self.losses += 1;
        let places = self.packs.remove(&id).unwrap_or_default();
        self.chunks.retain(|_, (pack, _)| *pack != id);
        let lost: BTreeSet<ChunkId> =
            places.iter().flat_map(|(frame, _)| &frame.chunks).map(|chunk| chunk.id).collect();
        for (pack, places) in &self.packs {
            for (at, (frame, _)) in places.iter().enumerate() {
                let found = frame.chunks.iter().filter(|chunk| lost.contains(&chunk.id));
                self.chunks.extend(found.map(|chunk| (chunk.id, (*pack, at))));
            }
        }
    }

    /// How often a pack was forgotten: as long as that is the same number, every chunk is there that was.
    pub(super) fn losses(&self) -> u64 {
        self.losses
    }

    /// Where a chunk is: the pack and which of its frames, and that frame.
    pub(super) fn place(&self, id: ChunkId) -> Option<((PackId, usize), &Frame)> {
        let (pack, at) = self.chunks.get(&id)?;
        let (frame, _) = self.packs.get(pack)?.get(*at)?;
        Some(((*pack, *at), frame))
    }

    /// The frames that answer a question, see [`reading::answer`], by their pack: those of the first so many packs.
    pub(super) fn answer(&self, ids: &[ChunkId], packs: usize) -> Result<Vec<(PackId, Vec<Place>)>, ChunkId> {
        let mut answer = self.by_pack(&reading::answer(ids, |id| self.place(id))?);
        answer.truncate(packs);
        Ok(answer)
    }

    /// What is in each pack.
    pub(super) fn packs(&self) -> impl Iterator<Item = (PackId, Index)> {
        self.packs.iter().map(|(id, places)| (*id, index(places)))
    }

    /// These frames by their pack, in the order in which packs come first.
    fn by_pack(&self, chosen: &[(PackId, usize)]) -> Vec<(PackId, Vec<Place>)> {
        let mut packs: Vec<(PackId, Vec<Place>)> = Vec::new();
        for (id, at) in chosen {
            let place = self.packs.get(id).and_then(|places| places.get(*at)).cloned();
            match packs.iter_mut().find(|(pack, _)| pack == id) {
                Some((_, places)) => places.extend(place),
                None => packs.push((*id, place.into_iter().collect())),
            }
        }
        packs
    }
}

/// Those of these frames that are not damaged in this content of their pack, as a pack; `None` when there are none.
pub(super) fn rescued(places: Vec<Place>, content: &[u8]) -> Option<Vec<u8>> {
    let frame = |(frame, place): Place| {
        // It may have been cut.
        let packed = content.get(place.start as usize..place.end as usize)?;
        pack::unpack(&frame, packed).is_ok().then(|| (frame, packed.to_vec()))
    };
    let whole: Vec<_> = places.into_iter().filter_map(frame).collect();
    (!whole.is_empty()).then(|| pack::join(whole))
}

fn index(places: &[Place]) -> Index {
    Index::of(places.iter().map(|(frame, _)| frame.clone()).collect())
}
