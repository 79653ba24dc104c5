//! Chunks from the nearest that has them: a cache of the host, other members, the store.

use baton_core::ids::{ChunkId, ReleaseId};

use crate::cache::Cache;
use crate::peers::Peers;
use crate::store::{ArtefactStore, StoreError};

/// A store whose chunks come from nearer, where they are. Everything else is the store's.
pub struct Nearest<'a> {
    cache: Option<&'a Cache>,
    peers: Option<&'a Peers<'a>>,
    store: &'a dyn ArtefactStore,
}

impl<'a> Nearest<'a> {
    /// The cache is asked first, the peers next. What comes is left in the cache for others.
    pub const fn new(
        store: &'a dyn ArtefactStore,
        cache: Option<&'a Cache>,
        peers: Option<&'a Peers<'a>>,
    ) -> Self {
        Self { cache, peers, store }
    }

    fn cached(&self, ids: &[ChunkId]) -> Option<Vec<u8>> {
        self.cache.and_then(|cache| cache.find(ids))
    }

    /// Leaves it for others. Whoever asked has it, whether there is room for them or not.
    fn keep(&self, pack: Vec<u8>) -> Vec<u8> {
        let _ = self.cache.map(|cache| cache.add(&pack));
        pack
    }
}

impl Drop for Nearest<'_> {
    fn drop(&mut self) {
        self.cache.into_iter().for_each(Cache::rest);
    }
}

impl ArtefactStore for Nearest<'_> {
    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        if let Some(pack) = self.cached(ids) {
            return Ok(pack);
        }
        // Without the lock: a peer may be of this host, and need it to get what it is asked for.
        if let Some(pack) = self.peers.and_then(|peers| peers.find(ids)) {
            return Ok(self.keep(pack));
        }
        let _alone = self.cache.and_then(|cache| cache.lock(ids));
        // Whoever had the lock before may have brought it.
        match self.cached(ids) {
            Some(pack) => Ok(pack),
            None => self.store.get(ids).map(|pack| self.keep(pack)),
        }
    }

    fn get_checked(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        self.store.get_checked(ids)
    }

    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError> {
        self.store.missing(ids)
    }

    fn put(&self, pack: &[u8]) -> Result<(), StoreError> {
        self.store.put(pack)
    }

    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError> {
        self.store.publish(id, outline)
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        self.store.outline(id)
    }

    fn outline_since(&self, id: ReleaseId, here: &[ReleaseId]) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        self.store.outline_since(id, here)
    }

    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError> {
        self.store.sign(id, approval)
    }

    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError> {
        self.store.approvals(id)
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        self.store.list()
    }
}
