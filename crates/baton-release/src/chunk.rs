//! One chunk as it is stored and sent: its content compressed by zstd, named by the hash of the content.

use baton_core::ids::ChunkId;
use baton_core::release::CHUNK_BYTES_MAX;

/// Largest packed chunk in bytes: zstd grows what it cannot compress by less than a 128th.
pub const PACKED_BYTES_MAX: usize = CHUNK_BYTES_MAX as usize + (CHUNK_BYTES_MAX as usize >> 7);

/// zstd's own default: higher levels cost several times the time for a few percent.
const LEVEL: i32 = 3;

/// Why bytes are not the chunk that they should be.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// More than any chunk has.
    #[error("a packed chunk has at most {PACKED_BYTES_MAX} bytes")]
    TooLong,
    /// Content that cannot be compressed for want of memory.
    #[error("cannot compress the chunk")]
    Pack(#[source] std::io::Error),
    /// Truncated, damaged, or more than it should be.
    #[error("cannot decompress the chunk to at most {max} bytes")]
    Unpack {
        /// The most bytes that were expected.
        max: u32,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Other content than its name says.
    #[error("the content is that of chunk {found}")]
    OtherContent {
        /// The chunk that it is.
        found: ChunkId,
    },
    /// The right content, but not of the length that was promised.
    #[error("the chunk has {found} bytes instead of {expected}")]
    Length {
        /// The length that was promised.
        expected: u32,
        /// The length that it has.
        found: usize,
    },
}

/// The name of a chunk with this content.
pub fn id_of(content: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(content).as_bytes())
}

/// The packed form of a chunk.
pub fn pack(content: &[u8]) -> Result<Vec<u8>, ChunkError> {
    if content.len() > CHUNK_BYTES_MAX as usize {
        return Err(ChunkError::TooLong);
    }
    zstd::bulk::compress(content, LEVEL).map_err(ChunkError::Pack)
}

/// The content of a packed chunk, which is known to have `bytes` bytes: no more than that is ever decompressed.
pub fn unpack(id: ChunkId, bytes: u32, packed: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let content = decompress(id, bytes, packed)?;
    if content.len() != bytes as usize {
        return Err(ChunkError::Length { expected: bytes, found: content.len() });
    }
    Ok(content)
}

/// Makes sure that these bytes are this chunk, whatever its length.
pub fn verify(id: ChunkId, packed: &[u8]) -> Result<(), ChunkError> {
    decompress(id, CHUNK_BYTES_MAX, packed).map(drop)
}

fn decompress(id: ChunkId, max: u32, packed: &[u8]) -> Result<Vec<u8>, ChunkError> {
    if packed.len() > PACKED_BYTES_MAX {
        return Err(ChunkError::TooLong);
    }
    let content =
        zstd::bulk::decompress(packed, max as usize).map_err(|source| ChunkError::Unpack { max, source })?;
    match id_of(&content) {
        found if found == id => Ok(content),
        found => Err(ChunkError::OtherContent { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_as_it_was() {
        for content in [&b""[..], b"a", &vec![7; CHUNK_BYTES_MAX as usize]] {
            let packed = pack(content).unwrap();
            assert_eq!(unpack(id_of(content), content.len() as u32, &packed).unwrap(), content);
            verify(id_of(content), &packed).unwrap();
        }
    }

    #[test]
    fn the_worst_content_fits_the_limit() {
        let mut noise = vec![0; CHUNK_BYTES_MAX as usize];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert!(pack(&noise).unwrap().len() <= PACKED_BYTES_MAX);
        assert!(matches!(pack(&vec![0; CHUNK_BYTES_MAX as usize + 1]), Err(ChunkError::TooLong)));
    }

    #[test]
    fn p27_a_bomb_is_not_unpacked_beyond_what_was_promised() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        let id = id_of(&[0; 10]);
        assert!(matches!(unpack(id, 10, &bomb), Err(ChunkError::Unpack { .. })));
        assert!(matches!(verify(id, &bomb), Err(ChunkError::Unpack { .. })));
        assert!(matches!(verify(id, &vec![0; PACKED_BYTES_MAX + 1]), Err(ChunkError::TooLong)));
    }

    #[test]
    fn p25_altered_bytes_are_refused_with_a_reason() {
        let content = b"the right content".repeat(100);
        let (id, packed) = (id_of(&content), pack(&content).unwrap());
        let bytes = content.len() as u32;
        for cut in 0..packed.len() {
            assert!(unpack(id, bytes, &packed[..cut]).is_err(), "{cut}");
        }
        for at in 0..packed.len() {
            let mut altered = packed.clone();
            altered[at] ^= 1;
            // Some bits of a zstd header mean nothing; then the content must still be right.
            if let Ok(same) = unpack(id, bytes, &altered) {
                assert_eq!(same, content);
            }
        }
        let other = pack(b"other content").unwrap();
        assert!(matches!(verify(id, &other), Err(ChunkError::OtherContent { .. })));
        assert!(matches!(unpack(id, bytes + 1, &packed), Err(ChunkError::Length { .. })));
    }
}
