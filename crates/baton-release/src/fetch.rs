//! Bringing a release to a member's disk.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::{Chunk, Manifest, TreePath};

use crate::beneath::Beneath;
use crate::chunk::{self, ChunkError};
use crate::disk::DiskError;
use crate::manifest::{self, ManifestRefused};
use crate::parallel;
use crate::releases::{ReleasesDir, Staging, VerifyError};
use crate::store::{ArtefactStore, StoreError};

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
    /// The store fails.
    #[error("the release cannot be fetched")]
    Store(#[from] StoreError),
    /// The manifest is not that of the release, or breaks a rule.
    #[error("the release is refused")]
    Refused(#[from] ManifestRefused),
    /// A chunk is not what its name says.
    #[error("chunk {id} of the release is refused")]
    Chunk {
        /// The chunk.
        id: ChunkId,
        /// Why.
        #[source]
        source: ChunkError,
    },
    /// The disk fails, or is full.
    #[error("the release cannot be laid out")]
    Disk(#[from] DiskError),
    /// Somebody has changed it while it was laid out.
    #[error("the release cannot be laid out")]
    Changed(#[from] VerifyError),
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
    let manifest = manifest::verified(id, &store.manifest(id)?)?;
    progress(Step::Planned { bytes: manifest.tree.bytes() });

    let pieces = pieces(&manifest);
    let on_disk = OnDisk::find(&pieces, releases);
    let staging = Staging::begin(releases, id, &manifest)?;
    staging.create(|| progress(Step::Created))?;
    let (fetched, reused) = (AtomicU64::new(0), AtomicU64::new(0));
    parallel::for_each(&pieces, |piece| {
        let bytes = u64::from(piece.chunk.bytes) * piece.places.len() as u64;
        let (content, counter, step) = match on_disk.read(piece.chunk) {
            Some(content) => (content, &reused, Step::Reused { bytes }),
            None => (download(piece.chunk, store)?, &fetched, Step::Fetched { bytes }),
        };
        for (path, offset) in &piece.places {
            staging.write(path, *offset, &content)?;
        }
        counter.fetch_add(bytes, Ordering::Relaxed);
        progress(step);
        Ok::<(), FetchError>(())
    })?;
    staging.finish(|| progress(Step::Sealed))?;
    Ok(Fetched { bytes_fetched: fetched.into_inner(), bytes_reused: reused.into_inner() })
}

fn download(Chunk { id, bytes }: Chunk, store: &dyn ArtefactStore) -> Result<Vec<u8>, FetchError> {
    let packed = store.get(id)?;
    chunk::unpack(id, bytes, &packed).map_err(|source| FetchError::Chunk { id, source })
}

/// A chunk, and everywhere in the release that it belongs.
struct Piece<'a> {
    chunk: Chunk,
    places: Vec<(&'a TreePath, u64)>,
}

/// Every chunk of a release once, in the order of first use. The same hash with another length is another
/// piece, and one of the two will be refused.
fn pieces(manifest: &Manifest) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut known: HashMap<(ChunkId, u32), usize> = HashMap::new();
    for_each_chunk(manifest, |chunk, path, offset| {
        let index = *known.entry((chunk.id, chunk.bytes)).or_insert_with(|| {
            pieces.push(Piece { chunk, places: Vec::new() });
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
        (chunk::id_of(&content) == id).then_some(content)
    }
}
