//! An artefact store in memory, for tests: it fails when it is told to, in every way a real one could.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard};

use baton_core::ids::{ChunkId, ReleaseId};

use super::{ArtefactStore, Kind, StoreError};
use crate::{chunk, manifest};

/// An artefact store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chunks: BTreeMap<ChunkId, Vec<u8>>,
    manifests: BTreeMap<ReleaseId, String>,
    calls: u64,
    failures: BTreeMap<u64, Kind>,
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

    /// Keeps these bytes under the name of a chunk, whatever they are.
    pub fn plant_chunk(&self, id: ChunkId, packed: Vec<u8>) {
        self.lock().chunks.insert(id, packed);
    }

    /// Keeps this text under the name of a release, whatever it is.
    pub fn plant_manifest(&self, id: ReleaseId, text: String) {
        self.lock().manifests.insert(id, text);
    }

    /// Loses a chunk.
    pub fn lose_chunk(&self, id: ChunkId) {
        self.lock().chunks.remove(&id);
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
        let mut missing: Vec<ChunkId> =
            ids.iter().filter(|id| !state.chunks.contains_key(id)).copied().collect();
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    fn put(&self, id: ChunkId, packed: &[u8]) -> Result<(), StoreError> {
        let attempted = format!("put chunk {id}");
        let mut state = self.call(&attempted)?;
        chunk::verify(id, packed)
            .map_err(|error| StoreError::new(Kind::Corrupt, attempted).because(error))?;
        if let Entry::Vacant(place) = state.chunks.entry(id) {
            place.insert(packed.to_vec());
        }
        Ok(())
    }

    fn get(&self, id: ChunkId) -> Result<Vec<u8>, StoreError> {
        let attempted = format!("get chunk {id}");
        let found = self.call(&attempted)?.chunks.get(&id).cloned();
        found.ok_or_else(|| StoreError::new(Kind::Missing, attempted))
    }

    fn publish(&self, id: ReleaseId, text: &str) -> Result<(), StoreError> {
        let attempted = format!("publish release {id}");
        let mut state = self.call(&attempted)?;
        let manifest = match manifest::verified(id, text) {
            Ok(manifest) => manifest,
            Err(refused) => return Err(StoreError::new(Kind::Corrupt, attempted).because(refused)),
        };
        if manifest::chunk_ids(&manifest).iter().any(|id| !state.chunks.contains_key(id)) {
            return Err(StoreError::new(Kind::Missing, attempted));
        }
        state.manifests.insert(id, text.to_owned());
        Ok(())
    }

    fn manifest(&self, id: ReleaseId) -> Result<String, StoreError> {
        let attempted = format!("read the manifest of release {id}");
        let found = self.call(&attempted)?.manifests.get(&id).cloned();
        found.ok_or_else(|| StoreError::new(Kind::Missing, attempted))
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        Ok(self.call("list releases")?.manifests.keys().copied().collect())
    }
}
