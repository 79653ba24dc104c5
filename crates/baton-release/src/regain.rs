//! Getting back what a store has lost of a release, from members that have it on their disks.
//!
//! Nothing that they say is believed: what counts has the hash of something that is missing. Who sends something else is not asked
//! again, nobody is asked twice for what it lacks, and what has come stays in the store, also when the rest does not come.

use std::collections::{HashMap, HashSet, VecDeque};

use baton_core::ids::{ChunkId, ReleaseId, ServiceName};
use baton_core::release::packing::{self, PACK_CONTENT_BYTES};
use baton_core::release::{Chunk, Manifest, TreePath};
use baton_core::trust;

use crate::chain::chain;
use crate::lending::Beginning;
use crate::manifest::{self, Lent, ManifestError, unpack_outline};
use crate::pack::{self, Pack, PackError, unpack};
use crate::peers::{GIVEN_BYTES, IDS_MAX};
use crate::read::ReadError;
use crate::store::{ArtefactStore, Kind, StoreError};

/// How often a manifest is read anew of which the store has found a part to be damaged: it is missing from then on.
const ATTEMPTS: usize = 16;

/// Asks the member of this number for these chunks, or, where there are none, how the release begins; else why it has no answer.
pub type Ask<'a> = &'a (dyn Fn(usize, &[ChunkId]) -> Result<Vec<u8>, String> + 'a);

/// Those who may have what is lost, best first.
pub struct Lenders<'a> {
    ask: Ask<'a>,
    all: Vec<Lender>,
}

#[derive(Default)]
struct Lender {
    lacks: HashSet<ChunkId>,
    gave: bool,
    /// Why it is not asked any more.
    failed: Option<String>,
}

/// What a store was given back of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regained {
    /// Whose release it is.
    pub service: ServiceName,
    /// Chunks of files that were missing, and how long they are together, in bytes.
    pub chunks: usize,
    /// See `chunks`.
    pub bytes: u64,
    /// Parts of the manifest that were missing, or how the release begins.
    pub manifest: bool,
    /// What is not there yet.
    pub left: Option<Left>,
    /// Whether the store still knows the release; else it is to be published.
    pub is_known: bool,
    /// What it is published by.
    pub outline: Vec<u8>,
    /// Who has vouched for it, as far as that was asked.
    pub approvals: Vec<String>,
}

/// What a store still lacks of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// It was told to end before all had been asked for everything.
    Unasked,
    /// Nobody has it who was asked.
    Nowhere {
        /// How many chunks.
        chunks: usize,
        /// One of them, and a file that it is of.
        first: (ChunkId, Option<TreePath>),
    },
}

/// Why nothing of a release was given back.
#[derive(Debug, thiserror::Error)]
pub enum RegainError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has lost the manifest, and so have all who were asked.
    #[error("its manifest is nowhere")]
    Manifest(#[source] Option<Box<ManifestError>>),
    /// There is no memory for a pack.
    #[error("it cannot be packed")]
    Pack(#[from] PackError),
}

impl<'a> Lenders<'a> {
    /// So many of them, who are asked like this.
    pub fn new(count: usize, ask: Ask<'a>) -> Self {
        Self { ask, all: (0..count).map(|_| Lender::default()).collect() }
    }

    /// Who has given something, and who is not asked any more, and why.
    pub fn told(&self) -> (Vec<usize>, Vec<(usize, &str)>) {
        let all = || self.all.iter().enumerate();
        let gave = all().filter(|(_, lender)| lender.gave).map(|(at, _)| at);
        let failed = all().filter_map(|(at, lender)| Some((at, lender.failed.as_deref()?)));
        (gave.collect(), failed.collect())
    }

    /// How the release begins, as one of them says.
    fn beginning(&mut self, at: usize) -> Option<Beginning> {
        let lender = self.all.get_mut(at).filter(|lender| lender.failed.is_none())?;
        let said = (self.ask)(at, &[]).and_then(|said| match said.as_slice() {
            [] => Ok(None),
            said => Beginning::parse(said).map(Some).ok_or_else(|| "it says something else".to_owned()),
        });
        said.unwrap_or_else(|why| {
            lender.failed = Some(why);
            None
        })
    }

    /// Asks for these chunks, one member after the other, and does something with each that comes; as long as `go_on` says so of
    /// what has come so far, in bytes. Returns what has not come, and whether that was the end.
    fn chunks(
        &mut self,
        wanted: &[Chunk],
        go_on: &dyn Fn(u64) -> bool,
        act: &mut dyn FnMut(Lent) -> Result<(), RegainError>,
    ) -> Result<(Vec<Chunk>, bool), RegainError> {
        let (mut left, mut bytes) = (wanted.to_vec(), 0);
        let mut turns: VecDeque<usize> = (0..self.all.len()).collect();
        while let Some(at) = turns.pop_front().filter(|_| !left.is_empty()) {
            let lender = &mut self.all[at];
            let asked = left.iter().filter(|chunk| !lender.lacks.contains(&chunk.id)).take(IDS_MAX);
            let ids: Vec<ChunkId> = asked.map(|chunk| chunk.id).collect();
            if ids.is_empty() || lender.failed.is_some() {
                continue;
            }
            let asked: HashSet<ChunkId> = ids.iter().copied().collect();
            let found = (self.ask)(at, &ids).and_then(|said| given(&said, &asked));
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    lender.failed = Some(why);
                    continue;
                }
            };
            turns.push_back(at);
            let came: HashSet<ChunkId> = found.iter().map(|(chunk, _)| chunk.id).collect();
            let more: u64 = found.iter().map(|(chunk, _)| u64::from(chunk.bytes)).sum();
            if more < GIVEN_BYTES {
                // There was room in the answer for more.
                lender.lacks.extend(asked.difference(&came));
            }
            lender.gave |= !came.is_empty();
            left.retain(|chunk| !came.contains(&chunk.id));
            bytes += more;
            found.into_iter().try_for_each(&mut *act)?;
            if !left.is_empty() && !go_on(bytes) {
                return Ok((left, true));
            }
        }
        Ok((left, false))
    }
}

/// What an answer holds of these chunks. How long each is, its hash says as well.
fn given(said: &[u8], asked: &HashSet<ChunkId>) -> Result<Vec<Lent>, String> {
    if said.is_empty() {
        return Ok(Vec::new());
    }
    let refused = |error: PackError| format!("what it sends is refused: {}", chain(&error));
    let mut found = HashMap::new();
    for (frame, packed) in Pack::open(said).map_err(refused)?.frames() {
        if !frame.chunks.iter().any(|chunk| asked.contains(&chunk.id)) {
            continue;
        }
        let unpacked = unpack(frame, packed).map_err(refused)?;
        let wanted = unpacked.chunks().filter(|(chunk, _)| asked.contains(&chunk.id));
        found.extend(wanted.map(|(chunk, content)| (chunk.id, (chunk, content.to_vec()))));
    }
    if found.is_empty() {
        return Err("it sends something that it was not asked for".to_owned());
    }
    Ok(found.into_values().collect())
}

/// Gives a store what it lacks of a release, as far as these have it; `go_on` is told how much content has come, in bytes, and says
/// whether to ask for more.
///
/// What has come is durable on return. Where nothing is left, the release is there again, or to be [published](ArtefactStore::publish).
///
/// # Errors
/// The store fails, or nothing tells of what the release consists.
pub fn regain(
    id: ReleaseId,
    store: &dyn ArtefactStore,
    lenders: &mut Lenders<'_>,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Regained, RegainError> {
    let Read { outline, approvals, begun, manifest, parts } = read(id, store, lenders)?;
    let wanted = missing(&manifest, store)?;
    let mut content = Content { store, chunks: 0, bytes: 0, waiting: Vec::new(), waiting_bytes: 0 };
    let (left, ended) = lenders.chunks(&wanted, go_on, &mut |lent| content.keep(lent))?;
    content.flush()?;
    let left = match (left.first(), ended) {
        (None, _) => {
            // After all that they name, as whoever pushes brings them.
            put(store, &parts)?;
            None
        }
        (Some(_), true) => Some(Left::Unasked),
        (Some(first), false) => {
            Some(Left::Nowhere { chunks: left.len(), first: (first.id, file_of(&manifest, first.id)) })
        }
    };
    let Content { chunks, bytes, .. } = content;
    let lacked_manifest = begun || !parts.is_empty();
    Ok(Regained {
        service: manifest.service,
        chunks,
        bytes,
        manifest: lacked_manifest,
        left,
        is_known: !begun,
        outline,
        approvals,
    })
}

/// The manifest of a release, and how it was come by.
struct Read {
    outline: Vec<u8>,
    approvals: Vec<String>,
    /// Whether a member has said how it begins.
    begun: bool,
    manifest: Manifest,
    /// What members have lent of it.
    parts: Vec<Lent>,
}

/// The manifest by the outline that the store has; else by the first of a member that leads to it.
fn read(id: ReleaseId, store: &dyn ArtefactStore, lenders: &mut Lenders<'_>) -> Result<Read, RegainError> {
    let mut why = None;
    match store.outline(id) {
        Ok(outline) => match assemble(id, &outline, store, lenders) {
            Ok((manifest, parts)) => {
                return Ok(Read { outline, approvals: Vec::new(), begun: false, manifest, parts });
            }
            Err(error) => why = Some(passing(error)?),
        },
        Err(error) if matches!(error.kind, Kind::Missing | Kind::Corrupt) => {}
        Err(error) => return Err(error.into()),
    }
    for at in 0..lenders.all.len() {
        let Some(Beginning { outline, approvals }) = lenders.beginning(at) else { continue };
        match assemble(id, &outline, store, lenders) {
            Ok((manifest, parts)) => {
                lenders.all[at].gave = true;
                let approvals = trust::approvals(&approvals).map(str::to_owned).collect();
                return Ok(Read { outline, approvals, begun: true, manifest, parts });
            }
            Err(error) => {
                let error = passing(error)?;
                if let ManifestError::Refused(refused) = &error {
                    lenders.all[at].failed = Some(format!("what it sends is refused: {}", chain(refused)));
                }
                why = Some(error);
            }
        }
    }
    Err(RegainError::Manifest(why.map(Box::new)))
}

/// What is wrong with a manifest; where it is the store that fails, that is another matter.
fn passing(error: ManifestError) -> Result<ManifestError, RegainError> {
    match error {
        ManifestError::Read(ReadError::Store(error))
            if !matches!(error.kind, Kind::Missing | Kind::Corrupt) =>
        {
            Err(error.into())
        }
        error => Ok(error),
    }
}

/// The manifest that an outline leads to. Each part of it that the store finds to be damaged is missing from then on.
fn assemble(
    id: ReleaseId,
    outline: &[u8],
    store: &dyn ArtefactStore,
    lenders: &mut Lenders<'_>,
) -> Result<(Manifest, Vec<Lent>), ManifestError> {
    let outline = unpack_outline(id, outline)?;
    let mut attempts = 1;
    loop {
        let mut lend = |wanted: &[Chunk]| {
            let mut lent = Vec::new();
            let kept = lenders.chunks(wanted, &|_| true, &mut |one| {
                lent.push(one);
                Ok(())
            });
            // What has not come is missed by whoever reads it; and nothing was to be kept that could fail.
            drop(kept);
            lent
        };
        match manifest::assemble_lent(id, &outline, store, &mut lend) {
            Err(ManifestError::Read(ReadError::Store(error)))
                if error.kind == Kind::Corrupt && attempts < ATTEMPTS =>
            {
                attempts += 1;
            }
            done => return done.map(|(assembled, lent)| (assembled.manifest, lent)),
        }
    }
}

/// The chunks of files that a store lacks, in the order of the manifest, each once.
fn missing(manifest: &Manifest, store: &dyn ArtefactStore) -> Result<Vec<Chunk>, StoreError> {
    let mut missing: HashSet<ChunkId> = store.missing(&manifest::chunk_ids(manifest))?.into_iter().collect();
    let chunks = manifest.tree.files().flat_map(|(_, file)| &file.chunks);
    Ok(chunks.filter(|chunk| missing.remove(&chunk.id)).copied().collect())
}

/// A file that a chunk is of.
fn file_of(manifest: &Manifest, id: ChunkId) -> Option<TreePath> {
    let mut files = manifest.tree.files();
    files.find(|(_, file)| file.chunks.iter().any(|chunk| chunk.id == id)).map(|(path, _)| path.clone())
}

/// Content on its way to a store: a pack at a time is in memory.
struct Content<'a> {
    store: &'a dyn ArtefactStore,
    chunks: usize,
    bytes: u64,
    waiting: Vec<Lent>,
    waiting_bytes: u64,
}

impl Content<'_> {
    fn keep(&mut self, (chunk, content): Lent) -> Result<(), RegainError> {
        (self.chunks, self.bytes) = (self.chunks + 1, self.bytes + u64::from(chunk.bytes));
        self.waiting_bytes += u64::from(chunk.bytes);
        self.waiting.push((chunk, content));
        if self.waiting_bytes >= PACK_CONTENT_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RegainError> {
        self.waiting_bytes = 0;
        put(self.store, &std::mem::take(&mut self.waiting))
    }
}

/// Adds these chunks, in as few packs as they fit into.
fn put(store: &dyn ArtefactStore, lent: &[Lent]) -> Result<(), RegainError> {
    let chunks: Vec<Chunk> = lent.iter().map(|(chunk, _)| *chunk).collect();
    let contents: HashMap<ChunkId, &[u8]> =
        lent.iter().map(|(chunk, content)| (chunk.id, content.as_slice())).collect();
    for pack in packing::plan(&[&chunks]) {
        let frame = |chunks: Vec<Chunk>| {
            let content: Vec<&[u8]> =
                chunks.iter().filter_map(|chunk| contents.get(&chunk.id)).copied().collect();
            pack::pack(chunks, &content.concat())
        };
        let frames = pack.into_iter().map(frame).collect::<Result<_, _>>()?;
        store.put(&pack::join(frames))?;
    }
    Ok(())
}
