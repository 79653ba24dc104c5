//! A manifest that came from elsewhere.

use std::collections::BTreeSet;

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::{Manifest, ManifestError, id_of};

/// Why a text is not the manifest of a release.
#[derive(Debug, thiserror::Error)]
pub enum ManifestRefused {
    /// It was altered, cut short, or belongs to another release.
    #[error("the text is that of release {found}, not of {id}")]
    OtherRelease {
        /// The release that was asked for.
        id: ReleaseId,
        /// The release that it is.
        found: ReleaseId,
    },
    /// It breaks a rule.
    #[error("release {id} is not allowed")]
    Rules {
        /// The release.
        id: ReleaseId,
        /// The rule.
        #[source]
        source: ManifestError,
    },
}

/// The manifest in this text, if it is that of the release and breaks no rule.
pub fn verified(id: ReleaseId, text: &str) -> Result<Manifest, ManifestRefused> {
    match id_of(text) {
        found if found == id => Manifest::parse(text).map_err(|source| ManifestRefused::Rules { id, source }),
        found => Err(ManifestRefused::OtherRelease { id, found }),
    }
}

/// The chunks of all files, each once.
pub fn chunk_ids(manifest: &Manifest) -> Vec<ChunkId> {
    let chunks = manifest.tree.files().flat_map(|(_, file)| &file.chunks);
    let ids: BTreeSet<ChunkId> = chunks.map(|chunk| chunk.id).collect();
    ids.into_iter().collect()
}
