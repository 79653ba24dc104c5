//! What a member relies on when it launches a release.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use baton_core::ids::{Epoch, ReleaseId};
use baton_core::run::secrets::Secret;
use baton_release::fetch::fetch;
use baton_release::manifest::verified;
use baton_release::releases::{OpenError, ReleasesDir, VerifyError};
use baton_release::store::memory::MemoryStore;

use crate::sample::{chain, left, nodes, open, push_nodes, read};

/// A member's directory with the releases of these seeds; the store is gone.
fn staged(state: &Path, seeds: &[u8]) -> Vec<ReleaseId> {
    let (store, releases) = (MemoryStore::new(), open(state));
    let stage = |seed: &u8| {
        let id = push_nodes(&nodes(*seed), &store).id;
        fetch(id, &store, &releases, &|_| {}).unwrap();
        id
    };
    seeds.iter().map(stage).collect()
}

#[test]
fn p28_the_current_and_the_previous_release_stay_launchable_without_store_or_network() {
    let dir = tempfile::tempdir().unwrap();
    let ids = staged(dir.path(), &[1, 2]);
    open(dir.path()).commit(ids[1], Epoch(7)).unwrap();

    let releases = open(dir.path());
    assert_eq!(releases.committed().unwrap().unwrap().release, ids[1]);
    for (id, seed) in ids.iter().zip([1, 2]) {
        releases.verify(*id).unwrap();
        assert_eq!(read(&releases.path(*id)), nodes(seed));
        let mut child = Command::new(releases.path(*id).join("run")).spawn().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn p24_an_altered_release_is_not_launched() {
    type Alter = fn(&Path);
    let alterations: [(&str, Alter); 10] = [
        ("has another content", |tree| {
            let mut content = fs::read(tree.join("lib/data")).unwrap();
            content[299_999] ^= 1;
            fs::write(tree.join("lib/data"), content).unwrap();
        }),
        ("has another size", |tree| fs::write(tree.join("run"), "#!/bin/sh\n").unwrap()),
        ("is missing", |tree| fs::remove_file(tree.join("lib/none")).unwrap()),
        ("has another mode", |tree| {
            fs::set_permissions(tree.join("run"), fs::Permissions::from_mode(0o4755)).unwrap();
        }),
        ("has another mode", |tree| {
            fs::set_permissions(tree.join("lib"), fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("points elsewhere", |tree| {
            fs::remove_file(tree.join("link")).unwrap();
            symlink("/etc/passwd", tree.join("link")).unwrap();
        }),
        ("is something else", |tree| {
            fs::remove_file(tree.join("run")).unwrap();
            symlink("/bin/sh", tree.join("run")).unwrap();
        }),
        ("is something else", |tree| {
            fs::rename(tree.join("lib"), tree.join("moved")).unwrap();
            symlink("moved", tree.join("lib")).unwrap();
        }),
        ("is that of release", |tree| {
            let path = tree.with_file_name("manifest");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.replace("\"true\"", "\"evil\"")).unwrap();
        }),
        ("is not on disk", |tree| fs::remove_dir_all(tree.parent().unwrap()).unwrap()),
    ];
    for (what, alter) in alterations {
        let dir = tempfile::tempdir().unwrap();
        let id = staged(dir.path(), &[1])[0];
        let releases = open(dir.path());
        alter(&releases.path(id));
        for found in [releases.verify(id).map(drop), releases.verify_full(id)] {
            let said = chain(found.as_ref().unwrap_err());
            assert!(said.contains(what), "{what}: {said}");
        }
        assert!(releases.verify_quick(id).is_err(), "{what}");
    }
}

#[test]
fn p43_secrets_that_were_kept_with_a_damaged_release_are_not_left_behind() {
    let (dir, source) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let id = push_nodes(&nodes(1), &source).id;
    let releases = open(dir.path());
    fetch(id, &source, &releases, &|_| {}).unwrap();
    releases.keep_secrets(id, &Secret::new("hunter2".to_owned())).unwrap();
    fs::write(releases.path(id).join("lib/data"), "altered").unwrap();
    fetch(id, &source, &releases, &|_| {}).unwrap();
    releases.verify(id).unwrap();
    assert!(!releases.has_kept_secrets(id));
    let damaged = dir.path().join(format!("staging/{id}.damaged"));
    let left: Vec<_> = fs::read_dir(damaged).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tree"], "a program may still run from it");
}

#[test]
fn what_was_read_of_a_release_when_it_was_laid_out_is_not_believed_of_another_manifest() {
    let (dir, source) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let id = push_nodes(&nodes(1), &source).id;
    let releases = open(dir.path());
    fetch(id, &source, &releases, &|_| {}).unwrap();
    let manifest = releases.path(id).with_file_name("manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"true\"", "\"evil\"")).unwrap();
    for _ in 0..2 {
        assert!(matches!(releases.verify(id), Err(VerifyError::Manifest(_))));
    }
    fs::write(&manifest, text).unwrap();
    releases.verify(id).unwrap();
}

#[test]
fn a_release_that_was_only_touched_is_read_once_and_launched() {
    let dir = tempfile::tempdir().unwrap();
    let id = staged(dir.path(), &[1])[0];
    let releases = open(dir.path());
    releases.verify(id).unwrap();
    let path = releases.path(id).join("lib/data");
    let content = fs::read(&path).unwrap();
    fs::write(&path, content).unwrap();
    assert!(matches!(releases.verify_quick(id), Err(VerifyError::Touched(_))));
    releases.verify(id).unwrap();
    releases.verify_quick(id).unwrap();

    drop(releases);
    let releases = open(dir.path());
    fs::remove_file(dir.path().join(format!("releases/{id}/laid-out"))).unwrap();
    assert!(matches!(releases.verify_quick(id), Err(VerifyError::Touched(_))));
    releases.verify(id).unwrap();
    releases.verify_quick(id).unwrap();
}

/// Writes down of a file of a release what it is known by now, as whoever has altered it would.
pub fn forge(home: &Path, id: ReleaseId, path: &str) {
    let text = fs::read_to_string(home.join("manifest")).unwrap();
    let index = verified(id, &text).unwrap().tree.index_of(path).unwrap();
    let found = fs::metadata(home.join("tree").join(path)).unwrap();
    let nanoseconds = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
    let parts = [
        found.ino().to_le_bytes(),
        nanoseconds(found.mtime(), found.mtime_nsec()).to_le_bytes(),
        nanoseconds(found.ctime(), found.ctime_nsec()).to_le_bytes(),
    ];
    let mut record = fs::read(home.join("laid-out")).unwrap();
    let at = record.iter().position(|byte| *byte == b'\n').unwrap() + 1 + index * 24;
    record[at..at + 24].copy_from_slice(&parts.concat());
    fs::write(home.join("laid-out"), record).unwrap();
}

#[test]
fn p38_f43_what_lies_beside_a_tree_does_not_vouch_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let id = staged(dir.path(), &[1])[0];
    let home = dir.path().join(format!("releases/{id}"));
    let path = home.join("tree/lib/data");
    let right = fs::read(&path).unwrap();
    let mut altered = right.clone();
    altered[299_999] ^= 1;
    fs::write(&path, &altered).unwrap();
    forge(&home, id, "lib/data");

    // In the next life, and in the one that has read it.
    let releases = open(dir.path());
    releases.verify_quick(id).unwrap();
    assert!(chain(&releases.verify(id).unwrap_err()).contains("has another content"));
    fs::write(&path, &right).unwrap();
    releases.verify(id).unwrap();
    fs::write(&path, &altered).unwrap();
    forge(&home, id, "lib/data");
    releases.verify_quick(id).unwrap();
    assert!(chain(&releases.verify(id).unwrap_err()).contains("has another content"));
}

#[test]
fn what_a_program_adds_to_its_tree_is_tolerated() {
    let dir = tempfile::tempdir().unwrap();
    let id = staged(dir.path(), &[1])[0];
    let releases = open(dir.path());
    fs::create_dir(releases.path(id).join("lib/__pycache__")).unwrap();
    fs::write(releases.path(id).join("lib/__pycache__/app.pyc"), "x").unwrap();
    releases.verify_quick(id).unwrap();
    releases.verify_full(id).unwrap();
}

#[test]
fn only_one_process_uses_a_directory_and_the_other_learns_which() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let Err(OpenError::Held(held)) = ReleasesDir::open(dir.path()) else { panic!("opened twice") };
    assert_eq!(held.holder, std::process::id().to_string());
    assert!(held.to_string().contains(&dir.path().join("lock").display().to_string()));
    drop(first);
    open(dir.path());
}

#[test]
fn f44_a_directory_that_others_control_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(open(&state));
    for mode in [0o777, 0o775, 0o757] {
        fs::set_permissions(state.join("releases"), fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(ReleasesDir::open(&state), Err(OpenError::Unsafe { .. })), "{mode:o}");
    }
    fs::remove_dir(state.join("releases")).unwrap();

    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    fs::write(dir.path().join("elsewhere/kept"), "").unwrap();
    fs::remove_dir(state.join("staging")).unwrap();
    symlink("../elsewhere", state.join("staging")).unwrap();
    assert!(matches!(ReleasesDir::open(&state), Err(OpenError::Unsafe { .. })));
    assert!(dir.path().join("elsewhere/kept").exists());
}

#[test]
fn f44_a_lock_that_is_a_link_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (state, victim) = (dir.path().join("state"), dir.path().join("victim"));
    fs::create_dir(&state).unwrap();
    fs::write(&victim, "precious").unwrap();
    symlink("../victim", state.join("lock")).unwrap();
    // Where others may write, nothing is touched at all; elsewhere the link is not followed.
    for (mode, is_unsafe) in [(0o777, true), (0o755, false)] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let refused = ReleasesDir::open(&state).err().unwrap();
        assert_eq!(matches!(refused, OpenError::Unsafe { .. }), is_unsafe, "{}", chain(&refused));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}

#[test]
fn what_was_half_done_is_removed_at_the_next_start_and_no_link_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(open(&state));
    fs::create_dir_all(state.join("staging/half/tree/lib")).unwrap();
    fs::write(dir.path().join("kept"), "").unwrap();
    symlink("../..", state.join("staging/half/tree/out")).unwrap();
    symlink("../../kept", state.join("staging/link")).unwrap();
    open(&state);
    assert_eq!(left(&state), [""; 0]);
    assert!(dir.path().join("kept").exists());
}
