//! What was not changed is not read again, and what was changed is, however well it hides that.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use baton_core::run::RunSettings;
use baton_release::push::{Prepared, PushError, Reading, Source, Step, Wanted, prepare};
use baton_release::store::memory::MemoryStore;

use crate::sample::{nodes, write};

/// A directory that is pushed again and again.
struct Place {
    _home: tempfile::TempDir,
    source: PathBuf,
    caches: PathBuf,
}

/// How long it may take until the changes of files are old enough to be remembered.
const LIMIT: Duration = Duration::from_secs(60);

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (source, caches) = (home.path().join("source"), home.path().join("caches"));
        write(&source, &nodes(1));
        fs::create_dir(&caches).unwrap();
        Self { _home: home, source, caches }
    }

    /// Reads the directory; tells how many bytes of it had to be read.
    fn read(&self) -> (Prepared, u64) {
        let source = Source {
            dir: self.source.clone(),
            service: "web".parse().unwrap(),
            run: RunSettings::for_command(vec!["true".to_owned()]),
            builder: "test".to_owned(),
        };
        let reading =
            Reading { wanted: Wanted::default(), stat_caches: Some(self.caches.clone()), portable: false };
        let bytes = AtomicU64::new(0);
        let prepared = prepare(&source, &reading, &|step| {
            if let Step::Cut { bytes: more } = step {
                bytes.fetch_add(more, Ordering::Relaxed);
            }
        });
        (prepared.unwrap(), bytes.into_inner())
    }

    /// Reads it until nothing of it has to be read any more.
    fn settle(&self) -> Prepared {
        let start = Instant::now();
        loop {
            match self.read() {
                (prepared, 0) => return prepared,
                _ => assert!(start.elapsed() < LIMIT, "it is read anew every time"),
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.source.join(name)
    }
}

/// Writes a file, and makes it look as it was changed then.
fn write_at(path: &Path, content: &[u8], modified: SystemTime) {
    fs::write(path, content).unwrap();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(modified))
        .unwrap();
}

#[test]
fn only_what_was_changed_is_read_again() {
    let place = Place::new();
    let before = place.settle();
    let run = fs::read(place.file("run")).unwrap();
    let modified = fs::metadata(place.file("run")).unwrap().modified().unwrap();
    let other = String::from_utf8(run.clone()).unwrap().replace("60", "61").into_bytes();

    write_at(&place.file("run"), &other, modified);
    let (after, bytes) = place.read();
    assert_eq!(bytes, run.len() as u64, "as long as before and with the same time, but another one");
    assert_ne!(after.id(), before.id());

    write_at(&place.file("run"), &run, modified);
    let (again, _) = place.read();
    assert_eq!(again.manifest().tree, before.manifest().tree);
}

#[test]
fn a_file_in_the_place_of_another_is_another() {
    let place = Place::new();
    let before = place.settle();
    let (one, other) = (place.file("run"), place.file("other"));
    let modified = fs::metadata(&one).unwrap().modified().unwrap();
    let content = String::from_utf8(fs::read(&one).unwrap()).unwrap().replace("60", "62");
    write_at(&other, content.as_bytes(), modified);
    fs::rename(&other, &one).unwrap();
    let (after, bytes) = place.read();
    assert_eq!(bytes, content.len() as u64);
    assert_ne!(after.manifest().tree, before.manifest().tree);
}

#[test]
fn what_was_remembered_and_is_damaged_is_read_anew() {
    let place = Place::new();
    let before = place.settle();
    let cache = fs::read_dir(&place.caches).unwrap().next().unwrap().unwrap().path();
    let right = fs::read(&cache).unwrap();
    for wrong in [right[..right.len() / 2].to_vec(), b"\xff".to_vec(), right.to_ascii_uppercase()] {
        fs::write(&cache, wrong).unwrap();
        let (again, bytes) = place.read();
        assert_eq!((again.id(), bytes), (before.id(), before.manifest().tree.bytes()));
    }
    let (_, bytes) = place.read();
    assert_eq!(bytes, 0, "and is remembered again");
}

#[test]
fn a_file_that_changes_between_reading_and_sending_is_not_believed_again() {
    let place = Place::new();
    let prepared = place.settle();
    fs::write(place.file("run"), "#!/bin/sh\n").unwrap();
    let error = prepared.send(&MemoryStore::new(), &|_| {}).unwrap_err();
    assert!(matches!(error, PushError::Changed { .. }), "{error}");
    assert_eq!(fs::read_dir(&place.caches).unwrap().count(), 0);
}
