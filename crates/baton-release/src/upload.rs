//! Bringing to a store what it lacks of a release, in packs.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::AddAssign;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use baton_core::ids::ChunkId;
use baton_core::release::outline::{Outlined, Part};
use baton_core::release::{Chunk, Tree, TreePath, packing};

use crate::push::{PushError, Step, read_error};
use crate::store::ArtefactStore;
use crate::{pack, parallel};

/// Where the content of a chunk is: in which file, and from which byte on.
type Places<'a> = HashMap<ChunkId, (&'a TreePath, u64)>;

/// A release on its way to a store.
pub(crate) struct Upload<'a> {
    /// Where its files are.
    pub(crate) dir: &'a Path,
    pub(crate) tree: &'a Tree,
    pub(crate) outlined: &'a Outlined,
    pub(crate) store: &'a dyn ArtefactStore,
    pub(crate) progress: &'a (dyn Fn(Step) + Sync),
}

/// What a store is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The parts of the outline, of those that it lacks the parts of the manifest that they name, and of those the chunks:
    /// whoever pushes brings what a part names before the part. So a small change takes small questions.
    ByOutline,
    /// Every chunk.
    All,
}

/// What was sent.
#[derive(Default)]
pub(crate) struct Sent {
    /// New content of files, in bytes, and in chunks.
    pub(crate) content: u64,
    pub(crate) chunks: usize,
    /// The packs, in bytes.
    pub(crate) bytes: u64,
    pub(crate) packs: u64,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, more: Self) {
        self.content += more.content;
        self.chunks += more.chunks;
        self.bytes += more.bytes;
        self.packs += more.packs;
    }
}

/// What a store lacks, each once.
pub(crate) struct Missing<'a> {
    /// Chunks of files.
    pub(crate) content: Vec<Chunk>,
    places: Places<'a>,
    /// Parts of the manifest.
    manifest: Vec<Chunk>,
    /// Parts of its outline.
    listing: Vec<Chunk>,
}

impl Missing<'_> {
    /// Content of files, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.content.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }
}

impl<'a> Upload<'a> {
    /// Sends what is missing: the parts of the manifest after all that they name.
    pub(crate) fn run(&self, asked: Asked) -> Result<Sent, PushError> {
        let missing = self.missing(asked)?;
        let bytes_new = missing.bytes();
        let Missing { content, places, manifest, listing } = missing;
        (self.progress)(Step::Compared { bytes_new });
        let is_part: HashSet<ChunkId> = manifest.iter().chain(&listing).map(|chunk| chunk.id).collect();
        let packs = packing::plan(&[&content, &manifest, &listing]);
        let has_part =
            |pack: &Vec<Vec<Chunk>>| pack.iter().flatten().any(|chunk| is_part.contains(&chunk.id));
        let (before, last) = packs.split_at(packs.iter().position(has_part).unwrap_or(packs.len()));
        let sent = Mutex::new(Sent { content: bytes_new, chunks: content.len(), ..Sent::default() });
        let send = |frames: &Vec<Vec<Chunk>>| {
            let bytes = self.send(frames, &places)?;
            *sent.lock().unwrap_or_else(PoisonError::into_inner) +=
                Sent { bytes, packs: 1, ..Sent::default() };
            let of_files = frames.iter().flatten().filter(|chunk| !is_part.contains(&chunk.id));
            (self.progress)(Step::Uploaded { bytes: of_files.map(|chunk| u64::from(chunk.bytes)).sum() });
            Ok::<(), PushError>(())
        };
        parallel::for_each_pack(before, send)?;
        last.iter().try_for_each(send)?;
        Ok(sent.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the store lacks, in the order of the manifest.
    pub(crate) fn missing(&self, asked: Asked) -> Result<Missing<'a>, PushError> {
        let Outlined { listing, manifest, .. } = self.outlined;
        let mut parts = self.lacking(ids(listing))?;
        let all = asked == Asked::All || listing.is_empty();
        parts.extend(self.lacking(if all { ids(manifest) } else { named(listing, &parts) })?);
        let all = asked == Asked::All;
        let missing = self.lacking(if all { named_by_all(manifest) } else { named(manifest, &parts) })?;

        let (content, places) = self.find(&missing);
        let mut known: HashSet<ChunkId> = places.keys().copied().collect();
        let mut is_new = |chunk: &Chunk| parts.contains(&chunk.id) && known.insert(chunk.id);
        let mut new = |all: &[Part]| all.iter().map(|part| part.chunk).filter(&mut is_new).collect();
        Ok(Missing { content, places, manifest: new(manifest), listing: new(listing) })
    }

    /// Where these chunks are in the files, in the order of the manifest.
    fn find(&self, ids: &HashSet<ChunkId>) -> (Vec<Chunk>, Places<'a>) {
        let (mut content, mut places) = (Vec::with_capacity(ids.len()), Places::with_capacity(ids.len()));
        let files = self.tree.files().filter(|_| !ids.is_empty());
        for (path, file) in files {
            let mut offset = 0;
            for chunk in &file.chunks {
                if ids.contains(&chunk.id) && places.insert(chunk.id, (path, offset)).is_none() {
                    content.push(*chunk);
                }
                offset += u64::from(chunk.bytes);
            }
        }
        (content, places)
    }

    /// Which of these the store lacks; it is not asked when there are none.
    fn lacking(&self, ids: Vec<ChunkId>) -> Result<HashSet<ChunkId>, PushError> {
        let mut known = HashSet::new();
        let ids: Vec<ChunkId> = ids.into_iter().filter(|id| known.insert(*id)).collect();
        let missing = if ids.is_empty() { Vec::new() } else { self.store.missing(&ids)? };
        Ok(missing.into_iter().collect())
    }

    /// Sends a pack of these frames; returns its length.
    fn send(&self, frames: &[Vec<Chunk>], places: &Places<'_>) -> Result<u64, PushError> {
        let frame = |chunks: &Vec<Chunk>| {
            let contents =
                chunks.iter().map(|chunk| self.content(*chunk, places)).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, PushError>(pack::pack(chunks.clone(), &contents.concat())?)
        };
        let bytes = pack::join(frames.iter().map(frame).collect::<Result<_, _>>()?);
        self.store.put(&bytes)?;
        Ok(bytes.len() as u64)
    }

    /// The content of a chunk: of a file, else of the manifest.
    fn content(&self, chunk: Chunk, places: &Places<'_>) -> Result<Vec<u8>, PushError> {
        let Some((path, offset)) = places.get(&chunk.id) else {
            let mut parts = self.outlined.manifest.iter().chain(&self.outlined.listing);
            let part = parts.find(|part| part.chunk.id == chunk.id);
            return Ok(part.map(|part| part.content.clone()).unwrap_or_default());
        };
        let (path, mut content) = (self.dir.join(path.as_str()), vec![0; chunk.bytes as usize]);
        match File::open(&path).and_then(|file| file.read_exact_at(&mut content, *offset)) {
            Ok(()) if ChunkId::of(&content) == chunk.id => Ok(content),
            Ok(()) => Err(PushError::Changed { path }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(PushError::Changed { path }),
            Err(source) => Err(read_error(&path, source)),
        }
    }
}

fn ids(parts: &[Part]) -> Vec<ChunkId> {
    parts.iter().map(|part| part.chunk.id).collect()
}

fn named_by_all(parts: &[Part]) -> Vec<ChunkId> {
    parts.iter().flat_map(named_by).collect()
}

/// What those parts name that are among these.
fn named(parts: &[Part], among: &HashSet<ChunkId>) -> Vec<ChunkId> {
    parts.iter().filter(|part| among.contains(&part.chunk.id)).flat_map(named_by).collect()
}

/// The chunks that a part of a manifest or outline names. Parts end with lines, and no line of a chunk is long enough to be
/// cut.
fn named_by(part: &Part) -> Vec<ChunkId> {
    let text = String::from_utf8_lossy(&part.content);
    let ids = text.lines().filter_map(|line| line.strip_prefix("chunk ")?.split(' ').next()?.parse().ok());
    ids.collect()
}
