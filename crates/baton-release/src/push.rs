//! Making a release of a directory, and bringing it to a store.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use baton_core::ids::{ChunkId, ReleaseId, ServiceName};
use baton_core::release::{
    self, Chunk, Entry, EntryKind, Manifest, ManifestError, ProgramFault, Tree, TreeFault,
};
use baton_core::run::RunSettings;

use crate::chunk::{self, ChunkError};
use crate::cut::cut;
use crate::store::{ArtefactStore, StoreError};
pub use crate::walk::WalkError;
use crate::walk::{Found, FoundKind, walk};
use crate::{parallel, provenance};

/// What a release is made of.
#[derive(Debug, Clone)]
pub struct Source {
    /// The directory; `.git` and what `.gitignore` and `.batonignore` files in it exclude stay out.
    pub dir: PathBuf,
    /// The service that the release is for.
    pub service: ServiceName,
    /// How it wants to be run.
    pub run: RunSettings,
    /// Who or what makes it.
    pub builder: String,
}

/// What a push is doing; told as it happens, from several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The directory has been read.
    Read {
        /// All files together.
        bytes: u64,
    },
    /// The store has said what it lacks.
    Compared {
        /// What will be uploaded.
        bytes_new: u64,
    },
    /// One chunk has been uploaded.
    Uploaded {
        /// Its content.
        bytes: u64,
    },
}

/// A release that a store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The release.
    pub id: ReleaseId,
    /// Its manifest.
    pub manifest: Manifest,
    /// How many files it has.
    pub files: usize,
    /// All files together, in bytes.
    pub bytes_total: u64,
    /// Bytes of content that the store did not have; they travelled compressed.
    pub bytes_new: u64,
    /// How many chunks the store did not have.
    pub chunks_new: usize,
}

/// Why a directory has not become a release.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Something in it cannot be read, or cannot be in a release.
    #[error("the directory cannot become a release")]
    Walk(#[from] WalkError),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree breaks a rule.
    #[error("the directory cannot become a release")]
    Tree(#[from] TreeFault),
    /// The settings break a rule.
    #[error("no member would accept the release")]
    Manifest(#[from] ManifestError),
    /// The program is not there.
    #[error("the release would not start")]
    Program(#[from] ProgramFault),
    /// Somebody writes to the directory.
    #[error("{} was changed while it was pushed; push again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A chunk cannot be packed.
    #[error("a chunk of {} cannot be packed", path.display())]
    Pack {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ChunkError,
    },
    /// The store fails.
    #[error("the release cannot be stored")]
    Store(#[from] StoreError),
}

/// Makes a release of a directory: uploads the chunks that the store lacks, and the manifest last.
///
/// On return the release is durable and complete in the store. After an error or a crash the store does not know
/// it; pushing again uploads only the rest.
pub fn push(
    source: &Source,
    store: &dyn ArtefactStore,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Pushed, PushError> {
    let (manifest, places) = read(source)?;
    let text = manifest.to_text();
    // What is published is what members will accept, whoever made the settings.
    Manifest::parse(&text)?;
    manifest.check_program()?;
    let bytes_total = manifest.tree.bytes();
    progress(Step::Read { bytes: bytes_total });

    let ids: Vec<ChunkId> = places.keys().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let missing = store.missing(&ids)?;
    let new: Vec<&Place> = missing.iter().filter_map(|id| places.get(id)).collect();
    let bytes_new = new.iter().map(|place| u64::from(place.chunk.bytes)).sum();
    progress(Step::Compared { bytes_new });
    parallel::for_each(&new, |place| {
        upload(place, store)?;
        progress(Step::Uploaded { bytes: u64::from(place.chunk.bytes) });
        Ok::<(), PushError>(())
    })?;

    let id = release::id_of(&text);
    store.publish(id, &text)?;
    let files = manifest.tree.files().count();
    Ok(Pushed { id, manifest, files, bytes_total, bytes_new, chunks_new: new.len() })
}

/// Where the content of a chunk is.
struct Place {
    chunk: Chunk,
    path: PathBuf,
    offset: u64,
}

/// The manifest of a directory, and where each of its chunks is.
fn read(source: &Source) -> Result<(Manifest, HashMap<ChunkId, Place>), PushError> {
    let found = walk(&source.dir)?;
    let newest = found.iter().map(|found| found.modified).max().unwrap_or(0);
    let mut places = HashMap::new();
    let mut entries = Vec::with_capacity(found.len());
    for (Found { path, full, kind, .. }, chunks) in found.iter().zip(cut_all(&found)?) {
        let kind = match kind {
            FoundKind::Dir => EntryKind::Dir,
            FoundKind::Link { target } => EntryKind::Link { target: target.clone() },
            FoundKind::File { executable } => {
                places.extend(places_of(full, &chunks));
                EntryKind::File(release::File { executable: *executable, chunks })
            }
        };
        entries.push(Entry { path: path.clone(), kind });
    }
    let manifest = Manifest {
        service: source.service.clone(),
        provenance: provenance::of(&source.dir, source.builder.clone(), newest),
        run: source.run.clone(),
        tree: Tree::of(entries)?,
    };
    Ok((manifest, places))
}

/// The chunks of everything that was found; none for what is not a file.
fn cut_all(found: &[Found]) -> Result<Vec<Vec<Chunk>>, PushError> {
    let results: Vec<(&Found, OnceLock<Vec<Chunk>>)> =
        found.iter().map(|found| (found, OnceLock::new())).collect();
    parallel::for_each(&results, |(found, chunks)| {
        if let FoundKind::File { .. } = found.kind {
            let cut = cut(&found.full).map_err(|source| read_error(&found.full, source))?;
            chunks.get_or_init(|| cut);
        }
        Ok::<(), PushError>(())
    })?;
    Ok(results.into_iter().map(|(_, chunks)| chunks.into_inner().unwrap_or_default()).collect())
}

fn places_of(path: &Path, chunks: &[Chunk]) -> Vec<(ChunkId, Place)> {
    let mut offset = 0;
    let place = |chunk: &Chunk| {
        let place = Place { chunk: *chunk, path: path.to_owned(), offset };
        offset += u64::from(chunk.bytes);
        (chunk.id, place)
    };
    chunks.iter().map(place).collect()
}

fn upload(Place { chunk, path, offset }: &Place, store: &dyn ArtefactStore) -> Result<(), PushError> {
    let mut content = vec![0; chunk.bytes as usize];
    match File::open(path).and_then(|file| file.read_exact_at(&mut content, *offset)) {
        Ok(()) if chunk::id_of(&content) == chunk.id => {}
        Ok(()) => return Err(PushError::Changed { path: path.clone() }),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(PushError::Changed { path: path.clone() });
        }
        Err(source) => return Err(read_error(path, source)),
    }
    let packed = chunk::pack(&content).map_err(|source| PushError::Pack { path: path.clone(), source })?;
    Ok(store.put(chunk.id, &packed)?)
}

fn read_error(path: &Path, source: io::Error) -> PushError {
    PushError::Read { path: path.to_owned(), source }
}
