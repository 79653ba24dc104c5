//! A release: an immutable tree of files with its run settings, named by the hash of its manifest.
//!
//! A [`Manifest`] that exists is safe to lay out: [`TreePath`] and [`Tree`] accept only what stays inside its
//! directory and within its limits, and [`Manifest::parse`] has checked everything before anyone creates a file.

mod diff;
mod external;
mod fault;
pub mod grant;
mod health_lines;
mod libraries;
pub(crate) mod lines;
pub mod outline;
mod output_lines;
pub mod pack;
pub mod packing;
mod patch;
mod path;
mod process_lines;
mod program;
pub mod reading;
mod run_lines;
mod secret_lines;
mod socket_lines;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use alloc::string::String;

use smallvec::SmallVec;

pub use diff::{Diff, SettingChange, diff};
pub use external::{EXTERNAL_LINKS_MAX, ExternalFault, ExternalLinks, check_external};
pub use fault::{Fault, Text, TextError};
pub use libraries::{LibraryChange, Sonames, library_changes};
pub use patch::Patch;
pub use path::{DEPTH_MAX, LinkFault, NAME_BYTES_MAX, PATH_BYTES_MAX, PathFault, TreePath};
pub use program::ProgramFault;
pub use text::{MANIFEST_BYTES_MAX, service_in};
pub use tree::{ENTRIES_MAX, RELEASE_BYTES_MAX, Tree, TreeFault};

use crate::ids::{ChunkId, ReleaseId, ServiceName};
use crate::run::RunSettings;

/// Longest chunk of content in bytes: what a member, and control for each request, must be able to hold in
/// memory to check it. Cutting stays well below, so that its parameters can change without a new format.
pub const CHUNK_BYTES_MAX: u32 = 1 << 20;

/// What a release consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The service it was made for.
    pub service: ServiceName,
    /// Where it comes from.
    pub provenance: Provenance,
    /// How it wants to be run.
    pub run: RunSettings,
    /// Its files.
    pub tree: Tree,
}

impl Manifest {
    /// The release's id: the BLAKE3 hash of the manifest's text.
    pub fn id(&self) -> ReleaseId {
        id_of(&self.to_text())
    }
}

/// The id of the release whose manifest has this text.
pub fn id_of(text: &str) -> ReleaseId {
    ReleaseId::from_bytes(*blake3::hash(text.as_bytes()).as_bytes())
}

/// Where a release comes from; for people, nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// When the content was made, in milliseconds since 1970.
    pub created: u64,
    /// Who or what made the release.
    pub builder: String,
    /// The git commit, where there is one.
    pub commit: Option<Commit>,
}

/// A git commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its hash: 40 or 64 lowercase hexadecimal digits.
    pub hash: String,
    /// Whether the tree had changes that are not in the commit.
    pub dirty: bool,
}

/// One thing in a release's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is. Nothing else exists in a release: no device, fifo, socket, hard link, owner or setuid bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A regular file.
    File(File),
    /// A symbolic link that stays inside the release, or leads to one of its [`ExternalLinks`].
    Link {
        /// Where it points: relative to the directory it is in, or absolute to what is outside.
        target: String,
    },
}

/// What a file consists of. Most files are one chunk, and a release has tens of thousands of them: that one takes no memory of
/// its own.
pub type Chunks = SmallVec<[Chunk; 1]>;

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Whether it may be executed.
    pub executable: bool,
    /// Its content in order; none when it is empty.
    pub chunks: Chunks,
}

impl File {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }
}

/// A piece of a file's content, or of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// The hash of its content.
    pub id: ChunkId,
    /// Its length: 1 to [`CHUNK_BYTES_MAX`] bytes.
    pub bytes: u32,
}

/// How large a release may be. Part of the manifest, so that whoever lays it out can hold it to its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limits {
    /// All files together, in bytes.
    pub bytes: u64,
    /// The number of entries.
    pub entries: u32,
}
