//! A release under construction: invisible until it is complete and durable, gone when anything fails.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use baton_core::ids::ReleaseId;
use baton_core::release::{Entry, EntryKind, Manifest, TreePath};

use super::verify::{mode_of, stamps};
use super::{ReleasesDir, VerifyError, create_dir, remove};
use crate::beneath::{Beneath, DIR_MODE};
use crate::disk::{self, DiskError, failed};
use crate::parallel;

/// A release under construction. Dropped without [`Staging::finish`], it is removed.
pub(crate) struct Staging<'a> {
    releases: &'a ReleasesDir,
    id: ReleaseId,
    manifest: &'a Manifest,
    home: Home,
    tree: Beneath,
}

/// The directory of a release under construction; what is left of it when it is dropped is removed.
struct Home(PathBuf);

impl Drop for Home {
    /// Gives the space back. When that fails, the next start does it.
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

impl<'a> Staging<'a> {
    /// Starts a release; the caller has the [turn](ReleasesDir::turn).
    pub(crate) fn begin(
        releases: &'a ReleasesDir,
        id: ReleaseId,
        manifest: &'a Manifest,
    ) -> Result<Self, DiskError> {
        let home = releases.staging().join(id.to_string());
        // Left there when removing it failed.
        remove(&home)?;
        let home = Home(home);
        let path = home.0.join("tree");
        create_dir(&path)?;
        let tree = Beneath::open(&path).map_err(failed("open", &path))?;
        Ok(Self { releases, id, manifest, home, tree })
    }

    /// Creates every directory, file and link, still without content. `step` is called after each.
    pub(crate) fn create(&self, step: impl Fn()) -> Result<(), DiskError> {
        for Entry { path, kind } in self.manifest.tree.entries() {
            let created = match kind {
                EntryKind::Dir => self.tree.create_dir(path),
                EntryKind::File(_) => self.tree.create_file(path),
                EntryKind::Link { target } => self.tree.create_link(path, target),
            };
            created.map_err(failed("create", self.full(path)))?;
            step();
        }
        Ok(())
    }

    /// Writes a piece of a file.
    pub(crate) fn write(&self, path: &TreePath, offset: u64, content: &[u8]) -> Result<(), DiskError> {
        let written = self.tree.write(path).and_then(|file| file.write_all_at(content, offset));
        written.map_err(failed("write", self.full(path)))
    }

    /// Makes everything durable, then visible. `step` is called in between.
    pub(crate) fn finish(self, step: impl Fn() + Sync) -> Result<(), VerifyError> {
        parallel::for_each(self.manifest.tree.entries(), |entry| {
            step();
            self.seal(entry)
        })?;
        let stamps = stamps(self.id, &self.tree, self.manifest)?;
        disk::write_synced(&self.home.0.join("manifest"), self.manifest.to_text().as_bytes())?;
        step();
        disk::write_synced(&self.home.0.join("laid-out"), stamps.as_bytes())?;
        set_mode(&self.home.0.join("tree"))?;
        set_mode(&self.home.0)?;
        step();
        Ok(self.show(step)?)
    }

    /// Gives a file or directory its mode and makes it durable.
    fn seal(&self, Entry { path, kind }: &Entry) -> Result<(), DiskError> {
        let mode = match kind {
            EntryKind::Link { .. } => return Ok(()),
            EntryKind::Dir => DIR_MODE,
            EntryKind::File(file) => mode_of(file),
        };
        self.tree
            .read(path)
            .and_then(|file| set_mode_and_sync(&file, mode))
            .map_err(failed("sync", self.full(path)))
    }

    /// Renames the complete release to where it is launched from.
    fn show(&self, step: impl Fn()) -> Result<(), DiskError> {
        let place = self.releases.home(self.id);
        let damaged = self.home.0.with_extension("damaged");
        if self.releases.has(self.id) {
            // A program may still run from it and keeps its files until the next start empties staging.
            remove(&damaged)?;
            fs::rename(&place, &damaged).map_err(failed("move away", &place))?;
            step();
        }
        fs::rename(&self.home.0, &place).map_err(failed("rename into place", &self.home.0))?;
        step();
        disk::sync_dir(&self.releases.complete()).inspect_err(|_| {
            // It may be gone after a power cut, so nobody may count on it.
            let _ = fs::rename(&place, &self.home.0);
        })
    }

    fn full(&self, path: &TreePath) -> PathBuf {
        self.home.0.join("tree").join(path.as_str())
    }
}

fn set_mode(dir: &Path) -> Result<(), DiskError> {
    File::open(dir).and_then(|file| set_mode_and_sync(&file, DIR_MODE)).map_err(failed("sync", dir))
}

/// The mode is set on the open file, whatever the umask was when it was created.
fn set_mode_and_sync(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}
