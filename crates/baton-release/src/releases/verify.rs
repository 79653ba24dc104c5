//! Whether a release on disk is still what was laid out.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::{Entry, EntryKind, File, Manifest, TreePath};
use rustix::fs::{FileType, Stat};

use super::ReleasesDir;
use crate::beneath::{Beneath, DIR_MODE, EXEC_MODE, FILE_MODE};
use crate::disk::{self, DiskError, failed};
use crate::manifest::ManifestRefused;
use crate::parallel;

/// Why a release must not be launched.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not on disk.
    #[error("release {0} is not on disk")]
    Absent(ReleaseId),
    /// Its manifest was altered.
    #[error("the manifest on disk was altered")]
    Manifest(#[from] ManifestRefused),
    /// Its tree was altered.
    #[error("release {id} was altered on disk: {path} {what}")]
    Altered {
        /// The release.
        id: ReleaseId,
        /// What was altered.
        path: TreePath,
        /// How.
        what: &'static str,
    },
    /// Something has touched its files since they were laid out; whether it altered them is not known.
    #[error("files of release {0} were touched on disk")]
    Touched(ReleaseId),
    /// The disk fails.
    #[error("the release cannot be verified")]
    Disk(#[from] DiskError),
}

impl ReleasesDir {
    /// Makes sure before a launch that a release is what its id says: quickly when nothing has touched it since it
    /// was laid out, else by reading everything.
    ///
    /// Files that the program has added to the tree are tolerated.
    pub fn verify(&self, id: ReleaseId) -> Result<(), VerifyError> {
        match self.verify_quick(id) {
            Err(VerifyError::Touched(_)) => self.verify_full(id),
            done => done,
        }
    }

    /// Makes sure that every file has the kind, mode and size of the manifest, and the inode and times that it had
    /// when it was laid out. Reads no content.
    pub fn verify_quick(&self, id: ReleaseId) -> Result<(), VerifyError> {
        let manifest = self.manifest(id)?;
        let found = stamps(id, &self.tree(id)?, &manifest)?;
        // Without a record, or with a damaged one, nothing is known: that is the same as touched.
        match fs::read(self.stamps_path(id)) {
            Ok(laid_out) if laid_out == found.as_bytes() => Ok(()),
            Ok(_) | Err(_) => Err(VerifyError::Touched(id)),
        }
    }

    /// Makes sure that every file has the kind, mode, size and content of the manifest, and remembers the result for
    /// the next [`ReleasesDir::verify_quick`].
    pub fn verify_full(&self, id: ReleaseId) -> Result<(), VerifyError> {
        let manifest = self.manifest(id)?;
        let tree = self.tree(id)?;
        // Taken before reading: what is touched while reading differs from it the next time.
        let found = stamps(id, &tree, &manifest)?;
        let files: Vec<(&TreePath, &File)> = manifest.tree.files().collect();
        parallel::for_each(&files, |(path, file)| match same_content(&tree, path, file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(altered(id, path, "has another content")),
            Err(error) => Err(failed("read", self.path(id).join(path.as_str()))(error).into()),
        })?;
        Ok(disk::replace(&self.stamps_path(id), found.as_bytes())?)
    }

    fn stamps_path(&self, id: ReleaseId) -> PathBuf {
        self.home(id).join("laid-out")
    }
}

fn altered(id: ReleaseId, path: &TreePath, what: &'static str) -> VerifyError {
    VerifyError::Altered { id, path: path.clone(), what }
}

/// What tells without reading whether a file was touched: inode, and times of change of content and of the rest.
/// A first line for the version, then one for each file of the manifest.
pub(super) fn stamps(id: ReleaseId, tree: &Beneath, manifest: &Manifest) -> Result<String, VerifyError> {
    let mut text = "baton-laid-out 1\n".to_owned();
    for Entry { path, kind } in manifest.tree.entries() {
        let found = tree.stat(path).map_err(|_| altered(id, path, "is missing"))?;
        let (what, mode) = match kind {
            EntryKind::Dir => (FileType::Directory, Some(DIR_MODE)),
            EntryKind::Link { .. } => (FileType::Symlink, None),
            EntryKind::File(file) => (FileType::RegularFile, Some(mode_of(file))),
        };
        if FileType::from_raw_mode(found.st_mode) != what {
            return Err(altered(id, path, "is something else"));
        }
        if mode.is_some_and(|mode| found.st_mode & 0o7777 != mode) {
            return Err(altered(id, path, "has another mode"));
        }
        match kind {
            EntryKind::Dir => {}
            EntryKind::Link { target } => {
                if tree.link_target(path).ok().as_deref() != Some(target.as_bytes()) {
                    return Err(altered(id, path, "points elsewhere"));
                }
            }
            EntryKind::File(file) if found.st_size as u64 != file.bytes() => {
                return Err(altered(id, path, "has another size"));
            }
            EntryKind::File(_) => {
                let Stat { st_ino, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec, .. } = found;
                // Writing to a String cannot fail.
                let _ =
                    writeln!(text, "{st_ino} {st_mtime}.{st_mtime_nsec:09} {st_ctime}.{st_ctime_nsec:09}");
            }
        }
    }
    Ok(text)
}

/// The mode that a file is laid out with.
pub(super) fn mode_of(file: &File) -> u32 {
    if file.executable { EXEC_MODE } else { FILE_MODE }
}

fn same_content(tree: &Beneath, path: &TreePath, file: &File) -> std::io::Result<bool> {
    let mut source = tree.read(path)?;
    let mut content = Vec::new();
    for expected in &file.chunks {
        content.resize(expected.bytes as usize, 0);
        source.read_exact(&mut content)?;
        if ChunkId::of(&content) != expected.id {
            return Ok(false);
        }
    }
    Ok(source.read(&mut [0])? == 0)
}
