//! Which chunks share a frame, and which frames a pack.
//!
//! Only what is new in a push is packed, in the order of the manifest: so small neighbours compress together, and a
//! changed file drags no other along. The plan depends on the new chunks alone: a push that was broken off makes the
//! same packs again.

use alloc::vec::Vec;

use super::Chunk;
use super::pack::{FRAME_BYTES_MAX, PACK_CHUNKS_MAX};

// See docs/format for what other sizes cost.
/// A frame is full when its content has so many bytes.
const FRAME_BYTES: u32 = 256 << 10;
/// Content of a pack, in bytes: also when nothing of it can be compressed, it stays below the longest pack.
pub const PACK_CONTENT_BYTES: u64 = 4 << 20;

/// Packs of frames of these chunks, in their order. What is in different runs is needed at different times, and shares no
/// frame.
pub fn plan(runs: &[&[Chunk]]) -> Vec<Vec<Vec<Chunk>>> {
    let mut packs: Vec<Vec<Vec<Chunk>>> = Vec::new();
    let (mut bytes, mut count) = (0, 0);
    for frame in runs.iter().flat_map(|run| frames(run)) {
        (bytes, count) = (bytes + bytes_of(&frame), count + frame.len());
        match packs.last_mut() {
            Some(pack) if bytes <= PACK_CONTENT_BYTES && count <= PACK_CHUNKS_MAX => pack.push(frame),
            Some(_) | None => {
                (bytes, count) = (bytes_of(&frame), frame.len());
                packs.push(Vec::from([frame]));
            }
        }
    }
    packs
}

fn frames(chunks: &[Chunk]) -> Vec<Vec<Chunk>> {
    let (mut frames, mut frame) = (Vec::new(), Vec::new());
    for chunk in chunks {
        if bytes_of(&frame) + u64::from(chunk.bytes) > u64::from(FRAME_BYTES_MAX)
            || frame.len() == PACK_CHUNKS_MAX
        {
            frames.push(core::mem::take(&mut frame));
        }
        frame.push(*chunk);
        if bytes_of(&frame) >= u64::from(FRAME_BYTES) {
            frames.push(core::mem::take(&mut frame));
        }
    }
    frames.push(frame);
    frames.retain(|frame| !frame.is_empty());
    frames
}

fn bytes_of(chunks: &[Chunk]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
}
