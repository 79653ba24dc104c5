//! The note that a run keeps while it lasts: whoever finds it later knows that the run has ended without a word.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use baton_core::ids::DeployId;
use baton_core::output::time::UnixMicros;
use baton_core::supervisor::{Supervisor, Ticket, TrialState};
use baton_core::words::Words;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::admin;
use crate::log;

/// Its name in the folder of the run.
const NAME: &str = "running";
/// How long changes are collected, so that a handover is one note.
const SETTLED: Duration = Duration::from_millis(100);
/// How often it is touched though nothing changes: so well is known when the run has ended.
const ALIVE_EVERY: Duration = Duration::from_secs(60);
/// How long the end of the run waits for a note that is on its way, and how often it looks.
const LET_GO: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// More is not read: a program may have written there.
const BYTES_MAX: u64 = 4096;

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Note {
    /// The generations and how they stand.
    pub ran: String,
    /// The deploy whose release is on trial.
    pub trial: Option<DeployId>,
    /// Whether the kernel kills all that is here at once when memory runs out.
    pub together: bool,
}

/// A run that has ended without a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// When it certainly still ran.
    pub alive: SystemTime,
    /// What it ran; nothing, if that cannot be read.
    pub ran: Words,
    /// The deploy whose release was on trial.
    pub trial: Option<DeployId>,
    /// Whether the kernel would have killed all that was there at once.
    pub together: bool,
}

/// Keeps the note of this run.
#[derive(Debug)]
pub struct Mark {
    path: PathBuf,
    notes: watch::Sender<Option<Note>>,
    /// Whether the run has ended: nothing is written any more. A lock, as the note is put there by another thread.
    ended: Arc<Mutex<bool>>,
}

impl Note {
    /// What runs now.
    pub fn of(machine: &Supervisor, together: bool) -> Self {
        let one = |generation: &baton_core::supervisor::Generation| {
            let state = admin::state(generation.state);
            format!("generation {} ({}) {state}", generation.id, generation.plan.release)
        };
        let ran: Vec<String> = machine.generations().iter().map(one).collect();
        let trial = match machine.status().trial {
            Some((Ticket::Deploy { id, .. }, TrialState::Trying | TrialState::Proving)) => Some(id),
            _ => None,
        };
        Self { ran: ran.join(", "), trial, together }
    }

    fn text(&self) -> String {
        let trial = self.trial.map(|deploy| deploy.to_string());
        json!({ "ran": self.ran, "trial": trial, "together": self.together }).to_string()
    }
}

impl CutOff {
    /// The one that has left its note in this folder.
    pub fn found_in(folder: &Path) -> Option<Self> {
        let file = fs::File::open(folder.join(NAME)).ok()?;
        let alive = file.metadata().and_then(|found| found.modified()).ok()?;
        let mut text = String::new();
        // After a power cut there may be nothing in it.
        let _ = file.take(BYTES_MAX).read_to_string(&mut text);
        let note: Value = serde_json::from_str(&text).unwrap_or_default();
        Some(Self {
            alive,
            ran: Words::new(note["ran"].as_str().unwrap_or_default()),
            trial: note["trial"].as_str().and_then(|deploy| deploy.parse().ok()),
            together: note["together"] == true,
        })
    }

    /// When it certainly still ran, for people.
    pub fn alive(&self) -> UnixMicros {
        let since = self.alive.duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// The deploy whose release was on trial, where all that was here went at once as it does when memory runs out. Whoever
    /// else killed it, or a power cut, cannot be told from that there; where groups do not go together, the kernel would not
    /// have taken the bootloader, and nobody is blamed.
    pub fn killed_in(&self) -> Option<DeployId> {
        self.trial.filter(|_| self.together)
    }

    /// The same in a sentence.
    pub fn told(&self) -> String {
        let ran = if self.ran.is_empty() { "what it ran is not known" } else { "it ran " };
        let together = if self.together {
            "; the kernel kills all that is here at once when memory runs out (memory.oom.group)"
        } else {
            ""
        };
        format!(
            "the run before this one was cut off, not long after {}: {ran}{}{together}",
            self.alive(),
            self.ran
        )
    }
}

impl Mark {
    /// For a run whose folder this is. Nothing is written yet.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join(NAME), notes: watch::Sender::new(None), ended: Arc::default() }
    }

    /// Takes note of what runs.
    pub fn note(&self, note: Note) {
        self.notes.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&note);
            *known = Some(note);
            changed
        });
    }

    /// Starts to write down what is noted, in a thread that may wait for a disk.
    pub fn keep(&self) {
        let (mut notes, path, ended) = (self.notes.subscribe(), self.path.clone(), self.ended.clone());
        // What was noted before counts as well.
        notes.mark_changed();
        tokio::spawn(async move {
            let mut told = false;
            loop {
                if let Ok(Err(_)) = tokio::time::timeout(ALIVE_EVERY, notes.changed()).await {
                    return;
                }
                tokio::time::sleep(SETTLED).await;
                let Some(note) = notes.borrow_and_update().clone() else { continue };
                let (path, ended) = (path.clone(), ended.clone());
                let written = spawn_blocking(move || put(&path, &note, &ended)).await;
                if let Ok(Err(error)) = &written
                    && !told
                {
                    log::say(format_args!("what runs cannot be noted for the next start: {error}"));
                }
                // A disk that is full now may have room when the next note is due.
                told = matches!(written, Ok(Err(_)));
            }
        });
    }

    /// The run has ended, and says so: there is no note any more, and none comes. A disk that hangs with a note on its way
    /// holds nobody up; then the next start finds that.
    pub fn end(&self) {
        let Some(mut ended) = lock_within(&self.ended, LET_GO) else { return };
        *ended = true;
        let _ = fs::remove_file(&self.path);
    }
}

/// Puts a note in the place of the one before, unless the run has ended. Nothing waits for it to be on the disk itself: only a
/// power cut needs that, and loses then what it says, not that there was one.
fn put(path: &Path, note: &Note, ended: &Mutex<bool>) -> io::Result<()> {
    let new = path.with_extension("new");
    let written = fs::File::create(&new).and_then(|mut file| file.write_all(note.text().as_bytes()));
    let ended = lock(ended);
    if *ended {
        // The folder goes with the run: that nothing can be written there any more is no trouble.
        let _ = fs::remove_file(new);
        return Ok(());
    }
    written.and_then(|()| fs::rename(new, path))
}

fn lock(ended: &Mutex<bool>) -> MutexGuard<'_, bool> {
    ended.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_within(ended: &Mutex<bool>, limit: Duration) -> Option<MutexGuard<'_, bool>> {
    let until = Instant::now() + limit;
    loop {
        match ended.try_lock() {
            Ok(ended) => return Some(ended),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return None,
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(LOOK_EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until this is so, while everything else goes on.
    async fn until(so: impl Fn() -> bool) {
        while !so() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_note_that_could_not_be_written_is_followed_by_others() {
        let folder = tempfile::tempdir().unwrap();
        // Nothing can be put in the place of a folder.
        let obstacle = folder.path().join(NAME).join("obstacle");
        fs::create_dir_all(&obstacle).unwrap();
        let mark = Mark::new(folder.path());
        mark.note(note("first"));
        mark.keep();
        let new = folder.path().join(NAME).with_extension("new");
        until(|| fs::read_to_string(&new).is_ok_and(|text| text.contains("first"))).await;
        fs::remove_dir_all(folder.path().join(NAME)).unwrap();
        mark.note(note("second"));
        until(|| CutOff::found_in(folder.path()).is_some_and(|found| found.ran.as_str() == "second")).await;
    }

    #[test]
    fn the_end_of_a_run_does_not_wait_for_a_disk_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path());
        let hangs = lock(&mark.ended);
        mark.end();
        assert!(!*hangs);
    }

    fn note(ran: &str) -> Note {
        Note { ran: ran.to_owned(), trial: None, together: false }
    }

    #[test]
    fn what_is_put_is_found_and_nothing_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path());
        assert_eq!(CutOff::found_in(folder.path()), None);
        let deploy = DeployId::from_bytes([7; 16]);
        for trial in [None, Some(deploy)] {
            put(
                &mark.path,
                &Note { trial, together: true, ..note("generation 1 (image) serving") },
                &mark.ended,
            )
            .unwrap();
            let found = CutOff::found_in(folder.path()).unwrap();
            assert_eq!((found.ran.as_str(), found.trial), ("generation 1 (image) serving", trial));
            assert_eq!(found.killed_in(), trial);
            assert_eq!(CutOff { together: false, ..found }.killed_in(), None);
        }
        mark.end();
        put(&mark.path, &note("too late"), &mark.ended).unwrap();
        assert_eq!(CutOff::found_in(folder.path()), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_note_that_comes_when_the_run_and_its_folder_are_gone_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path());
        folder.close().unwrap();
        assert!(put(&mark.path, &note("there is no folder"), &mark.ended).is_err());
        mark.end();
        put(&mark.path, &note("too late"), &mark.ended).unwrap();
    }

    #[test]
    fn whatever_is_in_it_it_says_that_a_run_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        for (text, ran) in [
            ("", ""),
            ("{\"ran\":", ""),
            ("[1]", ""),
            ("{\"ran\":7,\"trial\":\"x\",\"together\":1}", ""),
            ("{\"ran\":\"a\\u001b[2J\\nb\",\"trial\":\"0\"}", "a [2J b"),
        ] {
            fs::write(folder.path().join(NAME), text).unwrap();
            let found = CutOff::found_in(folder.path()).unwrap();
            assert_eq!((found.ran.as_str(), found.trial, found.together), (ran, None, false), "{text}");
        }
        fs::write(folder.path().join(NAME), [0xff; 10_000]).unwrap();
        assert!(CutOff::found_in(folder.path()).unwrap().ran.is_empty());
    }

    #[test]
    fn it_is_told_in_a_line() {
        let alive = UNIX_EPOCH + Duration::from_secs(86_400);
        let mut found =
            CutOff { alive, ran: Words::new("generation 1 (image) serving"), trial: None, together: false };
        let begin = "the run before this one was cut off, not long after 1970-01-02T00:00:00.000000Z: ";
        assert_eq!(found.told(), format!("{begin}it ran generation 1 (image) serving"));
        found.together = true;
        found.ran = Words::default();
        let group = "the kernel kills all that is here at once when memory runs out (memory.oom.group)";
        assert_eq!(found.told(), format!("{begin}what it ran is not known; {group}"));
    }
}
