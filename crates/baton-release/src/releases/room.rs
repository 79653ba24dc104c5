//! Whether the disk has room, asked before anything is created.

use baton_core::release::{Entry, EntryKind};

use super::ReleasesDir;
use crate::disk::{DiskError, failed, remove};

/// What is left free beside a release: for records, directories that grow, and a log file that must not fail.
const MARGIN_BYTES: u64 = 1 << 20;
/// The same of files and directories.
const MARGIN_INODES: u64 = 64;

/// What a release takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Needs {
    /// Adds something of a tree.
    pub(crate) fn add(&mut self, entry: &Entry) {
        /// What nearly every file system gives out at once.
        const BLOCK: u64 = 4096;
        let bytes = match &entry.kind {
            EntryKind::File(file) => file.bytes(),
            EntryKind::Dir => BLOCK,
            EntryKind::Link { .. } => 0,
        };
        self.bytes = self.bytes.saturating_add(bytes.div_ceil(BLOCK).saturating_mul(BLOCK));
        self.inodes += 1;
    }
}

/// The disk is too full for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no space left on device for it: it takes {needs} {what}, and {has} are free in the state directory; \
     give it more, or keep fewer releases"
)]
pub struct NoRoom {
    /// Of what there is too little: `bytes`, `files`.
    pub what: &'static str,
    /// How much is needed.
    pub needs: u64,
    /// How much there is.
    pub has: u64,
}

impl ReleasesDir {
    /// Makes sure that there is room. Where there is none, what was moved aside goes, though it could be copied from, then the
    /// spare tree, and then releases that need not be kept.
    /// The caller has the turn, and has taken what it makes the new release from.
    pub(crate) fn find_room(&self, needs: Needs) -> Result<Result<(), NoRoom>, DiskError> {
        if self.room(needs)?.is_err() {
            self.empty_gone()?;
        }
        let mut surplus = self.surplus()?.into_iter();
        loop {
            let Err(short) = self.room(needs)? else { return Ok(Ok(())) };
            let (id, goes) = match self.spare() {
                Some(spare) => (spare, self.spare_home(spare)),
                None => match surplus.next() {
                    Some(release) => (release, self.home(release)),
                    None => return Ok(Err(short)),
                },
            };
            let gone = self.gone();
            if self.take_away(id, &goes, &gone)? {
                remove(&gone)?;
            }
        }
    }

    /// Whether there is room as it is.
    pub(super) fn room(&self, needs: Needs) -> Result<Result<(), NoRoom>, DiskError> {
        let found =
            rustix::fs::statvfs(&self.path).map_err(failed("ask for the free space of", &self.path))?;
        let bytes = found.f_bavail.saturating_mul(found.f_frsize);
        // Some file systems have as many as there is space for, and say that they have none.
        let inodes = if found.f_files == 0 { u64::MAX } else { found.f_favail };
        Ok([("bytes", needs.bytes + MARGIN_BYTES, bytes), ("files", needs.inodes + MARGIN_INODES, inodes)]
            .into_iter()
            .find(|(_, needs, has)| needs > has)
            .map_or(Ok(()), |(what, needs, has)| Err(NoRoom { what, needs, has })))
    }
}
