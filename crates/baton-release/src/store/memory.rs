//! An artefact store in memory, for tests: it fails when it is told to, in every way a real one could.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use baton_core::ids::{ChunkId, KeyId, ReleaseId};
use baton_core::release::pack::Frame;
use baton_core::release::reading;

use super::{ArtefactStore, Kind, StoreError, complete};
use crate::pack::{self, Pack};
use crate::signing::{self, APPROVALS_MAX};

/// An artefact store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: Vec<(Frame, Vec<u8>)>,
    places: BTreeMap<ChunkId, usize>,
    outlines: BTreeMap<ReleaseId, Vec<u8>>,
    approvals: BTreeMap<ReleaseId, BTreeMap<KeyId, String>>,
    calls: u64,
    failures: BTreeMap<u64, Kind>,
    /// What is answered to whoever asks for this chunk.
    answer: Option<(ChunkId, Vec<u8>)>,
}

impl State {
    fn add(&mut self, frame: Frame, packed: Vec<u8>) {
        let at = self.frames.len();
        self.places.extend(frame.chunks.iter().map(|chunk| (chunk.id, at)));
        self.frames.push((frame, packed));
    }

    fn missing(&self, ids: &[ChunkId]) -> Vec<ChunkId> {
        let missing: BTreeSet<ChunkId> =
            ids.iter().filter(|id| !self.places.contains_key(id)).copied().collect();
        missing.into_iter().collect()
    }

    fn answer(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        let place = |id: ChunkId| self.places.get(&id).map(|at| (*at, &self.frames[*at].0));
        let frames = reading::answer(ids, place)
            .map_err(|id| StoreError::new(Kind::Missing, format!("get chunk {id}")))?;
        Ok(pack::join(frames.into_iter().map(|at| self.frames[at].clone()).collect()))
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
        self.lock().add(frame, packed);
    }

    /// Keeps these bytes as the packed outline of a release, whatever they are.
    pub fn plant_outline(&self, id: ReleaseId, packed: Vec<u8>) {
        self.lock().outlines.insert(id, packed);
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
        pack.frames().for_each(|(frame, packed)| state.add(frame.clone(), packed.to_vec()));
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
        complete(id, outline, |ids| Ok(state.missing(ids)), &get)?;
        state.outlines.insert(id, outline.to_vec());
        Ok(())
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        let attempted = format!("read the outline of release {id}");
        let found = self.call(&attempted)?.outlines.get(&id).cloned();
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
