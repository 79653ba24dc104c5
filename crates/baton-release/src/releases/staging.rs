//! A release under construction: invisible until it is complete and durable, gone when anything fails but the way here.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use baton_core::ids::ReleaseId;
use baton_core::release::{self, Entry, EntryKind, Manifest, Patch, TreePath};

use super::base::{Base, strip};
use super::durable::{BESIDE, New, make_durable};
use super::stamps::{Stamp, Stamps, mode_of};
use super::{Needs, ReleasesDir, create_dir};
use crate::beneath::{Beneath, DIR_MODE};
use crate::disk::{self, DiskError, failed, remove};
use crate::parallel;

/// A release under construction. Dropped without [`Staging::finish`] or [`Staging::leave`], it is removed.
pub(crate) struct Staging<'a> {
    releases: &'a ReleasesDir,
    id: ReleaseId,
    text: &'a str,
    manifest: &'a Manifest,
    home: Home,
    tree: Beneath,
    patch: Patch,
    made_of: Option<MadeOf>,
    /// Whoever made what stays may have been killed before it was durable.
    goes_on: bool,
    stamps: Mutex<Vec<Stamp>>,
}

/// Where content is before it is fetched: in what the new release is made of.
pub(crate) struct MadeOf {
    pub(super) was: Vec<Entry>,
    pub(super) removed: Vec<usize>,
    pub(super) aside: Beneath,
}

impl MadeOf {
    /// What was in it.
    pub(crate) fn was(&self) -> &[Entry] {
        &self.was
    }

    /// The entries of that which are not in the tree any more.
    pub(crate) fn removed(&self) -> &[usize] {
        &self.removed
    }

    /// Where these are, each by its number.
    pub(crate) fn aside(&self) -> &Beneath {
        &self.aside
    }
}

/// A place for content: the number of a file in the manifest, and where in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) entry: usize,
    pub(crate) offset: u64,
}

/// The directory of a release under construction; what is left of it when it is dropped is removed.
struct Home {
    path: PathBuf,
    /// It is not.
    stays: bool,
}

impl Drop for Home {
    /// Gives the space back. When that fails, the next fetch does it.
    fn drop(&mut self) {
        if !self.stays {
            let _ = remove(&self.path);
        }
    }
}

/// A tree that was moved to where a release is made of it.
pub(super) struct Taken {
    pub(super) patch: Patch,
    /// Of what stays as it is.
    pub(super) stamps: Vec<Stamp>,
    pub(super) made_of: MadeOf,
}

impl Taken {
    /// Nothing, when the tree is a release that has to stay by now.
    fn take(
        releases: &ReleasesDir,
        base: Base,
        manifest: &Manifest,
        home: &Home,
    ) -> Result<Option<Self>, DiskError> {
        let gone = releases.gone();
        create_dir(&gone)?;
        let aside = Beneath::open(&gone).map_err(failed("open", &gone))?;
        let (patch, taken) = thread::scope(|scope| {
            // While the disk is waited for.
            let patch = scope.spawn(|| Patch::between(&base.manifest.tree, &manifest.tree));
            let taken = base.take(releases, &home.path, &aside);
            (patch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), taken)
        });
        if !taken? {
            return Ok(None);
        }
        let mut stamps = vec![Stamp::default(); manifest.tree.entries().len()];
        patch.keep.iter().for_each(|(old, new)| stamps[*new] = base.stamps.0[*old]);
        let (removed, was) = (patch.remove.clone(), base.manifest.tree.into_entries());
        Ok(Some(Self { patch, stamps, made_of: MadeOf { was, removed, aside } }))
    }
}

impl<'a> Staging<'a> {
    /// Starts a release, from a tree that is none from then on, from what is left of an earlier fetch, or from nothing; the
    /// caller has the [turn](ReleasesDir::turn).
    pub(crate) fn begin(
        releases: &'a ReleasesDir,
        id: ReleaseId,
        (text, manifest): (&'a str, &'a Manifest),
        base: Option<Base>,
    ) -> Result<Self, DiskError> {
        let home = Home { path: releases.staged(id), stays: false };
        let path = home.path.join("tree");
        let begun = releases.begun().filter(|_| base.is_none());
        releases.remove_begun(begun)?;
        let (taken, goes_on) = match (base, begun) {
            (Some(base), _) => (Taken::take(releases, base, manifest, &home)?, false),
            (None, Some(begun)) => (releases.take_begun(begun, manifest, &home.path)?, true),
            (None, None) => (None, false),
        };
        let (patch, stamps, made_of) = match taken {
            Some(Taken { patch, stamps, made_of }) => (patch, stamps, Some(made_of)),
            None => {
                create_dir(&path)?;
                let stamps = vec![Stamp::default(); manifest.tree.entries().len()];
                (Patch::from_nothing(&manifest.tree), stamps, None)
            }
        };
        let tree = Beneath::open(&path).map_err(failed("open", &path))?;
        let stamps = Mutex::new(stamps);
        Ok(Self { releases, id, text, manifest, home, tree, patch, made_of, goes_on, stamps })
    }

    /// Leaves everything as it is, for the next fetch to go on from there.
    pub(crate) fn leave(mut self) {
        self.home.stays = true;
    }

    /// Whether it goes on from what an earlier fetch has left.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on && self.made_of.is_some()
    }

    /// What it is made of, if not of nothing.
    pub(crate) fn made_of(&self) -> Option<&MadeOf> {
        self.made_of.as_ref()
    }

    /// Where the files are, also those that are kept.
    pub(crate) fn tree(&self) -> &Beneath {
        &self.tree
    }

    /// What it takes on disk.
    pub(crate) fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        self.created().for_each(|(_, entry)| needs.add(entry));
        needs
    }

    /// How many of its files stay as they are.
    pub(crate) fn kept(&self) -> usize {
        self.patch.keep.len()
    }

    /// The files that need content.
    pub(crate) fn files(&self) -> impl Iterator<Item = (usize, &'a release::File)> {
        self.created().filter_map(|(index, entry)| match &entry.kind {
            EntryKind::File(file) => Some((index, file)),
            EntryKind::Dir | EntryKind::Link { .. } => None,
        })
    }

    /// Puts aside what is not in the new tree, and creates what needs no content. `step` is called after each.
    pub(crate) fn prepare(&self, step: impl Fn() + Sync) -> Result<(), DiskError> {
        if let Some(made_of) = &self.made_of {
            let mut cursor = self.tree.cursor();
            for index in &self.patch.remove {
                let Entry { path, kind } = &made_of.was[*index];
                let gone = match kind {
                    EntryKind::Dir => cursor.remove_dir(path),
                    EntryKind::File(_) | EntryKind::Link { .. } => {
                        cursor.move_to(path, &made_of.aside, &index.to_string())
                    }
                };
                gone.map_err(failed("remove", self.full(path)))?;
                step();
            }
        }
        let mut cursor = self.tree.cursor();
        for (_, Entry { path, kind }) in self.created() {
            let created = match kind {
                EntryKind::Dir => cursor.create_dir(path),
                EntryKind::Link { target } => cursor.create_link(path, target),
                // Those with one chunk are created with it.
                EntryKind::File(_) => continue,
            };
            created.map_err(failed("create", self.full(path)))?;
            step();
        }
        parallel::for_each(&self.in_pieces(), |(_, path, _)| {
            self.tree.create_file(path).map_err(failed("create", self.full(path)))?;
            step();
            Ok(())
        })
    }

    /// Writes the manifest. Where little else is new, its way to the disk takes longest, so that it starts at once.
    pub(crate) fn write_manifest(&self) -> Result<(), DiskError> {
        let path = self.home.path.join("manifest");
        let file = disk::write_new(&path, self.text.as_bytes())?;
        match self.made_of {
            Some(_) => file.sync_all().map_err(failed("sync", &path)),
            None => Ok(()),
        }
    }

    /// Writes a piece of a file.
    pub(crate) fn write(&self, Place { entry, offset }: Place, content: &[u8]) -> Result<(), DiskError> {
        let Entry { path, kind: EntryKind::File(file) } = &self.manifest.tree.entries()[entry] else {
            return Ok(());
        };
        let written = match file.chunks.len() {
            1 => self.tree.create_file(path).and_then(|mut new| {
                new.write_all(content)?;
                self.seal(entry, &new, file)
            }),
            _ => self.tree.write(path).and_then(|there| there.write_all_at(content, offset)),
        };
        written.map_err(failed("write", self.full(path)))
    }

    /// Makes everything durable, also the manifest that was written, then visible. `step` is called in between.
    pub(crate) fn finish(self, step: impl Fn() + Sync) -> Result<(), DiskError> {
        parallel::for_each(&self.in_pieces(), |(entry, path, file)| {
            let sealed = self.tree.read(path).and_then(|there| self.seal(*entry, &there, file));
            sealed.map_err(failed("set the mode of", self.full(path)))
        })?;
        let record = Stamps(self.stamps.lock().unwrap_or_else(PoisonError::into_inner).clone());
        disk::write_new(&self.home.path.join("laid-out"), &record.to_bytes())?;
        step();
        self.sync(&step)?;
        self.show(step)?;
        self.releases.known.learn(self.id, &record);
        Ok(())
    }

    /// Gives a file its mode, and remembers which one it is.
    fn seal(&self, entry: usize, file: &File, said: &release::File) -> io::Result<()> {
        // On the open file, whatever the umask was when it was created.
        file.set_permissions(Permissions::from_mode(mode_of(said)))?;
        let stamp = Stamp::of(&rustix::fs::fstat(file)?);
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)[entry] = stamp;
        Ok(())
    }

    fn created(&self) -> impl Iterator<Item = (usize, &'a Entry)> {
        let entries = self.manifest.tree.entries();
        self.patch.create.iter().map(|index| (*index, &entries[*index]))
    }

    /// The new files that are not written at once.
    fn in_pieces(&self) -> Vec<(usize, &'a TreePath, &'a release::File)> {
        let in_pieces = self.files().filter(|(_, file)| file.chunks.len() != 1);
        in_pieces.map(|(index, file)| (index, &self.manifest.tree.entries()[index].path, file)).collect()
    }

    fn sync(&self, step: &(impl Fn() + Sync)) -> Result<(), DiskError> {
        let dirs = self.changed_dirs();
        let mode = Permissions::from_mode(DIR_MODE);
        parallel::for_each(&dirs, |dir| {
            let set =
                self.tree.below(dir).and_then(|dir| Ok(rustix::fs::fchmod(dir.dir(), DIR_MODE.into())?));
            set.map_err(failed("set the mode of", self.home.path.join("tree").join(dir)))
        })?;
        fs::set_permissions(&self.home.path, mode).map_err(failed("set the mode of", &self.home.path))?;
        let mut files: Vec<&TreePath> =
            self.files().map(|(index, _)| &self.manifest.tree.entries()[index].path).collect();
        if self.goes_on {
            files = self.manifest.tree.files().map(|(path, _)| path).collect();
        }
        let files = files.into_iter().map(New::File);
        let new: Vec<New<'_>> = files.chain(dirs.iter().map(|dir| New::Dir(dir))).chain(BESIDE).collect();
        make_durable(&self.home.path, &self.tree, &new, step)
    }

    /// The directories that are new, or in which something came or went.
    fn changed_dirs(&self) -> Vec<&str> {
        let parent = |path: &'a TreePath| path.parent().unwrap_or(".");
        let entries = self.manifest.tree.entries();
        let all = entries.iter().filter(|entry| self.goes_on && entry.kind == EntryKind::Dir);
        let removed = self.made_of.iter().flat_map(|made_of| {
            self.patch.remove.iter().map(|index| made_of.was[*index].path.parent().unwrap_or("."))
        });
        let stays = |dir: &&str| {
            let entry = self.manifest.tree.get(dir);
            *dir == "." || entry.is_some_and(|entry| entry.kind == EntryKind::Dir)
        };
        let created = self.created().flat_map(|(_, Entry { path, kind })| {
            let itself = (*kind == EntryKind::Dir).then_some(path.as_str());
            itself.into_iter().chain([parent(path)])
        });
        let dirs =
            removed.filter(stays).chain(created).chain(all.map(|entry| entry.path.as_str())).chain(["."]);
        let dirs: BTreeSet<&str> = dirs.collect();
        dirs.into_iter().collect()
    }

    /// Renames the complete release to where it is launched from.
    fn show(&self, step: impl Fn()) -> Result<(), DiskError> {
        let place = self.releases.home(self.id);
        let damaged = self.home.path.with_extension("damaged");
        if self.releases.has(self.id) {
            // A program may still run from it and keeps its files until the next start empties staging.
            remove(&damaged)?;
            fs::rename(&place, &damaged).map_err(failed("move away", &place))?;
            // What is beside the tree serves nobody any more, and may have secrets.
            strip(&damaged)?;
            step();
        }
        fs::rename(&self.home.path, &place).map_err(failed("rename into place", &self.home.path))?;
        step();
        disk::sync(&self.releases.complete()).inspect_err(|_| {
            // It may be gone after a power cut, so nobody may count on it.
            let _ = fs::rename(&place, &self.home.path);
        })
    }

    fn full(&self, path: &TreePath) -> PathBuf {
        self.home.path.join("tree").join(path.as_str())
    }
}
