//! Where releases lie, in the words of the domain.

pub mod conformance;
pub mod interrupted;
pub mod memory;
mod seen;

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use baton_core::ids::{BuildKey, ChunkId, PackId, ReleaseId};
use baton_core::release::pack::{Frame, Index};

use crate::manifest::{self, ManifestError};
use crate::pack;
use crate::read::{Get, ReadError, Source};
pub use seen::Seen;

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

    /// The same, after what [`ArtefactStore::get`] brought was damaged: from the store itself, which looks whether it is what it
    /// keeps that is damaged.
    fn get_checked(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        self.get(ids)
    }

    /// Makes a release known, or known anew, by its packed [outline](crate::manifest::pack_outline), after all its chunks.
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

    /// The packed outline of a release's manifest, and a pack with parts of that manifest that the releases `here` lack: as
    /// many as fit, and none where that would be no faster.
    ///
    /// A hint for who has those releases: what is missing of the manifest is got as usual.
    fn outline_since(&self, id: ReleaseId, here: &[ReleaseId]) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let _ = here;
        Ok((self.outline(id)?, pack::join(Vec::new())))
    }

    /// The releases that are known, in no order.
    fn list(&self) -> Result<Vec<ReleaseId>, StoreError>;
}

/// What the keeper of a store can do besides, and lets nobody else do.
pub trait Custody: ArtefactStore {
    /// Where the frames that hold these chunks lie, and for `ttl` the right to read them there.
    ///
    /// As with [`ArtefactStore::get`], of what does not fit into one pack it is the first, and at least one. When a chunk is
    /// not there, the store says [`Kind::Missing`]. The frames have not been looked at.
    fn grant(&self, ids: &[ChunkId], ttl: Duration) -> Result<Vec<Granted>, StoreError>;

    /// These bytes of a pack, as they lie there: not checked, and fewer where the pack ends before.
    fn read(&self, pack: PackId, range: Range<u64>) -> Result<Vec<u8>, StoreError>;

    /// The releases that are known, and since when, in no order.
    fn releases(&self) -> Result<Vec<StoredRelease>, StoreError>;

    /// The packs that are there, in no order.
    fn packs(&self) -> Result<Vec<StoredPack>, StoreError>;

    /// Makes a release unknown. Its packs and signatures stay: the same release may be pushed again.
    ///
    /// To be removed is what no deploy in force, no parent of one, no tag and no member that may come back to it names. On
    /// return, nobody finds it; who reads it at this moment goes on. One that is not known is no error.
    fn remove_release(&self, id: ReleaseId) -> Result<(), StoreError>;

    /// Removes a pack. What other packs hold of it is found there from then on. One that is not there is no error.
    ///
    /// To be removed is a pack none of whose chunks a known release or the record of a build step names, and which is older
    /// than any push takes: a push brings the packs first, and counts on those that it was told are there. It comes after the
    /// last release that named it, with nothing published between the look at the releases and the removal (see
    /// [`collect`](crate::collect)). A push that had counted on it finds out when it publishes, and brings it again.
    fn remove_pack(&self, id: PackId) -> Result<(), StoreError>;

    /// Sets a damaged pack aside. Those of its frames that are not damaged stay, in a new one; what is not there any more is
    /// missing from then on, so that the next push of it brings it again. One that is not there is no error.
    fn salvage(&self, id: PackId) -> Result<(), StoreError>;

    /// Keeps where the outputs of a build step are, under the step's key and in the place of what was kept there: the text of a
    /// [record](crate::record), which the store does not look at.
    ///
    /// On return it is durable. Unlike all else it says nothing of itself that could be checked, and is no promise: what it leads
    /// to may have gone.
    fn keep_record(&self, key: BuildKey, record: &str) -> Result<(), StoreError>;

    /// What was given to [`Custody::keep_record`] last for a key.
    fn record(&self, key: BuildKey) -> Result<String, StoreError>;

    /// The keys under which there is a record, in no order.
    fn records(&self) -> Result<Vec<StoredRecord>, StoreError>;

    /// Forgets what is kept under a key. One that is not there is no error.
    fn remove_record(&self, key: BuildKey) -> Result<(), StoreError>;

    /// Whether something could be added now. A store that cannot tell without adding says that it could.
    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Frames of a pack that may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The pack.
    pub pack: PackId,
    /// Where anybody may read it with a range request; `None` where only [`Custody::read`] can.
    pub url: Option<String>,
    /// The frames, and where each lies in the pack.
    pub frames: Vec<(Frame, Range<u64>)>,
}

/// A pack in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPack {
    /// Which.
    pub id: PackId,
    /// What lies in it.
    pub index: Index,
    /// Since when, by the clock of whoever keeps it.
    pub since: SystemTime,
}

/// A release in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredRelease {
    /// Which.
    pub id: ReleaseId,
    /// When it was last published, by the clock of whoever keeps it.
    pub since: SystemTime,
}

/// The record of a build step in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredRecord {
    /// Of which step.
    pub key: BuildKey,
    /// When it was last kept, by the clock of whoever keeps it.
    pub since: SystemTime,
}

/// What a store makes sure of before it knows a release: that the outline is allowed, that the manifest is that of the
/// release, and that no chunk is missing. `missing` and `get` are those of the store; `losses` tells how often
/// it has lost or removed something, of which `missing` takes notice. What was `seen` before and cannot have gone since is not
/// looked at again.
pub fn complete(
    id: ReleaseId,
    outline: &[u8],
    seen: &Seen,
    losses: impl Fn() -> u64,
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
    if seen.has(id, &outline, losses()) {
        return Ok(());
    }
    let mut before = seen.take(&outline, losses());
    match manifest::assemble(id, &outline, &mut before.known, Source::Inside(get)) {
        Ok(assembled) => {
            there(&before.doubtful(&assembled))?;
            seen.keep(before, id, outline, assembled);
            Ok(())
        }
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
