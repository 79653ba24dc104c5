//! The content of one file of a release.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use baton_core::ids::ChunkId;
use baton_core::release::{Chunk, File};

use crate::read::{self, ReadError, Source};
use crate::store::ArtefactStore;

/// A file of a release of which a few places are read.
pub struct Parts<'a> {
    file: &'a File,
    store: &'a dyn ArtefactStore,
    /// What has come: places that are looked at are near each other.
    here: RefCell<HashMap<ChunkId, Vec<u8>>>,
}

impl<'a> Parts<'a> {
    /// None of it yet.
    pub fn of(file: &'a File, store: &'a dyn ArtefactStore) -> Self {
        Self { file, store, here: RefCell::default() }
    }

    /// So many bytes from there on, or those that there are.
    ///
    /// # Errors
    /// The store fails, or sends something else.
    pub fn read(&self, from: u64, bytes: usize) -> Result<Vec<u8>, ReadError> {
        let end = from.saturating_add(bytes as u64);
        let (mut content, mut at) = (Vec::new(), 0);
        for chunk in &self.file.chunks {
            let next = at + u64::from(chunk.bytes);
            if at < end && next > from {
                let part = self.chunk(*chunk)?;
                let inside = |place: u64| part.len().min(usize::try_from(place).unwrap_or(usize::MAX));
                content.extend_from_slice(&part[inside(from.saturating_sub(at))..inside(end - at)]);
            }
            at = next;
        }
        Ok(content)
    }

    fn chunk(&self, chunk: Chunk) -> Result<Vec<u8>, ReadError> {
        if let Some(content) = self.here.borrow().get(&chunk.id) {
            return Ok(content.clone());
        }
        let found = Mutex::default();
        read::each(Source::Store(self.store), &[chunk], |_, content| {
            *found.lock().unwrap_or_else(PoisonError::into_inner) = content.to_vec();
            Ok::<(), ReadError>(())
        })?;
        let found: Vec<u8> = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.here.borrow_mut().insert(chunk.id, found.clone());
        Ok(found)
    }
}

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
