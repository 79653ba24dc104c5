//! Native libraries in a tree, by the names of their files and the names that they give themselves: `libpq.so.5.9` is version 5.9
//! of libpq, and a file that calls itself `libpq.so.5` is version 5 of it whatever its own name is.
//!
//! The loader finds them by these names, so they say the version that counts.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Tree, TreePath};

/// What native libraries call themselves, by their paths: `libpq.so.5`. Of those that nobody has read the file's name counts.
pub type Sonames = BTreeMap<TreePath, String>;

/// A native library whose versions differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryChange {
    /// Its name: `libpq`.
    pub name: String,
    /// The versions that the old release has; none when the library is new.
    pub old: Vec<String>,
    /// The versions that the new release has; none when the library is gone.
    pub new: Vec<String>,
}

/// The libraries whose versions differ, by name. Who has read what libraries call themselves says so for both trees.
pub fn library_changes(
    (old, old_sonames): (&Tree, &Sonames),
    (new, new_sonames): (&Tree, &Sonames),
) -> Vec<LibraryChange> {
    let (old, new) = (libraries(old, old_sonames), libraries(new, new_sonames));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let versions = |of: &BTreeMap<String, BTreeSet<Version>>, name: &str| -> Vec<String> {
        of.get(name).into_iter().flatten().map(|version| version.0.clone()).collect()
    };
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| LibraryChange {
            name: name.clone(),
            old: versions(&old, name),
            new: versions(&new, name),
        })
        .collect()
}

/// A version: `5.9`. Without one there is nothing to tell apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version(String);

/// Every library with its versions. Of names that lead to one another, such as `libpq.so.5` and `libpq.so.5.9`, the longest
/// says which version it is.
fn libraries(tree: &Tree, sonames: &Sonames) -> BTreeMap<String, BTreeSet<Version>> {
    let mut found: BTreeMap<String, BTreeSet<Version>> = BTreeMap::new();
    for entry in tree.entries() {
        let soname = sonames.get(&entry.path).map(String::as_str);
        if let Some((name, version)) = named(entry.path.name(), soname) {
            found.entry(name.to_string()).or_default().insert(Version(version.to_string()));
        }
    }
    for versions in found.values_mut() {
        let all = versions.clone();
        let is_short = |version: &Version| {
            all.iter().any(|other| {
                let more = other.0.strip_prefix(version.0.as_str());
                more.is_some_and(|more| version.0.is_empty() && !more.is_empty() || more.starts_with('.'))
            })
        };
        versions.retain(|version| !is_short(version));
    }
    found
}

/// The name and the version of a library by the name of its file and by what it calls itself. The latter counts, and the former says
/// more where it goes on from there: `libpq.so.5.9` calls itself `libpq.so.5`.
fn named<'a>(file: &'a str, soname: Option<&'a str>) -> Option<(&'a str, &'a str)> {
    let by_file = library(file);
    let Some((name, version)) = soname.and_then(library) else { return by_file };
    let goes_on =
        |said: &str| said.strip_prefix(version).is_some_and(|more| more.is_empty() || more.starts_with('.'));
    match by_file {
        Some((same, said)) if same == name && (version.is_empty() || goes_on(said)) => Some((name, said)),
        Some(_) | None => Some((name, version)),
    }
}

/// The name and the version of a library in the name of its file; the version is empty when it says none.
fn library(file: &str) -> Option<(&str, &str)> {
    if !file.starts_with("lib") {
        return None;
    }
    let (name, version) = match file.split_once(".so.") {
        Some((_, "")) => return None,
        Some((name, version)) => (name, version),
        None => (file.strip_suffix(".so")?, ""),
    };
    let is_version =
        |text: &str| text.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if name.len() <= 3 || !(version.is_empty() || is_version(version)) {
        return None;
    }
    // Python's wheels carry libraries with a part of their hash in the name: `libpq-9b38f5e3.so.5.17`.
    match name.rsplit_once('-') {
        Some((name, hash)) if hash.len() >= 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Some((name, version))
        }
        Some((name, inside)) if version.is_empty() && is_version(inside) => Some((name, inside)),
        Some(_) | None => Some((name, version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Chunks, Entry, EntryKind, File};
    use std::vec;

    fn tree(names: &[&str]) -> Tree {
        let file = |name: &&str| Entry {
            path: name.parse().unwrap(),
            kind: EntryKind::File(File { executable: false, chunks: Chunks::new() }),
        };
        let mut entries: Vec<Entry> = names.iter().map(file).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Tree::of(entries).unwrap()
    }

    #[test]
    fn a_file_name_tells_library_and_version() {
        for (file, expected) in [
            ("libpq.so.5.9", Some(("libpq", "5.9"))),
            ("libpq.so", Some(("libpq", ""))),
            ("libpq-9b38f5e3.so.5.17", Some(("libpq", "5.17"))),
            ("libdb-5.3.so", Some(("libdb", "5.3"))),
            ("libstdc++.so.6.0.30", Some(("libstdc++", "6.0.30"))),
            ("libvips-cpp.so.42", Some(("libvips-cpp", "42"))),
            ("libpython3.11.so.1.0", Some(("libpython3.11", "1.0"))),
            ("lib.so", None),
            ("_psycopg.cpython-311-x86_64-linux-gnu.so", None),
            ("libpq.so.5.9.debug", None),
            ("libpq.so.", None),
            ("libpq.a", None),
        ] {
            assert_eq!(library(file), expected, "{file}");
        }
    }

    #[test]
    fn what_a_library_calls_itself_counts_and_its_file_may_say_more() {
        for (file, soname, expected) in [
            ("libpq.so", Some("libpq.so.5"), Some(("libpq", "5"))),
            ("libpq.so.5.9", Some("libpq.so.5"), Some(("libpq", "5.9"))),
            ("libpq.so.6.9", Some("libpq.so.5"), Some(("libpq", "5"))),
            ("libpq.so.50", Some("libpq.so.5"), Some(("libpq", "5"))),
            ("other.so", Some("libpq.so.5"), Some(("libpq", "5"))),
            ("libother.so.7", Some("libpq.so.5"), Some(("libpq", "5"))),
            ("libpq-9b38f5e3.so.5.17", Some("libpq-9b38f5e3.so.5.17"), Some(("libpq", "5.17"))),
            ("libfoo.so.3", Some("libfoo.so"), Some(("libfoo", "3"))),
            ("libfoo.so.3", Some("_native.so"), Some(("libfoo", "3"))),
            ("_native.so", Some("_native.so"), None),
            ("libfoo.so.3", None, Some(("libfoo", "3"))),
        ] {
            assert_eq!(named(file, soname), expected, "{file} {soname:?}");
        }
        let (old, new) = (tree(&["libpq.so"]), tree(&["libpq.so"]));
        let called = |soname: &str| Sonames::from([("libpq.so".parse().unwrap(), soname.to_string())]);
        let told = library_changes((&old, &called("libpq.so.5")), (&new, &called("libpq.so.6")));
        let expected = LibraryChange {
            name: "libpq".to_string(),
            old: vec!["5".to_string()],
            new: vec!["6".to_string()],
        };
        assert_eq!(told, [expected]);
    }

    #[test]
    fn only_versions_that_differ_are_told_and_links_count_as_what_they_lead_to() {
        let change = |old: &[&str], new: &[&str]| -> Vec<(String, Vec<String>, Vec<String>)> {
            let nothing = Sonames::new();
            let changes = library_changes((&tree(old), &nothing), (&tree(new), &nothing));
            changes.into_iter().map(|c| (c.name, c.old, c.new)).collect()
        };
        let told = |name: &str, old: &[&str], new: &[&str]| {
            let texts = |all: &[&str]| all.iter().map(|text| text.to_string()).collect::<Vec<_>>();
            (name.to_string(), texts(old), texts(new))
        };
        let old = ["liba.so", "liba.so.1", "liba.so.1.2", "libpq-00000000.so.5.9", "libz.so.1"];
        let new = ["liba.so", "liba.so.1", "liba.so.1.3", "libpq-11111111.so.5.9", "libnew.so"];
        assert_eq!(
            change(&old, &new),
            [told("liba", &["1.2"], &["1.3"]), told("libnew", &[], &[""]), told("libz", &["1"], &[])]
        );
        assert_eq!(
            change(&["libssl.so.1.1", "libssl.so.3"], &["libssl.so.3"]),
            [told("libssl", &["1.1", "3"], &["3"])]
        );
        assert_eq!(change(&old, &old), []);
    }
}
