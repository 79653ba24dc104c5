//! The spare tree: made while nothing is urgent, so that the next release costs what changed.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::{self, Chunk, Entry, EntryKind, Manifest, TreePath, outline};
use rustix::fs::{FileType, Stat};

use super::base::{Base, Unread, put_aside_extras, strip};
use super::durable::{BESIDE, New, make_durable};
use super::stamps::{Stamp, Stamps, Sum, mode_of};
use super::verify::has_content;
use super::{Needs, RecordError, ReleasesDir, VerifyError, create_dir};
use crate::beneath::{Beneath, Cursor, DIR_MODE};
use crate::disk::{self, DiskError, failed, remove};

/// What is known of the spare tree without reading anything: nobody can have left anything in it.
pub(super) struct SpareKnown {
    /// The release that it is like.
    id: ReleaseId,
    /// What its stamps are known by.
    sum: Sum,
    /// How the manifest of that is cut. Cutting it takes longer than fetching what a release has changed.
    chunks: Vec<Chunk>,
}

impl ReleasesDir {
    /// The release that the spare tree is like, if there is one.
    pub(super) fn spare(&self) -> Option<ReleaseId> {
        super::ids_in(&self.spares()).ok()?.first().copied()
    }

    pub(super) fn spare_home(&self, id: ReleaseId) -> PathBuf {
        self.spares().join(id.to_string())
    }

    pub(super) fn spares(&self) -> PathBuf {
        self.path.join("spare")
    }

    /// What should be the manifest of the spare tree.
    pub(super) fn spare_text(&self, id: ReleaseId) -> Result<String, DiskError> {
        super::read_manifest(&self.spare_home(id))
    }

    /// What the stamps of the spare tree are known by, which is like this release, when nobody can have left anything in it.
    pub(super) fn spare_sum(&self, id: ReleaseId) -> Option<Sum> {
        self.of_spare(id, |known| known.sum)
    }

    /// How the manifest of the release that the spare tree is like is cut.
    pub(super) fn spare_chunks(&self, id: ReleaseId) -> Option<Vec<Chunk>> {
        self.of_spare(id, |known| known.chunks.clone())
    }

    fn of_spare<T>(&self, id: ReleaseId, what: impl FnOnce(&SpareKnown) -> T) -> Option<T> {
        let known = self.spare_known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|known| known.id == id).map(what)
    }

    fn know_spare(&self, id: ReleaseId, stamps: &Stamps, manifest: &str) {
        let known = SpareKnown { id, sum: stamps.sum(), chunks: outline::chunks(manifest) };
        *self.spare_known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// Makes the spare tree like the committed release: out of the one that there is, or of a release that need not be
    /// kept, or as a copy where there is room for that. Returns which release that is, if it was not so already.
    /// The caller has the turn.
    pub(super) fn make_spare(&self, surplus: Option<ReleaseId>) -> Result<Option<ReleaseId>, VerifyError> {
        let id = match self.committed() {
            Ok(Some(committed)) => committed.release,
            Err(RecordError::Disk(error)) => return Err(error.into()),
            Ok(None) | Err(_) => return Ok(None),
        };
        if self.spare() == Some(id) && (self.spare_sum(id).is_some() || self.look_through(id)) {
            return Ok(None);
        }
        let manifest = self.manifest(id)?;
        let home = self.staging().join("spare");
        remove(&home)?;
        // Of what is not known to be right, each file is read when it is looked at.
        let known = match (self.spare(), surplus) {
            (Some(spare), _) => Some((self.spare_home(spare), spare, self.spare_base(spare, Unread::Leave))),
            (None, Some(surplus)) => {
                Some((self.home(surplus), surplus, self.release_base(surplus, Unread::Leave)))
            }
            (None, None) => None,
        };
        let Some(old) = self.move_to(&home, known, &manifest)? else { return Ok(None) };
        let (text, stamps) = self.fill_spare(&home, id, &manifest, old.as_ref())?;
        let place = self.spare_home(id);
        fs::rename(&home, &place).map_err(failed("rename into place", &place))?;
        disk::sync(&self.spares())?;
        self.know_spare(id, &stamps, &text);
        Ok(Some(id))
    }

    /// Puts what the spare tree is made of where it is made, or an empty tree. Returns what is known of it; nothing at
    /// all, where there is none.
    fn move_to(
        &self,
        home: &Path,
        known: Option<(PathBuf, ReleaseId, Option<Base>)>,
        manifest: &Manifest,
    ) -> Result<Option<Option<Base>>, VerifyError> {
        let Some((from, id, base)) = known else {
            let mut needs = Needs::default();
            manifest.tree.entries().iter().for_each(|entry| needs.add(entry));
            // As much must be left as the spare tree takes: it is a help, and no reason for others to fail.
            let room = self.room(Needs { bytes: 2 * needs.bytes, inodes: 2 * needs.inodes })?;
            if room.is_err() || disk::is_in_memory(&self.path) {
                return Ok(None);
            }
            create_dir(&home.join("tree"))?;
            return Ok(Some(None));
        };
        if !self.take_away(id, &from, home)? {
            // Somebody has come to want it. The next time there is another one, or room for a copy.
            return Ok(None);
        }
        strip(home)?;
        Ok(Some(base))
    }

    /// Whether the spare tree of an earlier life is as it was left, content and all. What a program put into it goes.
    fn look_through(&self, id: ReleaseId) -> bool {
        let looked = || {
            let base = self.spare_base(id, Unread::Read)?;
            let tree = Beneath::open(&self.spare_home(id).join("tree")).ok()?;
            let gone = self.gone();
            create_dir(&gone).ok()?;
            put_aside_extras(&tree, &base.manifest, &Beneath::open(&gone).ok()?).ok()?;
            Some(base)
        };
        let looked = looked().and_then(|base| {
            let text = self.spare_text(id).ok()?;
            self.know_spare(id, &base.stamps, &text);
            Some(())
        });
        looked.is_some()
    }

    /// Makes a tree, whatever is in it, like that of a release on disk, and makes it durable. Returns the text of the manifest,
    /// and what its files are known by.
    fn fill_spare(
        &self,
        home: &Path,
        id: ReleaseId,
        manifest: &Manifest,
        old: Option<&Base>,
    ) -> Result<(String, Stamps), VerifyError> {
        let path = home.join("tree");
        let tree = Beneath::open(&path).map_err(failed("open", &path))?;
        let gone = self.gone();
        create_dir(&gone)?;
        let aside = Beneath::open(&gone).map_err(failed("open", &gone))?;
        put_aside_extras(&tree, manifest, &aside).map_err(failed("tidy", &path))?;
        let source = self.tree(id)?;
        let cursor = tree.cursor();
        let mut mender =
            Mender { id, tree: &tree, cursor, aside: &aside, source: &source, old, new: Vec::new() };
        for (index, entry) in manifest.tree.entries().iter().enumerate() {
            mender.mend(index, entry)?;
        }
        let stamps = Stamps::look(id, &tree, manifest)?;
        let text = self.manifest_text(id)?;
        disk::write_new(&home.join("manifest"), text.as_bytes())?;
        disk::write_new(&home.join("laid-out"), &stamps.to_bytes())?;
        // Also where only something went: in all directories, which are few.
        let dirs = manifest.tree.entries().iter().filter(|entry| entry.kind == EntryKind::Dir);
        mender.new.extend(dirs.map(|entry| New::Dir(entry.path.as_str())).chain([New::Dir(".")]));
        mender.new.extend(BESIDE);
        make_durable(home, &tree, &mender.new, &|| {})?;
        Ok((text, stamps))
    }
}

/// Puts right what differs in a tree.
struct Mender<'a> {
    id: ReleaseId,
    tree: &'a Beneath,
    cursor: Cursor<'a>,
    aside: &'a Beneath,
    source: &'a Beneath,
    old: Option<&'a Base>,
    /// The files that were made.
    new: Vec<New<'a>>,
}

impl<'a> Mender<'a> {
    fn mend(&mut self, index: usize, Entry { path, kind }: &'a Entry) -> Result<(), VerifyError> {
        if let Ok(found) = self.cursor.stat(path) {
            if self.is_right(&found, path, kind) {
                return Ok(());
            }
            let moved = self.cursor.move_to(path, self.aside, &index.to_string());
            moved.map_err(failed("move away", path.as_str()))?;
        }
        let made = match kind {
            EntryKind::Dir => self.cursor.create_dir(path),
            EntryKind::Link { target } => self.cursor.create_link(path, target),
            EntryKind::File(file) => match self.copy(path, file) {
                Ok(false) => {
                    let (id, path) = (self.id, path.clone());
                    return Err(VerifyError::Altered { id, path, what: "has another content" });
                }
                done => done.map(|_| self.new.push(New::File(path))),
            },
        };
        Ok(made.map_err(failed("create", path.as_str()))?)
    }

    /// Whether something is as it should be; of a file that nothing has touched since it was laid out, also without
    /// reading it.
    fn is_right(&mut self, found: &Stat, path: &'a TreePath, kind: &EntryKind) -> bool {
        let (is, mode) = (FileType::from_raw_mode(found.st_mode), found.st_mode & 0o7777);
        match kind {
            EntryKind::Dir => is == FileType::Directory && mode == DIR_MODE,
            EntryKind::Link { target } => {
                let to = self.cursor.link_target(path);
                is == FileType::Symlink && to.is_ok_and(|to| to == target.as_bytes())
            }
            EntryKind::File(file) => {
                let plain = is == FileType::RegularFile && mode == mode_of(file) && found.st_nlink == 1;
                let untouched = || self.was(path, file) == Some(Stamp::of(found));
                plain && (untouched() || has_content(self.tree, path, file).unwrap_or(false))
            }
        }
    }

    /// What a file of this content was known by in what the tree is made of.
    fn was(&self, path: &TreePath, file: &release::File) -> Option<Stamp> {
        let old = self.old?;
        let index = old.manifest.tree.index_of(path.as_str())?;
        let same = matches!(&old.manifest.tree.entries()[index].kind, EntryKind::File(was) if was == file);
        same.then(|| old.stamps.0[index])
    }

    /// Copies a file of the release; `false` when that has another content there.
    fn copy(&self, path: &TreePath, file: &release::File) -> io::Result<bool> {
        let mut new = self.tree.create_file(path)?;
        let mut source = self.source.read(path)?;
        let same = match rustix::fs::ioctl_ficlone(&new, &source) {
            Ok(()) => has_content(self.tree, path, file)?,
            // Most file systems cannot share blocks.
            Err(_) => copy_checked(&mut source, &mut new, file)?,
        };
        new.set_permissions(Permissions::from_mode(mode_of(file)))?;
        Ok(same)
    }
}

fn copy_checked(source: &mut File, new: &mut File, file: &release::File) -> io::Result<bool> {
    let mut content = Vec::new();
    for chunk in &file.chunks {
        content.resize(chunk.bytes as usize, 0);
        source.read_exact(&mut content)?;
        if ChunkId::of(&content) != chunk.id {
            return Ok(false);
        }
        new.write_all(&content)?;
    }
    Ok(source.read(&mut [0])? == 0)
}
