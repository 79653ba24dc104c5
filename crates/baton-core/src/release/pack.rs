//! A pack: chunks that travel and lie together, with an index of them in front.
//!
//! ```text
//! baton-pack 1
//! frame 10432
//! chunk 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 1042
//! chunk 2d3a…                                                            300
//! frame 812
//! chunk 17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f 2210
//! data 11244
//! ```
//!
//! and then the frames, one after the other: 10432 bytes that zstd decompresses to the first two chunks, and 812 for
//! the third. Small chunks share a frame because they compress better together; nobody has to read more of a pack than
//! its index and the frames with the chunks that he needs. There are no offsets, so none can lie.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;

use super::fault::{Fault, Text, TextError};
use super::lines::{Lines, VERSION, Words};
use super::outline::read_chunk;
use super::{CHUNK_BYTES_MAX, Chunk};

/// Longest content of a frame in bytes: of one chunk, or of several that are shorter.
pub const FRAME_BYTES_MAX: u32 = CHUNK_BYTES_MAX;
/// Longest frame in bytes: zstd grows what it cannot compress by less than a 128th.
pub const FRAME_PACKED_MAX: u32 = FRAME_BYTES_MAX + (FRAME_BYTES_MAX >> 7);
/// Most chunks of a pack: a hundred thousand files are a dozen packs, and an index stays below 2 MB.
pub const PACK_CHUNKS_MAX: usize = 16_384;
/// Longest index in bytes: its lines, at their longest; no frame is without a chunk.
pub const INDEX_BYTES_MAX: usize = 64 + PACK_CHUNKS_MAX * (80 + 16);
/// Longest pack in bytes: what a server holds in memory for each request, and a member for each that it has open.
pub const PACK_BYTES_MAX: usize = 6 << 20;

/// What lies in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    frames: Vec<Frame>,
}

/// What zstd has compressed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its length as it lies in the pack.
    pub packed: u32,
    /// What it decompresses to, one after the other.
    pub chunks: Vec<Chunk>,
}

impl Frame {
    /// The length of its content: at most [`FRAME_BYTES_MAX`] in an index that was read.
    pub fn bytes(&self) -> u32 {
        self.chunks.iter().fold(0, |sum: u32, chunk| sum.saturating_add(chunk.bytes))
    }
}

impl Index {
    /// The index of a pack of these frames.
    pub fn of(frames: Vec<Frame>) -> Self {
        Self { frames }
    }

    /// The frames, in order.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The length of all frames, as they lie in the pack.
    pub fn packed(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.packed)).sum()
    }

    /// Where each frame lies in a pack whose index has this length.
    pub fn places(&self, index_bytes: usize) -> Vec<Range<u64>> {
        let mut at = index_bytes as u64;
        let place = |frame: &Frame| {
            let start = at;
            at += u64::from(frame.packed);
            start..at
        };
        self.frames.iter().map(place).collect()
    }

    /// The index's text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {VERSION}", Text::Index.magic());
        for Frame { packed, chunks } in &self.frames {
            let _ = writeln!(text, "frame {packed}");
            for Chunk { id, bytes } in chunks {
                let _ = writeln!(text, "chunk {id} {bytes}");
            }
        }
        let _ = writeln!(text, "data {}", self.packed());
        text
    }

    /// Reads the index in front of a pack of `length` bytes, of which at least the first [`INDEX_BYTES_MAX`] are here, and
    /// returns its own length too.
    ///
    /// Like that of a manifest, its text is the only one, and what it says fits the pack's length.
    pub fn parse(start: &[u8], length: u64) -> Result<(Self, usize), TextError> {
        if length > PACK_BYTES_MAX as u64 {
            return Err(TextError {
                text: Text::Index,
                line: 1,
                what: Fault::TooLong { max: PACK_BYTES_MAX },
            });
        }
        let text = text_of(start);
        let mut lines = Lines::new(Text::Index, text)?;
        let (mut frames, mut chunks) = (Vec::new(), 0);
        while let Some(words) = lines.take("frame")? {
            frames.push(read_frame(&mut lines, words, &mut chunks)?);
        }
        let index = Self { frames };
        let mut words = lines.expect("data")?;
        let said: u64 = words.value("a number")?;
        words.end()?;
        if said != index.packed() {
            return Err(words.fault(Fault::Sum { said, sum: index.packed() }));
        }
        match length.checked_sub(text.len() as u64) {
            Some(there) if there == said => Ok((index, text.len())),
            there => Err(words.fault(Fault::Sum { said, sum: there.unwrap_or(0) })),
        }
    }
}

/// A frame from the rest of its line, which says its packed length, and the lines of its chunks. `chunks` counts those of the
/// whole text.
pub(super) fn read_frame(
    lines: &mut Lines<'_>,
    mut words: Words<'_>,
    chunks: &mut usize,
) -> Result<Frame, TextError> {
    let packed = words.value("a number")?;
    words.end()?;
    let mut frame = Frame { packed, chunks: Vec::new() };
    while let Some(mut words) = lines.take("chunk")? {
        frame.chunks.push(read_chunk(&mut words)?);
        *chunks += 1;
        if *chunks > PACK_CHUNKS_MAX {
            let (what, max) = ("chunks", PACK_CHUNKS_MAX as u64);
            return Err(words.fault(Fault::TooMany { what, max }));
        }
        if frame.bytes() > FRAME_BYTES_MAX {
            let (what, max) = ("bytes in the frame", u64::from(FRAME_BYTES_MAX));
            return Err(words.fault(Fault::TooMany { what, max }));
        }
    }
    if frame.chunks.is_empty() {
        return Err(lines.fault(Fault::EmptyFrame));
    }
    if packed > FRAME_PACKED_MAX {
        let (what, max) = ("packed bytes in the frame", u64::from(FRAME_PACKED_MAX));
        return Err(words.fault(Fault::TooMany { what, max }));
    }
    Ok(frame)
}

/// The text in front of a pack: up to the end of the line that begins with `data`, or what there is of it.
fn text_of(start: &[u8]) -> &str {
    let start = &start[..start.len().min(INDEX_BYTES_MAX)];
    let mut end = 0;
    for line in start.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if line.starts_with(b"data ") {
            break;
        }
    }
    match core::str::from_utf8(&start[..end]) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChunkId;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn frame(packed: u32, sizes: &[u32]) -> Frame {
        let chunk = |bytes: &u32| Chunk { id: ChunkId::of(&bytes.to_le_bytes()), bytes: *bytes };
        Frame { packed, chunks: sizes.iter().map(chunk).collect() }
    }

    #[test]
    fn frames_lie_one_after_the_other_behind_the_index() {
        let index = Index::of(Vec::from([frame(10, &[1, 2]), frame(5, &[3])]));
        assert_eq!(index.places(100), [100..110, 110..115]);
        let text = index.to_text();
        let pack = [text.as_bytes(), &[b'x'; 15]].concat();
        assert_eq!(Index::parse(&pack, pack.len() as u64), Ok((index, text.len())));
    }

    #[test]
    fn p26_an_index_that_lies_is_refused_with_a_reason() {
        let id = ChunkId::of(b"");
        let one = format!("chunk {id} 1\n");
        let large = format!("chunk {id} 1048576\n");
        for (text, after, line, reason) in [
            (String::new(), 0, 1, "not a pack"),
            ("PK".to_string(), 0, 1, "not a pack"),
            ("baton-manifest 1\n".to_string(), 0, 1, "not a pack"),
            ("baton-pack 2\ndata 0\n".to_string(), 0, 1, "version \"2\""),
            ("baton-pack 1\n".to_string(), 0, 2, "`data …`"),
            ("baton-pack 1\ndata 0".to_string(), 0, 2, "ends too early"),
            ("baton-pack 1\ndata 1\n".to_string(), 1, 2, "there are 0"),
            ("baton-pack 1\ndata 0\n".to_string(), 1, 2, "there are 1"),
            ("baton-pack 1\nframe 1\ndata 1\n".to_string(), 1, 3, "no chunk"),
            (format!("baton-pack 1\n{one}data 0\n"), 0, 2, "`data …`"),
            (format!("baton-pack 1\nframe 5\n{one}data 5\n"), 4, 4, "there are 4"),
            (format!("baton-pack 1\nframe 5\n{one}data 5\n"), 6, 4, "there are 6"),
            (format!("baton-pack 1\nframe 5\n{one}data 4\n"), 4, 4, "there are 5"),
            (format!("baton-pack 1\nframe 4294967295\n{one}data 4294967295\n"), 5, 2, "packed bytes"),
            (format!("baton-pack 1\nframe -1\n{one}data 0\n"), 0, 2, "not a number"),
            (format!("baton-pack 1\nframe 01\n{one}data 1\n"), 1, 2, "not a number"),
            (format!("baton-pack 1\nframe 5 at 9\n{one}data 5\n"), 5, 2, "too much"),
            (format!("baton-pack 1\nframe 5\nchunk {id} 0\ndata 5\n"), 5, 3, "1 to 1048576"),
            (format!("baton-pack 1\nframe 5\nchunk {id} 1048577\ndata 5\n"), 5, 3, "1 to 1048576"),
            (format!("baton-pack 1\nframe 5\n{large}{one}data 5\n"), 5, 4, "bytes in the frame"),
            (
                format!("baton-pack 1\nframe 5\n{}data 5\n", one.repeat(16_385)),
                5,
                16_387,
                "more than 16384 chunks",
            ),
            (format!("baton-pack 1\nframe 5\n{one}data 5\n"), PACK_BYTES_MAX, 1, "more than 6291456 bytes"),
            (format!("baton-pack 1\nframe 5\n{one}data 5\r\n"), 5, 4, "not a number"),
        ] {
            let pack = [text.as_bytes(), &alloc::vec![0xff; after]].concat();
            let refused = Index::parse(&pack, pack.len() as u64).unwrap_err();
            assert!(refused.to_string().contains("pack's index is refused at line"), "{refused}");
            assert!(refused.what.to_string().contains(reason), "{text:.99}: {}", refused.what);
            assert_eq!(refused.line, line, "{text:.99}: {}", refused.what);
        }
    }

    proptest! {
        #[test]
        fn any_index_is_read_back(frames in prop::collection::vec((1..9999u32, prop::collection::vec(1..9999u32, 1..9)), 0..9)) {
            let index = Index::of(frames.iter().map(|(packed, sizes)| frame(*packed, sizes)).collect());
            let text = index.to_text();
            let pack = [text.as_bytes(), &alloc::vec![0; index.packed() as usize]].concat();
            prop_assert_eq!(Index::parse(&pack, pack.len() as u64), Ok((index, text.len())));
            for end in 0..pack.len().min(600) {
                prop_assert!(Index::parse(&pack[..end], end as u64).is_err());
            }
        }
    }
}
