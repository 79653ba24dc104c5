//! A manifest that came from elsewhere: as a text, or as the chunks that its outline lists.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use baton_core::ids::{ChunkId, ReleaseId, ServiceName};
#[cfg(feature = "push")]
use baton_core::release::outline::Outlined;
use baton_core::release::outline::{self, Lists, OUTLINE_BYTES_MAX, Outline};
use baton_core::release::{Chunk, Manifest, TextError, id_of, service_in};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use crate::pack::{self, Pack, unpack};
use crate::read::{self, ReadError, Source};
use crate::store::{ArtefactStore, StoreError};

/// Longest outline as it travels and lies, in bytes: zstd grows what it cannot compress by less than a 128th.
pub const OUTLINE_PACKED_MAX: usize = OUTLINE_BYTES_MAX + (OUTLINE_BYTES_MAX >> 7);

/// zstd's own default.
const LEVEL: i32 = 3;

/// Why a text is not the manifest of a release.
#[derive(Debug, thiserror::Error)]
pub enum ManifestRefused {
    /// It was altered, cut short, or belongs to another release.
    #[error("the text is that of release {found}, not of {id}")]
    OtherRelease {
        /// The release that was asked for.
        id: ReleaseId,
        /// The release that it is.
        found: ReleaseId,
    },
    /// It breaks a rule.
    #[error("release {id} is not allowed")]
    Rules {
        /// The release.
        id: ReleaseId,
        /// The rule.
        #[source]
        source: TextError,
    },
    /// An outline of an outline of an outline.
    #[error("the outline of release {id} lists an outline that lists an outline")]
    Nested {
        /// The release.
        id: ReleaseId,
    },
    /// Its outline was altered, or is more than it should be.
    #[error(
        "the outline of release {id} cannot be decompressed to at most {OUTLINE_BYTES_MAX} bytes of text"
    )]
    Outline {
        /// The release.
        id: ReleaseId,
        /// The cause, where the system has one.
        #[source]
        source: std::io::Error,
    },
}

/// Why the manifest of a release is not here.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store fails, or sends what is not allowed.
    #[error("the manifest cannot be read")]
    Read(#[from] ReadError),
    /// It is not that of the release, or breaks a rule.
    #[error("the release is refused")]
    Refused(#[from] ManifestRefused),
}

/// The manifest in this text, if it is that of the release and breaks no rule.
pub fn verified(id: ReleaseId, text: &str) -> Result<Manifest, ManifestRefused> {
    match id_of(text) {
        found if found == id => Manifest::parse(text).map_err(|source| ManifestRefused::Rules { id, source }),
        found => Err(ManifestRefused::OtherRelease { id, found }),
    }
}

/// The chunks of all files, each once.
pub fn chunk_ids(manifest: &Manifest) -> Vec<ChunkId> {
    let chunks = manifest.tree.files().flat_map(|(_, file)| &file.chunks);
    let ids: BTreeSet<ChunkId> = chunks.map(|chunk| chunk.id).collect();
    ids.into_iter().collect()
}

/// An outline as it travels and lies: compressed, with a checksum.
pub fn pack_outline(outline: &Outline) -> std::io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.compress(outline.to_text().as_bytes())
}

/// The outline in these bytes, which is said to be that of a release: only its chunks will show that.
pub fn unpack_outline(id: ReleaseId, packed: &[u8]) -> Result<Outline, ManifestRefused> {
    let text = zstd::bulk::decompress(packed, OUTLINE_BYTES_MAX)
        .and_then(|text| String::from_utf8(text).map_err(std::io::Error::other))
        .map_err(|source| ManifestRefused::Outline { id, source })?;
    Outline::parse(&text).map_err(|source| ManifestRefused::Rules { id, source })
}

/// What is known of manifests without asking: their chunks by name.
#[derive(Debug, Default)]
pub struct Known {
    texts: Vec<Vec<u8>>,
    /// In which of these, and where in it.
    parts: HashMap<ChunkId, (usize, Range<usize>)>,
}

impl Known {
    /// Adds the chunks of a manifest that is here.
    pub fn add(&mut self, text: String) {
        let chunks = outline::chunks(&text);
        self.add_cut(text, &chunks);
    }

    /// The same of a manifest of which it is known how it is cut.
    pub(crate) fn add_cut(&mut self, text: String, chunks: &[Chunk]) {
        if let Some(listing) = Outline::of_manifest(chunks.to_vec()).long_text() {
            let chunks = outline::chunks(&listing);
            self.keep(listing.into_bytes(), &chunks);
        }
        self.keep(text.into_bytes(), chunks);
    }

    /// Adds what is right in a pack: it was a hint.
    fn take(&mut self, pack: &[u8]) {
        let Ok(pack) = Pack::open(pack) else { return };
        for unpacked in pack.frames().filter_map(|(frame, packed)| unpack(frame, packed).ok()) {
            unpacked.chunks().for_each(|(chunk, content)| self.keep(content.to_vec(), &[chunk]));
        }
    }

    /// The chunks of a manifest that is here and was cut already.
    #[cfg(feature = "push")]
    pub(crate) fn of(outlined: &Outlined) -> Self {
        let mut known = Self::default();
        let parts = outlined.listing.iter().chain(&outlined.manifest);
        parts.for_each(|part| known.keep(part.content.clone(), &[part.chunk]));
        known
    }

    /// Adds a text that these chunks make up.
    fn keep(&mut self, text: Vec<u8>, chunks: &[Chunk]) {
        let mut start = 0;
        for Chunk { id, bytes } in chunks {
            let end = start + *bytes as usize;
            self.parts.insert(*id, (self.texts.len(), start..end));
            start = end;
        }
        self.texts.push(text);
    }

    /// Whether a chunk is here.
    pub(crate) fn has(&self, id: ChunkId) -> bool {
        self.parts.contains_key(&id)
    }

    fn get(&self, id: ChunkId) -> Option<&[u8]> {
        let (text, place) = self.parts.get(&id)?;
        self.texts.get(*text)?.get(place.clone())
    }
}

/// The manifest of a release in a store. Only those of its chunks travel that are not known.
pub fn read(id: ReleaseId, store: &dyn ArtefactStore, known: Known) -> Result<Manifest, ManifestError> {
    let answer = store.outline_since(id, &[]).map_err(ReadError::from)?;
    let (manifest, _) = from_answer(id, store, answer, known)?;
    Ok(manifest)
}

/// The manifest of a release with its text, from what a store has [answered](ArtefactStore::outline_since).
pub(crate) fn from_answer(
    id: ReleaseId,
    store: &dyn ArtefactStore,
    (outline, parts): (Vec<u8>, Vec<u8>),
    mut known: Known,
) -> Result<(Manifest, String), ManifestError> {
    let outline = unpack_outline(id, &outline)?;
    known.take(&parts);
    let Assembled { manifest, text, .. } = assemble(id, &outline, &mut known, Source::Store(store))?;
    Ok((manifest, text))
}

/// The manifest of a release.
pub(crate) struct Assembled {
    pub(crate) manifest: Manifest,
    pub(crate) text: String,
    /// How the text is cut.
    pub(crate) chunks: Vec<Chunk>,
}

/// The service that a release was made for, as the beginning of its manifest says, which alone is read: for who has made sure of
/// the release.
pub fn service(id: ReleaseId, store: &dyn ArtefactStore) -> Result<ServiceName, ManifestError> {
    service_of(id, &store.outline(id).map_err(ReadError::from)?, store)
}

/// The same, as an outline says that is not in the store yet.
pub fn service_of(
    id: ReleaseId,
    outline: &[u8],
    store: &dyn ArtefactStore,
) -> Result<ServiceName, ManifestError> {
    let rules = |source| ManifestRefused::Rules { id, source };
    let (source, known) = (Source::Store(store), &mut Known::default());
    let mut outline = unpack_outline(id, outline)?;
    if outline.lists() == Lists::Outline {
        outline = Outline::parse(&listed(&outline, known, source)?).map_err(rules)?;
    }
    let first = Outline::of_manifest(outline.chunks().iter().take(1).copied().collect());
    Ok(service_in(&listed(&first, known, source)?).map_err(rules)?)
}

/// What [`ArtefactStore::outline_since`] answers for a store that is here. A release that is not in it is as if it were not
/// named.
pub fn since(
    id: ReleaseId,
    here: &[ReleaseId],
    store: &dyn ArtefactStore,
) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
    let outline = store.outline(id)?;
    let known = here.iter().filter_map(|id| parts(*id, &store.outline(*id).ok()?, store).ok()).flatten();
    let known: HashSet<ChunkId> = known.collect();
    let mut lacking = parts(id, &outline, store).unwrap_or_default();
    lacking.retain(|id| !known.contains(id));
    // Where they cannot be read, whoever asks for each of them will hear why.
    let parts = if lacking.is_empty() { None } else { store.get(&lacking).ok() };
    Ok((outline, parts.unwrap_or_else(|| pack::join(Vec::new()))))
}

/// Every chunk that an outline leads to: of itself, of the manifest, and of the files.
pub fn leads_to(
    id: ReleaseId,
    outline: &Outline,
    store: &dyn ArtefactStore,
) -> Result<Vec<ChunkId>, ManifestError> {
    let mut chunks = parts_of(id, outline, store)?;
    let assembled = assemble(id, outline, &mut Known::default(), Source::Store(store))?;
    chunks.extend(chunk_ids(&assembled.manifest));
    Ok(chunks)
}

/// The chunks of a manifest and of its outline.
fn parts(id: ReleaseId, outline: &[u8], store: &dyn ArtefactStore) -> Result<Vec<ChunkId>, ManifestError> {
    parts_of(id, &unpack_outline(id, outline)?, store)
}

fn parts_of(
    id: ReleaseId,
    outline: &Outline,
    store: &dyn ArtefactStore,
) -> Result<Vec<ChunkId>, ManifestError> {
    let mut parts: Vec<ChunkId> = outline.chunks().iter().map(|chunk| chunk.id).collect();
    if outline.lists() == Lists::Outline {
        let text = listed(outline, &mut Known::default(), Source::Store(store))?;
        let inner = Outline::parse(&text).map_err(|source| ManifestRefused::Rules { id, source })?;
        parts.extend(inner.chunks().iter().map(|chunk| chunk.id));
    }
    Ok(parts)
}

/// The manifest that an outline lists, if it is that of the release and breaks no rule.
pub(crate) fn assemble(
    id: ReleaseId,
    outline: &Outline,
    known: &mut Known,
    source: Source<'_>,
) -> Result<Assembled, ManifestError> {
    let inner = match outline.lists() {
        Lists::Manifest => None,
        Lists::Outline => {
            let text = listed(outline, known, source)?;
            Some(Outline::parse(&text).map_err(|source| ManifestRefused::Rules { id, source })?)
        }
    };
    if inner.as_ref().is_some_and(|inner| inner.lists() == Lists::Outline) {
        return Err(ManifestRefused::Nested { id }.into());
    }
    let outline = inner.as_ref().unwrap_or(outline);
    let text = listed(outline, known, source)?;
    Ok(Assembled { manifest: verified(id, &text)?, text, chunks: outline.chunks().to_vec() })
}

/// The same where the store lacks parts of it, which `lend` brings as far as they are to be had: they are returned too.
pub(crate) fn assemble_lent(
    id: ReleaseId,
    outline: &Outline,
    store: &dyn ArtefactStore,
    lend: &mut dyn FnMut(&[Chunk]) -> Vec<Lent>,
) -> Result<(Assembled, Vec<Lent>), ManifestError> {
    let (mut known, mut lent, mut inner) = (Known::default(), Vec::new(), None);
    loop {
        let level = inner.as_ref().unwrap_or(outline);
        let ids: Vec<ChunkId> = level.chunks().iter().map(|chunk| chunk.id).collect();
        let missing: HashSet<ChunkId> = store.missing(&ids).map_err(ReadError::from)?.into_iter().collect();
        let lacking = level.chunks().iter().filter(|chunk| missing.contains(&chunk.id)).copied();
        for (chunk, content) in lend(&lacking.collect::<Vec<_>>()) {
            known.keep(content.clone(), &[chunk]);
            lent.push((chunk, content));
        }
        // One that lists another one in turn is refused below.
        if inner.is_some() || level.lists() == Lists::Manifest {
            return Ok((assemble(id, outline, &mut known, Source::Store(store))?, lent));
        }
        let text = listed(level, &mut known, Source::Store(store))?;
        inner = Some(Outline::parse(&text).map_err(|source| ManifestRefused::Rules { id, source })?);
    }
}

/// A chunk with its content, which was found to be that of its name.
pub(crate) type Lent = (Chunk, Vec<u8>);

/// What the chunks of an outline make up.
fn listed(outline: &Outline, known: &mut Known, source: Source<'_>) -> Result<String, ReadError> {
    // A chunk that is listed with another length than it has is refused when it arrives.
    let here = |chunk: &Chunk| known.get(chunk.id).is_some_and(|part| part.len() == chunk.bytes as usize);
    let lacking: Vec<Chunk> = outline.chunks().iter().filter(|chunk| !here(chunk)).copied().collect();
    let to_keep = Mutex::new(&mut *known);
    read::each(source, &lacking, |chunk, content| {
        to_keep.lock().unwrap_or_else(PoisonError::into_inner).keep(content.to_vec(), &[chunk]);
        Ok::<(), ReadError>(())
    })?;
    let parts: Vec<&[u8]> =
        outline.chunks().iter().map(|chunk| known.get(chunk.id).unwrap_or_default()).collect();
    // Where it is not text, it is not that of the release either.
    Ok(String::from_utf8(parts.concat()).unwrap_or_default())
}
