//! The next release is made from a tree that is there, and is none the worse for it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use baton_core::ids::{Epoch, ReleaseId};
use baton_release::fetch::{Fetched, Way, fetch};
use baton_release::releases::{Keep, ReleasesDir, VerifyError};
use baton_release::store::memory::MemoryStore;
use proptest::prelude::*;

use crate::round_trip::any_nodes;
use crate::sample::{Nodes, chain, file, left, nodes, noise, open, push_nodes, read};

/// A member that runs one release after the other.
struct Member {
    dir: tempfile::TempDir,
    store: MemoryStore,
    releases: ReleasesDir,
    epoch: u64,
}

impl Member {
    fn new() -> Self {
        // Not among temporary files, which may be in memory: there no spare tree is made by copying.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let releases = open(&dir.path().join("state"));
        Self { dir, store: MemoryStore::new(), releases, epoch: 0 }
    }

    fn get(&self, nodes: &Nodes) -> (ReleaseId, Fetched) {
        let id = push_nodes(nodes, &self.store).id;
        (id, fetch(id, &self.store, &self.releases, &|_| {}).unwrap())
    }

    /// Gets a release, proves it and puts the disk in order.
    fn run(&mut self, nodes: &Nodes, keep: usize) -> (ReleaseId, Fetched) {
        let (id, fetched) = self.get(nodes);
        self.releases.verify(id).unwrap();
        self.epoch += 1;
        self.releases.commit(id, Epoch(self.epoch)).unwrap();
        self.releases.keep(Keep { held: BTreeSet::from([id]), proven: keep });
        self.releases.upkeep().unwrap();
        (id, fetched)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn spare(&self) -> PathBuf {
        let mut spares = fs::read_dir(self.state().join("spare")).unwrap();
        spares.next().expect("there is a spare tree").unwrap().path().join("tree")
    }

    /// The member comes back.
    fn restart(self) -> Self {
        let Self { dir, store, releases, epoch } = self;
        drop(releases);
        let releases = open(&dir.path().join("state"));
        Self { dir, store, releases, epoch }
    }
}

/// A tree with enough in it that what is patched differs from what is not.
fn many(version: u8) -> Nodes {
    let mut many = nodes(7);
    many.extend((0..50).map(|n| (format!("lib/{n}.js"), file(&noise(n, 3000)))));
    many.insert("lib/changed.js".to_owned(), file(&noise(100 + version, 3000)));
    many
}

/// What a program leaves in its tree.
fn leave_rubbish(tree: &Path) {
    fs::create_dir_all(tree.join("lib/__pycache__/deep")).unwrap();
    fs::write(tree.join("lib/__pycache__/deep/x.pyc"), "x").unwrap();
    fs::write(tree.join("log"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", tree.join("empty/link")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_tree_a_release_is_made_from_it_is_what_was_pushed(
        trees in proptest::collection::vec(any_nodes(), 2..5),
        keep in 0..2_usize,
    ) {
        let mut member = Member::new();
        for nodes in &trees {
            let (id, _) = member.run(nodes, keep);
            prop_assert_eq!(&read(&member.releases.path(id)), nodes);
            member.releases.verify_quick(id).unwrap();
            member.releases.verify_full(id).unwrap();
            prop_assert_eq!(&read(&member.spare()), nodes);
        }
        prop_assert!(left(&member.state()).len() <= 1 + keep);
    }
}

#[test]
fn a_release_costs_what_changed() {
    let mut member = Member::new();
    assert_eq!(member.run(&many(1), 3).1.way, Way::Created);
    for version in 2..6 {
        let (id, fetched) = member.run(&many(version), 3);
        let kept = many(version).len() - 1;
        assert_eq!(fetched, Fetched { way: Way::Patched { kept }, bytes_fetched: 3000, bytes_copied: 0 });
        assert_eq!(read(&member.releases.path(id)), many(version));
    }
    // The second of two in a row, for which nothing was prepared, is made of the first, as nobody wants that any more.
    let (first, _) = member.get(&many(6));
    let (second, fetched) = member.get(&many(7));
    assert!(matches!(fetched.way, Way::Patched { .. }));
    assert!(!member.releases.has(first) && member.releases.has(second));
    member.releases.verify_full(second).unwrap();
}

#[test]
fn content_that_moves_is_copied_and_not_fetched() {
    let mut member = Member::new();
    let mut tree = many(1);
    member.run(&tree, 0);
    let data = tree.remove("lib/data").unwrap();
    tree.insert("data".to_owned(), data);
    let (id, fetched) = member.run(&tree, 0);
    assert_eq!((fetched.bytes_fetched, fetched.bytes_copied), (0, 300_000));
    assert_eq!(read(&member.releases.path(id)), tree);
}

#[test]
fn what_a_program_leaves_behind_is_not_in_the_next_release() {
    let mut member = Member::new();
    // Of a release that is no longer kept, in the background; of the spare tree itself after a restart; and of a
    // release that is taken as it is.
    for version in 1..4 {
        let (id, _) = member.run(&many(version), 0);
        leave_rubbish(&member.releases.path(id));
    }
    leave_rubbish(&member.spare());
    let mut member = member.restart();
    let (id, fetched) = member.run(&many(4), 0);
    assert!(matches!(fetched.way, Way::Patched { .. }));
    assert_eq!(read(&member.releases.path(id)), many(4));
    let (id, _) = member.get(&many(5));
    leave_rubbish(&member.releases.path(id));
    let (id, fetched) = member.get(&many(6));
    assert!(matches!(fetched.way, Way::Patched { .. }));
    assert_eq!(read(&member.releases.path(id)), many(6));
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn p24_what_was_altered_in_a_tree_is_never_launched_as_another_release() {
    for restarts in [false, true] {
        let mut member = Member::new();
        member.run(&many(1), 0);
        let altered = member.spare().join("lib/7.js");
        let mut content = fs::read(&altered).unwrap();
        content[100] ^= 1;
        fs::write(&altered, &content).unwrap();
        if restarts {
            member = member.restart();
        }
        let (id, _) = member.get(&many(2));
        match member.releases.verify(id) {
            // Nothing was made of it.
            Ok(_) => assert!(restarts),
            Err(error) => {
                assert!(matches!(error, VerifyError::Altered { .. }), "{}", chain(&error));
                fetch(id, &member.store, &member.releases, &|_| {}).unwrap();
            }
        }
        member.releases.verify_full(id).unwrap();
        assert_eq!(read(&member.releases.path(id)), many(2));
    }
}

#[test]
fn f43_a_release_that_was_altered_makes_no_altered_spare_tree() {
    let mut member = Member::new();
    let (first, _) = member.run(&many(1), 1);
    fs::remove_dir_all(member.state().join("spare")).unwrap();
    fs::create_dir(member.state().join("spare")).unwrap();
    let path = member.releases.path(first).join("lib/7.js");
    let mut content = fs::read(&path).unwrap();
    content[100] ^= 1;
    fs::write(&path, &content).unwrap();
    member.run(&many(2), 0);
    assert_eq!(read(&member.spare()), many(2));
}

#[test]
fn a_program_that_still_runs_from_a_tree_keeps_the_files_that_it_has_open() {
    let mut member = Member::new();
    let (first, _) = member.run(&many(1), 0);
    let path = member.releases.path(first).join("lib/changed.js");
    let mut open = fs::File::open(&path).unwrap();
    member.run(&many(2), 0);
    member.run(&many(3), 0);
    assert!(!member.releases.has(first));
    let mut content = Vec::new();
    open.read_to_end(&mut content).unwrap();
    assert_eq!(content, noise(101, 3000));
}
