//! The next release is made from a tree that is there, and is none the worse for it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use baton_core::ids::{Epoch, ReleaseId};
use baton_release::fetch::{Fetched, Step, Way, fetch};
use baton_release::releases::{Keep, ReleasesDir, VerifyError};
use baton_release::store::Kind;
use baton_release::store::memory::MemoryStore;
use proptest::prelude::*;

use crate::launch::forge;
use crate::round_trip::any_nodes;
use crate::sample::{Node, Nodes, chain, file, left, nodes, noise, open, push_nodes, read};

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
fn p38_f43_what_lies_beside_a_spare_tree_does_not_vouch_for_it() {
    // It is looked through in the background, or when it is needed at once; or it is a release that need not stay.
    for (keep_spare, looks) in [(true, true), (true, false), (false, false)] {
        let mut member = Member::new();
        let (first, _) = member.run(&many(1), 1);
        let (second, _) = member.run(&many(2), 1);
        let mut altered = (member.state().join(format!("spare/{second}")), second);
        if !keep_spare {
            fs::remove_dir_all(&altered.0).unwrap();
            altered = (member.state().join(format!("releases/{first}")), first);
        }
        let path = altered.0.join("tree/lib/7.js");
        let mut content = fs::read(&path).unwrap();
        content[100] ^= 1;
        fs::write(&path, &content).unwrap();
        forge(&altered.0, altered.1, "lib/7.js");
        let member = member.restart();
        member.releases.keep(Keep { held: BTreeSet::from([second]), proven: 0 });
        if looks {
            member.releases.upkeep().unwrap();
        }
        let (id, _) = member.get(&many(3));
        member.releases.verify(id).unwrap();
        assert_eq!(read(&member.releases.path(id)), many(3), "{keep_spare} {looks}");
    }
}

/// Fetches with the last call of the store failing; returns what, and how much had come. `twin` is a member like this one.
fn fetch_in_part(member: &Member, twin: &Member, tree: &Nodes) -> (ReleaseId, u64) {
    let id = push_nodes(tree, &twin.store).id;
    let before = twin.store.calls();
    fetch(id, &twin.store, &twin.releases, &|_| {}).unwrap();
    let calls = twin.store.calls() - before;
    let id = push_nodes(tree, &member.store).id;
    member.store.fail_call(calls, Kind::Unavailable);
    let come = AtomicU64::new(0);
    let count = |step| {
        if let Step::Fetched { bytes } = step {
            come.fetch_add(bytes, Ordering::SeqCst);
        }
    };
    fetch(id, &member.store, &member.releases, &count).unwrap_err();
    assert!(!member.releases.has(id));
    (id, come.into_inner())
}

#[test]
fn a_fetch_that_breaks_off_costs_no_later_one_the_spare_tree() {
    // The same release is wanted again, or the next one; in this life or in another.
    for (version, restarts) in [(3, false), (3, true), (4, false), (4, true)] {
        let [mut member, twin] = [(); 2].map(|()| {
            let mut member = Member::new();
            member.run(&many(1), 1);
            member.run(&many(2), 1);
            member
        });
        fetch_in_part(&member, &twin, &many(3));
        if restarts {
            member = member.restart();
        }
        let (id, fetched) = member.get(&many(version));
        let kept = many(version).len() - 1;
        assert_eq!(fetched.way, Way::Resumed { kept }, "{version} {restarts}");
        member.releases.verify_full(id).unwrap();
        assert_eq!(read(&member.releases.path(id)), many(version));
        // What was moved out of the way goes when there is time.
        let mut left = left(&member.state());
        left.retain(|left| left.starts_with("staging/") && !left.starts_with("staging/gone-"));
        assert_eq!(left, [""; 0]);
    }
}

#[test]
fn a_fetch_that_breaks_off_goes_on_with_what_has_come_and_is_right() {
    // One large file, and many.
    let one = nodes_of(vec![("binary".to_owned(), file(&noise(1, 9_000_000)))]);
    let several = nodes_of((0..60).map(|n| (format!("lib/{n}"), file(&noise(n, 150_000)))).collect());
    for (tree, restarts) in [(&one, false), (&one, true), (&several, false), (&several, true)] {
        let mut member = Member::new();
        let (id, come) = fetch_in_part(&member, &Member::new(), tree);
        assert!((3_000_000..9_000_000).contains(&come), "{come}");
        if restarts {
            // Killed or not: nothing is done at the end.
            member = member.restart();
        }
        let staged = member.state().join(format!("staging/{id}/tree"));
        let has_come = |path: &String| fs::read(staged.join(path)).is_ok_and(|content| content.len() > 100);
        let altered = tree.keys().filter(|path| *path != "lib").find(|path| has_come(path)).unwrap();
        let mut content = fs::read(staged.join(altered)).unwrap();
        content[100] ^= 1;
        fs::write(staged.join(altered), &content).unwrap();

        let fetched = fetch(id, &member.store, &member.releases, &|_| {}).unwrap();
        assert!(matches!(fetched.way, Way::Resumed { .. }), "{fetched:?}");
        let missing = 9_000_000 - come;
        assert!((missing..missing + 1_000_000).contains(&fetched.bytes_fetched), "{fetched:?} of {missing}");
        member.releases.verify_full(id).unwrap();
        assert_eq!(read(&member.releases.path(id)), *tree);
    }
}

fn nodes_of(some: Vec<(String, Node)>) -> Nodes {
    some.into_iter().chain([("lib".to_owned(), Node::Dir)]).collect()
}

#[test]
fn what_is_left_of_a_fetch_goes_when_its_release_is_wanted_no_more() {
    for stays in [true, false] {
        let (mut member, mut twin) = (Member::new(), Member::new());
        let (first, _) = member.run(&many(1), 0);
        twin.run(&many(1), 0);
        let (second, _) = fetch_in_part(&member, &twin, &many(2));
        let staged = member.state().join(format!("staging/{second}"));
        assert!(staged.is_dir());
        let held = [first, if stays { second } else { first }];
        member.releases.keep(Keep { held: BTreeSet::from(held), proven: 0 });
        member.releases.upkeep().unwrap();
        assert_eq!(staged.exists(), stays);
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
