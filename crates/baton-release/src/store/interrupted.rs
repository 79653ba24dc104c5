//! A store to which something happens between two calls, for tests: what others do at that moment.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::ids::{BuildKey, ChunkId, PackId, ReleaseId};

use super::{ArtefactStore, Custody, Granted, StoreError, StoredPack, StoredRecord, StoredRelease};

/// A store to which something happens before one of its calls.
pub struct Interrupted {
    store: Arc<dyn Custody>,
    before: u64,
    calls: AtomicU64,
    act: Box<dyn Fn() + Send + Sync>,
}

impl Interrupted {
    /// The store as it is, with this done before one of its calls: 1 is the first.
    pub fn new(store: Arc<dyn Custody>, before: u64, act: impl Fn() + Send + Sync + 'static) -> Self {
        Self { store, before, calls: AtomicU64::new(0), act: Box::new(act) }
    }

    /// How often it was called.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn call(&self) -> &dyn Custody {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.before {
            (self.act)();
        }
        &*self.store
    }
}

impl ArtefactStore for Interrupted {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError> {
        self.call().missing(ids)
    }

    fn put(&self, pack: &[u8]) -> Result<(), StoreError> {
        self.call().put(pack)
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        self.call().get(ids)
    }

    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError> {
        self.call().publish(id, outline)
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        self.call().outline(id)
    }

    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError> {
        self.call().sign(id, approval)
    }

    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError> {
        self.call().approvals(id)
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        self.call().list()
    }
}

impl Custody for Interrupted {
    fn grant(&self, ids: &[ChunkId], ttl: Duration) -> Result<Vec<Granted>, StoreError> {
        self.call().grant(ids, ttl)
    }

    fn read(&self, pack: PackId, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.call().read(pack, range)
    }

    fn releases(&self) -> Result<Vec<StoredRelease>, StoreError> {
        self.call().releases()
    }

    fn packs(&self) -> Result<Vec<StoredPack>, StoreError> {
        self.call().packs()
    }

    fn remove_release(&self, id: ReleaseId) -> Result<(), StoreError> {
        self.call().remove_release(id)
    }

    fn remove_pack(&self, id: PackId) -> Result<(), StoreError> {
        self.call().remove_pack(id)
    }

    fn salvage(&self, id: PackId) -> Result<(), StoreError> {
        self.call().salvage(id)
    }

    fn keep_record(&self, key: BuildKey, record: &str) -> Result<(), StoreError> {
        self.call().keep_record(key, record)
    }

    fn record(&self, key: BuildKey) -> Result<String, StoreError> {
        self.call().record(key)
    }

    fn records(&self) -> Result<Vec<StoredRecord>, StoreError> {
        self.call().records()
    }

    fn remove_record(&self, key: BuildKey) -> Result<(), StoreError> {
        self.call().remove_record(key)
    }
}
