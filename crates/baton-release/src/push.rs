//! Making a release of a directory, and bringing it to a store.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use baton_core::ids::{ChunkId, ReleaseId, ServiceName};
use baton_core::release::outline::Outlined;
use baton_core::release::{
    self, Chunk, Entry, EntryKind, Manifest, ProgramFault, TextError, Tree, TreeFault,
};
use baton_core::run::RunSettings;

use crate::cut::cut;
use crate::manifest::pack_outline;
use crate::pack::PackError;
use crate::store::{ArtefactStore, Kind, StoreError};
use crate::upload::{Asked, Place, Sent, Upload};
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
    /// A pack has been uploaded.
    Uploaded {
        /// How much of the files' content.
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
    /// How many chunks of files the store did not have.
    pub chunks_new: usize,
    /// What travelled for it, in bytes: the packs.
    pub bytes_sent: u64,
    /// How many packs those were.
    pub packs: u64,
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
    Manifest(#[from] TextError),
    /// The program is not there.
    #[error("the release would not start")]
    Program(#[from] ProgramFault),
    /// Somebody writes to the directory.
    #[error("{} was changed while it was pushed; push again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A pack cannot be made.
    #[error("the release cannot be packed")]
    Pack(#[from] PackError),
    /// The outline cannot be compressed for want of memory.
    #[error("the outline of the release cannot be packed")]
    Outline(#[source] io::Error),
    /// The store fails.
    #[error("the release cannot be stored")]
    Store(#[from] StoreError),
}

/// Makes a release of a directory: uploads the chunks that the store lacks, and makes it known last.
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

    let id = release::id_of(&text);
    let outlined = Outlined::of(&text);
    let packed = pack_outline(&outlined.top).map_err(PushError::Outline)?;
    let upload = Upload { outlined: &outlined, places: &places, store, progress };
    let mut sent = upload.run(Asked::ByOutline)?;
    match store.publish(id, &packed) {
        // Somebody has put a part of the manifest without what it names, or something is lost: ask for every chunk.
        Err(error) if error.kind == Kind::Missing => {
            sent += upload.run(Asked::All)?;
            store.publish(id, &packed)?;
        }
        done => done?,
    }
    let files = manifest.tree.files().count();
    let Sent { content: bytes_new, chunks: chunks_new, bytes: bytes_sent, packs } = sent;
    Ok(Pushed { id, manifest, files, bytes_total, bytes_new, chunks_new, bytes_sent, packs })
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

pub(crate) fn read_error(path: &Path, source: io::Error) -> PushError {
    PushError::Read { path: path.to_owned(), source }
}
