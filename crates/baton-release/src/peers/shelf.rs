//! What a member has to give to others and to control: chunks of the releases on its disk.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::outline::{Outlined, Part};
use baton_core::release::{Chunk, EntryKind, Manifest, id_of};

use super::{GIVEN_BYTES, lock};
use crate::beneath::Beneath;
use crate::lending::Beginning;
use crate::manifest;
use crate::pack;
use crate::releases::ReleasesDir;

/// Content of a frame in bytes, where no chunk is longer.
const FRAME_BYTES: usize = 256 << 10;

/// What is answered to a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// These chunks, or the first of them.
    Pack(Vec<u8>),
    /// It is on its way here.
    Later,
    /// It is not here.
    Nothing,
}

/// The releases on a member's disk, for its peers.
pub struct Shelf {
    releases: Arc<ReleasesDir>,
    /// What is being fetched.
    awaited: Mutex<Vec<ReleaseId>>,
    /// Of the release that was asked for last: a fleet fetches the same one.
    index: Mutex<Option<Arc<Index>>>,
}

/// A release is being fetched, as long as this value lives.
pub struct Awaited<'a> {
    shelf: &'a Shelf,
    release: ReleaseId,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut awaited = lock(&self.shelf.awaited);
        if let Some(at) = awaited.iter().position(|release| *release == self.release) {
            awaited.swap_remove(at);
        }
    }
}

impl Shelf {
    /// With what is in this directory.
    pub fn new(releases: Arc<ReleasesDir>) -> Self {
        Self { releases, awaited: Mutex::default(), index: Mutex::default() }
    }

    /// Whoever asks for this release from now on is told to ask again.
    pub fn awaits(&self, release: ReleaseId) -> Awaited<'_> {
        lock(&self.awaited).push(release);
        Awaited { shelf: self, release }
    }

    /// Whether a release is here, as far as it can be seen.
    pub fn has(&self, release: ReleaseId) -> bool {
        self.releases.has(release)
    }

    /// Of these chunks of a release the first that are enough for an answer; none that was altered on disk. Of what is being
    /// fetched it is what has been laid out: a large release need not be whole to be given on.
    pub(super) fn give(&self, release: ReleaseId, ids: &[ChunkId]) -> Given {
        if self.has(release) {
            let found = self.index(release, || self.releases.manifest_text(release).ok());
            let found = found.zip(self.releases.tree(release).ok());
            let pack = found.and_then(|(index, tree)| index.found(&tree, ids).pack());
            return pack.map_or(Given::Nothing, Given::Pack);
        }
        if !lock(&self.awaited).contains(&release) {
            return Given::Nothing;
        }
        let found = self.index(release, || self.releases.staged_manifest_text(release).ok());
        let found = found.zip(self.releases.staged_tree(release).ok());
        let found = found.map(|(index, tree)| index.found(&tree, ids)).filter(|found| found.is_enough);
        found.and_then(Found::pack).map_or(Given::Later, Given::Pack)
    }

    /// What control is lent of a release, which is as much as another member is given; without chunks it is the [`Beginning`].
    /// Nothing where nothing of that is here.
    pub fn lend(&self, release: ReleaseId, ids: &[ChunkId]) -> Vec<u8> {
        if ids.is_empty() {
            return self.beginning(release).map(|beginning| beginning.to_bytes()).unwrap_or_default();
        }
        match self.give(release, ids) {
            Given::Pack(pack) => pack,
            Given::Later | Given::Nothing => Vec::new(),
        }
    }

    fn beginning(&self, release: ReleaseId) -> Option<Beginning> {
        let text = self.releases.manifest_text(release).ok().filter(|text| id_of(text) == release)?;
        let outline = manifest::pack_outline(&Outlined::of(&text).top).ok()?;
        Some(Beginning { outline, approvals: self.releases.papers(release).ok()?.approvals })
    }

    /// Nobody has asked for a while: gives the memory back.
    pub fn rest(&self) {
        *lock(&self.index) = None;
    }

    fn index(&self, release: ReleaseId, text: impl FnOnce() -> Option<String>) -> Option<Arc<Index>> {
        // Held while it is made, so that it is made once.
        let mut held = lock(&self.index);
        if let Some(index) = held.as_ref().filter(|index| index.release == release) {
            return Some(Arc::clone(index));
        }
        // Two would take twice the memory.
        *held = None;
        let text = text()?;
        let index = Arc::new(Index::of(release, manifest::verified(release, &text).ok()?, &text));
        *held = Some(Arc::clone(&index));
        Some(index)
    }
}

/// Where a chunk is.
struct Place {
    /// Which entry of the manifest.
    entry: usize,
    /// Where in that file.
    offset: u64,
    bytes: u32,
}

/// Where the chunks of a release are.
struct Index {
    release: ReleaseId,
    manifest: Manifest,
    places: HashMap<ChunkId, Place>,
    /// The chunks of the manifest and of its outline.
    parts: HashMap<ChunkId, Vec<u8>>,
}

impl Index {
    fn of(release: ReleaseId, manifest: Manifest, text: &str) -> Self {
        let mut places = HashMap::new();
        for (entry, found) in manifest.tree.entries().iter().enumerate() {
            let EntryKind::File(file) = &found.kind else { continue };
            let mut offset = 0;
            for chunk in &file.chunks {
                places.entry(chunk.id).or_insert(Place { entry, offset, bytes: chunk.bytes });
                offset += u64::from(chunk.bytes);
            }
        }
        let Outlined { listing, manifest: parts, .. } = Outlined::of(text);
        let parts = listing.into_iter().chain(parts).map(|Part { chunk, content }| (chunk.id, content));
        Self { release, manifest, places, parts: parts.collect() }
    }

    fn found(&self, tree: &Beneath, ids: &[ChunkId]) -> Found {
        let (mut chunks, mut bytes, mut known, mut lacking) = (Vec::new(), 0, HashSet::new(), false);
        for id in ids.iter().filter(|id| known.insert(**id)) {
            match self.content(tree, *id) {
                Some(content) => {
                    bytes += content.len() as u64;
                    chunks.push((*id, content));
                }
                None => lacking = true,
            }
            if bytes >= GIVEN_BYTES {
                break;
            }
        }
        Found { is_enough: bytes >= GIVEN_BYTES || !lacking, chunks }
    }

    fn content(&self, tree: &Beneath, id: ChunkId) -> Option<Vec<u8>> {
        if let Some(part) = self.parts.get(&id) {
            return Some(part.clone());
        }
        let Place { entry, offset, bytes } = self.places.get(&id)?;
        let path = &self.manifest.tree.entries().get(*entry)?.path;
        let mut content = vec![0; *bytes as usize];
        tree.read(path).ok()?.read_exact_at(&mut content, *offset).ok()?;
        (ChunkId::of(&content) == id).then_some(content)
    }
}

/// Chunks with their content.
struct Found {
    /// Whoever asks need not ask anybody else, or not at once.
    is_enough: bool,
    chunks: Vec<(ChunkId, Vec<u8>)>,
}

impl Found {
    /// As a pack, if there are any.
    fn pack(self) -> Option<Vec<u8>> {
        let (mut frames, mut chunks, mut content) = (Vec::new(), Vec::new(), Vec::new());
        for (id, found) in self.chunks {
            if !content.is_empty() && content.len() + found.len() > FRAME_BYTES {
                frames.push(pack::pack(std::mem::take(&mut chunks), &std::mem::take(&mut content)).ok()?);
            }
            chunks.push(Chunk { id, bytes: u32::try_from(found.len()).ok()? });
            content.extend(found);
        }
        if !chunks.is_empty() {
            frames.push(pack::pack(chunks, &content).ok()?);
        }
        (!frames.is_empty()).then(|| pack::join(frames))
    }
}
