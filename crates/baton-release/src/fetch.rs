//! Bringing a release to a member's disk.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::{Mutex, PoisonError};
use std::thread;

use baton_core::ids::{ReleaseId, ServiceName};
use baton_core::release::Chunk;

use crate::disk::DiskError;
use crate::manifest::{self, Known, ManifestError, ManifestRefused};
use crate::parallel;
use crate::read::{self, ReadError, Source};
use crate::releases::{NoRoom, Place, ReleasesDir, Staging};
use crate::store::{ArtefactStore, Retry};

use sources::Sources;

mod sources;

/// Where a tree is patched and lacks more than so many bytes, they are looked for in all releases on disk. Below that,
/// reading the manifests of those takes longer than fetching.
const SEARCH_FROM: u64 = 1 << 20;

/// What a fetch is doing; told as it happens, from several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The manifest is here and allowed.
    Planned {
        /// All files together.
        bytes: u64,
    },
    /// One file, directory or link exists, still without content.
    Created,
    /// So much of the release is not on disk, and comes from the store.
    Lacking {
        /// How much of the release.
        bytes: u64,
    },
    /// Content came from the store.
    Fetched {
        /// How much of the release.
        bytes: u64,
    },
    /// Content was copied from what is on disk.
    Copied {
        /// How much of the release.
        bytes: u64,
    },
    /// One more thing is durable, or has its final name.
    Sealed,
}

/// How a release came to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// It was there.
    #[default]
    There,
    /// What changed was patched into a tree that was there: that many files, directories and links stayed as they were.
    Patched {
        /// How many.
        kept: usize,
    },
    /// A fetch that could not go on, or was killed, had left something: that many files, directories and links stayed.
    Resumed {
        /// How many.
        kept: usize,
    },
    /// Everything was created.
    Created,
}

/// What a fetch has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// How the release came to the disk.
    pub way: Way,
    /// Bytes of content that came from the store; it sent less, compressed.
    pub bytes_fetched: u64,
    /// Bytes of content that were copied from what is on disk.
    pub bytes_copied: u64,
}

/// Why a release is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store fails, or sends what is not allowed.
    #[error("the release cannot be fetched")]
    Read(#[from] ReadError),
    /// The manifest is not that of the release, or breaks a rule.
    #[error("the release is refused")]
    Refused(#[from] ManifestRefused),
    /// Whoever asked for it may not have it here.
    #[error("it is not allowed here")]
    NotAllowed,
    /// It is a release of something else.
    #[error("it was made for service {found}, and this is {service}")]
    OtherService {
        /// For which service it was made.
        found: ServiceName,
        /// The one whose member this is.
        service: ServiceName,
    },
    /// The disk fails, or is full.
    #[error("the release cannot be laid out")]
    Disk(#[from] DiskError),
    /// The disk has no room for it, as it is told before anything is created.
    #[error("the release cannot be laid out")]
    NoRoom(#[from] NoRoom),
}

impl FetchError {
    /// Whether the same fetch may be whole when it is tried again.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Read(ReadError::Store(error)) if error.retry() == Retry::Later)
    }
}

impl From<ManifestError> for FetchError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Read(error) => Self::Read(error),
            ManifestError::Refused(refused) => Self::Refused(refused),
        }
    }
}

/// Brings a release to disk, complete and verified, or not at all.
///
/// Nothing is created before the manifest is found to be allowed; only content that no release on disk has is
/// fetched; every piece is checked before it is written; and the release gets its name when all of it is durable.
/// What is here of it stays when the store fails, and the next fetch goes on from there, also in another process.
/// A release that is there already is verified, and fetched anew if it was altered; where it was said to be
/// [kept](ReleasesDir::keep) before, that waits for nobody, and on return it stays.
pub fn fetch(
    id: ReleaseId,
    store: &dyn ArtefactStore,
    releases: &ReleasesDir,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Fetched, FetchError> {
    fetch_if(id, store, releases, &|| true, progress)
}

/// The same, if it is `allowed`, which is asked when the manifest has come and before anything is created: who has to find out
/// does so meanwhile. Of a release that is there already it is not asked.
pub fn fetch_if(
    id: ReleaseId,
    store: &dyn ArtefactStore,
    releases: &ReleasesDir,
    allowed: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Fetched, FetchError> {
    // What is here does not wait for others that are fetched or prepared for: this may be the way back.
    if releases.verify(id).is_ok() && releases.stays(id) {
        return Ok(Fetched::default());
    }
    let _turn = releases.turn();
    // Somebody else may have fetched it meanwhile.
    if releases.verify(id).is_ok() {
        return Ok(Fetched::default());
    }
    let goes_on = releases.begun() == Some(id);
    let (base, answered) = thread::scope(|scope| {
        // Both manifests may be long: that of what is here is read while the store answers, and beside the new one.
        let base = scope.spawn(|| if goes_on { None } else { releases.base() });
        let known = scope.spawn(|| known(id, goes_on, releases));
        let answer = store.outline_since(id, &releases.here());
        let known = joined(known);
        let answered = answer
            .map_err(|error| ManifestError::from(ReadError::from(error)))
            .and_then(|answer| manifest::from_answer(id, store, answer, known));
        (joined(base), answered)
    });
    let (manifest, text) = answered?;
    if let Some(service) = releases.refuses(&manifest) {
        let (found, service) = (manifest.service, service.clone());
        return Err(FetchError::OtherService { found, service });
    }
    if !allowed() {
        return Err(FetchError::NotAllowed);
    }
    progress(Step::Planned { bytes: manifest.tree.bytes() });

    let staging = Staging::begin(releases, id, (&text, &manifest), base)?;
    releases.find_room(staging.needs())??;
    let filled = thread::scope(|scope| {
        let manifest = scope.spawn(|| staging.write_manifest());
        let filled = fill(&staging, store, releases, progress);
        joined(manifest)?;
        filled
    });
    let (bytes_fetched, bytes_copied) = match filled {
        Ok(filled) => filled,
        Err(error) => {
            if error.may_pass() {
                staging.leave();
            }
            return Err(error);
        }
    };
    let way = match staging.made_of() {
        Some(_) if staging.goes_on() => Way::Resumed { kept: staging.kept() },
        Some(_) => Way::Patched { kept: staging.kept() },
        None => Way::Created,
    };
    staging.finish(|| progress(Step::Sealed))?;
    releases.keep_fresh(id, manifest);
    Ok(Fetched { way, bytes_fetched, bytes_copied })
}

/// Creates what is new in a tree, with its content. Returns how many bytes of that were fetched, and how many copied.
fn fill(
    staging: &Staging<'_>,
    store: &dyn ArtefactStore,
    releases: &ReleasesDir,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<(u64, u64), FetchError> {
    staging.prepare(|| progress(Step::Created))?;
    let pieces = pieces(staging);
    let copied = copy(&pieces, staging, releases, progress)?;
    let lacking: Vec<Chunk> =
        pieces.iter().zip(&copied).filter(|(_, copied)| !**copied).map(|(piece, _)| piece.chunk).collect();
    let sum = |wanted: bool| {
        let some = pieces.iter().zip(&copied).filter(|(_, copied)| **copied == wanted);
        some.map(|(piece, _)| piece.bytes()).sum()
    };
    let (bytes_fetched, bytes_copied) = (sum(false), sum(true));
    progress(Step::Lacking { bytes: bytes_fetched });
    let by_chunk: HashMap<Chunk, &Piece> = pieces.iter().map(|piece| (piece.chunk, piece)).collect();
    read::each(Source::Store(store), &lacking, |chunk, content| {
        let bytes = by_chunk[&chunk].write(staging, content)?;
        progress(Step::Fetched { bytes });
        Ok::<(), FetchError>(())
    })?;
    Ok((bytes_fetched, bytes_copied))
}

/// What is known of manifests before the store answers. What is left of a fetch of the same release comes first.
fn known(id: ReleaseId, goes_on: bool, releases: &ReleasesDir) -> Known {
    let mut known = Known::default();
    releases.texts_here().for_each(|(text, chunks)| known.add_cut(text, &chunks));
    if goes_on {
        releases.staged_manifest_text(id).into_iter().for_each(|text| known.add(text));
    }
    known
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A chunk, and everywhere in what is to be written that it belongs.
struct Piece {
    chunk: Chunk,
    first: Place,
    /// Nearly all have none, and there are tens of thousands.
    others: Vec<Place>,
}

impl Piece {
    /// Writes it everywhere; returns how much of the release that is.
    fn write(&self, staging: &Staging<'_>, content: &[u8]) -> Result<u64, DiskError> {
        let mut places = [self.first].into_iter().chain(self.others.iter().copied());
        places.try_for_each(|place| staging.write(place, content))?;
        Ok(self.bytes())
    }

    fn bytes(&self) -> u64 {
        u64::from(self.chunk.bytes) * (1 + self.others.len() as u64)
    }
}

/// Every chunk that is to be written once, in the order of first use: as they were pushed, neighbours share a frame. The
/// same hash with another length is another piece, and one of the two will be refused.
fn pieces(staging: &Staging<'_>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut known: HashMap<Chunk, usize> = HashMap::new();
    for (entry, file) in staging.files() {
        let mut offset = 0;
        for chunk in &file.chunks {
            let place = Place { entry, offset };
            match known.entry(*chunk) {
                MapEntry::Occupied(index) => pieces[*index.get()].others.push(place),
                MapEntry::Vacant(free) => {
                    free.insert(pieces.len());
                    pieces.push(Piece { chunk: *chunk, first: place, others: Vec::new() });
                }
            }
            offset += u64::from(chunk.bytes);
        }
    }
    pieces
}

/// Copies what lies on disk; tells of each piece whether it did. From several threads.
fn copy(
    pieces: &[Piece],
    staging: &Staging<'_>,
    releases: &ReleasesDir,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Vec<bool>, DiskError> {
    let mut copied = vec![false; pieces.len()];
    let mut sources = Sources::new(pieces);
    if let Some(made_of) = staging.made_of() {
        sources.add_made_of(made_of, staging.tree());
    }
    if staging.made_of().is_none() || sources.bytes_missing() > SEARCH_FROM {
        sources.add_releases(releases);
    }
    let done = Mutex::new(&mut copied);
    let indices: Vec<usize> = (0..pieces.len()).collect();
    parallel::for_each(&indices, |index| {
        let piece = &pieces[*index];
        if let Some(content) = sources.read(piece.chunk) {
            let bytes = piece.write(staging, &content)?;
            done.lock().unwrap_or_else(PoisonError::into_inner)[*index] = true;
            progress(Step::Copied { bytes });
        }
        Ok(())
    })?;
    Ok(copied)
}
