//! The content of one file of a release.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use baton_core::ids::ChunkId;
use baton_core::release::{Chunk, File};

use crate::read::{self, ReadError, Source};
use crate::store::ArtefactStore;

/// Brings a whole file to memory: one that is known not to be too long for that.
///
/// # Errors
/// The store fails, or sends something else.
pub fn of(file: &File, store: &dyn ArtefactStore) -> Result<Vec<u8>, ReadError> {
    let here: Mutex<HashMap<ChunkId, Vec<u8>>> = Mutex::default();
    let mut lacking: Vec<Chunk> = Vec::new();
    for chunk in &file.chunks {
        if !lacking.contains(chunk) {
            lacking.push(*chunk);
        }
    }
    read::each(Source::Store(store), &lacking, |chunk, content| {
        here.lock().unwrap_or_else(PoisonError::into_inner).insert(chunk.id, content.to_vec());
        Ok::<(), ReadError>(())
    })?;
    let here = here.into_inner().unwrap_or_else(PoisonError::into_inner);
    let content = file.chunks.iter().filter_map(|chunk| here.get(&chunk.id));
    Ok(content.flatten().copied().collect())
}
