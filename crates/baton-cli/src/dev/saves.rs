//! Files beneath a directory that are saved.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use crate::failure::Failure;

/// After so long without another change all of it is there: editors and formatters write several files.
const SETTLED: Duration = Duration::from_millis(200);
/// Where something is written all the time, such as a log, that is not waited for.
const SETTLED_MAX: Duration = Duration::from_secs(5);

/// The directory is watched as long as the value lives.
pub struct Saves {
    changes: Receiver<notify::Result<Event>>,
    _watcher: RecommendedWatcher,
}

impl Saves {
    /// From now on.
    pub fn of(dir: &Path) -> Result<Self, Failure> {
        let (tell, changes) = mpsc::channel();
        let watch = || {
            let mut watcher = notify::recommended_watcher(tell)?;
            watcher.watch(dir, RecursiveMode::Recursive)?;
            Ok(watcher)
        };
        let watcher = watch().map_err(|source| Failure::Watch { path: dir.to_owned(), source })?;
        Ok(Self { changes, _watcher: watcher })
    }

    /// Waits until something has changed, and then until nothing more does.
    ///
    /// # Errors
    /// Changes are not told any more.
    pub fn wait(&self) -> Result<(), Failure> {
        let gone =
            || Failure::System { what: "watch the directory", source: io::ErrorKind::BrokenPipe.into() };
        let _ = self.changes.iter().find(is_change).ok_or_else(gone)?;
        let (start, mut last) = (Instant::now(), Instant::now());
        while last.elapsed() < SETTLED && start.elapsed() < SETTLED_MAX {
            match self.changes.recv_timeout(SETTLED.saturating_sub(last.elapsed())) {
                Ok(change) if is_change(&change) => last = Instant::now(),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
        Ok(())
    }
}

/// Whether something may be different now: a push reads files itself. What went wrong may hide a change.
fn is_change(change: &notify::Result<Event>) -> bool {
    change.as_ref().map_or(true, |event| !event.kind.is_access())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_saved_is_noticed_and_one_that_is_read_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lib")).unwrap();
        let path = dir.path().join("lib/code");
        std::fs::write(&path, "one").unwrap();
        let saves = Saves::of(dir.path()).unwrap();
        std::fs::read(&path).unwrap();
        // The marks come in order: whatever reading does is told before.
        std::fs::write(&path, "two").unwrap();
        let changed = saves.changes.iter().find(is_change).unwrap().unwrap();
        assert!(changed.kind.is_modify(), "{changed:?}");
        std::fs::write(&path, "three").unwrap();
        saves.wait().unwrap();
    }
}
