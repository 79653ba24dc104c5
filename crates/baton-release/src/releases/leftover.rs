//! What is left of a fetch that could not go on, or that was killed: the next one goes on from there.
//!
//! Nothing of it is believed: who was killed has written nothing down, and after a power cut anything may be missing.
//! Each file is read, and what is not as it shall be is made anew, of the chunks that are right in it. There is one at the
//! most: another release is made of it, or without it.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use baton_core::ids::ReleaseId;
use baton_core::release::{Entry, EntryKind, Manifest, Patch};
use rustix::fs::FileType;

use super::base::{put_aside_extras, strip};
use super::staging::{MadeOf, Taken};
use super::stamps::{Stamp, mode_of};
use super::verify::has_content;
use super::{ReleasesDir, create_dir, ids_in};
use crate::beneath::Beneath;
use crate::disk::{DiskError, failed, remove};
use crate::parallel;

impl ReleasesDir {
    /// The release of which a fetch has left something.
    pub(crate) fn begun(&self) -> Option<ReleaseId> {
        let is_dir =
            |id: &ReleaseId| fs::symlink_metadata(self.staged(*id)).is_ok_and(|found| found.is_dir());
        ids_in(&self.staging()).ok()?.into_iter().find(is_dir)
    }

    /// Removes what fetches have left, but for that of this release. The caller has the turn.
    pub(super) fn remove_begun(&self, but: Option<ReleaseId>) -> Result<(), DiskError> {
        let all = ids_in(&self.staging())?.into_iter();
        all.filter(|id| Some(*id) != but).try_for_each(|id| remove(&self.staged(id)))
    }

    /// Moves what a fetch has left to where a release is made of it; nothing, where that is of no use. The caller has the turn.
    pub(super) fn take_begun(
        &self,
        begun: ReleaseId,
        manifest: &Manifest,
        home: &Path,
    ) -> Result<Option<Taken>, DiskError> {
        let from = self.staged(begun);
        if from != home {
            fs::rename(&from, home).map_err(failed("move away", &from))?;
        }
        strip(home)?;
        let path = home.join("tree");
        let Ok(tree) = Beneath::open(&path) else {
            remove(home)?;
            return Ok(None);
        };
        let gone = self.gone();
        create_dir(&gone)?;
        let aside = Beneath::open(&gone).map_err(failed("open", &gone))?;
        put_aside_extras(&tree, manifest, &aside).map_err(failed("tidy", &path))?;
        let found = read(&tree, look(&tree, manifest), manifest);
        taken(&tree, manifest, &found, aside).map(Some).map_err(failed("move away", &path))
    }
}

/// What lies where an entry of the manifest shall be.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    /// What shall be there, known by this.
    Right(Stamp),
    /// A file that looks right, and is still to be read.
    Likely(Stamp),
    Wrong,
}

fn look<'a>(tree: &'a Beneath, manifest: &'a Manifest) -> Vec<Found> {
    let mut cursor = tree.cursor();
    let look = |Entry { path, kind }: &'a Entry| {
        let Ok(found) = cursor.stat(path) else { return Found::Nothing };
        let (is, mode) = (FileType::from_raw_mode(found.st_mode), found.st_mode & 0o7777);
        match kind {
            // All of them are given their mode at the end.
            EntryKind::Dir if is == FileType::Directory => Found::Right(Stamp::default()),
            EntryKind::Link { target }
                if is == FileType::Symlink
                    && cursor.link_target(path).is_ok_and(|to| to == target.as_bytes()) =>
            {
                Found::Right(Stamp::default())
            }
            EntryKind::File(file)
                if is == FileType::RegularFile
                    && mode == mode_of(file)
                    && found.st_size as u64 == file.bytes()
                    && found.st_nlink == 1 =>
            {
                Found::Likely(Stamp::of(&found))
            }
            EntryKind::Dir | EntryKind::Link { .. } | EntryKind::File(_) => Found::Wrong,
        }
    };
    manifest.tree.entries().iter().map(look).collect()
}

/// Decides by its content what is only likely.
fn read(tree: &Beneath, mut found: Vec<Found>, manifest: &Manifest) -> Vec<Found> {
    let entries = manifest.tree.entries();
    let likely: Vec<usize> =
        (0..found.len()).filter(|index| matches!(found[*index], Found::Likely(_))).collect();
    let decided = Mutex::new(&mut found);
    let decide = |index: &usize| {
        let Entry { path, kind: EntryKind::File(file) } = &entries[*index] else { return Ok(()) };
        let right = has_content(tree, path, file).unwrap_or(false);
        let found = &mut decided.lock().unwrap_or_else(PoisonError::into_inner)[*index];
        *found = match *found {
            Found::Likely(stamp) if right => Found::Right(stamp),
            Found::Nothing | Found::Right(_) | Found::Likely(_) | Found::Wrong => Found::Wrong,
        };
        Ok::<(), Infallible>(())
    };
    let Ok(()) = parallel::for_each(&likely, decide);
    found
}

/// Moves aside what is wrong: there may be right chunks in it.
fn taken(tree: &Beneath, manifest: &Manifest, found: &[Found], aside: Beneath) -> io::Result<Taken> {
    let (mut patch, mut removed) = (Patch::default(), Vec::new());
    let mut stamps = vec![Stamp::default(); found.len()];
    let mut cursor = tree.cursor();
    let mut here = Vec::new();
    for (index, (entry, found)) in manifest.tree.entries().iter().zip(found).enumerate() {
        match found {
            Found::Nothing => {
                patch.create.push(index);
                continue;
            }
            Found::Right(stamp) => {
                patch.keep.push((here.len(), index));
                stamps[index] = *stamp;
            }
            Found::Likely(_) | Found::Wrong => {
                cursor.move_to(&entry.path, &aside, &here.len().to_string())?;
                patch.create.push(index);
                removed.push(here.len());
            }
        }
        here.push(entry.clone());
    }
    Ok(Taken { patch, stamps, made_of: MadeOf { was: here, removed, aside } })
}
