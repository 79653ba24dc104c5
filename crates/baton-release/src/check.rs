//! Whether what a store has is what it should be: every pack, every outline, every chunk.
//!
//! One pack is held in memory at a time. What is damaged is set aside, as when somebody reads it, so that the next push of
//! the same content brings it again.

use baton_core::ids::{ChunkId, PackId, ReleaseId};
use baton_core::release::pack::PACK_BYTES_MAX;

use crate::manifest::{self, ManifestError, unpack_outline};
use crate::pack::{Pack, PackError};
use crate::read::ReadError;
use crate::store::{Custody, Kind, StoreError};

/// What is wrong with something in a store.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A pack is not the one that its name says.
    #[error("its content is that of pack {found}")]
    OtherPack {
        /// The pack that it is.
        found: PackId,
    },
    /// A pack is none, or a chunk in it is not what its name says.
    #[error("what lies there is damaged")]
    Pack(#[from] PackError),
    /// A release's manifest is not there any more, or damaged.
    #[error("its manifest cannot be read")]
    Manifest(#[source] ManifestError),
    /// Chunks of a release are not there any more.
    #[error("{lacking} of its chunks are missing, the first is {first}")]
    Chunks {
        /// How many.
        lacking: usize,
        /// One of them.
        first: ChunkId,
    },
}

/// Reads a whole pack, and says how long it is and what is wrong with it. One that is gone meanwhile has no bytes.
pub fn pack(store: &dyn Custody, id: PackId) -> Result<(u64, Option<Damage>), StoreError> {
    let bytes = match store.read(id, 0..PACK_BYTES_MAX as u64) {
        Err(error) if error.kind == Kind::Missing => return Ok((0, None)),
        read => read?,
    };
    let damage = match PackId::of(&bytes) {
        found if found != id => Some(Damage::OtherPack { found }),
        _ => Pack::open(&bytes).and_then(|pack| pack.verify()).err().map(Damage::from),
    };
    if damage.is_some() {
        store.salvage(id)?;
    }
    Ok((bytes.len() as u64, damage))
}

/// Says what is wrong with a release: whether its manifest can be read, and all of its chunks are there.
pub fn release(store: &dyn Custody, id: ReleaseId) -> Result<Option<Damage>, StoreError> {
    let read = || {
        let outline = unpack_outline(id, &store.outline(id).map_err(ReadError::from)?)?;
        manifest::leads_to(id, &outline, store)
    };
    let chunks = match read() {
        Ok(chunks) => chunks,
        Err(ManifestError::Read(ReadError::Store(error)))
            if !matches!(error.kind, Kind::Missing | Kind::Corrupt) =>
        {
            return Err(error);
        }
        Err(error) => return Ok(Some(Damage::Manifest(error))),
    };
    let missing = store.missing(&chunks)?;
    Ok(missing.first().map(|first| Damage::Chunks { lacking: missing.len(), first: *first }))
}
