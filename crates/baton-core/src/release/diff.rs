//! What changes from one release to another.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Manifest, Patch, Tree, TreePath, run_lines};

/// What changes from one release to another; empty lists mean that nothing does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// Only in the new one.
    pub added: Vec<TreePath>,
    /// Only in the old one.
    pub removed: Vec<TreePath>,
    /// In both, with another content, kind, target or executable bit.
    pub changed: Vec<TreePath>,
    /// Run settings that differ, and where links may lead outside.
    pub settings: Vec<SettingChange>,
}

impl Diff {
    /// Whether both releases run the same files in the same way.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One setting that differs, in the spelling of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// The setting: `run.drain`.
    pub key: &'static str,
    /// Its values that only the old release has.
    pub old: Vec<String>,
    /// Its values that only the new release has.
    pub new: Vec<String>,
}

/// What changes from `old` to `new`. Where a release comes from is not compared.
pub fn diff(old: &Manifest, new: &Manifest) -> Diff {
    // Only what differs is looked up: most of two releases is the same.
    let Patch { remove, create, keep: _ } = Patch::between(&old.tree, &new.tree);
    let is_in = |tree: &Tree, path: &TreePath| tree.get(path.as_str()).is_some();
    let gone = remove.iter().rev().map(|index| &old.tree.entries()[*index].path);
    let come = create.iter().map(|index| &new.tree.entries()[*index].path);
    let (changed, added) = come.cloned().partition(|path| is_in(&old.tree, path));
    let removed = gone.filter(|path| !is_in(&new.tree, path)).cloned().collect();
    Diff { added, removed, changed, settings: settings(old, new) }
}

/// What was decided about a release, besides its files, as the manifest spells it.
fn lines(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let external = manifest.tree.external().iter().map(|target| ("external", target.to_string()));
    run_lines::write(&manifest.run).into_iter().chain(external).collect()
}

fn settings(old: &Manifest, new: &Manifest) -> Vec<SettingChange> {
    let (old, new) = (lines(old), lines(new));
    let mut keys: Vec<&'static str> = old.iter().chain(&new).map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    let only = |key, these: &[(&str, String)], others: &[(&str, String)]| -> Vec<String> {
        let differs = |line: &&(&str, String)| line.0 == key && !others.contains(line);
        these.iter().filter(differs).map(|(_, value)| value.clone()).collect()
    };
    keys.into_iter()
        .map(|key| SettingChange { key, old: only(key, &old, &new), new: only(key, &new, &old) })
        .filter(|change| !change.old.is_empty() || !change.new.is_empty())
        .collect()
}
