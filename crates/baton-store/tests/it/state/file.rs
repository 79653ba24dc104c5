//! Files that are not as this version wrote them.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use baton_core::event::{Event, What};
use baton_core::history::{Lock, Tag};
use baton_core::ids::ReleaseId;
use baton_core::units::Millis;
use baton_store::state::{EmbeddedStore, Kind, StateError, StateStore};
use redb::{Database, ReadableTable, TableDefinition};
use tempfile::TempDir;

use super::{NOW, rollout, web};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const DEPLOYS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("deploys");

/// How many bytes are damaged, one in each copy.
const SAMPLES: usize = 60;

/// A store with two deploys and an event, closed.
fn written() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let first = store.propose(&web(), rollout(1, None), NOW).unwrap().deploy;
    store.propose(&web(), rollout(2, Some(first.id)), NOW).unwrap();
    let (deploy, text) = (Some(first.id), "release 1 is being deployed".to_owned());
    let event = Event { at: 1, service: web(), deploy, member: None, what: What::Deployed, text };
    store.append(vec![event]).unwrap();
    (directory, path)
}

/// Why the file cannot be opened: the error and its causes in one line.
fn refused(path: &Path) -> (Kind, String) {
    let error = EmbeddedStore::open(path, Millis::ZERO).err().unwrap();
    let (kind, mut text) = (error.kind(), error.to_string());
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    (kind, text)
}

#[test]
fn a_second_server_is_told_that_the_store_is_in_use() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let (kind, text) = refused(&path);
    assert_eq!(kind, Kind::Unavailable);
    assert!(text.contains("another server has it open"), "{text}");
    drop(store);
    EmbeddedStore::open(&path, Millis::ZERO).unwrap();
}

#[test]
fn a_directory_that_is_not_there_is_an_error_that_names_it() {
    let (kind, text) = refused(Path::new("/nowhere/at/all/state.redb"));
    assert_eq!(kind, Kind::Unavailable);
    assert!(text.contains("cannot create /nowhere/at/all/state.redb"), "{text}");
}

#[test]
fn the_store_of_a_newer_version_is_refused_and_left_alone() {
    let (_directory, path) = written();
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("schema", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (kind, text) = refused(&path);
    assert_eq!(kind, Kind::Denied);
    assert!(text.contains("a newer baton has written it (schema 7, this one knows 5)"), "{text}");
}

#[test]
fn the_store_of_an_older_version_is_read_and_raised_with_the_next_deploy() {
    let (_directory, path) = written();
    let set = |schema: Option<u64>| {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(META).unwrap();
        if let Some(schema) = schema {
            table.insert("schema", schema).unwrap();
        }
        let found = table.get("schema").unwrap().map(|found| found.value());
        drop(table);
        transaction.commit().unwrap();
        found
    };
    set(Some(1));
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let in_force = store.service(&web(), NOW).unwrap().history().in_force().map(|deploy| deploy.id);
    assert_eq!(set_aside(store, || set(None)), Some(1));
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    store.propose(&web(), rollout(3, in_force), NOW).unwrap();
    assert_eq!(set_aside(store, || set(None)), Some(5));
    set(Some(2));
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let lock = Lock { reason: "freeze".into(), actor: "kim".into(), since: 7 };
    store.set_lock(&web(), Some(lock.clone())).unwrap();
    assert_eq!(set_aside(store, || set(None)), Some(5), "an older version would lose the lock");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    assert_eq!(store.service(&web(), NOW).unwrap().history().lock(), Some(&lock));
    store.set_lock(&web(), None).unwrap();
    assert_eq!(set_aside(store, || set(Some(2))), Some(2));
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let release = ReleaseId::from_bytes([9; 32]);
    let tag = Tag { release, actor: "kim".into(), since: 7 };
    store.set_tag(&web(), &"production".parse().unwrap(), Some(tag)).unwrap();
    assert_eq!(set_aside(store, || set(None)), Some(5), "an older version would lose the tag");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    assert_eq!(store.service(&web(), NOW).unwrap().history().tagged("production"), Some(release));
}

/// Closes a store, and looks at its file.
fn set_aside<T>(store: EmbeddedStore, look: impl FnOnce() -> T) -> T {
    drop(store);
    look()
}

#[test]
fn p36_what_is_not_a_store_is_an_error_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    for garbage in [&b""[..], b"x", b"redb", &[0; 4096], &b"not a database at all ".repeat(100_000)] {
        fs::write(&path, garbage).unwrap();
        let (kind, text) = refused(&path);
        assert_eq!(kind, Kind::Corrupt, "{text}");
        assert!(text.contains("put a backup in its place"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), garbage);
    }
}

#[test]
fn p36_a_damaged_record_is_named() {
    let (_directory, path) = written();
    for (record, wrong) in [
        (&b"\xff\xff"[..], "it is not a protobuf message"),
        (b"", "its field deploy is missing"),
        (b"\x0a\x00", "its field deploy.kind is missing"),
    ] {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(DEPLOYS).unwrap().insert(("web", 2), record).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let (kind, text) = refused(&path);
        assert_eq!(kind, Kind::Corrupt);
        assert!(text.contains("deploy 2 of web is damaged") && text.contains(wrong), "{text}");
    }
}

#[test]
fn p36_a_log_with_a_hole_is_an_error() {
    let (_directory, path) = written();
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(DEPLOYS).unwrap().remove(("web", 1)).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (kind, text) = refused(&path);
    assert_eq!(kind, Kind::Corrupt);
    assert!(text.ends_with("its parent is not the deploy before it"), "{text}");
}

#[test]
fn p36_a_file_with_a_damaged_byte_is_an_error_or_unharmed() {
    let (directory, path) = written();
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let history = store.service(&web(), NOW).unwrap().history().clone();
    let events = store.events(None, 0, 9).unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let copy = directory.path().join("copy.redb");
    let used: Vec<usize> = pages_with_rows(&whole).filter(|&at| whole[at] != 0).collect();
    let mut refused = 0;
    for &at in used.iter().step_by(used.len() / SAMPLES) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&copy, damaged).unwrap();
        match EmbeddedStore::open(&copy, Millis::ZERO) {
            Ok(store) => {
                assert_eq!(store.service(&web(), NOW).unwrap().history(), &history, "byte {at}");
                assert_eq!(store.events(None, 0, 9).unwrap(), events, "byte {at}");
            }
            Err(StateError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(refused > 0, "some of it was in use");
}

/// The bytes of all pages that hold or held something of the service; the rest of the file is book-keeping.
fn pages_with_rows(file: &[u8]) -> impl Iterator<Item = usize> {
    const PAGE: usize = 4096;
    let holds = |(_, page): &(usize, &[u8])| page.windows(3).any(|part| part == b"web");
    file.chunks(PAGE)
        .enumerate()
        .filter(holds)
        .flat_map(|(index, page)| (0..page.len()).map(move |at| index * PAGE + at))
}

#[test]
fn p36_a_file_that_was_cut_short_is_an_error() {
    let (directory, path) = written();
    let whole = fs::read(&path).unwrap();
    let copy = directory.path().join("copy.redb");
    for eighth in 0..8 {
        fs::write(&copy, &whole[..whole.len() * eighth / 8]).unwrap();
        let (kind, text) = refused(&copy);
        assert_eq!(kind, Kind::Corrupt, "{eighth} of 8: {text}");
    }
}
