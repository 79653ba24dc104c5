//! Writing so that a crash, a power cut or a full disk leaves the old or the new, never a mix.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What could not be done on the disk.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempted} {}", path.display())]
pub struct DiskError {
    /// What was attempted: `create`, `write`.
    pub attempted: &'static str,
    /// With what.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Turns what the system says into a [`DiskError`]; for `map_err`.
pub fn failed<E: Into<io::Error>>(
    attempted: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(E) -> DiskError {
    move |source| DiskError { attempted, path: path.as_ref().to_owned(), source: source.into() }
}

/// Writes a file that is not there yet. It is not durable before [`sync`].
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<File, DiskError> {
    let mut file = File::create_new(path).map_err(failed("create", path))?;
    file.write_all(content).map_err(failed("write", path))?;
    Ok(file)
}

/// Writes a file and makes its content durable. The name of a new file is durable only after [`sync_dir`].
pub fn write_synced(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    write_new(path, content)?.sync_all().map_err(failed("sync", path))
}

/// Makes a file or directory of ours durable: its content, or which names are in it.
pub(crate) fn sync(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))
}

/// Whether `syncfs` on this file system says so when it could not write something: the kernel must be Linux 5.8 or
/// later, and the file system one of which it is known that it passes the error on.
pub(crate) fn tells_what_it_cannot_sync(dir: BorrowedFd<'_>) -> bool {
    let known = [magic::EXT, magic::XFS, magic::BTRFS, magic::TMPFS];
    rustix::fs::fstatfs(dir).is_ok_and(|found| known.contains(&(found.f_type as u64))) && kernel() >= (5, 8)
}

/// Whether what is in a directory lies in memory and not on a disk.
pub(crate) fn is_in_memory(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|found| [magic::TMPFS, magic::RAMFS].contains(&(found.f_type as u64)))
}

/// What file systems are known by, as in linux/magic.h; ext2 to ext4 share one.
mod magic {
    pub(super) const EXT: u64 = 0xef53;
    pub(super) const XFS: u64 = 0x5846_5342;
    pub(super) const BTRFS: u64 = 0x9123_683e;
    pub(super) const TMPFS: u64 = 0x0102_1994;
    pub(super) const RAMFS: u64 = 0x8584_58f6;
}

/// The version of the kernel; `(0, 0)` where it says none.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().unwrap_or_default().split('.').map_while(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).map_or(part, |end| &part[..end]);
        digits.parse().ok()
    });
    numbers.next().zip(numbers.next()).unwrap_or_default()
}

/// Makes durable which names are in a directory.
pub fn sync_dir(path: &Path) -> Result<(), DiskError> {
    sync(path)
}

/// Gives a file a new content. On return it is durable; after an error or a crash the file has the old content
/// or the new one.
///
/// A failed sync may have thrown away what it should have written and a second one would then report success, so
/// after any error the new file is given up and never synced again.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    replace_as(path, content, 0o666)
}

/// Like [`replace`], of a file that its owner alone may read.
pub fn replace_private(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    replace_as(path, content, 0o600)
}

fn replace_as(path: &Path, content: &[u8], mode: u32) -> Result<(), DiskError> {
    let new = path.with_extension("new");
    remove(&new)?;
    let create = || OpenOptions::new().write(true).create_new(true).mode(mode).open(&new);
    let write = |mut file: File| file.write_all(content).and_then(|()| file.sync_all());
    let done = create()
        .map_err(failed("create", &new))
        .and_then(|file| write(file).map_err(failed("write", &new)))
        .and_then(|()| fs::rename(&new, path).map_err(failed("rename into place", path)));
    if done.is_err() {
        // The error to report is the first one; what is left is removed by the next attempt.
        let _ = fs::remove_file(&new);
    }
    done?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Removes a file, a link, or a directory with all that is in it, if it is there; follows no link.
pub fn remove(path: &Path) -> Result<(), DiskError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(failed("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_a_version() {
        assert!(kernel() > (3, 0), "{:?}", kernel());
    }

    #[test]
    fn a_replaced_file_has_the_new_content_and_no_neighbour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        fs::write(path.with_extension("new"), "left by a crash").unwrap();
        for content in ["one", "two"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        let missing = dir.path().join("missing/record");
        assert_eq!(replace(&missing, b"").unwrap_err().attempted, "create");
    }
}
