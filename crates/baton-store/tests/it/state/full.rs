//! A state store on a disk that is really full.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use baton_core::event::{Event, What};
use baton_core::fleet::Heard;
use baton_core::history::{Lock, Proposal, Wish};
use baton_core::units::Millis;
use baton_store::state::{EmbeddedStore, Kind, StateError, StateStore};

use super::{NOW, reopened, rollout, web};
use crate::small_disk;

/// Far more events than a small disk has room for.
const EVENTS: usize = 100_000;

#[test]
fn p29_a_store_on_a_full_disk_says_so_and_goes_on_once_there_is_space() {
    match small_disk::disk() {
        Some(disk) => on_small_disk(&disk),
        None => {
            let test = "state::full::p29_a_store_on_a_full_disk_says_so_and_goes_on_once_there_is_space";
            small_disk::again(test, "size=8m");
        }
    }
}

fn on_small_disk(disk: &Path) {
    let path = disk.join("state.redb");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let first = store.propose(&web(), rollout(1, None), NOW).unwrap().deploy;
    let filler = disk.join("filler");
    fill(&filler);
    append_until_refused(&store);
    let events = store.events(None, 0, usize::MAX).unwrap();

    for _ in 0..3 {
        is_full(&store.propose(&web(), rollout(2, Some(first.id)), NOW).unwrap_err(), &path);
        is_full(&store.append(vec![event()]).unwrap_err(), &path);
        is_full(&store.ready().unwrap_err(), &path);
    }
    let names = fs::read_dir(disk).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.count(), 3, "nothing is left of the attempts");
    let held = store.service(&web(), NOW).unwrap();
    assert_eq!(held.history().in_force(), Some(&first), "what was refused has not happened");
    assert_eq!(store.events(None, 0, usize::MAX).unwrap(), events);
    let said = reopened::report(1, 1, None, baton_core::report::Standing::Behind);
    assert_eq!(store.hear(&web(), said, NOW).unwrap(), Heard::News, "members are still heard");

    // What stops harm has space of its own, more than once.
    let lock = Lock { reason: "because".to_owned(), actor: "ada".to_owned(), since: 1 };
    store.set_lock(&web(), Some(lock.clone())).unwrap();
    assert_eq!(store.service(&web(), NOW).unwrap().history().lock(), Some(&lock));
    let halt = Proposal { wish: Wish::Halt { hand_back: false }, ..rollout(7, Some(first.id)) };
    let halt = store.propose(&web(), halt, NOW).unwrap().deploy;
    assert_eq!(store.service(&web(), NOW).unwrap().history().in_force(), Some(&halt));

    fs::remove_file(&filler).unwrap();
    store.ready().unwrap();
    store.set_lock(&web(), None).unwrap();
    let second = store.propose(&web(), rollout(2, Some(halt.id)), NOW).unwrap().deploy;
    store.append(vec![event()]).unwrap();
    assert!(path.with_extension("reserve").exists(), "it is kept for the next time");
    let held = store.service(&web(), NOW).unwrap();
    assert_eq!((held.history().past().len(), held.history().in_force()), (3, Some(&second)));
    drop(store);

    let store = EmbeddedStore::open(&path, NOW).unwrap();
    let found = store.service(&web(), NOW).unwrap();
    assert_eq!(found.history(), held.history());
    assert_eq!(found.fleet().members().count(), 1);
    assert_eq!(store.events(None, 0, usize::MAX).unwrap().len(), events.len() + 1);
}

/// Takes all the space that there is.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let error = loop {
        if let Err(error) = file.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

/// There may be room left within the file, but not for ever.
fn append_until_refused(store: &EmbeddedStore) {
    let refused = (0..EVENTS / 100).find_map(|_| store.append(vec![event(); 100]).err());
    assert_eq!(refused.map(|error| error.kind()), Some(Kind::Unavailable));
}

fn event() -> Event {
    let text = "something happened that takes a line to tell".to_owned();
    Event { at: 1, service: web(), deploy: None, member: None, what: What::Deployed, text }
}

fn is_full(error: &StateError, path: &Path) {
    assert!(matches!(error, StateError::DiskFull { .. }), "{error}");
    let wanted = format!(
        "cannot write the state store {}: its disk is full, free some space there and try again",
        path.display()
    );
    assert_eq!(error.to_string(), wanted);
    assert!(error.source().unwrap().to_string().contains("kB are needed"), "{error:?}");
}
