//! Chunks from a store: asked for by the pack, each verified.

use std::collections::HashMap;

use baton_core::ids::ChunkId;
use baton_core::release::{Chunk, reading};

use crate::pack::{Pack, PackError, unpack};
use crate::parallel;
use crate::store::{ArtefactStore, Kind, StoreError};

/// Why chunks are not here.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store sent is not what it should be.
    #[error("what the artefact store sent is refused")]
    Pack(#[from] PackError),
}

/// How a store is asked for chunks.
pub type Get<'a> = &'a (dyn Fn(&[ChunkId]) -> Result<Vec<u8>, StoreError> + Sync);

/// Where chunks come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A store, which is asked again for what came damaged.
    Store(&'a dyn ArtefactStore),
    /// The inside of one, where there is one way only.
    Inside(Get<'a>),
}

impl Source<'_> {
    fn get(&self, ids: &[ChunkId], damaged: bool) -> Result<Vec<u8>, StoreError> {
        match (self, damaged) {
            (Self::Store(store), false) => store.get(ids),
            (Self::Store(store), true) => store.get_checked(ids),
            (Self::Inside(get), _) => get(ids),
        }
    }
}

/// Brings these chunks, and does something with the content of each as it arrives, from several threads.
pub(crate) fn each<E: From<ReadError> + Send>(
    source: Source<'_>,
    chunks: &[Chunk],
    act: impl Fn(Chunk, &[u8]) -> Result<(), E> + Sync,
) -> Result<(), E> {
    parallel::for_each_pack(&reading::asks(chunks), |ask| one(source, ask, &act))
}

/// Asks until all chunks of a question are here: one pack may not hold them all.
fn one<E: From<ReadError>>(
    source: Source<'_>,
    ask: &[Chunk],
    act: &impl Fn(Chunk, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut wanted: HashMap<ChunkId, Vec<Chunk>> = HashMap::new();
    for chunk in ask {
        wanted.entry(chunk.id).or_default().push(*chunk);
    }
    let mut damaged = false;
    while !wanted.is_empty() {
        let mut asked =
            ask.iter().map(|chunk| chunk.id).filter(|id| wanted.contains_key(id)).collect::<Vec<_>>();
        asked.dedup();
        let answer = source.get(&asked, damaged).map_err(ReadError::from)?;
        let before = wanted.len();
        match take(&answer, &mut wanted, act)? {
            Some(error) if damaged => return Err(ReadError::from(error).into()),
            Some(_) => damaged = true,
            None if wanted.len() < before => {}
            None => {
                let nothing = "it answered with none of the chunks that were asked for";
                let error =
                    StoreError::new(Kind::Corrupt, format!("get chunk {}", asked[0])).because(nothing);
                return Err(ReadError::from(error).into());
            }
        }
    }
    Ok(())
}

/// Takes what is wanted out of a pack, up to where it is damaged. Frames without any of it are not decompressed.
fn take<E>(
    answer: &[u8],
    wanted: &mut HashMap<ChunkId, Vec<Chunk>>,
    act: &impl Fn(Chunk, &[u8]) -> Result<(), E>,
) -> Result<Option<PackError>, E> {
    let pack = match Pack::open(answer) {
        Ok(pack) => pack,
        Err(error) => return Ok(Some(error)),
    };
    for (frame, packed) in pack.frames() {
        if !frame.chunks.iter().any(|chunk| wanted.contains_key(&chunk.id)) {
            continue;
        }
        let unpacked = match unpack(frame, packed) {
            Ok(unpacked) => unpacked,
            Err(error) => return Ok(Some(error)),
        };
        for (found, content) in unpacked.chunks() {
            let Some(chunks) = wanted.get(&found.id) else { continue };
            if let Some(Chunk { id, bytes: expected }) =
                chunks.iter().find(|chunk| chunk.bytes != found.bytes)
            {
                let (id, expected, found) = (*id, *expected, found.bytes);
                return Ok(Some(PackError::Length { id, expected, found }));
            }
            chunks.iter().try_for_each(|chunk| act(*chunk, content))?;
            wanted.remove(&found.id);
        }
    }
    Ok(None)
}
