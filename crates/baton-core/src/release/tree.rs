//! The entries of a release, checked against each other and against the release's limits.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::external::ExternalLinks;
use super::path::{LinkFault, TreePath};
use super::{CHUNK_BYTES_MAX, Entry, EntryKind, File, Limits};

/// Most entries of a release: ten times a large tree; the list still fits in memory many times over.
pub const ENTRIES_MAX: u32 = 400_000;
/// Most bytes of a release: beyond it, it is a data set, not a program.
pub const RELEASE_BYTES_MAX: u64 = 32 << 30;

/// Entries that can be laid out in their order, each once, all inside, within limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    limits: Limits,
    external: ExternalLinks,
    bytes: u64,
    entries: Vec<Entry>,
}

/// Why an entry does not fit into a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeFault {
    /// The limits themselves are too wide.
    #[error("a release has at most {RELEASE_BYTES_MAX} bytes and {ENTRIES_MAX} entries")]
    LimitsTooWide,
    /// The same path again.
    #[error("{0:?} is listed twice")]
    Duplicate(TreePath),
    /// Entries are sorted by the bytes of their path.
    #[error("{path:?} is listed after {before:?}; entries are sorted by their bytes")]
    Unsorted {
        /// The entry that came too late.
        path: TreePath,
        /// The one before it.
        before: TreePath,
    },
    /// The directory it is in does not exist.
    #[error("the directory of {0:?} is not listed before it")]
    NoParent(TreePath),
    /// It would be written through a link, or beneath a file.
    #[error("{path:?} is beneath {parent:?}, which is a {kind}")]
    ParentNotDir {
        /// The entry.
        path: TreePath,
        /// What it is beneath.
        parent: String,
        /// What that is.
        kind: &'static str,
    },
    /// A link that is not allowed.
    #[error("the link {path:?} to {target:?} is not allowed")]
    Link {
        /// The link.
        path: TreePath,
        /// Where it points.
        target: String,
        /// Why not.
        #[source]
        fault: LinkFault,
    },
    /// A chunk that is empty or too long.
    #[error("a chunk of {path:?} has {bytes} bytes; chunks have 1 to {CHUNK_BYTES_MAX}")]
    ChunkLength {
        /// The file.
        path: TreePath,
        /// The chunk's length.
        bytes: u32,
    },
    /// More entries than the limits say.
    #[error("{path:?} is one entry more than the release's limit of {entries}")]
    TooManyEntries {
        /// The entry.
        path: TreePath,
        /// The limit.
        entries: u32,
    },
    /// More bytes than the limits say.
    #[error("with {path:?} the release has more bytes than its limit of {bytes}")]
    TooManyBytes {
        /// The entry.
        path: TreePath,
        /// The limit.
        bytes: u64,
    },
}

impl Tree {
    /// A tree without entries, that may grow to these limits, and whose links may lead to these places outside.
    pub fn new(limits: Limits, external: ExternalLinks) -> Result<Self, TreeFault> {
        if limits.bytes > RELEASE_BYTES_MAX || limits.entries > ENTRIES_MAX {
            return Err(TreeFault::LimitsTooWide);
        }
        // What is not used of it takes no memory: nobody writes to it.
        let entries = Vec::with_capacity(limits.entries as usize);
        Ok(Self { limits, external, bytes: 0, entries })
    }

    /// A tree of these entries, with limits that fit exactly, and without a link that leads outside.
    pub fn of(entries: Vec<Entry>) -> Result<Self, TreeFault> {
        Self::reaching(ExternalLinks::default(), entries)
    }

    /// The same, with links that may lead to these places outside.
    pub fn reaching(external: ExternalLinks, entries: Vec<Entry>) -> Result<Self, TreeFault> {
        let limits = Limits {
            bytes: entries.iter().map(Entry::bytes).sum(),
            entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        };
        let mut tree = Self::new(limits, external)?;
        entries.into_iter().try_for_each(|entry| tree.add(entry))?;
        Ok(tree)
    }

    /// Adds the next entry, which must come after all others in the order of their bytes.
    pub fn add(&mut self, entry: Entry) -> Result<(), TreeFault> {
        self.check_place(&entry.path)?;
        self.check_kind(&entry)?;
        let path = &entry.path;
        let Limits { bytes, entries } = self.limits;
        if self.entries.len() >= entries as usize {
            let path = path.clone();
            return Err(TreeFault::TooManyEntries { path, entries });
        }
        self.bytes = self.bytes.saturating_add(entry.bytes());
        if self.bytes > bytes {
            let path = path.clone();
            return Err(TreeFault::TooManyBytes { path, bytes });
        }
        self.entries.push(entry);
        Ok(())
    }

    fn check_place(&self, path: &TreePath) -> Result<(), TreeFault> {
        if let Some(last) = self.entries.last() {
            match last.path.cmp(path) {
                Ordering::Less => {}
                Ordering::Equal => return Err(TreeFault::Duplicate(path.clone())),
                Ordering::Greater => {
                    let (path, before) = (path.clone(), last.path.clone());
                    return Err(TreeFault::Unsorted { path, before });
                }
            }
        }
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        // Nearly all follow their directory, or something else that is in it, however deep: that was found to be beneath it.
        let follows = |last: &Entry| match last.path.as_str().strip_prefix(parent) {
            Some("") => last.kind == EntryKind::Dir,
            Some(rest) => rest.starts_with('/'),
            None => false,
        };
        if self.entries.last().is_some_and(follows) {
            return Ok(());
        }
        // A parent that is missing may be so because it would be beneath a file or a link: name that one.
        let nearest = core::iter::successors(Some(parent), |at| at.rsplit_once('/').map(|(up, _)| up))
            .find_map(|at| self.get(at));
        match nearest {
            Some(above) if above.kind != EntryKind::Dir => Err(TreeFault::ParentNotDir {
                path: path.clone(),
                parent: above.path.to_string(),
                kind: above.kind.word(),
            }),
            Some(above) if above.path.as_str() == parent => Ok(()),
            Some(_) | None => Err(TreeFault::NoParent(path.clone())),
        }
    }

    fn check_kind(&self, entry: &Entry) -> Result<(), TreeFault> {
        let path = &entry.path;
        match &entry.kind {
            EntryKind::Dir => Ok(()),
            EntryKind::Link { target } if self.external.allow(target) => Ok(()),
            EntryKind::Link { target } => path.may_link_to(target).map_err(|fault| TreeFault::Link {
                path: path.clone(),
                target: target.clone(),
                fault,
            }),
            EntryKind::File(file) => {
                let odd = |bytes: &u32| !(1..=CHUNK_BYTES_MAX).contains(bytes);
                match file.chunks.iter().map(|chunk| chunk.bytes).find(odd) {
                    None => Ok(()),
                    Some(bytes) => Err(TreeFault::ChunkLength { path: path.clone(), bytes }),
                }
            }
        }
    }

    /// All entries, sorted by path: a directory comes before what is in it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The same, for who needs no tree any more.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// All files with their paths, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&TreePath, &File)> {
        self.entries.iter().filter_map(|entry| match &entry.kind {
            EntryKind::File(file) => Some((&entry.path, file)),
            EntryKind::Dir | EntryKind::Link { .. } => None,
        })
    }

    /// The entry with this path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.index_of(path).map(|index| &self.entries[index])
    }

    /// The number in [`Tree::entries`] of the entry with this path.
    pub fn index_of(&self, path: &str) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()
    }

    /// How large the release may be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Where its links may lead to outside.
    pub fn external(&self) -> &ExternalLinks {
        &self.external
    }

    /// The size of all files together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        match &self.kind {
            EntryKind::File(file) => file.bytes(),
            EntryKind::Dir | EntryKind::Link { .. } => 0,
        }
    }
}

impl EntryKind {
    /// What it is, as people call it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Dir => "directory",
            Self::File(_) => "file",
            Self::Link { .. } => "link",
        }
    }
}
