//! The artefact store in a folder, by itself and behind HTTP.

mod azure;
mod bucket;
mod by_hand;
mod crash;
mod fixtures;
mod front;
mod google;
mod http;
mod pruned;
pub mod s3;

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use baton_core::run::RunSettings;
use baton_release::fetch::fetch;
use baton_release::push::{PushError, Pushed, Source, push};
use baton_release::releases::ReleasesDir;
use baton_release::store::{ArtefactStore, Kind};
use baton_store::artefact::{FolderStore, conformance};

use http::Server;

/// A directory with a few files, some of them large; one that is there already stays as it is.
fn source(dir: &Path, seed: u8) -> Source {
    if !dir.exists() {
        write(dir, seed);
    }
    Source {
        dir: dir.to_owned(),
        service: "web".parse().unwrap(),
        run: RunSettings::for_command(vec!["true".to_owned()]),
        builder: "test".to_owned(),
    }
}

fn write(dir: &Path, seed: u8) {
    fs::create_dir_all(dir.join("lib")).unwrap();
    let content: Vec<u8> = (0..300_000_u32).map(|n| ((n * u32::from(seed)) >> 7) as u8).collect();
    fs::write(dir.join("lib/large"), content).unwrap();
    fs::write(dir.join("small"), [seed]).unwrap();
}

fn push_dir(dir: &Path, seed: u8, store: &dyn ArtefactStore) -> Result<Pushed, PushError> {
    push(&source(dir, seed), store, &|_| {})
}

/// Every release that a store knows is complete and right.
fn check_all(store: &dyn ArtefactStore) -> usize {
    let ids = store.list().unwrap();
    for id in &ids {
        let dir = tempfile::tempdir().unwrap();
        let releases = ReleasesDir::open(dir.path()).unwrap();
        fetch(*id, store, &releases, &|_| {}).unwrap();
        releases.verify_full(*id).unwrap();
    }
    ids.len()
}

#[test]
fn a_folder_conforms() -> Result<(), conformance::Failure> {
    let dirs = RefCell::new(Vec::new());
    conformance::run_custody(|| {
        let dir = tempfile::tempdir().unwrap();
        let store = FolderStore::open(dir.path()).unwrap();
        dirs.borrow_mut().push(dir);
        store
    })
}

#[test]
fn a_folder_behind_http_conforms() -> Result<(), conformance::Failure> {
    let dirs = RefCell::new(Vec::new());
    conformance::run(|| {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(Arc::new(FolderStore::open(dir.path()).unwrap()));
        dirs.borrow_mut().push(dir);
        server.remote()
    })
}

#[test]
fn a_release_goes_through_http_to_a_member() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Arc::new(FolderStore::open(&dir.path().join("store")).unwrap()));
    let pushed = push_dir(&dir.path().join("source"), 1, &server.remote()).unwrap();
    let releases = ReleasesDir::open(&dir.path().join("state")).unwrap();
    let moved = fetch(pushed.id, &server.remote(), &releases, &|_| {}).unwrap();
    assert_eq!(moved.bytes_fetched, pushed.bytes_total);
    for path in ["lib/large", "small"] {
        let laid_out = fs::read(releases.path(pushed.id).join(path)).unwrap();
        assert_eq!(laid_out, fs::read(dir.path().join("source").join(path)).unwrap());
    }
    let again = push_dir(&dir.path().join("source"), 1, &server.remote()).unwrap();
    assert_eq!((again.id, again.chunks_new), (pushed.id, 0));
}

#[test]
fn f76_many_pushers_of_the_same_content_do_not_hurt_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderStore::open(&dir.path().join("store")).unwrap();
    let request = source(&dir.path().join("source"), 1);
    let ids: Vec<_> = thread::scope(|scope| {
        let push = || push(&request, &store, &|_| {}).unwrap().id;
        let pushers: Vec<_> = (0..4).map(|_| scope.spawn(push)).collect();
        pushers.into_iter().map(|pusher| pusher.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(check_all(&store), 1);
    assert_eq!(fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
}

#[test]
fn a_chunk_damaged_in_the_store_is_refused_and_the_next_push_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderStore::open(&dir.path().join("store")).unwrap();
    let pushed = push_dir(&dir.path().join("source"), 1, &store).unwrap();
    let packs = fs::read_dir(dir.path().join("store/packs")).unwrap().map(|entry| entry.unwrap().path());
    let packs: Vec<_> = packs.collect();
    assert_eq!(packs.len(), 1);
    let mut content = fs::read(&packs[0]).unwrap();
    // The first frame is that of the files, the last one has the manifest too.
    let behind = content.len() / 2;
    content[behind] ^= 1;
    fs::write(&packs[0], content).unwrap();

    let releases = ReleasesDir::open(&dir.path().join("state")).unwrap();
    fetch(pushed.id, &store, &releases, &|_| {}).unwrap_err();
    assert_eq!(releases.list().unwrap(), []);
    assert!(push_dir(&dir.path().join("source"), 1, &store).unwrap().chunks_new >= 1);
    fetch(pushed.id, &store, &releases, &|_| {}).unwrap();
}

#[test]
fn a_manifest_damaged_in_the_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderStore::open(&dir.path().join("store")).unwrap();
    let pushed = push_dir(&dir.path().join("source"), 1, &store).unwrap();
    let path = dir.path().join(format!("store/manifests/{}", pushed.id));
    let mut outline = fs::read(&path).unwrap();
    *outline.last_mut().unwrap() ^= 1;
    fs::write(&path, outline).unwrap();
    assert_eq!(store.outline(pushed.id).unwrap_err().kind, Kind::Corrupt);
    assert_eq!(store.list().unwrap(), []);
}
