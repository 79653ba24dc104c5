//! What was pushed is what is laid out, and only what is new travels.

use std::sync::Mutex;

use baton_release::fetch::{self, Fetched, Way, fetch};
use baton_release::push;
use baton_release::store::memory::MemoryStore;
use baton_release::store::{Kind, conformance};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::sample::{Node, Nodes, chain, left, nodes, noise, open, push_dir, push_nodes, read, write};

#[test]
fn the_store_in_memory_conforms() -> Result<(), conformance::Failure> {
    conformance::run_custody(MemoryStore::new)
}

fn any_node() -> impl Strategy<Value = Node> {
    let content = prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 1..100),
        (any::<u8>(), 10_000_usize..600_000).prop_map(|(seed, bytes)| noise(seed % 4, bytes)),
    ];
    prop_oneof![
        Just(Node::Dir),
        prop::sample::select(vec!["a", "./b/", "b/a", "nowhere"]).prop_map(|to| Node::Link(to.to_owned())),
        (any::<bool>(), content).prop_map(|(executable, content)| Node::File { executable, content }),
    ]
}

pub fn any_nodes() -> impl Strategy<Value = Nodes> {
    let name = prop::sample::select(vec!["a", "b", "a-b", "ä ö", ".c", "-"]);
    let path = vec(name, 1..4).prop_map(|names| names.join("/"));
    btree_map(path, any_node(), 0..10).prop_map(|wanted| {
        let mut all = wanted.clone();
        for path in wanted.keys() {
            all.extend(path.match_indices('/').map(|(slash, _)| (path[..slash].to_owned(), Node::Dir)));
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_pushed_is_laid_out(first in any_nodes(), second in any_nodes()) {
        let state = tempfile::tempdir().unwrap();
        let (store, releases) = (MemoryStore::new(), open(state.path()));
        for nodes in [&first, &second] {
            let pushed = push_nodes(nodes, &store);
            fetch(pushed.id, &store, &releases, &|_| {}).unwrap();
            prop_assert_eq!(&read(&releases.path(pushed.id)), nodes);
            releases.verify_quick(pushed.id).unwrap();
            releases.verify_full(pushed.id).unwrap();
        }
    }
}

#[test]
fn only_what_is_new_travels() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(&dir.path().join("state")));
    let mut nodes = nodes(1);
    let first = push_nodes(&nodes, &store);
    assert_eq!(first.bytes_new, first.bytes_total);
    let all = fetch(first.id, &store, &releases, &|_| {}).unwrap();
    assert_eq!(all, Fetched { way: Way::Created, bytes_fetched: first.bytes_total, bytes_copied: 0 });

    let change = noise(9, 5_000);
    nodes.insert("lib/new".to_owned(), Node::File { executable: false, content: change });
    let second = push_nodes(&nodes, &store);
    assert_eq!((second.bytes_new, second.chunks_new), (5_000, 1));
    let calls = store.calls();
    let moved = fetch(second.id, &store, &releases, &|_| {}).unwrap();
    let bytes_copied = first.bytes_total;
    assert_eq!(moved, Fetched { way: Way::Created, bytes_fetched: 5_000, bytes_copied });
    assert_eq!(store.calls() - calls, 3, "the outline, what changed of the manifest, and one chunk");

    let calls = store.calls();
    assert_eq!(fetch(second.id, &store, &releases, &|_| {}).unwrap(), Fetched::default());
    assert_eq!(store.calls(), calls, "what is there is not asked for");
}

#[test]
fn many_small_files_travel_in_a_few_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(&dir.path().join("state")));
    let content = |n: u32| format!("module.exports = {n};\n").repeat(20).into_bytes();
    let mut nodes: Nodes = (0..3000).map(|n| (format!("{n}.js"), crate::sample::file(&content(n)))).collect();
    let first = push_nodes(&nodes, &store);
    assert_eq!((first.chunks_new, first.packs, store.calls()), (3000, 1, 5));
    fetch(first.id, &store, &releases, &|_| {}).unwrap();
    assert_eq!(store.calls(), 5 + 4, "the outline, its parts, those of the manifest, and the files");
    for (n, calls) in [(7, 9), (1500, 18), (2999, 27)] {
        assert_eq!(store.calls(), calls);
        nodes.insert(format!("{n}.js"), crate::sample::file(&content(n + 10_000)));
        let pushed = push_nodes(&nodes, &store);
        assert_eq!((pushed.chunks_new, pushed.packs), (1, 1));
        // With what changed of the manifest and its outline.
        assert!(
            pushed.bytes_sent < 16 << 10,
            "{} bytes for a file of {}",
            pushed.bytes_sent,
            content(n).len()
        );
        let moved = fetch(pushed.id, &store, &releases, &|_| {}).unwrap();
        assert_eq!(moved.bytes_fetched, content(n + 10_000).len() as u64);
        assert_eq!(read(&releases.path(pushed.id)), nodes);
    }
}

#[test]
fn f76_a_part_of_the_manifest_that_is_there_without_what_it_names_is_no_reason_to_leave_it_out() {
    let store = MemoryStore::new();
    let pushed = push_nodes(&nodes(1), &store);
    for lost in baton_release::manifest::chunk_ids(&pushed.manifest) {
        store.lose_chunk(lost);
        assert_eq!(push_nodes(&nodes(1), &store).chunks_new, 1);
        assert_eq!(baton_release::store::ArtefactStore::missing(&store, &[lost]).unwrap(), []);
    }
}

#[test]
fn the_same_content_is_the_same_release() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    write(&dir.path().join("source"), &nodes(1));
    let first = push_dir(&dir.path().join("source"), &store);
    let again = push_dir(&dir.path().join("source"), &store);
    assert_eq!((again.id, again.bytes_new, again.chunks_new), (first.id, 0, 0));
}

#[test]
fn what_a_damaged_release_on_disk_has_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(&dir.path().join("state")));
    let pushed = push_nodes(&nodes(1), &store);
    fetch(pushed.id, &store, &releases, &|_| {}).unwrap();
    let path = releases.path(pushed.id).join("lib/data");
    let mut content = std::fs::read(&path).unwrap();
    content[100] ^= 1;
    std::fs::write(&path, content).unwrap();

    let moved = fetch(pushed.id, &store, &releases, &|_| {}).unwrap();
    assert!(moved.bytes_fetched > 0 && moved.bytes_copied > 0, "{moved:?}");
    assert_eq!(read(&releases.path(pushed.id)), nodes(1));
    releases.verify_full(pushed.id).unwrap();
}

#[test]
fn progress_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let (store, releases) = (MemoryStore::new(), open(&dir.path().join("state")));
    let source = push::Source {
        dir: dir.path().join("source"),
        service: "web".parse().unwrap(),
        run: baton_core::run::RunSettings::for_command(vec!["./run".to_owned()]),
        builder: "test".to_owned(),
    };
    write(&source.dir, &nodes(1));
    let steps = Mutex::new((0, 0));
    let pushed = push::push(&source, &store, &|step| match step {
        push::Step::Found { bytes } | push::Step::Read { bytes } => assert!(bytes > 300_000),
        push::Step::Cut { .. } => {}
        push::Step::Compared { bytes_new } => steps.lock().unwrap().0 += bytes_new,
        push::Step::Uploaded { bytes } => steps.lock().unwrap().1 += bytes,
    });
    let pushed = pushed.unwrap();
    assert_eq!(steps.into_inner().unwrap(), (pushed.bytes_new, pushed.bytes_new));
    assert_eq!(pushed.files, 3);

    let moved = Mutex::new(0);
    fetch(pushed.id, &store, &releases, &|step| match step {
        fetch::Step::Planned { bytes } => assert_eq!(bytes, pushed.bytes_total),
        fetch::Step::Fetched { bytes } | fetch::Step::Copied { bytes } => *moved.lock().unwrap() += bytes,
        fetch::Step::Lacking { bytes } => assert_eq!(bytes, pushed.bytes_total),
        fetch::Step::Created | fetch::Step::Sealed => {}
    })
    .unwrap();
    assert_eq!(moved.into_inner().unwrap(), pushed.bytes_total);
}

#[test]
fn f100_a_release_whose_program_is_missing_is_not_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    write(dir.path(), &nodes(1));
    for command in ["./missing", "lib/data", "lib/../run"] {
        let source = push::Source {
            dir: dir.path().to_owned(),
            service: "web".parse().unwrap(),
            run: baton_core::run::RunSettings::for_command(vec![command.to_owned()]),
            builder: "test".to_owned(),
        };
        let error = push::push(&source, &store, &|_| {}).unwrap_err();
        assert!(chain(&error).contains(command), "{}", chain(&error));
    }
    assert_eq!(store.calls(), 0);
}

#[test]
fn f76_whatever_call_of_the_store_fails_a_push_or_fetch_is_whole_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    write(&source, &nodes(1));
    let kinds =
        [Kind::Missing, Kind::Conflict, Kind::Denied, Kind::Unavailable, Kind::Storage, Kind::Corrupt];
    let calls = {
        let store = MemoryStore::new();
        push_dir(&source, &store);
        store.calls()
    };
    for (call, kind) in (1..=calls).zip(kinds.into_iter().cycle()) {
        let store = MemoryStore::new();
        store.fail_call(call, kind);
        let request = push::Source {
            dir: source.clone(),
            service: "web".parse().unwrap(),
            run: baton_core::run::RunSettings::for_command(vec!["true".to_owned()]),
            builder: "test".to_owned(),
        };
        match push::push(&request, &store, &|_| {}) {
            Err(error) => {
                assert!(matches!(error, push::PushError::Store(error) if error.kind == kind), "call {call}");
                assert_eq!(baton_release::store::ArtefactStore::list(&store).unwrap(), []);
            }
            // What is missing when it is published is asked for, and put.
            Ok(_) => assert_eq!((call, kind), (calls, Kind::Missing)),
        }
        let pushed = push_dir(&source, &store);

        let state = dir.path().join("state");
        let releases = open(&state);
        let mut failing = 1;
        loop {
            store.fail_call(failing, kind);
            let Err(error) = fetch(pushed.id, &store, &releases, &|_| {}) else { break };
            assert!(matches!(error, fetch::FetchError::Read(_)), "{}", chain(&error));
            // What may pass leaves what has come for the next fetch.
            let leaves = [format!("staging/{}", pushed.id)];
            let left = left(&state);
            assert!(left.is_empty() || kind == Kind::Unavailable && left == leaves, "{kind:?}: {left:?}");
            failing += 1;
        }
        releases.verify_full(pushed.id).unwrap();
        drop(releases);
        std::fs::remove_dir_all(&state).unwrap();
    }
}
