//! Giving back to a store what it lacks of the releases on a member's disk.
//!
//! The directory is only read, so whoever uses it goes on. Nothing of it is believed: a manifest has the hash of its release, and
//! what is sent of a file has the hash of a chunk that is missing. So what a program has done to its own files stays where it is.

use std::fs;
use std::path::{Path, PathBuf};

use baton_core::ids::{ReleaseId, ServiceName};
use baton_core::release::outline::Outlined;
use baton_core::trust;

use crate::disk::{DiskError, failed};
use crate::manifest::{self, ManifestRefused, pack_outline};
use crate::push::{PushError, Step};
use crate::releases::{approvals_in, complete_in, ids_in};
use crate::store::{ArtefactStore, Kind, StoreError};
use crate::upload::{Asked, Sent, Upload};

/// What a store was given back of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenBack {
    /// Whose release it is.
    pub service: ServiceName,
    /// Chunks of files that were missing, and how long they are together, in bytes.
    pub chunks: usize,
    /// See `chunks`.
    pub bytes: u64,
    /// What travelled for them and for missing parts of the manifest, in bytes: the packs.
    pub bytes_sent: u64,
    /// How many packs those were; none when nothing was missing but perhaps the name of the release.
    pub packs: u64,
}

/// Why a release was not given back.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The member's disk fails, or the release has gone from there.
    #[error("the release cannot be read here")]
    Disk(#[from] DiskError),
    /// The manifest was altered on the member's disk.
    #[error("the manifest was altered here too: another member may have it")]
    Manifest(#[from] ManifestRefused),
    /// A file was altered on the member's disk, and the store lacks its content.
    #[error("{} was altered here, and the store lacks it: another member may have it", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read, packed or stored.
    #[error("the release cannot be given back")]
    Push(#[source] PushError),
    /// The store fails.
    #[error("the release cannot be given back")]
    Store(#[from] StoreError),
}

impl From<PushError> for RepairError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Changed { path } => Self::Altered { path },
            PushError::Store(error) => Self::Store(error),
            other => Self::Push(other),
        }
    }
}

/// The releases in a member's directory, in the order of their ids.
///
/// # Errors
/// It is no such directory.
pub fn releases_in(state: &Path) -> Result<Vec<ReleaseId>, DiskError> {
    let mut ids = ids_in(&complete_in(state))?;
    ids.sort_unstable();
    Ok(ids)
}

/// Gives a store what it lacks of a release in a member's directory: chunks, the manifest, its name, and who has vouched for it.
///
/// On return the release is durable and complete in the store. What a store has and is damaged is not noticed here: see
/// [`check`](crate::check).
///
/// # Errors
/// What is missing is not there as it should be, or the store fails. What was sent until then stays there.
pub fn give_back(
    id: ReleaseId,
    state: &Path,
    store: &dyn ArtefactStore,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<GivenBack, RepairError> {
    let home = complete_in(state).join(id.to_string());
    let path = home.join("manifest");
    let text = fs::read(&path).map_err(failed("read", &path))?;
    // What is not text is not the manifest of any release, and neither is nothing.
    let text = String::from_utf8(text).unwrap_or_default();
    let manifest = manifest::verified(id, &text)?;
    let outlined = Outlined::of(&text);
    let packed = pack_outline(&outlined.top).map_err(PushError::Outline)?;
    let dir = home.join("tree");
    let upload = Upload { dir: &dir, tree: &manifest.tree, outlined: &outlined, store, progress };
    let Sent { content: bytes, chunks, bytes: bytes_sent, packs } = upload.run(Asked::All)?;
    store.publish(id, &packed)?;
    for approval in trust::approvals(&approvals_in(&home)?) {
        match store.sign(id, approval) {
            // Whoever wrote that, it is no signature of this release.
            Err(error) if error.kind == Kind::Corrupt => {}
            done => done?,
        }
    }
    Ok(GivenBack { service: manifest.service, chunks, bytes, bytes_sent, packs })
}
