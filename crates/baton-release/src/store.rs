//! Where releases lie, in the words of the domain.

pub mod conformance;
pub mod memory;

use std::error::Error;
use std::fmt;

use baton_core::ids::{ChunkId, ReleaseId};

/// A place that keeps releases: chunks named by their content, and manifests that name chunks.
///
/// Everything in it is named by its hash and never changes, so every method may be called twice, by several at
/// once, and again after an error, without harm. Chunks travel and lie compressed, see [`chunk`](crate::chunk).
pub trait ArtefactStore: Send + Sync {
    /// Which of these chunks the store lacks, each once.
    ///
    /// On return, those not named are in the store and stay there.
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError>;

    /// Adds a chunk in its packed form.
    ///
    /// On return, the chunk is durable and its content has been checked against its id. A chunk that is there
    /// already stays as it is.
    fn put(&self, id: ChunkId, packed: &[u8]) -> Result<(), StoreError>;

    /// A chunk in its packed form.
    ///
    /// What comes back has been checked by the store, but who uses it checks it again: there is a network between.
    fn get(&self, id: ChunkId) -> Result<Vec<u8>, StoreError>;

    /// Makes a release known, after all its chunks.
    ///
    /// On return, the release is durable and complete: manifest and every chunk. When a chunk is missing, the
    /// store says [`Kind::Missing`] and does not know the release.
    fn publish(&self, id: ReleaseId, manifest: &str) -> Result<(), StoreError>;

    /// The manifest of a release.
    ///
    /// As with [`ArtefactStore::get`], who uses it checks it against the id.
    fn manifest(&self, id: ReleaseId) -> Result<String, StoreError>;

    /// The releases that are known, in no order.
    fn list(&self) -> Result<Vec<ReleaseId>, StoreError>;
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
            Kind::Missing | Kind::Conflict | Kind::Denied | Kind::Corrupt => Retry::Never,
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
