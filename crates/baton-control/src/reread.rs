//! What somebody has given in files: read at the start, and again whenever they change, so that nobody restarts a server for it.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::chain::chain;

/// How often the files are looked at, at the most: when somebody needs what is in them, or asks what is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is in some files. What cannot be used leaves what there was.
pub(crate) struct Reread<T> {
    paths: Vec<PathBuf>,
    known: Mutex<Known<T>>,
}

/// What was read last.
struct Known<T> {
    value: T,
    /// What the files were like when they were looked at last.
    seen: Option<Vec<Stamp>>,
    looked: Instant,
    /// Why what is in the files now is not used.
    trouble: Option<String>,
}

/// By what a file is told from one that has taken its place, or was written to.
type Stamp = (u64, u64, i64, i64);

impl<T: Clone> Reread<T> {
    /// Reads the files.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn open<E>(paths: Vec<PathBuf>, read: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let seen = stamps(&paths).ok();
        let known = Known { value: read()?, seen, looked: Instant::now(), trouble: None };
        Ok(Self { paths, known: Mutex::new(known) })
    }

    /// What counts now, and why what is in the files does not, where that is something else. They are read again if they are
    /// other ones.
    pub(crate) fn get<E: Error>(&self, read: impl FnOnce() -> Result<T, E>) -> (T, Option<String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut known, read);
        (known.value.clone(), known.trouble.clone())
    }

    fn look<E: Error>(&self, known: &mut Known<T>, read: impl FnOnce() -> Result<T, E>) {
        if known.looked.elapsed() < LOOK_EVERY {
            return;
        }
        known.looked = Instant::now();
        // A moment without a file is one in which somebody puts another one there.
        let Ok(seen) = stamps(&self.paths) else { return };
        if known.seen.as_ref() == Some(&seen) {
            return;
        }
        known.seen = Some(seen);
        match read() {
            Ok(value) => (known.value, known.trouble) = (value, None),
            Err(error) => {
                let trouble = chain(&error);
                eprintln!("baton server: {trouble}; what was there before is used");
                known.trouble = Some(trouble);
            }
        }
    }
}

fn stamps(paths: &[PathBuf]) -> io::Result<Vec<Stamp>> {
    let stamp = |path: &PathBuf| {
        let file = fs::metadata(path)?;
        Ok((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
    };
    paths.iter().map(stamp).collect()
}
