//! What becomes of damaged objects in a bucket, and of what is right of a damaged pack.

use baton_core::ids::PackId;
use baton_core::release::pack::PACK_BYTES_MAX;
use baton_release::store::{ArtefactStore, StoreError};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutPayload};

use super::super::held::rescued;
use super::BucketStore;

impl BucketStore {
    /// Moves away what is damaged, so that the next push brings it again. What has gone already is no error.
    pub(super) fn set_aside(&self, path: Path) -> Result<(), StoreError> {
        let bucket = self.bucket.clone();
        self.background.wait("set a damaged object aside", async move {
            let name = path.filename().unwrap_or_default();
            match bucket.objects.rename(&path, &bucket.path("corrupt", name)).await {
                Err(Error::NotFound { .. }) => Ok(()),
                done => done,
            }
        })
    }

    /// Sets a damaged pack aside, and keeps those of its frames that are not damaged, in a new one. Until these are durable it
    /// stays where it is.
    pub(super) fn set_pack_aside(&self, id: PackId) -> Result<(), StoreError> {
        let attempted = format!("salvage pack {id}");
        let (bucket, path) = (self.bucket.clone(), self.bucket.pack(id));
        let places = self.known().held.places(id);
        let read = async move {
            match bucket.read_start(&path, PACK_BYTES_MAX as u64).await {
                Err(Error::NotFound { .. }) => Ok(Vec::new()),
                done => done,
            }
        };
        match rescued(places, &self.background.wait(&attempted, read)?) {
            // No frame was damaged, only what is around them.
            Some(pack) if PackId::of(&pack) == id => {
                let (bucket, path) = (self.bucket.clone(), self.bucket.pack(id));
                return self.background.wait(&attempted, async move {
                    bucket.objects.put(&path, PutPayload::from(pack)).await.map(drop)
                });
            }
            Some(pack) => self.put(&pack)?,
            None => {}
        }
        self.set_aside(self.bucket.pack(id))?;
        self.known().held.forget(id);
        Ok(())
    }
}
