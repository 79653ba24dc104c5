//! Where releases lie, in the words of the domain.

pub mod conformance;
pub mod memory;

use std::error::Error;
use std::fmt;

use baton_core::ids::{ChunkId, ReleaseId};

use crate::manifest::{self, Known, ManifestError};
use crate::read::{Get, ReadError};

/// A place that keeps releases: packs of chunks named by their content, and outlines that name chunks.
///
/// Everything in it is named by its hash and never changes, so every method may be called twice, by several at
/// once, and again after an error, without harm. Chunks travel and lie in [packs](crate::pack).
pub trait ArtefactStore: Send + Sync {
    /// Which of these chunks the store lacks, each once.
    ///
    /// On return, those not named are in the store and stay there.
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError>;

    /// Adds the chunks of a pack.
    ///
    /// On return, they are durable and the content of each has been checked against its id. Chunks that are there
    /// already do no harm.
    fn put(&self, pack: &[u8]) -> Result<(), StoreError>;

    /// These chunks, as a pack that may hold others too.
    ///
    /// Of what does not fit into one pack it holds the first, and at least one. When a chunk is not there, the store says
    /// [`Kind::Missing`]. What comes back has been checked by the store, but who uses it checks it again: there is a
    /// network between.
    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError>;

    /// Makes a release known by its packed [outline](crate::manifest::pack_outline), after all its chunks.
    ///
    /// On return, the release is durable and complete: the outline, the chunks of the manifest, and every chunk that it
    /// names. When one is missing, the store says [`Kind::Missing`] and does not know the release.
    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError>;

    /// The packed outline of a release's manifest.
    ///
    /// As with [`ArtefactStore::get`], who uses it checks it: the manifest must be that of the release.
    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError>;

    /// Adds somebody's signature of a release: the text of an [approval](baton_core::trust::Approval) with one signature.
    ///
    /// On return it is durable. It is one by the key that it names, whoever that is; one that is there already stays.
    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError>;

    /// What was given to [`ArtefactStore::sign`] for a release, in no order; nothing for one that is not known. Whom to
    /// believe is for who asks.
    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError>;

    /// The releases that are known, in no order.
    fn list(&self) -> Result<Vec<ReleaseId>, StoreError>;

    /// Whether something could be added now. A store that cannot tell without adding says that it could.
    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What a store makes sure of before it knows a release: that the outline is allowed, that the manifest is that of the
/// release, and that no chunk is missing. `missing` and `get` are those of the store.
pub fn complete(
    id: ReleaseId,
    outline: &[u8],
    missing: impl Fn(&[ChunkId]) -> Result<Vec<ChunkId>, StoreError>,
    get: Get<'_>,
) -> Result<(), StoreError> {
    let error = |kind| StoreError::new(kind, format!("publish release {id}"));
    let there = |ids: &[ChunkId]| match missing(ids)?.first() {
        Some(missing) => Err(error(Kind::Missing).because(format!("chunk {missing} must be put first"))),
        None => Ok(()),
    };
    let outline =
        manifest::unpack_outline(id, outline).map_err(|refused| error(Kind::Corrupt).because(refused))?;
    there(&outline.chunks().iter().map(|chunk| chunk.id).collect::<Vec<_>>())?;
    match manifest::assemble(id, &outline, Known::default(), get) {
        Ok(manifest) => there(&manifest::chunk_ids(&manifest)),
        Err(ManifestError::Read(ReadError::Store(error))) => Err(error),
        Err(refused) => Err(error(Kind::Corrupt).because(refused)),
    }
}

/// What went wrong at a store: what was attempted, which kind of failure it is, and its cause.
#[derive(Debug)]
pub struct StoreError {
    /// What kind of failure it is.
    pub kind: Kind,
    /// What was attempted, to follow "cannot": `get chunk 1f…`.
    pub attempted: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Kinds of failure of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is not there.
    Missing,
    /// Something else is there under the same name.
    Conflict,
    /// The caller may not do this.
    Denied,
    /// The store cannot be reached, is overloaded, or its disk fails.
    Unavailable,
    /// The store answers, and has no room: its disk is full or takes no writes.
    Storage,
    /// What was given or stored is not what its name says.
    Corrupt,
}

/// When it makes sense to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After a pause: nothing is wrong with what was asked.
    Later,
    /// Not before somebody has changed something.
    Never,
}

impl StoreError {
    /// A failure of this kind of what was attempted.
    pub fn new(kind: Kind, attempted: impl Into<String>) -> Self {
        Self { kind, attempted: attempted.into(), source: None }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// When it makes sense to try again.
    pub fn retry(&self) -> Retry {
        match self.kind {
            Kind::Unavailable => Retry::Later,
            Kind::Missing | Kind::Conflict | Kind::Denied | Kind::Storage | Kind::Corrupt => Retry::Never,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.kind {
            Kind::Missing => "the artefact store does not have it",
            Kind::Conflict => "the artefact store has something else under that name",
            Kind::Denied => "the artefact store does not allow it",
            Kind::Unavailable => "the artefact store is not available",
            Kind::Storage => "the artefact store's disk is full or takes no writes",
            Kind::Corrupt => "its content is not what its name says",
        };
        write!(f, "cannot {}: {why}", self.attempted)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
