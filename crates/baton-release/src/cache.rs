//! A directory that the members of one host share, so that what one has fetched the others need not.
//!
//! ```text
//! cache_dir/
//!   packs/<id>   packs as they came, named by the hash of their content
//!   locks/<0-f>  held by whoever fetches what others may want as well
//!   incoming/    packs that are being written
//! ```
//!
//! No member trusts another: what lies there counts when it has the right hash, each time it is used, and is removed when it has
//! not. So nothing is made durable, and whoever is killed at any moment leaves nothing that matters.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use baton_core::ids::{ChunkId, PackId};
use baton_core::release::pack::{Index, PACK_BYTES_MAX};
use baton_core::release::reading;
use baton_core::units::Bytes;
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags};

use crate::disk::{DiskError, failed};
use crate::pack;

/// Nobody but the members of one user: whoever could write here could make others fetch again, for ever.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Modes by which others could write.
const OTHERS_WRITE: u32 = 0o022;
/// Most packs that are kept: whoever fetches reads the index of each.
const PACKS_MAX: usize = 1024;
/// How many questions may be under way in all members at once: each waits for those that begin with the same digit.
const LOCKS: &[u8; 16] = b"0123456789abcdef";
/// How long to wait for another member that fetches the same. It may hang; then it is fetched twice.
const LOCK_MAX: Duration = Duration::from_secs(30);
/// How often to look whether it has.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// What was not finished after this time never will be.
const INCOMING_MAX: Duration = Duration::from_secs(60 * 60);

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The disk fails.
    #[error("the cache cannot be used")]
    Disk(#[from] DiskError),
    /// Somebody else could put something there.
    #[error("{} is not safe to share: {why}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
}

/// The directory. It stays the one that it was when it was opened, whatever its name leads to later.
pub struct Cache {
    packs: OwnedFd,
    locks: OwnedFd,
    incoming: OwnedFd,
    limit: Bytes,
    known: Mutex<Known>,
}

/// What lies in the packs that were looked at. It is kept for a fetch only, and small: a bootloader has little memory.
#[derive(Default)]
struct Known {
    packs: HashSet<PackId>,
    /// The pack, and which of its frames.
    places: HashMap<ChunkId, (PackId, u32)>,
}

impl Known {
    fn forget(&mut self, id: PackId) {
        self.packs.remove(&id);
        self.places.retain(|_, (pack, _)| *pack != id);
    }
}

impl Cache {
    /// Opens the directory, and creates it if needed. It holds `limit` bytes of packs, and one more for a moment.
    ///
    /// # Errors
    /// When it is a link, belongs to another user, or others may write to it.
    pub fn open(path: &Path, limit: Bytes) -> Result<Self, CacheError> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).map_err(failed("create", path))?;
        let dir = safe(path, open_dir(CWD, path))?;
        let below = |name: &str| {
            let at = path.join(name);
            match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(DIR_MODE)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => safe(&at, open_dir(&dir, Path::new(name))),
                Err(error) => Err(failed("create", &at)(error).into()),
            }
        };
        let (packs, locks, incoming) = (below("packs")?, below("locks")?, below("incoming")?);
        Ok(Self { packs, locks, incoming, limit, known: Mutex::default() })
    }

    /// Gives the memory back that a fetch needed.
    pub(crate) fn rest(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of these chunks that are here, or the first of them, as a pack; what is damaged is removed.
    pub(crate) fn find(&self, ids: &[ChunkId]) -> Option<Vec<u8>> {
        self.look_around();
        let places: HashMap<ChunkId, (PackId, u32)> = {
            let known = self.known();
            ids.iter().filter_map(|id| known.places.get(id).map(|place| (*id, *place))).collect()
        };
        let packs: HashSet<PackId> = places.values().map(|(pack, _)| *pack).collect();
        let packs: HashMap<PackId, (Index, Vec<Range<u64>>)> =
            packs.into_iter().filter_map(|pack| Some((pack, self.index(pack)?))).collect();
        let frame = |(pack, at): (PackId, u32)| {
            let (index, ranges) = packs.get(&pack)?;
            Some((index.frames().get(at as usize)?, ranges.get(at as usize)?))
        };
        let place = |id| places.get(&id).and_then(|place| Some((*place, frame(*place)?.0)));
        let here: Vec<ChunkId> = ids.iter().filter(|id| place(**id).is_some()).copied().collect();
        let mut found = Vec::new();
        for (pack, at) in reading::answer(&here, place).ok()? {
            let Some((frame, range)) = frame((pack, at)) else { continue };
            match self.read(pack, range).filter(|packed| pack::unpack(frame, packed).is_ok()) {
                Some(packed) => found.push((frame.clone(), packed)),
                None => self.remove(pack),
            }
        }
        (!found.is_empty()).then(|| pack::join(found))
    }

    /// Takes in what others have brought, and forgets what is gone.
    fn look_around(&self) {
        let there: HashSet<PackId> = self.list().into_iter().map(|(id, _, _)| id).collect();
        let mut known = self.known();
        let gone: Vec<PackId> = known.packs.difference(&there).copied().collect();
        gone.into_iter().for_each(|id| known.forget(id));
        for id in there {
            if known.packs.insert(id)
                && let Some((index, _)) = self.index(id)
            {
                let frames = (0..).zip(index.frames());
                let places =
                    frames.flat_map(|(at, frame)| frame.chunks.iter().map(move |chunk| (chunk.id, (id, at))));
                known.places.extend(places);
            }
        }
    }

    /// The index of a pack; one that has none is removed.
    fn index(&self, id: PackId) -> Option<(Index, Vec<Range<u64>>)> {
        let file = self.file(id)?;
        let length = file.metadata().ok()?.len();
        let mut start = Vec::new();
        (&file).take(pack::START_BYTES as u64).read_to_end(&mut start).ok()?;
        let index = pack::index(&start, length);
        if index.is_err() {
            self.unlink(id);
        }
        index.ok()
    }

    fn read(&self, id: PackId, place: &Range<u64>) -> Option<Vec<u8>> {
        let mut packed = vec![0; usize::try_from(place.end - place.start).ok()?];
        self.file(id)?.read_exact_at(&mut packed, place.start).ok()?;
        Some(packed)
    }

    /// A pack, if it is a file of this user and no link. Does not wait at a fifo or device that somebody has put there.
    fn file(&self, id: PackId) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.packs, id.to_string(), flags, Mode::empty()).ok()?);
        let found = file.metadata().ok()?;
        let ours = found.is_file() && found.uid() == rustix::process::geteuid().as_raw();
        (ours && found.len() <= PACK_BYTES_MAX as u64).then_some(file)
    }

    fn remove(&self, id: PackId) {
        self.unlink(id);
        self.known().forget(id);
    }

    fn unlink(&self, id: PackId) {
        // Another member may have been faster.
        let _ = rustix::fs::unlinkat(&self.packs, id.to_string(), AtFlags::empty());
    }

    /// Adds a pack. Where that fails, the others fetch it themselves.
    pub(crate) fn add(&self, pack: &[u8]) -> io::Result<()> {
        // Members in containers may have the same process number.
        let name = format!("{:016x}", RandomState::new().hash_one(SystemTime::now()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(FILE_MODE);
        let mut file = File::from(rustix::fs::openat(&self.incoming, name.as_str(), flags, mode)?);
        let written = file.write_all(pack).and_then(|()| {
            let id = PackId::of(pack).to_string();
            Ok(rustix::fs::renameat(&self.incoming, name.as_str(), &self.packs, id.as_str())?)
        });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.incoming, name.as_str(), AtFlags::empty());
        }
        self.tidy();
        written
    }

    /// Removes the oldest packs beyond the limits, and what was never finished.
    fn tidy(&self) {
        let mut packs = self.list();
        packs.sort_by_key(|(_, _, since)| std::cmp::Reverse(*since));
        let mut bytes = 0;
        for (kept, (id, length, _)) in packs.into_iter().enumerate() {
            bytes += length;
            if bytes > self.limit.0 || kept >= PACKS_MAX {
                self.remove(id);
            }
        }
        for (name, found) in entries(&self.incoming) {
            let since = modified(&found);
            if since.elapsed().is_ok_and(|age| age > INCOMING_MAX) {
                let _ = rustix::fs::unlinkat(&self.incoming, name.as_str(), AtFlags::empty());
            }
        }
    }

    /// The packs, with their lengths and since when they are there.
    fn list(&self) -> Vec<(PackId, u64, SystemTime)> {
        let pack = |(name, found): (String, rustix::fs::Stat)| {
            Some((name.parse().ok()?, u64::try_from(found.st_size).ok()?, modified(&found)))
        };
        entries(&self.packs).into_iter().filter_map(pack).collect()
    }

    /// Waits for whoever fetches these, at the longest for [`LOCK_MAX`]; the lock ends with the value, or the process.
    pub(crate) fn lock(&self, ids: &[ChunkId]) -> Option<File> {
        let digit = usize::from(ids.first()?.as_bytes()[0] >> 4);
        let name = char::from(LOCKS[digit]).to_string();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.locks, name.as_str(), flags, Mode::from_raw_mode(FILE_MODE));
        let file = File::from(file.ok()?);
        let begun = Instant::now();
        while begun.elapsed() < LOCK_MAX {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(file),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => pause(),
                Err(_) => return None,
            }
        }
        None
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a lock of another process can be waited for with a limit only by trying"
)]
fn pause() {
    std::thread::sleep(LOCK_PAUSE);
}

fn open_dir(at: impl std::os::fd::AsFd, path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// The handle, if nobody else can write there: what is looked at is what was opened, and no name.
fn safe(path: &Path, opened: Result<OwnedFd, rustix::io::Errno>) -> Result<OwnedFd, CacheError> {
    let refuse = |why| Err(CacheError::Unsafe { path: path.to_owned(), why });
    let dir = match opened {
        Ok(dir) => dir,
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
            return refuse("it is not a directory; if it is a link, use the directory itself");
        }
        Err(error) => return Err(failed("open", path)(error).into()),
    };
    let found = rustix::fs::fstat(&dir).map_err(failed("look at", path))?;
    if found.st_uid != rustix::process::geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    if found.st_mode & OTHERS_WRITE != 0 {
        return refuse("others may write to it; run `chmod go-w` on it");
    }
    Ok(dir)
}

/// What is in a directory, by name; links are not followed, and what goes meanwhile is not there.
fn entries(dir: &OwnedFd) -> Vec<(String, rustix::fs::Stat)> {
    let Ok(listed) = Dir::read_from(dir) else { return Vec::new() };
    let entry = |entry: rustix::fs::DirEntry| {
        let name = entry.file_name().to_str().ok()?.to_owned();
        let found = rustix::fs::statat(dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((name, found))
    };
    listed.filter_map(Result::ok).filter_map(entry).filter(|(name, _)| !name.starts_with('.')).collect()
}

fn modified(found: &rustix::fs::Stat) -> SystemTime {
    let seconds = u64::try_from(found.st_mtime).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(found.st_mtime_nsec).unwrap_or_default())
}
