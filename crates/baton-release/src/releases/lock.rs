//! One process at a time.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::OpenError;
use crate::disk::failed;

/// Another process holds the lock.
#[derive(Debug, thiserror::Error)]
#[error("{} is held by process {holder}: stop it, or use another directory", path.display())]
pub struct Held {
    /// The lock.
    pub path: PathBuf,
    /// The process that holds it, as it wrote itself down.
    pub holder: String,
}

/// The lock; it is free again when this is dropped or the process ends, however that happens.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing the file would be enough, were there not children between fork and exec, which have a copy of it.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the lock, or says who has it. Where it is a link it is refused: its target would be written to.
pub(super) fn take(path: &Path) -> Result<Lock, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let mut file = options.open(path).map_err(failed("open", path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(Held { path: path.to_owned(), holder: holder(&file) }.into()),
        Err(error) => return Err(failed("lock", path)(error).into()),
    }
    let pid = std::process::id();
    file.set_len(0).and_then(|()| writeln!(file, "{pid}")).map_err(failed("write", path))?;
    Ok(Lock(file))
}

fn holder(file: &File) -> String {
    /// A process number has at most 7 digits on Linux.
    const PID_BYTES_MAX: u64 = 10;
    let mut text = String::new();
    match file.take(PID_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => text.trim().to_owned(),
        Ok(_) | Err(_) => "(unknown)".to_owned(),
    }
}
