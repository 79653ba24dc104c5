//! Whether a release on disk is still what was laid out.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::{File, Manifest, TreePath};

use super::ReleasesDir;
use super::stamps::Stamps;
use crate::beneath::Beneath;
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
    /// Makes sure before a launch that a release is what its id says: quickly when nothing has touched it since this
    /// process has laid it out or read it through, else by reading everything. Returns its manifest.
    ///
    /// What an earlier process has written down about the files is not relied on: whoever can alter them can alter that too.
    ///
    /// Files that the program has added to the tree are tolerated.
    pub fn verify(&self, id: ReleaseId) -> Result<Manifest, VerifyError> {
        let manifest = self.manifest(id)?;
        let found = Stamps::look(id, &self.tree(id)?, &manifest)?;
        if !self.known.has(id, &found) {
            self.read_through(id, &manifest)?;
        }
        Ok(manifest)
    }

    /// Makes sure that every file has the kind, mode and size of the manifest, and the inode and times that it had
    /// when it was laid out, as it was written down then. Reads no content.
    pub fn verify_quick(&self, id: ReleaseId) -> Result<(), VerifyError> {
        self.look(id, &self.manifest(id)?)
    }

    /// Makes sure that every file has the kind, mode, size and content of the manifest, and remembers the result for
    /// the next [`ReleasesDir::verify_quick`], where the disk takes it.
    pub fn verify_full(&self, id: ReleaseId) -> Result<(), VerifyError> {
        self.read_through(id, &self.manifest(id)?)
    }

    fn look(&self, id: ReleaseId, manifest: &Manifest) -> Result<(), VerifyError> {
        let found = Stamps::look(id, &self.tree(id)?, manifest)?;
        if self.is_written_down(id, &found) { Ok(()) } else { Err(VerifyError::Touched(id)) }
    }

    /// Without a record, or with a damaged one, nothing is: that is the same as touched.
    fn is_written_down(&self, id: ReleaseId, stamps: &Stamps) -> bool {
        let written = fs::read(self.stamps_path(id)).ok();
        written.and_then(|bytes| Stamps::from_bytes(&bytes, stamps.0.len())).as_ref() == Some(stamps)
    }

    fn read_through(&self, id: ReleaseId, manifest: &Manifest) -> Result<(), VerifyError> {
        let tree = self.tree(id)?;
        // Taken before reading: what is touched while reading differs from it the next time.
        let found = Stamps::look(id, &tree, manifest)?;
        let files: Vec<(&TreePath, &File)> = manifest.tree.files().collect();
        parallel::for_each(&files, |(path, file)| match has_content(&tree, path, file) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let path = (*path).clone();
                Err(VerifyError::Altered { id, path, what: "has another content" })
            }
            Err(error) => Err(failed("read", self.path(id).join(path.as_str()))(error).into()),
        })?;
        self.known.learn(id, &found);
        if !self.is_written_down(id, &found) {
            // A disk that takes no writes is no reason not to launch it.
            let _ = disk::replace(&self.stamps_path(id), &found.to_bytes());
        }
        Ok(())
    }

    fn stamps_path(&self, id: ReleaseId) -> PathBuf {
        self.home(id).join("laid-out")
    }
}

/// Whether a file has the content of the manifest.
pub(super) fn has_content(tree: &Beneath, path: &TreePath, file: &File) -> std::io::Result<bool> {
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
