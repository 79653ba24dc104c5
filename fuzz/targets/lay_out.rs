//! Laying a release out: what lies on the disk afterwards is the manifest's tree and nothing else, or nothing is left; and
//! nothing outside has changed. The first byte says whether the rest is lines of a manifest as they stand, or a list of what to
//! put into one that is fine. Lines of the latter that are `---` part several releases: each is made of the tree of the one before
//! the last, in which its program has left something.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use baton_core::ids::{ChunkId, Epoch, ReleaseId};
use baton_core::release::outline::Outlined;
use baton_core::release::{self, Chunk, Entry, EntryKind, Manifest, Provenance, Tree, TreePath};
use baton_core::run::RunSettings;
use baton_release::fetch::{Way, fetch};
use baton_release::manifest::pack_outline;
use baton_release::pack;
use baton_release::releases::{Keep, ReleasesDir};
use baton_release::store::ArtefactStore;
use baton_release::store::memory::MemoryStore;
use libfuzzer_sys::fuzz_target;

/// What is on a disk at a path: a directory, a file with its mode and content, or where a link points.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(bool, Vec<u8>),
    Link(Vec<u8>),
}

type Nodes = BTreeMap<Vec<u8>, Node>;

fuzz_target!(|input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    let lines = &*String::from_utf8_lossy(rest);
    if how % 2 == 0 && lines.contains(PART) {
        return one_after_the_other(lines.split(PART).take(RELEASES_MAX), *how);
    }
    let (manifest, contents) = fine(lines);
    let fine_text = manifest.to_text();
    let text = match how % 2 {
        0 => fine_text.clone(),
        _ => {
            let head = fine_text.split_inclusive('\n').take_while(|line| !line.starts_with("limits "));
            head.collect::<String>() + lines
        }
    };
    let store = MemoryStore::new();
    contents.iter().for_each(|content| keep(&store, content));
    let Outlined { top, listing, manifest: parts } = Outlined::of(&text);
    listing.iter().chain(&parts).for_each(|part| keep(&store, &part.content));
    let id = release::id_of(&text);
    store.plant_outline(id, pack_outline(&top).expect("memory"));
    lay_out(id, &text, &store, &contents, *how % 2 == 0);
});

/// What parts two releases.
const PART: &str = "\n---\n";
/// Most releases of one member.
const RELEASES_MAX: usize = 4;

/// A member that runs one release after the other, and keeps the last one only: trees are patched.
fn one_after_the_other<'a>(releases: impl Iterator<Item = &'a str>, how: u8) {
    let dir = room();
    let outside = dir.join("outside");
    fs::create_dir_all(&outside).expect("room");
    fs::write(outside.join("kept"), "untouched").expect("room");
    let (store, member) = (MemoryStore::new(), ReleasesDir::open(&dir.join("state")).expect("room"));
    for (number, lines) in (1..).zip(releases) {
        let (manifest, contents) = fine(lines);
        contents.iter().for_each(|content| keep(&store, content));
        let text = manifest.to_text();
        let Outlined { top, listing, manifest: parts } = Outlined::of(&text);
        listing.iter().chain(&parts).for_each(|part| keep(&store, &part.content));
        let id = release::id_of(&text);
        store.plant_outline(id, pack_outline(&top).expect("memory"));
        member.keep(Keep { held: BTreeSet::from([id]), proven: 0 });
        let fetched = fetch(id, &store, &member, &|_| {}).expect("what is fine");
        let (mut there, promised) = (found(&member.path(id)), promised(&manifest, &contents));
        if fetched.way == Way::There {
            // What the program of a release has left beside its files does no harm.
            there.retain(|name, _| promised.contains_key(name));
        }
        assert_eq!(there, promised);
        member.verify_full(id).expect("what was just laid out");
        member.commit(id, Epoch(number)).expect("room");
        leave(&member.path(id), how, &outside);
        // What was left in it is no reason to stop: a tree that is not as it was is made of nothing else.
        let _ = member.upkeep();
    }
    let kept = [(b"kept".to_vec(), Node::File(false, b"untouched".to_vec()))];
    assert_eq!(found(&outside), kept.into());
    drop(member);
    fs::remove_dir_all(&dir).expect("room");
}

/// What a program may do to its own tree.
fn leave(tree: &Path, how: u8, outside: &Path) {
    if how & 2 != 0 {
        fs::create_dir_all(tree.join("__pycache__/a")).expect("room");
        fs::write(tree.join("__pycache__/a/b"), "left").expect("room");
    }
    let Some(first) = fs::read_dir(tree).expect("a tree").flatten().map(|entry| entry.path()).min() else { return };
    if how & 4 != 0 && first.is_dir() && !first.is_symlink() {
        // Whoever followed it would write, or remove, what is not of the release.
        fs::rename(&first, tree.join("moved")).expect("room");
        symlink(outside, &first).expect("room");
    } else if how & 8 != 0 && first.is_file() && !first.is_symlink() {
        fs::write(&first, "altered").expect("room");
    }
}

/// Lays out what a store has, and looks at what is there then.
fn lay_out(id: ReleaseId, text: &str, store: &MemoryStore, contents: &[Vec<u8>], is_fine: bool) {
    let dir = room();
    let (state, outside) = (dir.join("state"), dir.join("outside"));
    fs::create_dir_all(&outside).expect("room");
    fs::write(outside.join("kept"), "untouched").expect("room");
    let releases = ReleasesDir::open(&state).expect("room");
    match fetch(id, store, &releases, &|_| {}) {
        Ok(_) => {
            let manifest = Manifest::parse(text).expect("what was laid out is a manifest");
            assert_eq!(found(&releases.path(id)), promised(&manifest, contents));
            releases.verify_full(id).expect("what was just laid out");
        }
        Err(error) => {
            assert!(!is_fine, "{error:?}");
            assert!(found(&state.join("releases")).is_empty() && found(&state.join("staging")).is_empty());
        }
    }
    let kept = [(b"kept".to_vec(), Node::File(false, b"untouched".to_vec()))];
    assert_eq!(found(&outside), kept.into());
    drop(releases);
    fs::remove_dir_all(&dir).expect("room");
}

/// Where to lay out: in memory where there is room for that.
fn room() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = base.join(format!("baton-fuzz-lay-out-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

fn keep(store: &MemoryStore, content: &[u8]) {
    if !content.is_empty() {
        store.put(&pack::of(content).expect("memory")).expect("a pack that was just made");
    }
}

fn chunk(content: &[u8]) -> Chunk {
    Chunk { id: ChunkId::of(content), bytes: content.len() as u32 }
}

/// A manifest of what the lines list, each as `KIND PATH REST`, as far as it is allowed; and the contents of its files.
fn fine(lines: &str) -> (Manifest, Vec<Vec<u8>>) {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let mut contents = Vec::new();
    for line in lines.split('\n') {
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(path)) = (words.next(), words.next()) else { continue };
        let rest = words.next().unwrap_or_default();
        let Ok(path) = path.parse::<TreePath>() else { continue };
        let kind = match kind {
            "d" => EntryKind::Dir,
            "l" => EntryKind::Link { target: rest.to_owned() },
            _ => {
                let content = rest.as_bytes().to_vec();
                let chunks = if content.is_empty() { Vec::new() } else { vec![chunk(&content)] }.into();
                contents.push(content);
                EntryKind::File(release::File { executable: kind == "x", chunks })
            }
        };
        let entry = Entry { path, kind };
        let mut with = entries.clone();
        let parents: Vec<usize> = entry.path.as_str().match_indices('/').map(|(at, _)| at).collect();
        for at in parents {
            let parent = &entry.path.as_str()[..at];
            let dir = Entry { path: parent.parse().expect("a part of a path"), kind: EntryKind::Dir };
            with.entry(parent.to_owned()).or_insert(dir);
        }
        with.insert(entry.path.to_string(), entry);
        if Tree::of(with.values().cloned().collect()).is_ok() {
            entries = with;
        }
    }
    let manifest = Manifest {
        service: "web".parse().expect("a name"),
        provenance: Provenance { created: 0, builder: String::new(), commit: None },
        run: RunSettings::for_command(vec!["true".to_owned()]),
        tree: Tree::of(entries.into_values().collect()).expect("what was just tried"),
    };
    (manifest, contents)
}

/// What a manifest says that there is.
fn promised(manifest: &Manifest, contents: &[Vec<u8>]) -> Nodes {
    let content = |file: &release::File| {
        let of = |chunk: &Chunk| contents.iter().find(|content| ChunkId::of(content) == chunk.id).cloned();
        file.chunks.iter().filter_map(of).flatten().collect()
    };
    let node = |entry: &Entry| match &entry.kind {
        EntryKind::Dir => Node::Dir,
        EntryKind::File(file) => Node::File(file.executable, content(file)),
        EntryKind::Link { target } => Node::Link(target.as_bytes().to_vec()),
    };
    manifest.tree.entries().iter().map(|entry| (entry.path.as_str().as_bytes().to_vec(), node(entry))).collect()
}

/// What there is in a directory.
fn found(dir: &Path) -> Nodes {
    let mut nodes = Nodes::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("what was just listed");
            let node = if kind.is_dir() {
                dirs.push(path.clone());
                Node::Dir
            } else if kind.is_symlink() {
                Node::Link(fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec())
            } else {
                let mode = kind.permissions().mode() & 0o7777;
                assert!(mode == 0o644 || mode == 0o755, "{mode:o}: {}", path.display());
                Node::File(mode == 0o755, fs::read(&path).expect("a file"))
            };
            let name = path.strip_prefix(dir).expect("beneath").as_os_str().as_bytes().to_vec();
            nodes.insert(name, node);
        }
    }
    nodes
}
