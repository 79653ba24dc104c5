//! Cutting a file into chunks where its content says so: an insertion changes the chunks around it, not all after it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use baton_core::ids::ChunkId;
use baton_core::release::{Chunk, Chunks};
use fastcdc::v2020::{Error, StreamCDC};

// A change costs about one average chunk, and a chunk costs a line of the manifest: see docs/format for what other
// sizes cost. Another choice later finds fewer chunks in the store for a while, and breaks nothing.
/// Files up to this size are one chunk, and no chunk but the last of a file is shorter.
pub(crate) const BYTES_MIN: u32 = 4 << 10;
/// The size that cuts aim at.
pub(crate) const BYTES_AVERAGE: u32 = 16 << 10;
/// No chunk is longer, wherever the content would have it cut.
pub(crate) const BYTES_MAX: u32 = 64 << 10;

/// The chunks of a file.
pub(crate) fn cut(path: &Path) -> io::Result<Chunks> {
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(u64::from(BYTES_MIN) + 1).read_to_end(&mut start)?;
    if start.len() <= BYTES_MIN as usize {
        return Ok(whole(&start).into_iter().collect());
    }
    let content = start.as_slice().chain(file);
    let sizes = [BYTES_MIN, BYTES_AVERAGE, BYTES_MAX].map(|bytes| bytes as usize);
    StreamCDC::new(content, sizes[0], sizes[1], sizes[2])
        .map(|piece| match piece {
            Ok(piece) => Ok(chunk_of(&piece.data)),
            Err(Error::IoError(error)) => Err(error),
            Err(other) => Err(io::Error::other(other)),
        })
        .collect()
}

fn whole(content: &[u8]) -> Option<Chunk> {
    (!content.is_empty()).then(|| chunk_of(content))
}

fn chunk_of(content: &[u8]) -> Chunk {
    Chunk { id: ChunkId::of(content), bytes: content.len() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn noise(seed: u8, bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
        noise
    }

    fn cut_content(content: &[u8]) -> Chunks {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        cut(file.path()).unwrap()
    }

    #[test]
    fn chunks_make_up_the_file() {
        for bytes in [0, 1, BYTES_MIN as usize, BYTES_MIN as usize + 1, 1_000_000, 5_000_000] {
            for content in [noise(1, bytes), vec![0; bytes]] {
                let chunks = cut_content(&content);
                let mut rest = content.as_slice();
                for (index, chunk) in chunks.iter().enumerate() {
                    let (piece, after) = rest.split_at(chunk.bytes as usize);
                    assert_eq!(ChunkId::of(piece), chunk.id);
                    assert!(chunk.bytes <= BYTES_MAX);
                    assert!(chunk.bytes >= BYTES_MIN || index == chunks.len() - 1);
                    rest = after;
                }
                assert_eq!(rest, b"");
            }
        }
    }

    #[test]
    fn small_files_are_one_chunk_and_empty_ones_none() {
        assert_eq!(cut_content(b"").len(), 0);
        assert_eq!(cut_content(&noise(1, BYTES_MIN as usize)).len(), 1);
    }

    #[test]
    fn an_insertion_changes_a_few_chunks_only() {
        let before = noise(2, 8 << 20);
        let after = [&before[..1 << 20], b"inserted", &before[1 << 20..]].concat();
        let known: BTreeSet<ChunkId> = cut_content(&before).iter().map(|chunk| chunk.id).collect();
        let after = cut_content(&after);
        let new = after.iter().filter(|chunk| !known.contains(&chunk.id)).count();
        assert!((1..=3).contains(&new), "{new} of {}", after.len());
    }

    /// Other parameters or another algorithm would make every fleet fetch everything once: not by accident.
    #[test]
    fn cuts_stay_where_they_are() {
        let lengths: Vec<u32> = cut_content(&noise(3, 400_000)).iter().map(|chunk| chunk.bytes).collect();
        assert_eq!(
            lengths,
            [
                41_371, 24_276, 17_370, 19_576, 8_418, 18_340, 65_536, 17_007, 19_725, 33_869, 20_319,
                10_824, 19_069, 11_842, 16_078, 35_829, 16_176, 4_375
            ]
        );
    }
}
