//! What is new in a tree is made durable, all of it or with an error.

use std::path::Path;

use baton_core::release::TreePath;

use crate::beneath::Beneath;
use crate::disk::{self, DiskError, failed};
use crate::parallel;

/// So many things are made durable one by one. When there are more, the whole file system is told to at once: 18,700
/// single waits for a disk are half a minute where it has no cache of its own.
const SINGLY_MAX: usize = 64;

/// Something that is not durable yet.
pub(super) enum New<'a> {
    /// A file in the tree.
    File(&'a TreePath),
    /// A directory in the tree; `.` is the tree itself.
    Dir(&'a str),
    /// Beside the tree, in our own directory, or that directory itself.
    Beside(&'static str),
}

/// What is beside every tree.
pub(super) const BESIDE: [New<'static>; 3] =
    [New::Beside("manifest"), New::Beside("laid-out"), New::Beside(".")];

/// Makes everything that is new in `home`, with its tree, durable. The handle on the tree must be older than what is new.
/// `step` is called before each thing.
pub(super) fn make_durable(
    home: &Path,
    tree: &Beneath,
    new: &[New<'_>],
    step: &(impl Fn() + Sync),
) -> Result<(), DiskError> {
    if new.len() > SINGLY_MAX && disk::tells_what_it_cannot_sync(tree.dir()) {
        step();
        return rustix::fs::syncfs(tree.dir()).map_err(failed("sync", home));
    }
    parallel::for_each(new, |new| {
        step();
        let (synced, path) = match new {
            New::File(path) => (tree.read(path).and_then(|file| file.sync_all()), path.as_str()),
            New::Dir(path) => (tree.below(path).and_then(|dir| Ok(rustix::fs::fsync(dir.dir())?)), *path),
            New::Beside(name) => return disk::sync(&home.join(name)),
        };
        synced.map_err(failed("sync", home.join("tree").join(path)))
    })
}
