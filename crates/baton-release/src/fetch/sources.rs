//! Where content lies on disk already.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;

use baton_core::ids::ChunkId;
use baton_core::release::{Chunk, EntryKind, File, TreePath};

use super::Piece;
use crate::beneath::Beneath;
use crate::releases::{MadeOf, ReleasesDir};

/// Where the chunks of a release lie in trees on disk.
pub(super) struct Sources<'a> {
    wanted: HashSet<Chunk>,
    /// Some are of whoever asks.
    lent: Vec<&'a Beneath>,
    own: Vec<Beneath>,
    places: HashMap<ChunkId, Source>,
}

/// A chunk on disk: the tree, the file in it, and where it starts there.
struct Source {
    tree: Tree,
    path: TreePath,
    offset: u64,
}

#[derive(Clone, Copy)]
enum Tree {
    Lent(usize),
    Own(usize),
}

impl<'a> Sources<'a> {
    /// Nothing is found yet of what is wanted.
    pub(super) fn new(pieces: &[Piece]) -> Self {
        let wanted = pieces.iter().map(|piece| piece.chunk).collect();
        Self { wanted, lent: Vec::new(), own: Vec::new(), places: HashMap::new() }
    }

    /// Looks in what the new release is made of: in the tree, and in what went from there.
    pub(super) fn add_made_of(&mut self, made_of: &'a MadeOf, tree: &'a Beneath) {
        if self.wanted.is_empty() {
            return;
        }
        let gone: HashSet<usize> = made_of.removed().iter().copied().collect();
        self.lent.extend([tree, made_of.aside()]);
        for (index, entry) in made_of.was().iter().enumerate() {
            let EntryKind::File(file) = &entry.kind else { continue };
            if !gone.contains(&index) {
                self.add(Tree::Lent(0), &entry.path, file);
            } else if let Ok(name) = index.to_string().parse() {
                self.add(Tree::Lent(1), &name, file);
            }
        }
    }

    /// Looks in all releases. One that cannot be read has nothing to offer.
    pub(super) fn add_releases(&mut self, releases: &ReleasesDir) {
        for id in releases.list().unwrap_or_default() {
            let (Ok(manifest), Ok(tree)) = (releases.manifest(id), releases.tree(id)) else {
                continue;
            };
            for (path, file) in manifest.tree.files() {
                self.add(Tree::Own(self.own.len()), path, file);
            }
            self.own.push(tree);
        }
    }

    /// How much was not found.
    pub(super) fn bytes_missing(&self) -> u64 {
        self.wanted.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// The content of a chunk, if it lies on disk unaltered.
    pub(super) fn read(&self, Chunk { id, bytes }: Chunk) -> Option<Vec<u8>> {
        let Source { tree, path, offset } = self.places.get(&id)?;
        let tree = match *tree {
            Tree::Lent(index) => self.lent[index],
            Tree::Own(index) => &self.own[index],
        };
        let mut content = vec![0; bytes as usize];
        tree.read(path).ok()?.read_exact_at(&mut content, *offset).ok()?;
        (ChunkId::of(&content) == id).then_some(content)
    }

    fn add(&mut self, tree: Tree, path: &TreePath, file: &File) {
        let mut offset = 0;
        for chunk in &file.chunks {
            if self.wanted.remove(chunk) {
                self.places.insert(chunk.id, Source { tree, path: path.clone(), offset });
            }
            offset += u64::from(chunk.bytes);
        }
    }
}
