//! One process at a time.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::OpenError;
use crate::disk::failed;

/// How often, and after how long each time, it is tried again when who holds the lock has ended: a child that was being started
/// when its parent was killed has a copy of the file until it is another program, or has ended too.
const TRIES: u32 = 500;
const AGAIN: Duration = Duration::from_millis(10);

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
    take_in_time(path, || thread::park_timeout(AGAIN))
}

fn take_in_time(path: &Path, mut pause: impl FnMut()) -> Result<Lock, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let mut file = options.open(path).map_err(failed("open", path))?;
    let mut tries = 0;
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK {
            return Err(failed("lock", path)(error).into());
        }
        let holder = holder(&file);
        tries += 1;
        if tries > TRIES || !holder.is_some_and(has_ended) {
            let holder = holder.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string());
            return Err(Held { path: path.to_owned(), holder }.into());
        }
        pause();
    }
    let pid = std::process::id();
    file.set_len(0).and_then(|()| writeln!(file, "{pid}")).map_err(failed("write", path))?;
    Ok(Lock(file))
}

/// Who wrote itself down, if anybody has.
fn holder(file: &File) -> Option<i32> {
    // A process number has at most 7 digits on Linux.
    let mut text = [0; 10];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

/// Whether there is no such process any more. With this process's own number it was another one's, as in a container that was
/// started again.
fn has_ended(pid: i32) -> bool {
    let runs = |pid| test_kill_process(pid) != Err(Errno::SRCH);
    std::process::id() == pid.cast_unsigned() || !Pid::from_raw(pid).is_some_and(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock that somebody else has a copy of, and in which a process of this number wrote itself down.
    fn held_by(path: &Path, pid: i32) -> File {
        let mut file = File::create(path).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        writeln!(file, "{pid}").unwrap();
        file
    }

    #[test]
    fn p28_who_has_ended_is_waited_for_and_who_runs_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let (ended, own) = (child.id().cast_signed(), std::process::id().cast_signed());
        for pid in [ended, own] {
            let mut copy = Some(held_by(&path, pid));
            let lock = take_in_time(&path, || drop(copy.take())).unwrap();
            assert_eq!(holder(&lock.0), Some(own));
        }
        let told = |holder: i32| format!("{} is held by process {holder}", path.display());
        for (pid, pauses) in [(std::os::unix::process::parent_id().cast_signed(), 0), (ended, TRIES)] {
            let _copy = held_by(&path, pid);
            let mut paused = 0;
            let Err(OpenError::Held(held)) = take_in_time(&path, || paused += 1) else { panic!("{pid}") };
            assert!(held.to_string().starts_with(&told(pid)), "{held}");
            assert_eq!(paused, pauses);
        }
    }
}
