//! Packs as bytes: chunks compressed by zstd behind an index, see [`Index`].

use std::io;
use std::ops::Range;

use baton_core::ids::ChunkId;
use baton_core::release::pack::{FRAME_BYTES_MAX, Frame, INDEX_BYTES_MAX, Index};
use baton_core::release::{Chunk, TextError};

/// zstd's own default: higher levels cost several times the time for a few percent.
const LEVEL: i32 = 3;

/// Why bytes are not the pack that they should be.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its index breaks a rule.
    #[error("the pack is not allowed")]
    Index(#[from] TextError),
    /// Content that cannot be compressed for want of memory.
    #[error("cannot compress the frame of chunk {id}")]
    Pack {
        /// The first chunk of the frame.
        id: ChunkId,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Truncated, damaged, or more than it should be.
    #[error("cannot decompress the frame of chunk {id} to at most {max} bytes")]
    Unpack {
        /// The first chunk of the frame.
        id: ChunkId,
        /// The most bytes that were expected.
        max: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Other content than its name says.
    #[error("what should be chunk {id} is {found}")]
    OtherContent {
        /// The chunk that it should be.
        id: ChunkId,
        /// The chunk that it is.
        found: ChunkId,
    },
    /// The right content, but not of the length that was promised.
    #[error("chunk {id} has {found} bytes instead of {expected}")]
    Length {
        /// The chunk.
        id: ChunkId,
        /// The length that was promised.
        expected: u32,
        /// The length that it has.
        found: u32,
    },
}

/// A pack, with an index that was checked. Its frames are checked as they are decompressed.
#[derive(Debug)]
pub struct Pack<'a> {
    index: Index,
    places: Vec<Range<u64>>,
    bytes: &'a [u8],
}

impl<'a> Pack<'a> {
    /// The pack with these bytes.
    pub fn open(bytes: &'a [u8]) -> Result<Self, PackError> {
        let (index, places) = index(bytes, bytes.len() as u64)?;
        Ok(Self { index, places, bytes })
    }

    /// The frames with what zstd made of their content.
    pub fn frames(&self) -> impl Iterator<Item = (&Frame, &'a [u8])> {
        // The index was found to fit the bytes.
        let packed = |place: &Range<u64>| self.bytes.get(place.start as usize..place.end as usize);
        self.index.frames().iter().zip(self.places.iter().map(move |place| packed(place).unwrap_or_default()))
    }

    /// Makes sure that every chunk is what its name says.
    pub fn verify(&self) -> Result<(), PackError> {
        self.frames().try_for_each(|(frame, packed)| unpack(frame, packed).map(drop))
    }
}

/// How many bytes of a pack are enough to read its index.
pub const START_BYTES: usize = INDEX_BYTES_MAX;

/// The index of a pack of `length` bytes that starts like this, and where its frames lie.
pub fn index(start: &[u8], length: u64) -> Result<(Index, Vec<Range<u64>>), PackError> {
    let (index, behind) = Index::parse(start, length)?;
    let places = index.places(behind);
    Ok((index, places))
}

/// A frame of these chunks, whose content is this: its entry in the index, and its bytes.
pub fn pack(chunks: Vec<Chunk>, content: &[u8]) -> Result<(Frame, Vec<u8>), PackError> {
    let id = first(&chunks);
    let packed = zstd::bulk::compress(content, LEVEL).map_err(|source| PackError::Pack { id, source })?;
    Ok((Frame { packed: packed.len() as u32, chunks }, packed))
}

/// The chunks of a frame with their content, each of which is what its name says. No more than the index promises is
/// ever decompressed.
pub fn unpack<'a>(frame: &'a Frame, packed: &[u8]) -> Result<Unpacked<'a>, PackError> {
    let (id, max) = (first(&frame.chunks), frame.bytes().min(FRAME_BYTES_MAX));
    let content = zstd::bulk::decompress(packed, max as usize).map_err(|source| PackError::Unpack {
        id,
        max,
        source,
    })?;
    if content.len() != max as usize {
        return Err(PackError::Length { id, expected: max, found: content.len() as u32 });
    }
    let unpacked = Unpacked { frame, content };
    for (Chunk { id, .. }, content) in unpacked.chunks() {
        let found = ChunkId::of(content);
        if found != id {
            return Err(PackError::OtherContent { id, found });
        }
    }
    Ok(unpacked)
}

/// A frame, decompressed.
#[derive(Debug)]
pub struct Unpacked<'a> {
    frame: &'a Frame,
    content: Vec<u8>,
}

impl Unpacked<'_> {
    /// Its chunks with their content.
    pub fn chunks(&self) -> impl Iterator<Item = (Chunk, &[u8])> {
        let mut rest = self.content.as_slice();
        self.frame.chunks.iter().map(move |chunk| {
            let (content, after) = rest.split_at(rest.len().min(chunk.bytes as usize));
            rest = after;
            (*chunk, content)
        })
    }
}

/// The pack of these frames.
pub fn join(frames: Vec<(Frame, Vec<u8>)>) -> Vec<u8> {
    let (frames, packed): (Vec<Frame>, Vec<Vec<u8>>) = frames.into_iter().unzip();
    let mut bytes = Index::of(frames).to_text().into_bytes();
    bytes.reserve_exact(packed.iter().map(Vec::len).sum());
    packed.iter().for_each(|packed| bytes.extend_from_slice(packed));
    bytes
}

/// The pack of one chunk with this content.
pub fn of(content: &[u8]) -> Result<Vec<u8>, PackError> {
    let chunk = Chunk { id: ChunkId::of(content), bytes: content.len() as u32 };
    Ok(join(vec![pack(vec![chunk], content)?]))
}

fn first(chunks: &[Chunk]) -> ChunkId {
    chunks.first().map_or_else(|| ChunkId::of(b""), |chunk| chunk.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::release::CHUNK_BYTES_MAX;

    fn contents(bytes: &[u8]) -> Result<Vec<(Chunk, Vec<u8>)>, PackError> {
        let pack = Pack::open(bytes)?;
        let mut contents = Vec::new();
        for (frame, packed) in pack.frames() {
            let unpacked = unpack(frame, packed)?;
            contents.extend(unpacked.chunks().map(|(chunk, content)| (chunk, content.to_vec())));
        }
        Ok(contents)
    }

    fn chunk(content: &[u8]) -> Chunk {
        Chunk { id: ChunkId::of(content), bytes: content.len() as u32 }
    }

    #[test]
    fn chunks_come_back_as_they_were() {
        let mut noise = vec![0; CHUNK_BYTES_MAX as usize];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let frames = [&[&b"a"[..], b"bc"][..], &[&noise], &[b"d"]];
        let frames =
            frames.map(|all| pack(all.iter().map(|one| chunk(one)).collect(), &all.concat()).unwrap());
        let bytes = join(frames.into());
        let found = contents(&bytes).unwrap();
        assert_eq!(
            found.iter().map(|(_, content)| content.as_slice()).collect::<Vec<_>>(),
            [b"a", &b"bc"[..], &noise, b"d"]
        );
        Pack::open(&bytes).unwrap().verify().unwrap();
    }

    #[test]
    fn p27_a_bomb_is_not_unpacked_beyond_what_was_promised() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        for promised in [10, CHUNK_BYTES_MAX] {
            let content = vec![0; promised as usize];
            let frame = Frame { packed: bomb.len() as u32, chunks: vec![chunk(&content)] };
            assert!(matches!(unpack(&frame, &bomb), Err(PackError::Unpack { .. })), "{promised}");
        }
    }

    #[test]
    fn p25_altered_bytes_are_refused_with_a_reason() {
        let right = of(&b"the right content".repeat(100)).unwrap();
        let before = contents(&right).unwrap();
        for cut in 0..right.len() {
            assert!(contents(&right[..cut]).is_err(), "{cut}");
        }
        for at in 0..right.len() {
            let mut altered = right.clone();
            altered[at] ^= 1;
            // Some bits of a zstd header mean nothing; then the content must still be right.
            if let Ok(same) = contents(&altered) {
                assert_eq!(same, before, "{at}");
            }
        }
    }
}
