//! That one server at a time has a data directory, whatever the state store is: two of them would write one audit log, and each
//! would take what the other has written for a change by somebody else.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use baton_release::disk::{DiskError, failed};

/// The file that is locked. Nothing is in it.
const FILE: &str = "lock";

/// Why a directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another server has it.
    #[error(
        "cannot use the data directory {}: another server has it open, stop that one or use another directory",
        .0.display()
    )]
    Taken(PathBuf),
    /// The disk fails.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A directory that no other server gets. It is free again when this ends, also with the process.
#[derive(Debug)]
pub(crate) struct Claim {
    /// None where it cannot be locked.
    _file: Option<File>,
}

impl Claim {
    /// Takes a directory, before anything in it is read or written.
    ///
    /// # Errors
    /// Another server has it, or the disk fails.
    pub(crate) fn take(data_dir: &Path) -> Result<Self, ClaimError> {
        let path = data_dir.join(FILE);
        let file = match File::options().create(true).truncate(false).write(true).open(&path) {
            Ok(file) => file,
            // A server starts on a full disk, also where none has ever locked it.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                return Ok(Self { _file: None });
            }
            Err(error) => return Err(failed("create", &path)(error).into()),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(ClaimError::Taken(data_dir.to_owned())),
            // A file system without locks is none that two servers are kept from.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                Ok(Self { _file: None })
            }
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once_and_free_again_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(dir.path()).unwrap();
        let refused = Claim::take(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&*dir.path().to_string_lossy()) && refused.contains("use another"),
            "{refused}"
        );
        drop(claim);
        Claim::take(dir.path()).unwrap();
    }
}
