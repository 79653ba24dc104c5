//! Releases that were stored before are read for ever: the files of `fixtures/v1`, byte by byte.

use std::fs;
use std::path::{Path, PathBuf};

use baton_core::ids::{ReleaseId, ServiceName};
use baton_core::release::id_of;
use baton_core::release::outline::{Lists, Outlined};
use baton_core::release::pack::Index;
use baton_core::trust::{Approval, Judge, Moment, Signed, TrustedKeys, Warrant};
use baton_release::fetch::fetch;
use baton_release::manifest::{self, Known};
use baton_release::releases::ReleasesDir;
use baton_release::signing::verify;
use baton_release::store::{ArtefactStore, Kind};
use baton_store::artefact::FolderStore;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// A copy, since a store moves away what it finds damaged.
fn copied(into: &Path) {
    for dir in ["packs", "manifests"] {
        fs::create_dir_all(into.join(dir)).unwrap();
        for entry in fs::read_dir(fixtures().join("store").join(dir)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, into.join(dir).join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn releases_of_version_1_are_read_and_laid_out() {
    let dir = tempfile::tempdir().unwrap();
    copied(dir.path());
    let store = FolderStore::open(dir.path()).unwrap();
    let releases = ReleasesDir::open(&dir.path().join("state")).unwrap();
    let mut ids: Vec<ReleaseId> = store.list().unwrap();
    ids.sort_unstable();
    let expected = names(&fixtures().join("store/manifests"));
    assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    assert_eq!(ids.len(), 3);
    let mut nested = 0;
    for id in ids {
        let text = manifest::read(id, &store, Known::default()).unwrap().to_text();
        assert_eq!(id_of(&text), id, "a manifest is written as it was");
        let outline = manifest::unpack_outline(id, &store.outline(id).unwrap()).unwrap();
        assert_eq!(Outlined::of(&text).top, outline, "and cut as it was");
        nested += usize::from(outline.lists() == Lists::Outline);
        fetch(id, &store, &releases, &|_| {}).unwrap();
        // Every file is what the manifest says, by its hash.
        releases.verify_full(id).unwrap();
    }
    assert_eq!(nested, 1, "the outline of one is long enough for one of its own");
}

#[test]
fn indexes_of_version_1_are_written_as_they_were() {
    for name in names(&fixtures().join("store/packs")) {
        let bytes = fs::read(fixtures().join("store/packs").join(name)).unwrap();
        let (index, length) = Index::parse(&bytes, bytes.len() as u64).unwrap();
        assert_eq!(index.to_text().as_bytes(), &bytes[..length]);
    }
}

#[test]
fn signed_texts_of_version_1_are_read_as_they_were() {
    let read = |name: &str| fs::read_to_string(fixtures().join("signed").join(name)).unwrap();
    let (approval, warrant) = (read("approval"), read("warrant"));
    let service: ServiceName = "web".parse().unwrap();
    let list = |threshold: u32| {
        let keys = Signed::<Warrant>::parse(&warrant).unwrap();
        let keys = keys.signatures().iter().enumerate();
        let keys: String =
            keys.map(|(n, one)| format!("key k{n} {} releases,deploys web\n", one.key)).collect();
        TrustedKeys::parse(&format!(
            "baton-trusted-keys 1\nthreshold releases 1\nthreshold deploys {threshold}\n{keys}"
        ))
        .unwrap()
    };
    for (threshold, allowed) in [(2, true), (3, false)] {
        let keys = list(threshold);
        let judge = Judge { keys: &keys, service: &service, verify: &verify };
        let signed = Signed::<Warrant>::parse(&warrant).unwrap();
        assert_eq!(judge.signatures(&signed, Moment::Kept).is_ok(), allowed);
        assert_eq!(judge.launch(signed.of.release, &approval, Some(&warrant)).is_ok(), allowed);
        assert_eq!(signed.to_text(), warrant);
        let flipped = warrant.replace("epoch 12", "epoch 13");
        let flipped = Signed::<Warrant>::parse(&flipped).unwrap();
        assert!(judge.signatures(&flipped, Moment::Kept).is_err());
    }
    assert_eq!(Signed::<Approval>::parse(&approval).unwrap().to_text(), approval);
}

#[test]
fn a_store_of_version_2_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    copied(dir.path());
    for name in names(&dir.path().join("packs")) {
        let path = dir.path().join("packs").join(name);
        let mut bytes = fs::read(&path).unwrap();
        assert_eq!(&bytes[..13], b"baton-pack 1\n");
        bytes[11] = b'2';
        let refused = baton_release::pack::Pack::open(&bytes).unwrap_err();
        let reason =
            std::error::Error::source(&refused).and_then(std::error::Error::source).unwrap().to_string();
        assert_eq!(reason, "this is version \"2\" of the format; this program reads 1: update it");
        fs::write(&path, bytes).unwrap();
    }
    let store = FolderStore::open(dir.path()).unwrap();
    assert_eq!(
        names(&dir.path().join("packs")),
        names(&fixtures().join("store/packs")),
        "nothing is moved away"
    );
    for id in store.list().unwrap() {
        let outline = store.outline(id).unwrap();
        assert_eq!(store.publish(id, &outline).unwrap_err().kind, Kind::Missing);
    }
}
