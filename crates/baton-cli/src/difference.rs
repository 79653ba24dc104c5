//! What changes from the release in force to another one.

use std::fs;
use std::path::Path;

use baton_core::release::{self, EntryKind, File, Manifest, SettingChange, TreePath};
use baton_release::content;
use baton_release::store::ArtefactStore;
use serde::Serialize;

use crate::locked::{self, LOCK_BYTES_MAX, PackageChange};

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

/// What changes from `old`, which is in the store, to `new`, which is in a directory: lock files that differ are read there.
pub fn difference(
    since: String,
    old: &Manifest,
    new: &Manifest,
    dir: &Path,
    store: &dyn ArtefactStore,
) -> Difference {
    let release::Diff { added, removed, changed, settings, libraries } = release::diff(old, new);
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
