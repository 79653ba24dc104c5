//! Bringing a release to a member's disk.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::{Chunk, Manifest, TreePath};

use crate::beneath::Beneath;
use crate::disk::DiskError;
use crate::manifest::{self, Known, ManifestError, ManifestRefused};
use crate::parallel;
use crate::read::{self, ReadError};
use crate::releases::{ReleasesDir, Staging, VerifyError};
use crate::store::ArtefactStore;

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
    /// Content came from the store.
    Fetched {
        /// How much of the release.
        bytes: u64,
    },
    /// Content came from another release on disk.
    Reused {
        /// How much of the release.
        bytes: u64,
    },
    /// One more thing is durable, or has its final name.
    Sealed,
}

/// What a fetch has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// Bytes of content that came from the store; it sent less, compressed.
    pub bytes_fetched: u64,
    /// Bytes of content that came from other releases on disk.
    pub bytes_reused: u64,
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
    /// The disk fails, or is full.
    #[error("the release cannot be laid out")]
    Disk(#[from] DiskError),
    /// Somebody has changed it while it was laid out.
    #[error("the release cannot be laid out")]
    Changed(#[from] VerifyError),
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
/// A release that is there already is verified, and fetched anew if it was altered.
pub fn fetch(
    id: ReleaseId,
    store: &dyn ArtefactStore,
    releases: &ReleasesDir,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Fetched, FetchError> {
    let _turn = releases.turn();
    if releases.verify(id).is_ok() {
        return Ok(Fetched::default());
    }
    let manifest = manifest::read(id, store, known(releases))?;
    progress(Step::Planned { bytes: manifest.tree.bytes() });

    let pieces = pieces(&manifest);
    let on_disk = OnDisk::find(&pieces, releases);
    let staging = Staging::begin(releases, id, &manifest)?;
    staging.create(|| progress(Step::Created))?;
    let (fetched, reused) = (AtomicU64::new(0), AtomicU64::new(0));
    let lacking = Mutex::new(Vec::new());
    parallel::for_each(&pieces, |piece| match on_disk.read(piece.chunk) {
        Some(content) => {
            let bytes = piece.write(&staging, &content)?;
            reused.fetch_add(bytes, Ordering::Relaxed);
            progress(Step::Reused { bytes });
            Ok::<(), FetchError>(())
        }
        None => {
            lacking.lock().unwrap_or_else(PoisonError::into_inner).push(piece.index);
            Ok(())
        }
    })?;
    // In the order in which they were pushed, neighbours share a frame.
    let mut lacking = lacking.into_inner().unwrap_or_else(PoisonError::into_inner);
    lacking.sort_unstable();
    let lacking: Vec<Chunk> = lacking.into_iter().map(|index| pieces[index].chunk).collect();
    let by_chunk: HashMap<Chunk, &Piece<'_>> = pieces.iter().map(|piece| (piece.chunk, piece)).collect();
    read::each(&|ids| store.get(ids), &lacking, |chunk, content| {
        let bytes = by_chunk[&chunk].write(&staging, content)?;
        fetched.fetch_add(bytes, Ordering::Relaxed);
        progress(Step::Fetched { bytes });
        Ok::<(), FetchError>(())
    })?;
    staging.finish(|| progress(Step::Sealed))?;
    Ok(Fetched { bytes_fetched: fetched.into_inner(), bytes_reused: reused.into_inner() })
}

/// The manifests on disk. One that cannot be read has nothing to offer.
fn known(releases: &ReleasesDir) -> Known {
    let mut known = Known::default();
    let texts =
        releases.list().unwrap_or_default().into_iter().filter_map(|id| releases.manifest_text(id).ok());
    texts.for_each(|text| known.add(&text));
    known
}

/// A chunk, and everywhere in the release that it belongs.
struct Piece<'a> {
    index: usize,
    chunk: Chunk,
    places: Vec<(&'a TreePath, u64)>,
}

impl Piece<'_> {
    /// Writes it everywhere; returns how much of the release that is.
    fn write(&self, staging: &Staging<'_>, content: &[u8]) -> Result<u64, DiskError> {
        self.places.iter().try_for_each(|(path, offset)| staging.write(path, *offset, content))?;
        Ok(u64::from(self.chunk.bytes) * self.places.len() as u64)
    }
}

/// Every chunk of a release once, in the order of first use. The same hash with another length is another
/// piece, and one of the two will be refused.
fn pieces(manifest: &Manifest) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut known: HashMap<Chunk, usize> = HashMap::new();
    for_each_chunk(manifest, |chunk, path, offset| {
        let index = *known.entry(chunk).or_insert_with(|| {
            pieces.push(Piece { index: pieces.len(), chunk, places: Vec::new() });
            pieces.len() - 1
        });
        pieces[index].places.push((path, offset));
    });
    pieces
}

fn for_each_chunk<'a>(manifest: &'a Manifest, mut act: impl FnMut(Chunk, &'a TreePath, u64)) {
    for (path, file) in manifest.tree.files() {
        let mut offset = 0;
        for chunk in &file.chunks {
            act(*chunk, path, offset);
            offset += u64::from(chunk.bytes);
        }
    }
}

/// Which chunks lie in other releases on disk.
struct OnDisk {
    trees: Vec<Beneath>,
    /// For each chunk the tree, the file in it, and where it starts there.
    places: HashMap<ChunkId, (usize, TreePath, u64)>,
}

impl OnDisk {
    /// Looks for the pieces of a release in all others. A release that cannot be read has nothing to offer.
    fn find(pieces: &[Piece<'_>], releases: &ReleasesDir) -> Self {
        let mut found = Self { trees: Vec::new(), places: HashMap::new() };
        let mut wanted: HashSet<ChunkId> = pieces.iter().map(|piece| piece.chunk.id).collect();
        for id in releases.list().unwrap_or_default() {
            let (Ok(manifest), Ok(tree)) = (releases.manifest(id), releases.tree(id)) else {
                continue;
            };
            for_each_chunk(&manifest, |chunk, path, offset| {
                if wanted.remove(&chunk.id) {
                    found.places.insert(chunk.id, (found.trees.len(), path.clone(), offset));
                }
            });
            found.trees.push(tree);
        }
        found
    }

    /// The content of a chunk, if it lies on disk unaltered.
    fn read(&self, Chunk { id, bytes }: Chunk) -> Option<Vec<u8>> {
        let (tree, path, offset) = self.places.get(&id)?;
        let mut content = vec![0; bytes as usize];
        let file = self.trees[*tree].read(path).ok()?;
        file.read_exact_at(&mut content, *offset).ok()?;
        (ChunkId::of(&content) == id).then_some(content)
    }
}
