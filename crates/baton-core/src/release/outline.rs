//! The outline of a manifest: which chunks make it up, so that only those that changed travel.
//!
//! ```text
//! baton-outline 1
//! manifest 2741093
//! chunk 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 15210
//! …
//! ```
//!
//! An outline is a way to get a manifest, and proves nothing: what its chunks make up is that of the release when it has
//! the release's hash. So outlines may be cut in other ways later, and the release stays the same.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;

use super::fault::{Fault, Text, TextError};
use super::lines::{Lines, VERSION, Words};
use super::{CHUNK_BYTES_MAX, Chunk, MANIFEST_BYTES_MAX};
use crate::ids::ChunkId;

/// Most chunks of a manifest: those of the largest one, cut as finely as [`cut`] does.
pub const OUTLINE_CHUNKS_MAX: usize = MANIFEST_BYTES_MAX / SIZES.min;
/// Longest outline in bytes: its lines, at their longest.
pub const OUTLINE_BYTES_MAX: usize = 64 + OUTLINE_CHUNKS_MAX * 80;

/// How long the chunks of a manifest are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// No chunk but the last is shorter, in bytes.
    pub min: usize,
    /// None is longer, in bytes.
    pub max: usize,
    /// After the shortest length, one line in so many ends a chunk.
    pub lines: u64,
}

// One changed line costs a chunk of the manifest, and every chunk a line of the outline; see docs/format for what
// other sizes cost. At some 70 bytes a line these are 16 KiB on average.
/// The lengths that are in use.
pub const SIZES: Sizes = Sizes { min: 4 << 10, max: 64 << 10, lines: 192 };

/// The outline of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    chunks: Vec<Chunk>,
}

impl Outline {
    /// The outline of the manifest with this text.
    pub fn of(manifest: &str) -> Self {
        let chunk = |piece: Range<usize>| {
            let content = &manifest.as_bytes()[piece];
            Chunk { id: ChunkId::of(content), bytes: content.len() as u32 }
        };
        Self { chunks: cut(manifest.as_bytes()).into_iter().map(chunk).collect() }
    }

    /// What makes up the manifest, in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The length of the manifest: at most [`MANIFEST_BYTES_MAX`].
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// The outline's text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {VERSION}\nmanifest {}", Text::Outline.magic(), self.bytes());
        for Chunk { id, bytes } in &self.chunks {
            let _ = writeln!(text, "chunk {id} {bytes}");
        }
        text
    }

    /// Reads an outline. Like that of a manifest, its text is the only one.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(Text::Outline, text)?;
        let mut words = lines.expect("manifest")?;
        let said: u64 = words.value("a number")?;
        words.end()?;
        if said > MANIFEST_BYTES_MAX as u64 {
            return Err(words.fault(Fault::TooLong { max: MANIFEST_BYTES_MAX }));
        }
        let mut outline = Self { chunks: Vec::new() };
        while !lines.is_empty() {
            let mut words = lines.expect("chunk")?;
            if outline.chunks.len() == OUTLINE_CHUNKS_MAX {
                let (what, max) = ("chunks", OUTLINE_CHUNKS_MAX as u64);
                return Err(words.fault(Fault::TooMany { what, max }));
            }
            outline.chunks.push(read_chunk(&mut words)?);
        }
        match outline.bytes() {
            sum if sum == said => Ok(outline),
            sum => Err(words.fault(Fault::Sum { said, sum })),
        }
    }
}

/// The rest of a line that names a chunk.
pub(super) fn read_chunk(words: &mut Words<'_>) -> Result<Chunk, TextError> {
    let chunk = Chunk { id: words.value("a chunk's hash")?, bytes: words.value("a number")? };
    words.end()?;
    match chunk.bytes {
        1..=CHUNK_BYTES_MAX => Ok(chunk),
        odd => Err(words.fault(Fault::ChunkLength(odd))),
    }
}

/// Where to cut the text of a manifest: after lines that say so themselves, so that a change of one moves no other cut.
pub fn cut(text: &[u8]) -> Vec<Range<usize>> {
    cut_to(text, SIZES)
}

/// The same with chunks of other lengths.
pub fn cut_to(text: &[u8], Sizes { min, max, lines }: Sizes) -> Vec<Range<usize>> {
    let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if at + line.len() - start > max {
            pieces.push(start..at);
            start = at;
        }
        at += line.len();
        // A line may be longer than any chunk.
        while at - start > max {
            pieces.push(start..start + max);
            start += max;
        }
        if at - start >= min && ends(line, lines) {
            pieces.push(start..at);
            start = at;
        }
    }
    pieces.push(start..at);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Whether a chunk ends with this line.
fn ends(line: &[u8], lines: u64) -> bool {
    let hash = blake3::hash(line);
    let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(first) % lines == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    /// What the lines of many files look like.
    fn lines(count: u32) -> Vec<String> {
        let line =
            |n: u32| format!("file 1042 lib/{n:05}.js\nchunk {} 1042\n", ChunkId::of(&n.to_le_bytes()));
        (0..count).map(line).collect()
    }

    fn chunks(lines: &[String]) -> Vec<Chunk> {
        Outline::of(&lines.concat()).chunks
    }

    #[test]
    fn one_changed_line_changes_a_few_chunks_wherever_it_is() {
        let before = lines(3000);
        let known: BTreeSet<ChunkId> = chunks(&before).iter().map(|chunk| chunk.id).collect();
        assert!((12..=40).contains(&known.len()), "{}", known.len());
        let mut new_bytes = 0;
        for at in 0..before.len() {
            let mut after = before.clone();
            after[at] = "file 7 changed\n".to_string();
            let after = chunks(&after);
            let new: Vec<&Chunk> = after.iter().filter(|chunk| !known.contains(&chunk.id)).collect();
            assert!(new.len() <= 4, "{} chunks are new after a change of line {at}", new.len());
            new_bytes += new.iter().map(|chunk| chunk.bytes as usize).sum::<usize>();
        }
        assert!(new_bytes / before.len() < 48 << 10, "{} bytes on average", new_bytes / before.len());
    }

    #[test]
    fn a_line_longer_than_any_chunk_is_cut() {
        let text = format!("a\n{}\nb\n", "x".repeat(3 * SIZES.max));
        assert!(Outline::of(&text).chunks.iter().all(|chunk| chunk.bytes as usize <= SIZES.max));
    }

    /// Other sizes would make every fleet fetch whole manifests once: not by accident.
    #[test]
    fn cuts_stay_where_they_are() {
        let lengths: Vec<u32> = chunks(&lines(600)).iter().map(|chunk| chunk.bytes).collect();
        assert_eq!(lengths, [7745, 41_557, 8118, 1980]);
    }

    #[test]
    fn what_is_no_outline_is_refused_with_a_reason() {
        let id = ChunkId::of(b"");
        for (text, line, reason) in [
            (String::new(), 1, "not an outline"),
            ("baton-manifest 1\n".to_string(), 1, "not an outline"),
            ("baton-outline 2\nmanifest 0\n".to_string(), 1, "version \"2\""),
            ("baton-outline 1\n".to_string(), 2, "`manifest …`"),
            ("baton-outline 1\nmanifest 1\n".to_string(), 2, "there are 0"),
            ("baton-outline 1\nmanifest 67108865\n".to_string(), 2, "more than 67108864"),
            (format!("baton-outline 1\nmanifest 9\nchunk {id} 0\n"), 3, "1 to 1048576"),
            (format!("baton-outline 1\nmanifest 9\nchunk {id} 1048577\n"), 3, "1 to 1048576"),
            (format!("baton-outline 1\nmanifest 9\nchunk {id} 9 9\n"), 3, "too much"),
            (format!("baton-outline 1\nmanifest 9\nchunk {id} 9"), 3, "ends too early"),
            (format!("baton-outline 1\nmanifest 9\nchunk {id} 9\nsignature x\n"), 4, "`chunk …`"),
            (
                format!("baton-outline 1\nmanifest 1\n{}", format!("chunk {id} 1\n").repeat(16_385)),
                16_387,
                "16384",
            ),
        ] {
            let refused = Outline::parse(&text).unwrap_err();
            assert_eq!(refused.line, line, "{text:.99}");
            assert!(refused.what.to_string().contains(reason), "{}", refused.what);
        }
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_text_and_an_outline_is_its_text(text in "([a-z ]{0,90}\n){0,600}") {
            let pieces = cut(text.as_bytes());
            let joined: String = pieces.iter().map(|piece| &text[piece.clone()]).collect();
            prop_assert_eq!(&joined, &text);
            let outline = Outline::of(&text);
            prop_assert_eq!(outline.bytes(), text.len() as u64);
            prop_assert_eq!(Outline::parse(&outline.to_text()), Ok(outline));
        }

        #[test]
        fn what_is_read_is_the_only_text(text in "(baton-outline 1\n)?(manifest [0-9]{1,3}\n)?(chunk [0-9a-f]{64} [0-9]\n){0,3}") {
            if let Ok(outline) = Outline::parse(&text) {
                prop_assert_eq!(outline.to_text(), text);
            }
        }
    }
}
