//! Directories to push, and what is compared of them afterwards.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::Chunk;
use baton_core::release::outline::Outlined;
use baton_core::release::pack::Frame;
use baton_core::run::RunSettings;
use baton_release::manifest::pack_outline;
use baton_release::push::{Pushed, Source, push};
use baton_release::releases::ReleasesDir;
use baton_release::store::ArtefactStore;
use baton_release::store::memory::MemoryStore;

/// One thing in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Dir,
    File { executable: bool, content: Vec<u8> },
    Link(String),
}

pub type Nodes = BTreeMap<String, Node>;

pub fn file(content: &[u8]) -> Node {
    Node::File { executable: false, content: content.to_vec() }
}

pub fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
    noise
}

/// A small program with some of everything, and a file of several chunks that depends on `seed`.
pub fn nodes(seed: u8) -> Nodes {
    let run = Node::File { executable: true, content: b"#!/bin/sh\nexec sleep 60\n".to_vec() };
    let all = [
        ("empty", Node::Dir),
        ("lib", Node::Dir),
        ("lib/data", file(&noise(seed, 300_000))),
        ("lib/none", file(b"")),
        ("link", Node::Link("lib/data".to_owned())),
        ("run", run),
    ];
    all.into_iter().map(|(path, node)| (path.to_owned(), node)).collect()
}

/// Creates these things in a directory.
pub fn write(dir: &Path, nodes: &Nodes) {
    fs::create_dir_all(dir).unwrap();
    for (path, node) in nodes {
        let path = dir.join(path);
        match node {
            Node::Dir => fs::create_dir(path).unwrap(),
            Node::Link(target) => symlink(target, path).unwrap(),
            Node::File { executable, content } => {
                fs::write(&path, content).unwrap();
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }
}

/// Everything in a directory; of what a release lays out, the modes must be exact.
pub fn read(dir: &Path) -> Nodes {
    let mut nodes = Nodes::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let mode = found.permissions().mode() & 0o7777;
            let node = if found.is_dir() {
                assert_eq!(mode, 0o755, "{}", path.display());
                dirs.push(path.clone());
                Node::Dir
            } else if found.is_symlink() {
                Node::Link(fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
            } else {
                assert!([0o644, 0o755].contains(&mode), "{}", path.display());
                Node::File { executable: mode == 0o755, content: fs::read(&path).unwrap() }
            };
            nodes.insert(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), node);
        }
    }
    nodes
}

/// The chunk with this content.
pub fn chunk(content: &[u8]) -> Chunk {
    Chunk { id: ChunkId::of(content), bytes: content.len() as u32 }
}

/// Keeps these bytes where the chunk is looked for.
pub fn plant_chunk(store: &MemoryStore, chunk: Chunk, packed: Vec<u8>) {
    store.plant_frame(Frame { packed: packed.len() as u32, chunks: vec![chunk] }, packed);
}

/// Keeps this text as the manifest of a release, whatever it is: with its outline and its chunks.
pub fn plant_manifest(store: &MemoryStore, id: ReleaseId, text: &str) {
    let Outlined { top, listing, manifest } = Outlined::of(text);
    for part in listing.into_iter().chain(manifest) {
        plant_chunk(store, part.chunk, zstd::bulk::compress(&part.content, 1).unwrap());
    }
    store.plant_outline(id, pack_outline(&top).unwrap());
}

pub fn push_dir(dir: &Path, store: &dyn ArtefactStore) -> Pushed {
    let source = Source {
        dir: dir.to_owned(),
        service: "web".parse().unwrap(),
        run: RunSettings::for_command(vec!["true".to_owned()]),
        builder: "test".to_owned(),
    };
    push(&source, store, &|_| {}).unwrap()
}

/// Pushes a directory made of these things.
pub fn push_nodes(nodes: &Nodes, store: &dyn ArtefactStore) -> Pushed {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("source"), nodes);
    push_dir(&dir.path().join("source"), store)
}

/// Names of what lies in `staging` and `releases`.
pub fn left(state: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for dir in ["staging", "releases"] {
        let entries = fs::read_dir(state.join(dir)).unwrap();
        names.extend(entries.map(|entry| format!("{dir}/{}", entry.unwrap().file_name().display())));
    }
    names
}

/// An error with all its causes, as people see it.
pub fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

pub fn open(state: &Path) -> ReleasesDir {
    ReleasesDir::open(state).unwrap()
}
