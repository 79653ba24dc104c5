//! What somebody has given in files: read at the start, and again whenever they change, so that nobody restarts a server for it.

use std::error::Error;
use std::fs;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_release::disk::{DiskError, failed};

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
    /// They could not be looked at then.
    missed: bool,
    /// Why what is in the files now is not used.
    trouble: Option<Trouble>,
}

/// Why what is in some files is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// All that is known, for who may see what is in the files.
    pub full: String,
    /// The same without the innermost cause, which may quote them.
    pub brief: String,
}

impl Trouble {
    fn of(error: &dyn Error) -> Self {
        let full = chain(error);
        let mut inner = error;
        while let Some(cause) = inner.source() {
            inner = cause;
        }
        let brief = full.strip_suffix(&format!(": {inner}")).unwrap_or(&full).to_owned();
        Self { full, brief }
    }
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
        let known = Known { value: read()?, seen, looked: Instant::now(), missed: false, trouble: None };
        Ok(Self { paths, known: Mutex::new(known) })
    }

    /// What counts now, and why what is in the files does not, where that is something else. They are read again if they are
    /// other ones.
    pub(crate) fn get<E: Error>(&self, read: impl FnOnce() -> Result<T, E>) -> (T, Option<Trouble>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut known, read);
        (known.value.clone(), known.trouble.clone())
    }

    fn look<E: Error>(&self, known: &mut Known<T>, read: impl FnOnce() -> Result<T, E>) {
        if known.looked.elapsed() < LOOK_EVERY {
            return;
        }
        known.looked = Instant::now();
        self.look_now(known, read);
    }

    fn look_now<E: Error>(&self, known: &mut Known<T>, read: impl FnOnce() -> Result<T, E>) {
        let seen = match stamps(&self.paths) {
            Ok(seen) => seen,
            Err(error) => {
                // A moment without a file may be one in which somebody puts another one there.
                if mem::replace(&mut known.missed, true) {
                    // What comes back is read, also where it is what was there before.
                    known.seen = None;
                    known.tell(Trouble::of(&error));
                }
                return;
            }
        };
        known.missed = false;
        if known.seen.as_ref() == Some(&seen) {
            return;
        }
        known.seen = Some(seen);
        match read() {
            Ok(value) => (known.value, known.trouble) = (value, None),
            Err(error) => known.tell(Trouble::of(&error)),
        }
    }
}

impl<T> Known<T> {
    /// Something is wrong: it is said once.
    fn tell(&mut self, trouble: Trouble) {
        if self.trouble.as_ref() != Some(&trouble) {
            eprintln!("baton server: {}; what was there before is used", trouble.full);
            self.trouble = Some(trouble);
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Result<Vec<Stamp>, DiskError> {
    let stamp = |path: &PathBuf| {
        let file = fs::metadata(path).map_err(failed("look at", path))?;
        Ok((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Has the files looked at, however lately they were.
    fn look(reread: &Reread<String>, path: &Path) -> (String, Option<String>) {
        let mut known = reread.known.lock().unwrap();
        reread.look_now(&mut known, || fs::read_to_string(path));
        (known.value.clone(), known.trouble.clone().map(|trouble| trouble.full))
    }

    #[test]
    fn a_file_that_is_gone_for_longer_than_a_swap_takes_is_told_until_it_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("list"), dir.path().join("aside"));
        fs::write(&path, "one").unwrap();
        let reread = Reread::open(vec![path.clone()], || fs::read_to_string(&path)).unwrap();
        fs::rename(&path, &aside).unwrap();
        assert_eq!(look(&reread, &path), ("one".to_owned(), None), "it may be in the middle of a swap");
        let (used, trouble) = look(&reread, &path);
        let trouble = trouble.unwrap();
        assert!(used == "one" && trouble.contains("list") && trouble.contains("No such file"), "{trouble}");
        // The same file, which was read before.
        fs::rename(&aside, &path).unwrap();
        assert_eq!(look(&reread, &path), ("one".to_owned(), None));
        fs::write(&path, [0xff]).unwrap();
        let mistake = look(&reread, &path).1;
        assert!(mistake.as_ref().is_some_and(|mistake| mistake.contains("UTF-8")), "{mistake:?}");
        fs::rename(&path, &aside).unwrap();
        assert_eq!(look(&reread, &path).1, mistake);
        assert!(look(&reread, &path).1.unwrap().contains("No such file"));
        fs::rename(&aside, &path).unwrap();
        assert_eq!(look(&reread, &path).1, mistake, "it is as wrong as before");
    }

    #[test]
    fn who_may_not_see_what_is_in_a_file_is_told_of_a_mistake_without_it() {
        let error = std::io::Error::other("hunter2");
        let trouble = Trouble::of(&failed("read", "list")(error));
        assert!(trouble.full.ends_with("list: hunter2") && trouble.brief.ends_with("list"), "{trouble:?}");
    }
}
