//! What makes the tree of one release that of another.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::Tree;

/// What is to be done to a tree of one release, so that it is that of another. Numbers are those of
/// [`Tree::entries`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    /// What goes, of the old tree: what is in a directory comes before the directory.
    pub remove: Vec<usize>,
    /// What is created when that is gone, of the new tree: a directory comes before what is in it.
    pub create: Vec<usize>,
    /// What stays as it is: in the old tree, and in the new one.
    pub keep: Vec<(usize, usize)>,
}

impl Patch {
    /// What makes `old` to `new`. Whatever differs is made anew, also where only the executable bit does: nothing is ever
    /// changed in place.
    pub fn between(old: &Tree, new: &Tree) -> Self {
        let mut patch = Self::default();
        let (mut at, mut to) = (0, 0);
        loop {
            let order = match (old.entries().get(at), new.entries().get(to)) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            match order {
                Ordering::Less => patch.remove.push(at),
                Ordering::Greater => patch.create.push(to),
                Ordering::Equal if old.entries()[at] == new.entries()[to] => patch.keep.push((at, to)),
                Ordering::Equal => {
                    patch.remove.push(at);
                    patch.create.push(to);
                }
            }
            at += usize::from(order.is_le());
            to += usize::from(order.is_ge());
        }
        patch.remove.reverse();
        patch
    }

    /// What makes an empty tree to this one.
    pub fn from_nothing(new: &Tree) -> Self {
        Self { create: (0..new.entries().len()).collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::string::{String, ToString};
    use alloc::vec;

    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::ChunkId;
    use crate::release::{Chunk, Entry, EntryKind, File};

    fn any_kind() -> impl Strategy<Value = EntryKind> {
        let file = |(executable, content): (bool, u8)| {
            let chunks = [Chunk { id: ChunkId::from_bytes([content; 32]), bytes: 1 }].into();
            EntryKind::File(File { executable, chunks })
        };
        prop_oneof![
            Just(EntryKind::Dir),
            Just(EntryKind::Link { target: "a".to_string() }),
            (any::<bool>(), 0..3_u8).prop_map(file),
        ]
    }

    fn any_tree() -> impl Strategy<Value = Tree> {
        let name = prop::sample::select(vec!["a", "b", "a-b"]);
        let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
        btree_map(path, any_kind(), 0..12).prop_map(|mut entries: BTreeMap<String, EntryKind>| {
            let paths: Vec<String> = entries.keys().cloned().collect();
            for path in paths {
                for (slash, _) in path.match_indices('/') {
                    entries.insert(path[..slash].to_string(), EntryKind::Dir);
                }
            }
            let entry = |(path, kind): (String, EntryKind)| Entry { path: path.parse().unwrap(), kind };
            Tree::of(entries.into_iter().map(entry).collect()).unwrap()
        })
    }

    /// A disk: what cannot be done on one panics.
    fn apply(patch: &Patch, old: &Tree, new: &Tree) -> Vec<Entry> {
        let mut disk: BTreeMap<String, EntryKind> =
            old.entries().iter().map(|entry| (entry.path.to_string(), entry.kind.clone())).collect();
        for entry in patch.remove.iter().map(|index| &old.entries()[*index]) {
            let inside = entry.path.to_string() + "/";
            assert!(!disk.keys().any(|path| path.starts_with(&inside)), "{entry:?} is not empty");
            assert!(disk.remove(entry.path.as_str()).is_some());
        }
        for entry in patch.create.iter().map(|index| &new.entries()[*index]) {
            assert!(entry.path.parent().is_none_or(|parent| disk.get(parent) == Some(&EntryKind::Dir)));
            assert!(disk.insert(entry.path.to_string(), entry.kind.clone()).is_none());
        }
        disk.into_iter().map(|(path, kind)| Entry { path: path.parse().unwrap(), kind }).collect()
    }

    proptest! {
        #[test]
        fn a_patched_tree_is_the_new_one(old in any_tree(), new in any_tree()) {
            let patch = Patch::between(&old, &new);
            prop_assert_eq!(apply(&patch, &old, &new), new.entries());
            for (before, after) in &patch.keep {
                prop_assert_eq!(&old.entries()[*before], &new.entries()[*after]);
            }
            prop_assert_eq!(patch.keep.len() + patch.create.len(), new.entries().len());
        }

        #[test]
        fn the_same_tree_is_kept(tree in any_tree()) {
            let patch = Patch::between(&tree, &tree);
            prop_assert_eq!((patch.remove.len(), patch.create.len()), (0, 0));
            let empty = Tree::of(Vec::new()).unwrap();
            prop_assert_eq!(Patch::from_nothing(&tree), Patch::between(&empty, &tree));
        }
    }
}
