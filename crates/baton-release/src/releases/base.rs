//! What the next release is made from, so that it costs what changed and not what it contains.
//!
//! A *base* is a tree on disk that is no release, or no longer one: what is the same in the new release stays, the rest
//! goes. Nothing in it is ever written in place: whoever still runs from it keeps the files that it has open.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use baton_core::ids::ReleaseId;
use baton_core::release::{Chunk, EntryKind, Manifest, id_of, outline};

use super::ReleasesDir;
use super::stamps::Stamps;
use super::verify::has_content;
use crate::beneath::Beneath;
use crate::disk::{DiskError, failed, remove};
use crate::manifest;
use crate::parallel;

/// A tree that a release can be made from: with its manifest, and what its files are known by.
pub(crate) struct Base {
    id: ReleaseId,
    home: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) stamps: Stamps,
    /// This process has made it or looked through it, and nobody runs from it.
    tidy: bool,
}

/// What is done about a tree of which this process has not read or written everything itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is read through.
    Read,
    /// It is left alone.
    Leave,
}

impl ReleasesDir {
    /// The best tree to make a release from, if there is any: the spare one, else a release that need not be kept.
    /// The caller has the turn, so that it still is what it was when it is taken.
    pub(crate) fn base(&self) -> Option<Base> {
        let spare = self.spare().and_then(|id| self.spare_base(id, Unread::Read));
        // Proven last: the most like what comes.
        let surplus = || self.surplus().unwrap_or_default().into_iter().rev();
        spare.or_else(|| surplus().find_map(|id| self.release_base(id, Unread::Read)))
    }

    /// The spare tree, which is like this release, when it is as it should be.
    pub(super) fn spare_base(&self, id: ReleaseId, unread: Unread) -> Option<Base> {
        let (base, tidy) = (Base::written_down(self.spare_home(id), id), self.spare_sum(id));
        match base {
            Some(base) if tidy == Some(base.stamps.sum()) => Some(Base { tidy: true, ..base }),
            Some(base) => base.looked_at(unread, |_| false),
            None => None,
        }
    }

    /// A release, when it is as it should be.
    pub(super) fn release_base(&self, id: ReleaseId, unread: Unread) -> Option<Base> {
        Base::written_down(self.home(id), id)?.looked_at(unread, |found| self.known.has(id, found))
    }

    /// The releases whose manifests are known when a release is fetched, as far as that can be told without reading them: that
    /// of the [base](ReleasesDir::base), else all on disk.
    pub(crate) fn here(&self) -> Vec<ReleaseId> {
        let base = self.spare().or_else(|| self.surplus().ok()?.pop());
        base.map_or_else(|| self.list().unwrap_or_default(), |id| vec![id])
    }

    /// The manifests of [those](ReleasesDir::here), and how each is cut. One that cannot be read, or was altered, has nothing to
    /// offer.
    pub(crate) fn texts_here(&self) -> impl Iterator<Item = (String, Vec<Chunk>)> {
        let spare = self.spare();
        let text = move |id: ReleaseId| {
            let text = if spare == Some(id) { self.spare_text(id) } else { self.manifest_text(id) };
            let text = text.ok().filter(|text| id_of(text) == id)?;
            let cut = self.spare_chunks(id).filter(|_| spare == Some(id));
            let chunks = cut.unwrap_or_else(|| outline::chunks(&text));
            Some((text, chunks))
        };
        self.here().into_iter().filter_map(text)
    }
}

impl Base {
    /// What is written down about the tree in a directory.
    fn written_down(home: PathBuf, id: ReleaseId) -> Option<Self> {
        let text = fs::read_to_string(home.join("manifest")).ok()?;
        let manifest = manifest::verified(id, &text).ok()?;
        let record = fs::read(home.join("laid-out")).ok()?;
        let stamps = Stamps::from_bytes(&record, manifest.tree.entries().len())?;
        Some(Self { id, home, manifest, stamps, tidy: false })
    }

    /// The base, when its files are what was written down, and their content is known to be right or is read.
    fn looked_at(self, unread: Unread, is_known: impl Fn(&Stamps) -> bool) -> Option<Self> {
        let tree = Beneath::open(&self.home.join("tree")).ok()?;
        let found = Stamps::look(self.id, &tree, &self.manifest).ok()?;
        let right =
            found == self.stamps && (is_known(&found) || unread == Unread::Read && self.is_right(&tree));
        right.then_some(self)
    }

    fn is_right(&self, tree: &Beneath) -> bool {
        let files: Vec<_> = self.manifest.tree.files().collect();
        parallel::for_each(&files, |(path, file)| match has_content(tree, path, file) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(()),
        })
        .is_ok()
    }

    /// Moves it to where a release is made: from here on it is nothing any more, durably, before the first file of it goes. What
    /// is no part of it is put aside. Returns whether it was moved; a release that has to stay by now is not.
    pub(super) fn take(
        &self,
        releases: &ReleasesDir,
        home: &Path,
        aside: &Beneath,
    ) -> Result<bool, DiskError> {
        if !releases.take_away(self.id, &self.home, home)? {
            return Ok(false);
        }
        strip(home)?;
        if !self.tidy {
            let path = home.join("tree");
            let tree = Beneath::open(&path).map_err(failed("open", &path))?;
            put_aside_extras(&tree, &self.manifest, aside).map_err(failed("tidy", &path))?;
        }
        Ok(true)
    }
}

/// Removes everything that is beside a tree: what was known of it as a release.
pub(super) fn strip(home: &Path) -> Result<(), DiskError> {
    for entry in fs::read_dir(home).map_err(failed("list", home))? {
        let entry = entry.map_err(failed("list", home))?;
        if entry.file_name() != "tree" {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Moves everything out of a tree that its manifest does not name: what a program has left. Returns how much.
pub(super) fn put_aside_extras(
    tree: &Beneath,
    manifest: &Manifest,
    aside: &Beneath,
) -> std::io::Result<usize> {
    let mut known: HashMap<&str, HashSet<&[u8]>> = HashMap::from([(".", HashSet::new())]);
    for entry in manifest.tree.entries() {
        if entry.kind == EntryKind::Dir {
            known.entry(entry.path.as_str()).or_default();
        }
        let parent = entry.path.parent().unwrap_or(".");
        known.entry(parent).or_default().insert(entry.path.name().as_bytes());
    }
    let mut extras = 0;
    for (dir, names) in known {
        // Where there is something else than a directory, whoever goes on finds that.
        let Ok(dir) = tree.below(dir) else { continue };
        for name in dir.names()?.iter().filter(|name| !names.contains(name.to_bytes())) {
            dir.move_out(name, aside, &format!("extra-{extras}"))?;
            extras += 1;
        }
    }
    Ok(extras)
}
