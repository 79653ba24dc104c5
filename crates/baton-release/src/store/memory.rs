//! An artefact store in memory, for tests: it fails when it is told to, in every way a real one could.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use baton_core::ids::{BuildKey, ChunkId, KeyId, PackId, ReleaseId};
use baton_core::release::pack::{Frame, Index};
use baton_core::release::reading;

use super::{
    ArtefactStore, Custody, Granted, Kind, Seen, StoreError, StoredPack, StoredRecord, StoredRelease,
    complete,
};
use crate::pack::{self, Pack};
use crate::signing::{self, APPROVALS_MAX};

/// An artefact store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    packs: BTreeMap<PackId, Held>,
    /// For each chunk the pack, and which of its frames.
    places: BTreeMap<ChunkId, (PackId, usize)>,
    outlines: BTreeMap<ReleaseId, (Vec<u8>, SystemTime)>,
    approvals: BTreeMap<ReleaseId, BTreeMap<KeyId, String>>,
    records: BTreeMap<BuildKey, (String, SystemTime)>,
    calls: u64,
    failures: BTreeMap<u64, Kind>,
    /// What is answered to whoever asks for this chunk.
    answer: Option<(ChunkId, Vec<u8>)>,
}

struct Held {
    frames: Vec<(Frame, Vec<u8>)>,
    since: SystemTime,
}

impl Held {
    fn index(&self) -> Index {
        Index::of(self.frames.iter().map(|(frame, _)| frame.clone()).collect())
    }

    fn places(&self) -> Vec<Range<u64>> {
        let index = self.index();
        index.places(index.to_text().len())
    }
}

impl State {
    fn add(&mut self, frames: Vec<(Frame, Vec<u8>)>) {
        let id = PackId::of(&pack::join(frames.clone()));
        for (at, (frame, _)) in frames.iter().enumerate() {
            self.places.extend(frame.chunks.iter().map(|chunk| (chunk.id, (id, at))));
        }
        self.packs.insert(id, Held { frames, since: SystemTime::now() });
    }

    fn remove(&mut self, id: PackId) {
        let Some(gone) = self.packs.remove(&id) else { return };
        let lost: BTreeSet<ChunkId> =
            gone.frames.iter().flat_map(|(frame, _)| &frame.chunks).map(|chunk| chunk.id).collect();
        self.places.retain(|_, (pack, _)| *pack != id);
        for (pack, held) in &self.packs {
            for (at, (frame, _)) in held.frames.iter().enumerate() {
                let found = frame.chunks.iter().filter(|chunk| lost.contains(&chunk.id));
                self.places.extend(found.map(|chunk| (chunk.id, (*pack, at))));
            }
        }
    }

    fn missing(&self, ids: &[ChunkId]) -> Vec<ChunkId> {
        let missing: BTreeSet<ChunkId> =
            ids.iter().filter(|id| !self.places.contains_key(id)).copied().collect();
        missing.into_iter().collect()
    }

    /// The frames that answer a question, by their pack.
    fn chosen(&self, ids: &[ChunkId]) -> Result<Vec<(PackId, usize)>, StoreError> {
        let place = |id: ChunkId| {
            let (pack, at) = self.places.get(&id)?;
            Some(((*pack, *at), &self.packs.get(pack)?.frames.get(*at)?.0))
        };
        reading::answer(ids, place).map_err(|id| StoreError::new(Kind::Missing, format!("get chunk {id}")))
    }

    fn answer(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        let frames = self.chosen(ids)?;
        Ok(pack::join(frames.into_iter().map(|(pack, at)| self.packs[&pack].frames[at].clone()).collect()))
    }
}

impl MemoryStore {
    /// An empty store that works.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one call fail: 1 is the next one.
    pub fn fail_call(&self, number: u64, kind: Kind) {
        let mut state = self.lock();
        let call = state.calls + number;
        state.failures.insert(call, kind);
    }

    /// How often the store was called.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Keeps these bytes as a frame, whatever they are; its chunks are found there from now on.
    pub fn plant_frame(&self, frame: Frame, packed: Vec<u8>) {
        self.lock().add(vec![(frame, packed)]);
    }

    /// Keeps these bytes as the packed outline of a release, whatever they are.
    pub fn plant_outline(&self, id: ReleaseId, packed: Vec<u8>) {
        self.lock().outlines.insert(id, (packed, SystemTime::now()));
    }

    /// Answers questions for this chunk with these bytes, whatever they are.
    pub fn plant_answer(&self, id: ChunkId, answer: Vec<u8>) {
        self.lock().answer = Some((id, answer));
    }

    /// Loses a chunk.
    pub fn lose_chunk(&self, id: ChunkId) {
        self.lock().places.remove(&id);
    }

    /// All chunks that it has.
    pub fn chunks(&self) -> Vec<ChunkId> {
        self.lock().places.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|held| held.into_inner())
    }

    /// The state for one call, unless it shall fail.
    fn call(&self, attempted: &str) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.lock();
        state.calls += 1;
        let call = state.calls;
        match state.failures.remove(&call) {
            Some(kind) => Err(StoreError::new(kind, attempted)),
            None => Ok(state),
        }
    }
}

impl ArtefactStore for MemoryStore {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError> {
        let state = self.call("ask for chunks")?;
        Ok(state.missing(ids))
    }

    fn put(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut state = self.call("put a pack")?;
        let corrupt = |error| StoreError::new(Kind::Corrupt, "put a pack").because(error);
        let pack = Pack::open(bytes).map_err(corrupt)?;
        pack.verify().map_err(corrupt)?;
        state.add(pack.frames().map(|(frame, packed)| (frame.clone(), packed.to_vec())).collect());
        Ok(())
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        let state = self.call("get chunks")?;
        match &state.answer {
            Some((id, answer)) if ids.contains(id) => Ok(answer.clone()),
            Some(_) | None => state.answer(ids),
        }
    }

    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError> {
        let attempted = format!("publish release {id}");
        let mut state = self.call(&attempted)?;
        let get = |ids: &[ChunkId]| state.answer(ids);
        complete(id, outline, &Seen::default(), || 0, |ids| Ok(state.missing(ids)), &get)?;
        state.outlines.insert(id, (outline.to_vec(), SystemTime::now()));
        Ok(())
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        let attempted = format!("read the outline of release {id}");
        let found = self.call(&attempted)?.outlines.get(&id).map(|(outline, _)| outline.clone());
        found.ok_or_else(|| StoreError::new(Kind::Missing, attempted))
    }

    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError> {
        let mut state = self.call("sign a release")?;
        let key = signing::check(id, approval)?;
        let all = state.approvals.entry(id).or_default();
        if all.len() >= APPROVALS_MAX && !all.contains_key(&key) {
            return Err(signing::too_many(id));
        }
        all.entry(key).or_insert_with(|| approval.to_owned());
        Ok(())
    }

    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError> {
        let state = self.call("read approvals")?;
        Ok(state.approvals.get(&id).into_iter().flat_map(BTreeMap::values).cloned().collect())
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        Ok(self.call("list releases")?.outlines.keys().copied().collect())
    }
}

impl Custody for MemoryStore {
    fn grant(&self, ids: &[ChunkId], _: Duration) -> Result<Vec<Granted>, StoreError> {
        let state = self.call("grant the reading of chunks")?;
        let granted = |(pack, at): (PackId, usize)| {
            let held = &state.packs[&pack];
            let frames = vec![(held.frames[at].0.clone(), held.places()[at].clone())];
            Granted { pack, url: None, frames }
        };
        Ok(state.chosen(ids)?.into_iter().map(granted).collect())
    }

    fn read(&self, pack: PackId, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let attempted = format!("read pack {pack}");
        let state = self.call(&attempted)?;
        let held = state.packs.get(&pack).ok_or_else(|| StoreError::new(Kind::Missing, attempted))?;
        let bytes = pack::join(held.frames.clone());
        let at = |place: u64| bytes.len().min(usize::try_from(place).unwrap_or(usize::MAX));
        Ok(bytes[at(range.start)..at(range.end)].to_vec())
    }

    fn releases(&self) -> Result<Vec<StoredRelease>, StoreError> {
        let state = self.call("list releases")?;
        Ok(state.outlines.iter().map(|(id, (_, since))| StoredRelease { id: *id, since: *since }).collect())
    }

    fn packs(&self) -> Result<Vec<StoredPack>, StoreError> {
        let state = self.call("list packs")?;
        let stored =
            |(id, held): (&PackId, &Held)| StoredPack { id: *id, index: held.index(), since: held.since };
        Ok(state.packs.iter().map(stored).collect())
    }

    fn remove_release(&self, id: ReleaseId) -> Result<(), StoreError> {
        self.call(&format!("remove release {id}"))?.outlines.remove(&id);
        Ok(())
    }

    fn remove_pack(&self, id: PackId) -> Result<(), StoreError> {
        self.call(&format!("remove pack {id}"))?.remove(id);
        Ok(())
    }

    fn salvage(&self, id: PackId) -> Result<(), StoreError> {
        let mut state = self.call(&format!("salvage pack {id}"))?;
        let held = state.packs.get(&id).map(|held| held.frames.clone()).unwrap_or_default();
        state.remove(id);
        let whole = |(frame, packed): &(Frame, Vec<u8>)| pack::unpack(frame, packed).is_ok();
        let whole: Vec<_> = held.into_iter().filter(whole).collect();
        if !whole.is_empty() {
            state.add(whole);
        }
        Ok(())
    }

    fn keep_record(&self, key: BuildKey, record: &str) -> Result<(), StoreError> {
        let mut state = self.call(&format!("keep the outputs of build {key}"))?;
        state.records.insert(key, (record.to_owned(), SystemTime::now()));
        Ok(())
    }

    fn record(&self, key: BuildKey) -> Result<String, StoreError> {
        let attempted = format!("read the outputs of build {key}");
        let found = self.call(&attempted)?.records.get(&key).map(|(record, _)| record.clone());
        found.ok_or_else(|| StoreError::new(Kind::Missing, attempted))
    }

    fn records(&self) -> Result<Vec<StoredRecord>, StoreError> {
        let state = self.call("list the outputs of builds")?;
        Ok(state.records.iter().map(|(key, (_, since))| StoredRecord { key: *key, since: *since }).collect())
    }

    fn remove_record(&self, key: BuildKey) -> Result<(), StoreError> {
        self.call(&format!("forget the outputs of build {key}"))?.records.remove(&key);
        Ok(())
    }
}
