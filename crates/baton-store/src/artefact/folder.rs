//! An artefact store in a folder.
//!
//! ```text
//! packs/2d3a…        the pack 2d3a…
//! manifests/2d3a…    the packed outline of the manifest of release 2d3a…
//! signatures/2d3a…/9f… the approval of release 2d3a… by the key 9f…
//! builds/2d3a…       where the outputs of the build step 2d3a… are
//! corrupt/           what was found to be damaged, for whoever wants to know why
//! tmp/               what is being written
//! ```
//!
//! A name appears when what it names is complete and durable, and never changes, but for what is in `builds/`, which is replaced
//! whole. So several processes can use one
//! folder, and what a crash leaves behind is in `tmp/` only. Which chunk is in which pack is read from the packs when the
//! folder is opened, and held in memory: it is written nowhere else, so it cannot differ.

mod salvage;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use baton_core::ids::{BuildKey, ChunkId, KeyId, PackId, ReleaseId};
use baton_core::release::grant::PACKS_MAX;
use baton_core::release::pack::{FRAME_BYTES_MAX, Frame, PACK_BYTES_MAX};
use baton_core::release::{Fault, TextError, reading};
use baton_core::trust::SIGNED_BYTES_MAX;
use baton_release::disk::{self, DiskError, failed};
use baton_release::manifest::{ManifestRefused, OUTLINE_PACKED_MAX, unpack_outline};
use baton_release::pack::{self, Pack, PackError};
use baton_release::record::RECORD_BYTES_MAX;
use baton_release::signing::{self, APPROVALS_MAX};
use baton_release::store::{
    ArtefactStore, Custody, Granted, Kind, Seen, StoreError, StoredPack, StoredRecord, StoredRelease,
    complete,
};

use super::held::{Held, Place};

/// How old a temporary file is when whoever wrote it must have died: longer than any write takes.
const TMP_AGE_MAX: Duration = Duration::from_secs(3600);
/// How many bytes that nobody needs are read rather than starting to read anew behind them: a disk reads that much ahead
/// anyway.
const GAP_BYTES: u64 = 64 << 10;
/// How much of a pack is read for its index at first: enough for the most.
const INDEX_BYTES: usize = 128 << 10;

/// Numbers the temporary files of this process.
static TMP_NUMBER: AtomicU64 = AtomicU64::new(0);

/// An artefact store in a folder.
pub struct FolderStore {
    path: PathBuf,
    held: Mutex<Held>,
    seen: Seen,
}

impl FolderStore {
    /// The store in this folder, which is created if needed.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        for dir in ["packs", "manifests", "signatures", "builds", "corrupt", "tmp"].map(|dir| path.join(dir))
        {
            fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        }
        disk::sync_dir(path)?;
        let store = Self { path: path.to_owned(), held: Mutex::default(), seen: Seen::default() };
        store.remove_abandoned()?;
        store.look(&mut store.held())?;
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

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks which packs there are now: other processes add some, and people remove some.
    fn look(&self, held: &mut Held) -> Result<(), DiskError> {
        let dir = self.path.join("packs");
        let mut there = BTreeSet::new();
        for name in fs::read_dir(&dir).map_err(failed("list", &dir))? {
            let name = name.map_err(failed("list", &dir))?.file_name();
            there.extend(name.to_str().and_then(|name| name.parse::<PackId>().ok()));
        }
        held.keep(&there);
        for id in there {
            if held.has(id) {
                continue;
            }
            let path = self.pack(id);
            let length = fs::metadata(&path).map_err(failed("look at", &path))?.len();
            let index = match pack::index(&read(&path, INDEX_BYTES)?, length) {
                Err(_) if length > INDEX_BYTES as u64 => {
                    pack::index(&read(&path, pack::START_BYTES)?, length)
                }
                done => done,
            };
            match index {
                Ok((index, places)) => held.add(id, &index, places),
                Err(PackError::Index(TextError { what: Fault::Version(_), .. })) => {
                    // Of a newer program that uses the folder too: not damaged.
                }
                // Where it cannot be moved, it is found damaged again.
                Err(_) => drop(self.set_aside(&path)),
            }
        }
        Ok(())
    }

    fn pack(&self, id: PackId) -> PathBuf {
        self.path.join(format!("packs/{id}"))
    }

    fn release(&self, id: ReleaseId) -> PathBuf {
        self.path.join(format!("manifests/{id}"))
    }

    fn signatures(&self, id: ReleaseId) -> PathBuf {
        self.path.join(format!("signatures/{id}"))
    }

    fn build(&self, key: BuildKey) -> PathBuf {
        self.path.join(format!("builds/{key}"))
    }

    /// The keys of which there is a signature of a release.
    fn signers(&self, id: ReleaseId) -> Result<BTreeSet<KeyId>, DiskError> {
        let dir = self.signatures(id);
        let names = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            names => names.map_err(failed("list", &dir))?,
        };
        let mut keys = BTreeSet::new();
        for name in names {
            let name = name.map_err(failed("list", &dir))?.file_name();
            keys.extend(name.to_str().and_then(|name| name.parse::<KeyId>().ok()));
        }
        Ok(keys)
    }

    fn add_signature(&self, id: ReleaseId, key: KeyId, approval: &str) -> Result<(), DiskError> {
        let dir = self.signatures(id);
        fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        disk::sync_dir(&self.path.join("signatures"))?;
        self.add(&dir.join(key.to_string()), approval.as_bytes())
    }

    /// Adds a pack that was verified.
    fn add_pack(&self, bytes: &[u8]) -> Result<(), DiskError> {
        let id = PackId::of(bytes);
        self.add(&self.pack(id), bytes)?;
        if let Ok((index, places)) = pack::index(bytes, bytes.len() as u64) {
            self.held().add(id, &index, places);
        }
        Ok(())
    }

    /// Gives this content its name, for ever. On return both are durable.
    fn add(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let dir = path.parent().unwrap_or(&self.path);
        if path.exists() {
            // What is brought again shall not be removed for its age. Where it cannot be noted, that costs another push.
            let noted = File::options().write(true).open(path);
            let _ = noted.and_then(|file| file.set_modified(SystemTime::now()));
        } else {
            self.write(path, content)?;
        }
        // Also when it was there: whoever wrote it may not have come to this.
        disk::sync_dir(dir).inspect_err(|_| {
            // Nobody may count on a name that may be gone after a power cut.
            let _ = fs::remove_file(path);
        })
    }

    /// Gives this content its name, whatever has it now.
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), DiskError> {
        let number = TMP_NUMBER.fetch_add(1, Ordering::Relaxed);
        let tmp = self.path.join(format!("tmp/{}-{number}", std::process::id()));
        let written = disk::write_synced(&tmp, content)
            .and_then(|()| fs::rename(&tmp, path).map_err(failed("rename into place", path)));
        written.inspect_err(|_| drop(fs::remove_file(&tmp)))
    }

    /// The frames that hold these chunks, as a pack.
    fn read_frames(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        let attempted = |id: ChunkId| format!("get chunk {id}");
        let answer = {
            let mut held = self.held();
            if ids.iter().any(|id| held.place(*id).is_none()) {
                self.look(&mut held).map_err(disk_failed("get chunks".to_owned()))?;
            }
            let answer = held.answer(ids, usize::MAX);
            answer.map_err(|id| StoreError::new(Kind::Missing, attempted(id)))?
        };
        let mut frames = Vec::new();
        for (id, places) in answer {
            let first =
                places.iter().flat_map(|(frame, _)| &frame.chunks).map(|chunk| attempted(chunk.id)).next();
            let attempted = first.unwrap_or_default();
            match self.frames(id, &places) {
                Ok(found) => frames.extend(found),
                Err(Damaged::Disk(error)) => {
                    if error.source.kind() == io::ErrorKind::NotFound {
                        self.held().forget(id);
                    }
                    return Err(disk_failed(attempted)(error));
                }
                Err(Damaged::Pack(error)) => {
                    // Where that fails, it stays and is found damaged again.
                    let _ = self.set_pack_aside(id);
                    return Err(corrupt(&attempted, error));
                }
            }
        }
        Ok(pack::join(frames))
    }

    /// The frames at these places of a pack, each of which is what the index says.
    fn frames(&self, id: PackId, places: &[Place]) -> Result<Vec<(Frame, Vec<u8>)>, Damaged> {
        let ranges: Vec<_> = places.iter().map(|(_, place)| place.clone()).collect();
        let packed = read_ranges(&self.pack(id), &ranges)?;
        let frame = |((frame, _), packed): (&Place, Vec<u8>)| {
            pack::unpack(frame, &packed)?;
            Ok((frame.clone(), packed))
        };
        places.iter().zip(packed).map(frame).collect()
    }
}

/// Why a frame is not here.
#[derive(Debug, thiserror::Error)]
enum Damaged {
    #[error("the disk fails")]
    Disk(#[from] DiskError),
    #[error("the pack is damaged")]
    Pack(#[from] PackError),
}

/// Removes a file, for ever. One that is not there is no error.
fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => {
            done.map_err(failed("remove", path)).and_then(|()| path.parent().map_or(Ok(()), disk::sync_dir))
        }
    }
}

/// Reads the start of a file: at most `max` bytes.
fn read(path: &Path, max: usize) -> Result<Vec<u8>, DiskError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max as u64).read_to_end(&mut content))
        .map_err(failed("read", path))?;
    Ok(content)
}

/// Reads these places of a file, in as few reads as makes sense. Of a file that is too short there is less.
fn read_ranges(path: &Path, places: &[Range<u64>]) -> Result<Vec<Vec<u8>>, DiskError> {
    let file = File::open(path).map_err(failed("read", path))?;
    let mut parts = vec![Vec::new(); places.len()];
    for range in reading::ranges(places, GAP_BYTES) {
        // No place is outside of the pack, whose length is limited.
        let mut content = vec![0; (range.end - range.start) as usize];
        match file.read_exact_at(&mut content, range.start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            done => done.map_err(failed("read", path))?,
        }
        let inside = |place: &Range<u64>| place.start >= range.start && place.end <= range.end;
        for (part, place) in parts.iter_mut().zip(places).filter(|(_, place)| inside(place)) {
            let (start, end) = (place.start - range.start, place.end - range.start);
            part.extend_from_slice(&content[start as usize..end as usize]);
        }
    }
    Ok(parts)
}

/// The failure of what was attempted, because of the disk.
fn disk_failed(attempted: String) -> impl FnOnce(DiskError) -> StoreError {
    move |error| {
        let kind = match error.source.kind() {
            io::ErrorKind::NotFound => Kind::Missing,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
                Kind::Storage
            }
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
        let mut held = self.held();
        // Always: what is said to be there must not have been removed meanwhile.
        self.look(&mut held).map_err(disk_failed("ask for chunks".to_owned()))?;
        let missing: BTreeSet<ChunkId> =
            ids.iter().filter(|id| held.place(**id).is_none()).copied().collect();
        Ok(missing.into_iter().collect())
    }

    fn put(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let attempted = format!("put pack {}", PackId::of(bytes));
        let pack = Pack::open(bytes).map_err(|error| corrupt(&attempted, error))?;
        pack.verify().map_err(|error| corrupt(&attempted, error))?;
        self.add_pack(bytes).map_err(disk_failed(attempted))
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        let before = self.held().losses();
        match self.read_frames(ids) {
            // A pack went while it was read: what is needed of it lies in another one by then.
            Err(error) if error.kind == Kind::Missing && self.held().losses() != before => {
                self.read_frames(ids)
            }
            done => done,
        }
    }

    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError> {
        let attempted = format!("publish release {id}");
        let losses = || self.held().losses();
        complete(id, outline, &self.seen, losses, |ids| self.missing(ids), &|ids| self.get(ids))?;
        // A pack may have been put by a process that died before its name was durable.
        disk::sync_dir(&self.path.join("packs"))
            .and_then(|()| self.add(&self.release(id), outline))
            .map_err(disk_failed(attempted))
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        let attempted = format!("read the outline of release {id}");
        let path = self.release(id);
        let packed = read(&path, OUTLINE_PACKED_MAX + 1).map_err(disk_failed(attempted.clone()))?;
        match unpack_outline(id, &packed) {
            Ok(_) => Ok(packed),
            Err(error) => {
                let newer = matches!(
                    &error,
                    ManifestRefused::Rules { source: TextError { what: Fault::Version(_), .. }, .. }
                );
                if !newer {
                    let _ = self.set_aside(&path);
                }
                Err(corrupt(&attempted, error))
            }
        }
    }

    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError> {
        let failure = || disk_failed(format!("sign release {id}"));
        let key = signing::check(id, approval)?;
        let signers = self.signers(id).map_err(failure())?;
        if signers.len() >= APPROVALS_MAX && !signers.contains(&key) {
            return Err(signing::too_many(id));
        }
        self.add_signature(id, key, approval).map_err(failure())
    }

    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError> {
        let failure = || disk_failed(format!("read the approvals of release {id}"));
        let mut approvals = Vec::new();
        for key in self.signers(id).map_err(failure())?.into_iter().take(APPROVALS_MAX) {
            let path = self.signatures(id).join(key.to_string());
            let text = read(&path, SIGNED_BYTES_MAX + 1).map_err(failure())?;
            let text = String::from_utf8_lossy(&text).into_owned();
            match signing::check(id, &text) {
                Ok(found) if found == key => approvals.push(text),
                // As if it were not there, so that it can be added again.
                Ok(_) | Err(_) => drop(self.set_aside(&path)),
            }
        }
        Ok(approvals)
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

impl Custody for FolderStore {
    fn grant(&self, ids: &[ChunkId], _: Duration) -> Result<Vec<Granted>, StoreError> {
        let mut held = self.held();
        if ids.iter().any(|id| held.place(*id).is_none()) {
            self.look(&mut held).map_err(disk_failed("grant the reading of chunks".to_owned()))?;
        }
        let packs = held
            .answer(ids, PACKS_MAX)
            .map_err(|id| StoreError::new(Kind::Missing, format!("grant the reading of chunk {id}")))?;
        Ok(packs.into_iter().map(|(pack, frames)| Granted { pack, url: None, frames }).collect())
    }

    fn read(&self, pack: PackId, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let path = self.pack(pack);
        let mut content = Vec::new();
        let read = |mut file: File| {
            file.seek(io::SeekFrom::Start(range.start))?;
            // A pack is not longer, whatever lies there.
            let most = range.end.saturating_sub(range.start).min(PACK_BYTES_MAX as u64);
            file.take(most).read_to_end(&mut content)
        };
        let done = File::open(&path).and_then(read).map_err(failed("read", &path));
        done.map_err(disk_failed(format!("read pack {pack}"))).inspect_err(|error| {
            if error.kind == Kind::Missing {
                // Whoever asks again shall be told of another place.
                self.held().forget(pack);
            }
        })?;
        Ok(content)
    }

    fn releases(&self) -> Result<Vec<StoredRelease>, StoreError> {
        let since = |id: ReleaseId| {
            // One that another process removes at this moment is not there.
            let since = fs::metadata(self.release(id)).and_then(|found| found.modified()).ok()?;
            Some(StoredRelease { id, since })
        };
        Ok(self.list()?.into_iter().filter_map(since).collect())
    }

    fn packs(&self) -> Result<Vec<StoredPack>, StoreError> {
        let mut held = self.held();
        self.look(&mut held).map_err(disk_failed("list packs".to_owned()))?;
        let packs = held.packs().filter_map(|(id, index)| {
            // One that another process removes at this moment is not there.
            let since = fs::metadata(self.pack(id)).and_then(|found| found.modified()).ok()?;
            Some(StoredPack { id, index, since })
        });
        Ok(packs.collect())
    }

    fn remove_release(&self, id: ReleaseId) -> Result<(), StoreError> {
        remove(&self.release(id)).map_err(disk_failed(format!("remove release {id}")))
    }

    fn remove_pack(&self, id: PackId) -> Result<(), StoreError> {
        self.held().forget(id);
        remove(&self.pack(id)).map_err(disk_failed(format!("remove pack {id}")))
    }

    fn salvage(&self, id: PackId) -> Result<(), StoreError> {
        self.set_pack_aside(id).map_err(disk_failed(format!("salvage pack {id}")))
    }

    fn keep_record(&self, key: BuildKey, record: &str) -> Result<(), StoreError> {
        let written = self.write(&self.build(key), record.as_bytes());
        let written = written.and_then(|()| disk::sync_dir(&self.path.join("builds")));
        written.map_err(disk_failed(format!("keep the outputs of build {key}")))
    }

    fn record(&self, key: BuildKey) -> Result<String, StoreError> {
        let found = read(&self.build(key), RECORD_BYTES_MAX + 1);
        let found = found.map_err(disk_failed(format!("read the outputs of build {key}")))?;
        Ok(String::from_utf8_lossy(&found).into_owned())
    }

    fn records(&self) -> Result<Vec<StoredRecord>, StoreError> {
        let dir = self.path.join("builds");
        // Also without the folder nobody may count on there being none.
        let unknown = |error: DiskError| {
            StoreError::new(Kind::Unavailable, "list the outputs of builds").because(error)
        };
        let mut records = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed("list", &dir)).map_err(unknown)? {
            let entry = entry.map_err(failed("list", &dir)).map_err(unknown)?;
            let key = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // One that another process removes at this moment is not there.
            let since = entry.metadata().and_then(|found| found.modified()).ok();
            records.extend(key.zip(since).map(|(key, since)| StoredRecord { key, since }));
        }
        Ok(records)
    }

    fn remove_record(&self, key: BuildKey) -> Result<(), StoreError> {
        remove(&self.build(key)).map_err(disk_failed(format!("forget the outputs of build {key}")))
    }

    fn ready(&self) -> Result<(), StoreError> {
        let number = TMP_NUMBER.fetch_add(1, Ordering::Relaxed);
        let tmp = self.path.join(format!("tmp/{}-{number}", std::process::id()));
        let written = disk::write_synced(&tmp, &vec![0; FRAME_BYTES_MAX as usize]);
        let _ = fs::remove_file(&tmp);
        written.map_err(disk_failed("keep a pack".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_damaged_at_rest_is_noticed_when_the_folder_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (right, id) = (pack::of(b"content").unwrap(), ChunkId::of(b"content"));
        FolderStore::open(dir.path()).unwrap().put(&right).unwrap();
        let name = PackId::of(&right).to_string();
        fs::write(dir.path().join("packs").join(&name), &right[1..]).unwrap();
        let store = FolderStore::open(dir.path()).unwrap();
        assert_eq!(store.missing(&[id]).unwrap(), [id]);
        assert!(dir.path().join("corrupt").join(&name).exists());
    }

    #[test]
    fn what_another_process_adds_or_removes_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| FolderStore::open(dir.path()).unwrap());
        let (pack, id) = (pack::of(b"content").unwrap(), ChunkId::of(b"content"));
        one.put(&pack).unwrap();
        assert_eq!(other.get(&[id]).unwrap(), pack);
        fs::remove_file(dir.path().join("packs").join(PackId::of(&pack).to_string())).unwrap();
        assert_eq!(other.missing(&[id]).unwrap(), [id]);
    }

    #[test]
    fn only_temporary_files_of_the_dead_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        FolderStore::open(dir.path()).unwrap();
        for name in ["old", "new"] {
            fs::write(dir.path().join("tmp").join(name), "").unwrap();
        }
        let long_ago = SystemTime::now() - 2 * TMP_AGE_MAX;
        let old = File::options().write(true).open(dir.path().join("tmp/old")).unwrap();
        old.set_modified(long_ago).unwrap();
        FolderStore::open(dir.path()).unwrap();
        assert!(!dir.path().join("tmp/old").exists());
        assert!(dir.path().join("tmp/new").exists());
    }
}
