//! Paths that are one where case or the form of accents does not count: whoever unpacks a release there has one of two files.

use std::borrow::Cow;
use std::collections::HashMap;

use baton_core::release::{Tree, TreePath};
use unicode_normalization::UnicodeNormalization;

/// The twins in a tree, in its order. What lies in directories that are twins themselves is not named again.
pub(crate) fn twins(tree: &Tree) -> Vec<(&TreePath, &TreePath)> {
    let mut known: HashMap<Cow<'_, str>, &TreePath> = HashMap::with_capacity(tree.entries().len());
    let mut twins = Vec::new();
    for entry in tree.entries() {
        let first = *known.entry(folded(entry.path.as_str())).or_insert(&entry.path);
        if *first != entry.path && first.parent() == entry.path.parent() {
            twins.push((first, &entry.path));
        }
    }
    twins
}

/// What is left of a path where neither case nor the form of accents counts.
fn folded(path: &str) -> Cow<'_, str> {
    if !path.is_ascii() {
        return path.nfd().flat_map(char::to_lowercase).nfd().collect();
    }
    match path.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(path.to_ascii_lowercase()),
        false => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::release::{Entry, EntryKind};

    #[test]
    fn case_and_the_form_of_accents_make_twins() {
        let paths = ["A", "A/x", "a", "a/x", "b", "caf\u{e9}", "cafe\u{301}", "CAF\u{c9}", "\u{df}", "ss"];
        let mut entries: Vec<Entry> =
            paths.iter().map(|path| Entry { path: path.parse().unwrap(), kind: EntryKind::Dir }).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let tree = Tree::of(entries).unwrap();
        let twins: Vec<(&str, &str)> =
            twins(&tree).into_iter().map(|(one, other)| (one.as_str(), other.as_str())).collect();
        assert_eq!(twins, [("A", "a"), ("CAF\u{c9}", "cafe\u{301}"), ("CAF\u{c9}", "caf\u{e9}")]);
    }
}
