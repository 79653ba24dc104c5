//! What changes from one release to another.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Entry, Manifest, TreePath, run_lines};

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
    let path = |entry: &Entry| entry.path.clone();
    let without = |these: &Manifest, others: &Manifest| {
        let missing = |entry: &&Entry| others.tree.get(entry.path.as_str()).is_none();
        these.tree.entries().iter().filter(missing).map(path).collect()
    };
    let changed = |entry: &&Entry| {
        let before = old.tree.get(entry.path.as_str());
        before.is_some_and(|before| before.kind != entry.kind)
    };
    Diff {
        added: without(new, old),
        removed: without(old, new),
        changed: new.tree.entries().iter().filter(changed).map(path).collect(),
        settings: settings(old, new),
    }
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
