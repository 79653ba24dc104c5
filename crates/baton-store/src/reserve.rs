//! Space on the disk that is kept for halting, going back and revoking: what stops harm must not fail because something has
//! filled the disk.
//!
//! It is a file that nobody reads, beside the one that it is kept for. When there is no room for a write that only stops
//! something, it is removed, and there is room for that file to be written anew. It is made again as soon as there is space.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// How much more is kept than what the file takes when it is written anew: for what is written meanwhile.
const BEYOND: u64 = 1 << 20;

/// The file that is kept, and the one that it is kept for, whose size it follows.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    kept_for: PathBuf,
}

impl Reserve {
    /// For this file. Nothing is kept yet.
    pub fn of(file: &Path) -> Self {
        Self { path: file.with_extension("reserve"), kept_for: file.to_owned() }
    }

    /// Keeps as much as the file needs now, as far as there is space; nothing for one that is not there. Blocks; it is quick
    /// where enough is kept.
    pub fn keep(&self) {
        let Some(needed) = self.lacking() else { return };
        // A part of it would take space from others and be of no use.
        if self.take(needed).is_err() {
            self.release();
        }
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let file = File::options().create(true).append(true).open(&self.path)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
    }

    /// How many bytes should be kept now, where they are not.
    pub fn lacking(&self) -> Option<u64> {
        let needed = fs::metadata(&self.kept_for).ok()?.len().saturating_add(BEYOND);
        let is_kept = fs::metadata(&self.path).is_ok_and(|kept| kept.is_file() && kept.len() >= needed);
        (!is_kept).then_some(needed)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it away, and says whether there was any.
    pub fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_grows_with_the_store_takes_real_space_and_is_given_away_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.redb");
        let reserve = Reserve::of(&state);
        reserve.keep();
        assert!(!reserve.release() && reserve.lacking().is_none(), "there is no store");
        for size in [1 << 20, 3 << 20] {
            fs::write(&state, vec![1; size]).unwrap();
            assert_eq!(reserve.lacking(), Some(size as u64 + BEYOND));
            reserve.keep();
            assert_eq!(reserve.lacking(), None);
            let kept = fs::metadata(dir.path().join("state.reserve")).unwrap();
            assert!(kept.len() > size as u64 && kept.blocks() * 512 >= kept.len(), "{kept:?}");
        }
        assert!(reserve.release() && !reserve.release());
    }
}
