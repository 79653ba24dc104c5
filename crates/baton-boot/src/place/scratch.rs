//! The folder of one run of the bootloader, in which its generations have theirs.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mark::CutOff;

/// How many names are tried: more bootloaders with one process number never share a folder.
const NAMES_TRIED: u32 = 64;

/// A folder that is ours for as long as its lock is held: the kernel lets go of it however we end, so what a
/// bootloader left that was killed can be told from what another one uses.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// None, where the file system has no locks.
    _lock: Option<File>,
    /// The last of the runs that were removed and had ended without a word.
    cut_off: Option<CutOff>,
}

impl Scratch {
    /// Makes one in this folder, and removes those of bootloaders that are gone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(all: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(all)?;
        let cut_off = remove_left(all);
        let pid = std::process::id();
        // In another pid namespace another one may have the same number.
        let names =
            std::iter::once(pid.to_string()).chain((2..NAMES_TRIED).map(|nth| format!("{pid}-{nth}")));
        for name in names {
            if let Some(scratch) = Self::take(all.join(name))? {
                return Ok(Self { cut_off, ..scratch });
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Makes one at this path; none, if somebody else has it.
    fn take(path: PathBuf) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(&path)?;
        // Whoever removes what was left may be faster, before it is opened and after.
        let folder = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match folder.try_lock() {
            Ok(()) if is_at(&folder, &path) => Ok(Some(Self { path, _lock: Some(folder), cut_off: None })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(_)) => Ok(Some(Self { path, _lock: None, cut_off: None })),
        }
    }

    /// The last of the runs here that ended without a word; once.
    pub fn take_cut_off(&mut self) -> Option<CutOff> {
        self.cut_off.take()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it with all that is in it.
    pub fn remove(&self) {
        // What cannot be removed now is when somebody else starts here.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn is_at(folder: &File, path: &Path) -> bool {
    let inode = |meta: &std::fs::Metadata| (meta.dev(), meta.ino());
    matches!((folder.metadata(), path.symlink_metadata()), (Ok(ours), Ok(there)) if inode(&ours) == inode(&there))
}

/// Removes the folders of bootloaders that are gone; the last of them that had ended without a word.
fn remove_left(all: &Path) -> Option<CutOff> {
    let mut cut_off = Vec::new();
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let path = entry.path();
        let folder = entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| File::open(&path));
        if let Some(Ok(folder)) = folder
            && folder.try_lock().is_ok()
        {
            cut_off.extend(CutOff::found_in(&path));
            let _ = std::fs::remove_dir_all(&path);
        }
    }
    cut_off.into_iter().max_by_key(|run| run.alive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_use_stays_and_what_they_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let all = folder.path().join("scratch");
        std::fs::create_dir_all(all.join("4711/1")).unwrap();
        std::fs::write(all.join("note"), "not ours").unwrap();
        let first = Scratch::make(&all).unwrap();
        std::fs::write(first.path().join("file"), "").unwrap();
        let second = Scratch::make(&all).unwrap();
        assert_ne!(first.path(), second.path());
        assert!(
            first.path().join("file").exists() && all.join("note").exists() && !all.join("4711").exists()
        );
        let left = first.path().to_owned();
        drop(first);
        let third = Scratch::make(&all).unwrap();
        assert_eq!(third.path(), left);
        assert!(!left.join("file").exists());
        third.remove();
        second.remove();
        assert_eq!(std::fs::read_dir(&all).unwrap().count(), 1);
    }
}
