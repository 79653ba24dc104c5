//! What changes from the release in force to another one.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use baton_core::release::{self, EntryKind, File, Manifest, SettingChange, Sonames, TreePath};
use baton_release::content::{self, Parts};
use baton_release::store::ArtefactStore;
use serde::Serialize;

use crate::locked::{self, LOCK_BYTES_MAX, PackageChange};
use crate::soname;

/// Of how many libraries on either side it is looked up what they call themselves: each takes the server one answer or two. Of the
/// others their files' names count.
const LIBRARIES_MAX: usize = 32;

/// What changes from the release in force to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The release in force.
    pub since: String,
    /// Paths that are new.
    pub added: Vec<String>,
    /// Paths that are gone.
    pub removed: Vec<String>,
    /// Paths with another content, kind, target or executable bit.
    pub changed: Vec<String>,
    /// Run settings with another value.
    pub settings: Vec<Change>,
    /// Native libraries with other versions.
    pub libraries: Vec<Change>,
    /// Lock files in which packages have other versions.
    pub locks: Vec<LockChange>,
}

/// Something that has another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What.
    pub name: String,
    /// Before.
    pub old: Vec<String>,
    /// Now.
    pub new: Vec<String>,
}

/// A lock file that has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockChange {
    /// Its path.
    pub path: String,
    /// The packages in it whose versions differ; absent when it is not understood.
    pub packages: Option<Vec<PackageChange>>,
}

impl Difference {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        let Self { since: _, added, removed, changed, settings, libraries, locks } = self;
        [added, removed, changed].iter().all(|paths| paths.is_empty())
            && [settings, libraries].iter().all(|changes| changes.is_empty())
            && locks.is_empty()
    }
}

/// What changes from `old`, which is in the store, to `new`, which is in a directory: lock files that differ are read there, and of
/// native libraries what they call themselves.
pub fn difference(
    since: String,
    old: &Manifest,
    new: &Manifest,
    dir: &Path,
    store: &dyn ArtefactStore,
) -> Difference {
    let release::Diff { added, removed, changed, settings } = release::diff(old, new);
    let gone = sonames(old, removed.iter().chain(&changed), |_, file| {
        let parts = Parts::of(file, store);
        soname::of(|from, bytes| parts.read(from, bytes).ok())
    });
    let come = sonames(new, added.iter().chain(&changed), |path, _| {
        let file = fs::File::open(dir.join(path.as_str())).ok()?;
        soname::of(|from, bytes| read(&file, from, bytes))
    });
    let libraries = release::library_changes((&old.tree, &gone), (&new.tree, &come));
    let texts = |paths: &[TreePath]| paths.iter().map(ToString::to_string).collect();
    let locks = changed.iter().filter(|path| locked::is_lock_file(path.name()));
    let stored = |file: &File| content::of(file, store).ok();
    let locks = locks.map(|path| {
        let here = |_: &File| fs::read(dir.join(path.as_str())).ok();
        let (old, new) = (text(old, path, stored), text(new, path, here));
        LockChange { path: path.to_string(), packages: packages(path.name(), old, new) }
    });
    let locks = locks.filter(|lock| lock.packages.as_ref().is_none_or(|packages| !packages.is_empty()));
    let setting = |SettingChange { key, old, new }| Change { name: key.to_owned(), old, new };
    let library = |release::LibraryChange { name, old, new }| Change { name, old, new };
    Difference {
        since,
        added: texts(&added),
        removed: texts(&removed),
        changed: texts(&changed),
        settings: settings.into_iter().map(setting).collect(),
        libraries: libraries.into_iter().map(library).collect(),
        locks: locks.collect(),
    }
}

/// What libraries among these files call themselves.
fn sonames<'a>(
    manifest: &Manifest,
    paths: impl Iterator<Item = &'a TreePath>,
    look: impl Fn(&TreePath, &File) -> Option<String>,
) -> Sonames {
    let is_library = |path: &&TreePath| path.name().ends_with(".so") || path.name().contains(".so.");
    let file = |path: &'a TreePath| match &manifest.tree.get(path.as_str())?.kind {
        EntryKind::File(file) => Some((path, file)),
        EntryKind::Dir | EntryKind::Link { .. } => None,
    };
    let files = paths.filter(is_library).filter_map(file).take(LIBRARIES_MAX);
    files.filter_map(|(path, file)| Some((path.clone(), look(path, file)?))).collect()
}

/// So many bytes of a file from a place on, or those that there are.
fn read(file: &fs::File, from: u64, bytes: usize) -> Option<Vec<u8>> {
    let mut content = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut content[filled..], from.checked_add(filled as u64)?) {
            Ok(0) => break,
            Ok(some) => filled += some,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    content.truncate(filled);
    Some(content)
}

fn packages(name: &str, old: Option<String>, new: Option<String>) -> Option<Vec<PackageChange>> {
    locked::changes(name, &old?, &new?)
}

/// The text of a lock file, when it is one and not too long.
fn text(manifest: &Manifest, path: &TreePath, read: impl FnOnce(&File) -> Option<Vec<u8>>) -> Option<String> {
    let file = match &manifest.tree.get(path.as_str())?.kind {
        EntryKind::File(file) if file.bytes() <= LOCK_BYTES_MAX => file,
        EntryKind::File(_) | EntryKind::Dir | EntryKind::Link { .. } => return None,
    };
    String::from_utf8(read(file)?).ok()
}
