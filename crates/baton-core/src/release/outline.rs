//! The outline of a manifest: which chunks make it up, so that only those that changed travel.
//!
//! ```text
//! baton-outline 1
//! manifest 2741093
//! chunk 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 15210
//! …
//! ```
//!
//! Where that is long itself, it is cut as well, and there is an outline of it, which says `outline` instead of `manifest`: so
//! of the list of a list too only what changed travels. There is no third.
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

// One changed line costs a chunk of the manifest and one of its outline; see docs/format for what other sizes cost. At
// some 70 bytes a line these are 2 KiB on average.
/// The lengths that are in use.
pub const SIZES: Sizes = Sizes { min: 512, max: 8 << 10, lines: 24 };
/// An outline that is longer has an outline itself: another question costs as much as a few chunks.
const SHORT_BYTES: usize = 4 << 10;

/// What the chunks of an outline make up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// The manifest.
    Manifest,
    /// The outline of the manifest.
    Outline,
}

impl Lists {
    fn word(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Outline => "outline",
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Manifest => MANIFEST_BYTES_MAX,
            Self::Outline => OUTLINE_BYTES_MAX,
        }
    }
}

/// The outline of a manifest, or of its outline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    lists: Lists,
    chunks: Vec<Chunk>,
}

/// A chunk with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The chunk.
    pub chunk: Chunk,
    /// Its content.
    pub content: Vec<u8>,
}

/// What a manifest is published as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlined {
    /// What a store knows the release by.
    pub top: Outline,
    /// The parts of the manifest's outline; none where that is the top.
    pub listing: Vec<Part>,
    /// The parts of the manifest.
    pub manifest: Vec<Part>,
}

impl Outlined {
    /// What the manifest with this text is published as.
    pub fn of(manifest: &str) -> Self {
        let manifest = parts(manifest);
        let top = Outline::of(Lists::Manifest, &manifest);
        match top.long_text() {
            None => Self { top, listing: Vec::new(), manifest },
            Some(text) => {
                let listing = parts(&text);
                Self { top: Outline::of(Lists::Outline, &listing), listing, manifest }
            }
        }
    }
}

fn parts(text: &str) -> Vec<Part> {
    let part = |piece: Range<usize>| {
        let content = text.as_bytes()[piece].to_vec();
        Part { chunk: chunk_of(&content), content }
    };
    cut(text.as_bytes()).into_iter().map(part).collect()
}

/// The chunks that a manifest, or an outline, is cut into.
pub fn chunks(text: &str) -> Vec<Chunk> {
    cut(text.as_bytes()).into_iter().map(|piece| chunk_of(&text.as_bytes()[piece])).collect()
}

fn chunk_of(content: &[u8]) -> Chunk {
    Chunk { id: ChunkId::of(content), bytes: content.len() as u32 }
}

impl Outline {
    fn of(lists: Lists, parts: &[Part]) -> Self {
        Self { lists, chunks: parts.iter().map(|part| part.chunk).collect() }
    }

    /// The outline of a manifest that was cut into these chunks.
    pub fn of_manifest(chunks: Vec<Chunk>) -> Self {
        Self { lists: Lists::Manifest, chunks }
    }

    /// Its text where that is long enough to have an outline itself.
    pub fn long_text(&self) -> Option<String> {
        let text = self.to_text();
        (text.len() > SHORT_BYTES).then_some(text)
    }

    /// What the chunks make up.
    pub fn lists(&self) -> Lists {
        self.lists
    }

    /// What makes it up, in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The length of what they make up: of a manifest at most [`MANIFEST_BYTES_MAX`], else [`OUTLINE_BYTES_MAX`].
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// The outline's text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {VERSION}\n{} {}", Text::Outline.magic(), self.lists.word(), self.bytes());
        for Chunk { id, bytes } in &self.chunks {
            let _ = writeln!(text, "chunk {id} {bytes}");
        }
        text
    }

    /// Reads an outline. Like that of a manifest, its text is the only one.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(Text::Outline, text)?;
        let (lists, mut words) = match lines.take(Lists::Outline.word())? {
            Some(words) => (Lists::Outline, words),
            None => (Lists::Manifest, lines.expect(Lists::Manifest.word())?),
        };
        let said: u64 = words.value("a number")?;
        words.end()?;
        if said > lists.bytes_max() as u64 {
            return Err(words.fault(Fault::TooLong { max: lists.bytes_max() }));
        }
        let mut outline = Self { lists, chunks: Vec::new() };
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
    let chunk = words.chunk()?;
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
        let Outlined { top, listing, manifest } = Outlined::of(&lines.concat());
        let top = Chunk { id: ChunkId::of(top.to_text().as_bytes()), bytes: top.to_text().len() as u32 };
        listing.iter().chain(&manifest).map(|part| part.chunk).chain([top]).collect()
    }

    #[test]
    fn one_changed_line_changes_a_few_chunks_wherever_it_is() {
        let before = lines(3000);
        let known: BTreeSet<ChunkId> = chunks(&before).iter().map(|chunk| chunk.id).collect();
        assert!((120..=260).contains(&known.len()), "{}", known.len());
        let mut new_bytes = 0;
        for at in 0..before.len() {
            let mut after = before.clone();
            after[at] = "file 7 changed\n".to_string();
            let after = chunks(&after);
            let new: Vec<&Chunk> = after.iter().filter(|chunk| !known.contains(&chunk.id)).collect();
            assert!(new.len() <= 7, "{} chunks are new after a change of line {at}", new.len());
            new_bytes += new.iter().map(|chunk| chunk.bytes as usize).sum::<usize>();
        }
        assert!(new_bytes / before.len() < 12 << 10, "{} bytes on average", new_bytes / before.len());
    }

    #[test]
    fn a_line_longer_than_any_chunk_is_cut() {
        let text = format!("a\n{}\nb\n", "x".repeat(3 * SIZES.max));
        assert!(chunks(&[text]).iter().all(|chunk| chunk.bytes as usize <= SIZES.max));
    }

    /// Other sizes would make every fleet fetch whole manifests once: not by accident.
    #[test]
    fn cuts_stay_where_they_are() {
        let lengths: Vec<u32> = chunks(&lines(200)).iter().map(|chunk| chunk.bytes).collect();
        assert_eq!(lengths, [914, 891, 670, 2993, 2277, 1165, 1013, 670, 3465, 1112, 1561, 815, 2254, 1014]);
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
            ("baton-outline 1\noutline 1\n".to_string(), 2, "there are 0"),
            ("baton-outline 1\noutline 67108864\n".to_string(), 2, "more than 10485"),
            ("baton-outline 1\nindex 1\n".to_string(), 2, "`manifest …`"),
            (
                format!("baton-outline 1\nmanifest 1\n{}", format!("chunk {id} 1\n").repeat(131_073)),
                131_075,
                "131072",
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
            let outlined = Outlined::of(&text);
            let joined = |parts: Vec<Part>| parts.into_iter().flat_map(|part| part.content).collect::<Vec<u8>>();
            let (top, listing) = (outlined.top, joined(outlined.listing));
            prop_assert_eq!(joined(outlined.manifest), text.as_bytes());
            prop_assert_eq!(&Outline::parse(&top.to_text()).unwrap(), &top);
            prop_assert_eq!(top.lists() == Lists::Outline, !listing.is_empty());
            if top.lists() == Lists::Outline {
                prop_assert_eq!(top.bytes(), listing.len() as u64);
                let inner = Outline::parse(core::str::from_utf8(&listing).unwrap()).unwrap();
                prop_assert_eq!((inner.lists(), inner.bytes()), (Lists::Manifest, text.len() as u64));
            }
        }

        #[test]
        fn what_is_read_is_the_only_text(text in "(baton-outline 1\n)?(manifest [0-9]{1,3}\n)?(chunk [0-9a-f]{64} [0-9]\n){0,3}") {
            if let Ok(outline) = Outline::parse(&text) {
                prop_assert_eq!(outline.to_text(), text);
            }
        }
    }
}
