//! What is done when nothing is urgent: old releases go, and a spare tree is made.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use baton_core::ids::ReleaseId;
use baton_core::retention::{self, Kept};

use super::{RecordError, ReleasesDir, VerifyError};
use crate::disk::{DiskError, failed, remove};

/// What must stay on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// What runs, and what shall run.
    pub held: BTreeSet<ReleaseId>,
    /// So many of the others: those that were proven last.
    pub proven: usize,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// The releases that are gone.
    pub gone: Vec<ReleaseId>,
    /// The spare tree is that of this release now, and was not before.
    pub spare: Option<ReleaseId>,
}

impl ReleasesDir {
    /// Says what must stay. Before it is said for the first time, everything does.
    pub fn keep(&self, keep: Keep) {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(keep);
    }

    /// Removes the releases that need not be kept, and makes a spare tree for the next one, of one of those where it can.
    /// Whoever wants a release that is not on disk waits for it; it takes as long as writing a release.
    pub fn upkeep(&self) -> Result<Upkeep, VerifyError> {
        let turn = self.turn();
        let surplus = self.surplus()?;
        // Proven last: the most like the one that is committed.
        let spare = self.make_spare(surplus.last().copied())?;
        for release in surplus.iter().filter(|release| self.has(**release)) {
            // Nobody ever sees half of it.
            self.take_away(*release, &self.home(*release), &self.gone())?;
        }
        let wanted = self.begun().filter(|begun| self.is_held(*begun));
        self.remove_begun(wanted)?;
        let gone = surplus.into_iter().filter(|release| !self.has(*release)).collect();
        drop(turn);
        self.clear()?;
        Ok(Upkeep { gone, spare })
    }

    /// Whether a release was said to be wanted; before anything is said, everything is.
    fn is_held(&self, release: ReleaseId) -> bool {
        let keep = self.keep.lock().unwrap_or_else(PoisonError::into_inner);
        keep.as_ref().is_none_or(|keep| keep.held.contains(&release))
    }

    /// The releases that may go, those first that shall go first. The caller has the turn.
    ///
    /// # Errors
    /// The disk does not say which there are, or which must stay. What is damaged is another matter: it will not be otherwise
    /// the next time.
    pub(super) fn surplus(&self) -> Result<Vec<ReleaseId>, DiskError> {
        let Some(keep) = self.keep.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(Vec::new());
        };
        let committed = match self.committed() {
            Ok(committed) => committed.map(|committed| committed.release),
            Err(RecordError::Disk(error)) => return Err(error),
            // Which one must stay is not known.
            Err(_) => return Ok(Vec::new()),
        };
        let kept = |release| {
            let held = keep.held.contains(&release) || committed == Some(release);
            Ok(Kept { release, proven: self.read_proven(release)?, held })
        };
        let on_disk: Vec<Kept> = self.list()?.into_iter().map(kept).collect::<Result<_, DiskError>>()?;
        Ok(retention::surplus(&on_disk, keep.proven))
    }

    /// Removes what is about to go.
    fn clear(&self) -> Result<(), DiskError> {
        entries(&self.staging())?.iter().filter(|path| is_gone(path)).try_for_each(|path| remove(path))
    }

    /// Removes what is in it; somebody may be about to move more there.
    pub(super) fn empty_gone(&self) -> Result<(), DiskError> {
        for gone in entries(&self.staging())?.iter().filter(|path| is_gone(path)) {
            entries(gone)?.iter().try_for_each(|path| remove(path))?;
        }
        Ok(())
    }
}

fn is_gone(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"gone-"))
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let entry = |entry: io::Result<DirEntry>| entry.map(|entry| entry.path()).map_err(failed("list", dir));
    fs::read_dir(dir).map_err(failed("list", dir))?.map(entry).collect()
}
