//! Chunks from a store: asked for by the pack, each verified.

use std::collections::HashMap;

use baton_core::ids::ChunkId;
use baton_core::release::{Chunk, reading};

use crate::pack::{Pack, PackError, unpack};
use crate::parallel;
use crate::store::{Kind, StoreError};

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

/// Brings these chunks, and does something with the content of each as it arrives, from several threads.
pub(crate) fn each<E: From<ReadError> + Send>(
    get: Get<'_>,
    chunks: &[Chunk],
    act: impl Fn(Chunk, &[u8]) -> Result<(), E> + Sync,
) -> Result<(), E> {
    parallel::for_each_pack(&reading::asks(chunks), |ask| one(get, ask, &act))
}

/// Asks until all chunks of a question are here: one pack may not hold them all.
fn one<E: From<ReadError>>(
    get: Get<'_>,
    ask: &[Chunk],
    act: &impl Fn(Chunk, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut wanted: HashMap<ChunkId, Vec<Chunk>> = HashMap::new();
    for chunk in ask {
        wanted.entry(chunk.id).or_default().push(*chunk);
    }
    while !wanted.is_empty() {
        let mut asked =
            ask.iter().map(|chunk| chunk.id).filter(|id| wanted.contains_key(id)).collect::<Vec<_>>();
        asked.dedup();
        let answer = get(&asked).map_err(ReadError::from)?;
        let before = wanted.len();
        take(&answer, &mut wanted, act)?;
        if wanted.len() == before {
            let nothing = "it answered with none of the chunks that were asked for";
            let error = StoreError::new(Kind::Corrupt, format!("get chunk {}", asked[0])).because(nothing);
            return Err(ReadError::from(error).into());
        }
    }
    Ok(())
}

/// Takes what is wanted out of a pack. Frames without any of it are not decompressed.
fn take<E: From<ReadError>>(
    answer: &[u8],
    wanted: &mut HashMap<ChunkId, Vec<Chunk>>,
    act: &impl Fn(Chunk, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let pack = Pack::open(answer).map_err(ReadError::from)?;
    for (frame, packed) in pack.frames() {
        if !frame.chunks.iter().any(|chunk| wanted.contains_key(&chunk.id)) {
            continue;
        }
        for (found, content) in unpack(frame, packed).map_err(ReadError::from)? {
            for chunk in wanted.remove(&found.id).unwrap_or_default() {
                if chunk.bytes != found.bytes {
                    let (expected, found) = (chunk.bytes, found.bytes);
                    return Err(ReadError::from(PackError::Length { id: chunk.id, expected, found }).into());
                }
                act(chunk, &content)?;
            }
        }
    }
    Ok(())
}
