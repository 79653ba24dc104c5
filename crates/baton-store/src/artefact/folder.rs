//! An artefact store in a folder.
//!
//! ```text
//! chunks/2d/2d3a…    the packed chunk 2d3a…, in a folder named by its first two digits
//! manifests/2d3a…    the manifest of release 2d3a…
//! corrupt/           what was found to be damaged, for whoever wants to know why
//! tmp/               what is being written
//! ```
//!
//! A name appears when what it names is complete and durable, and never changes. So several processes can use one
//! folder, and what a crash leaves behind is in `tmp/` only.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::MANIFEST_BYTES_MAX;
use baton_release::chunk::{self, PACKED_BYTES_MAX};
use baton_release::disk::{self, DiskError, failed};
use baton_release::manifest::{self, chunk_ids};
use baton_release::store::{ArtefactStore, Kind, StoreError};

/// How old a temporary file is when whoever wrote it must have died: longer than any write takes.
const TMP_AGE_MAX: Duration = Duration::from_secs(3600);

/// Numbers the temporary files of this process.
static TMP_NUMBER: AtomicU64 = AtomicU64::new(0);

/// An artefact store in a folder.
pub struct FolderStore {
    path: PathBuf,
}

impl FolderStore {
    /// The store in this folder, which is created if needed.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let shards = (0..=u8::MAX).map(|shard| format!("chunks/{shard:02x}"));
        let dirs = ["manifests", "corrupt", "tmp"].map(str::to_owned);
        for dir in shards.chain(dirs).map(|dir| path.join(dir)) {
            fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        }
        disk::sync_dir(&path.join("chunks"))?;
        disk::sync_dir(path)?;
        let store = Self { path: path.to_owned() };
        store.remove_abandoned()?;
        Ok(store)
    }

    /// Removes temporary files of processes that have died. Those of others are young.
    fn remove_abandoned(&self) -> Result<(), DiskError> {
        let tmp = self.path.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(failed("list", &tmp))? {
            let path = entry.map_err(failed("list", &tmp))?.path();
            let modified = fs::metadata(&path).and_then(|found| found.modified());
            let age = modified.ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > TMP_AGE_MAX) {
                // Another process may be doing the same.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn shard(&self, id: ChunkId) -> PathBuf {
        self.path.join(format!("chunks/{:02x}", id.as_bytes()[0]))
    }

    fn chunk(&self, id: ChunkId) -> PathBuf {
        self.shard(id).join(id.to_string())
    }

    fn release(&self, id: ReleaseId) -> PathBuf {
        self.path.join(format!("manifests/{id}"))
    }

    /// Gives this content its name, for ever. On return both are durable.
    fn add(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let dir = path.parent().unwrap_or(&self.path);
        if !path.exists() {
            let number = TMP_NUMBER.fetch_add(1, Ordering::Relaxed);
            let tmp = self.path.join(format!("tmp/{}-{number}", std::process::id()));
            let written = disk::write_synced(&tmp, content)
                .and_then(|()| fs::rename(&tmp, path).map_err(failed("rename into place", path)));
            if let Err(error) = written {
                let _ = fs::remove_file(&tmp);
                return Err(error);
            }
        }
        // Also when it was there: whoever wrote it may not have come to this.
        disk::sync_dir(dir).inspect_err(|_| {
            // Nobody may count on a name that may be gone after a power cut.
            let _ = fs::remove_file(path);
        })
    }

    /// Moves away what is damaged, so that the next push brings it again.
    fn set_aside(&self, path: &Path) {
        if let Some(name) = path.file_name() {
            // Where that fails, it is found damaged again.
            let _ = fs::rename(path, self.path.join("corrupt").join(name));
        }
    }
}

/// Reads a whole file of at most `max` bytes, and one more of those that are longer.
fn read(path: &Path, max: usize) -> Result<Vec<u8>, DiskError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max as u64 + 1).read_to_end(&mut content))
        .map_err(failed("read", path))?;
    Ok(content)
}

/// The failure of what was attempted, because of the disk.
fn disk_failed(attempted: String) -> impl FnOnce(DiskError) -> StoreError {
    move |error| {
        let kind = match error.source.kind() {
            io::ErrorKind::NotFound => Kind::Missing,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Unavailable,
        };
        StoreError::new(kind, attempted).because(error)
    }
}

fn corrupt(attempted: &str, error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::new(Kind::Corrupt, attempted).because(error)
}

impl ArtefactStore for FolderStore {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError> {
        let mut missing = BTreeSet::new();
        for id in ids {
            let path = self.chunk(*id);
            let there = path.try_exists().map_err(failed("look for", &path));
            if !there.map_err(disk_failed(format!("ask for chunk {id}")))? {
                missing.insert(*id);
            }
        }
        Ok(missing.into_iter().collect())
    }

    fn put(&self, id: ChunkId, packed: &[u8]) -> Result<(), StoreError> {
        let attempted = format!("put chunk {id}");
        chunk::verify(id, packed).map_err(|error| corrupt(&attempted, error))?;
        self.add(&self.chunk(id), packed).map_err(disk_failed(attempted))
    }

    fn get(&self, id: ChunkId) -> Result<Vec<u8>, StoreError> {
        let attempted = format!("get chunk {id}");
        let path = self.chunk(id);
        let packed = read(&path, PACKED_BYTES_MAX).map_err(disk_failed(attempted.clone()))?;
        match chunk::verify(id, &packed) {
            Ok(()) => Ok(packed),
            Err(error) => {
                self.set_aside(&path);
                Err(corrupt(&attempted, error))
            }
        }
    }

    fn publish(&self, id: ReleaseId, text: &str) -> Result<(), StoreError> {
        let attempted = format!("publish release {id}");
        let manifest = manifest::verified(id, text).map_err(|error| corrupt(&attempted, error))?;
        let chunks = chunk_ids(&manifest);
        if let Some(missing) = self.missing(&chunks)?.first() {
            let why = format!("chunk {missing} must be put first");
            return Err(StoreError::new(Kind::Missing, attempted).because(why));
        }
        // A chunk may have been put by a process that died before its name was durable.
        let shards: BTreeSet<PathBuf> = chunks.iter().map(|id| self.shard(*id)).collect();
        shards
            .iter()
            .try_for_each(|shard| disk::sync_dir(shard))
            .and_then(|()| self.add(&self.release(id), text.as_bytes()))
            .map_err(disk_failed(attempted))
    }

    fn manifest(&self, id: ReleaseId) -> Result<String, StoreError> {
        let attempted = format!("read the manifest of release {id}");
        let path = self.release(id);
        let text = read(&path, MANIFEST_BYTES_MAX).map_err(disk_failed(attempted.clone()))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        match manifest::verified(id, &text) {
            Ok(_) => Ok(text),
            Err(error) => {
                self.set_aside(&path);
                Err(corrupt(&attempted, error))
            }
        }
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        let failure = || disk_failed("list releases".to_owned());
        let dir = self.path.join("manifests");
        let names = fs::read_dir(&dir).map_err(failed("list", &dir)).map_err(failure())?;
        let mut ids = Vec::new();
        for name in names {
            let name = name.map_err(failed("list", &dir)).map_err(failure())?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<ReleaseId>().ok()));
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(content: &[u8]) -> (ChunkId, Vec<u8>) {
        (chunk::id_of(content), chunk::pack(content).unwrap())
    }

    #[test]
    fn f43_a_chunk_damaged_at_rest_is_noticed_and_can_be_put_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = FolderStore::open(dir.path()).unwrap();
        let (id, right) = packed(b"content");
        for damaged in [b"".to_vec(), right[..right.len() - 1].to_vec(), vec![0; PACKED_BYTES_MAX * 2]] {
            store.put(id, &right).unwrap();
            fs::write(store.chunk(id), damaged).unwrap();
            assert_eq!(store.get(id).unwrap_err().kind, Kind::Corrupt);
            assert_eq!(store.missing(&[id]).unwrap(), [id]);
        }
        store.put(id, &right).unwrap();
        assert_eq!(store.get(id).unwrap(), right);
    }

    #[test]
    fn what_lies_there_can_be_read_with_other_tools() {
        let dir = tempfile::tempdir().unwrap();
        let (id, packed) = packed(b"content");
        FolderStore::open(dir.path()).unwrap().put(id, &packed).unwrap();
        let text = id.to_string();
        let path = dir.path().join("chunks").join(&text[..2]).join(&text);
        assert_eq!(fs::read(path).unwrap(), packed);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn only_temporary_files_of_the_dead_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        FolderStore::open(dir.path()).unwrap();
        for name in ["old", "new"] {
            fs::write(dir.path().join("tmp").join(name), "").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * TMP_AGE_MAX;
        let old = File::options().write(true).open(dir.path().join("tmp/old")).unwrap();
        old.set_modified(long_ago).unwrap();
        FolderStore::open(dir.path()).unwrap();
        assert!(!dir.path().join("tmp/old").exists());
        assert!(dir.path().join("tmp/new").exists());
    }
}
