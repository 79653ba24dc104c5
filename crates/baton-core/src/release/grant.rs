//! A read grant: where the frames that hold some chunks lie, and the address at which anybody may read each pack for a while.
//!
//! ```text
//! baton-grant 1
//! pack 2d3a… https://bucket.s3.eu-west-1.amazonaws.com/packs/2d3a…?X-Amz-Expires=900&X-Amz-Signature=…
//! frame 52113 10432
//! chunk 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 1042
//! ```
//!
//! `frame START BYTES` is a range of the pack, and the chunks after it are what zstd decompresses it to. An address without a
//! host is one of the server that was asked.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;

use super::fault::{Fault, Text, TextError};
use super::lines::{Lines, VERSION, Words};
use super::pack::{Frame, INDEX_BYTES_MAX, PACK_BYTES_MAX, read_frame};
use super::reading::ANSWER_BYTES_MAX;
use crate::ids::PackId;

/// Most packs in a grant. What lies in more of them is asked for again.
pub const PACKS_MAX: usize = 256;
/// Longest address: three times what S3 needs for temporary credentials, whose token is a part of it.
pub const URL_BYTES_MAX: usize = 8 << 10;
/// Longest text: the chunks are as many as those of a pack, each in a frame of its own at worst.
pub const GRANT_BYTES_MAX: usize = INDEX_BYTES_MAX + PACKS_MAX * (URL_BYTES_MAX + 128);

/// Where frames may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The packs, in the order of what was asked for.
    pub packs: Vec<GrantedPack>,
}

/// A pack that may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedPack {
    /// Which.
    pub id: PackId,
    /// Where: `https://…`, `http://…`, or a path at the server that was asked.
    pub url: String,
    /// The frames that were asked for, and where each lies in the pack.
    pub frames: Vec<(Frame, Range<u64>)>,
}

impl Grant {
    /// The text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {VERSION}", Text::Grant.magic());
        for GrantedPack { id, url, frames } in &self.packs {
            let _ = writeln!(text, "pack {id} {url}");
            for (frame, place) in frames {
                let _ = writeln!(text, "frame {} {}", place.start, frame.packed);
                for chunk in &frame.chunks {
                    let _ = writeln!(text, "chunk {} {}", chunk.id, chunk.bytes);
                }
            }
        }
        text
    }

    /// Reads a text: what it leads to fits into one pack, so nobody reads more than that for it.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(Text::Grant, text)?;
        let (mut packs, mut chunks, mut bytes) = (Vec::new(), 0, 0);
        while let Some(mut words) = lines.take("pack")? {
            if packs.len() == PACKS_MAX {
                return Err(words.fault(Fault::TooMany { what: "packs", max: PACKS_MAX as u64 }));
            }
            let (id, url) = (words.value("a pack's hash")?, read_url(&mut words)?);
            let mut frames = Vec::new();
            while let Some(mut words) = lines.take("frame")? {
                let start: u64 = words.value("a number")?;
                let frame = read_frame(&mut lines, words, &mut chunks)?;
                let end = start.saturating_add(u64::from(frame.packed));
                bytes += u64::from(frame.packed);
                for (what, found, max) in [
                    ("bytes in the pack", end, PACK_BYTES_MAX as u64),
                    ("packed bytes in the grant", bytes, ANSWER_BYTES_MAX),
                ] {
                    if found > max {
                        return Err(lines.fault(Fault::TooMany { what, max }));
                    }
                }
                frames.push((frame, start..end));
            }
            packs.push(GrantedPack { id, url, frames });
        }
        match lines.is_empty() {
            true => Ok(Self { packs }),
            false => Err(lines.fault(Fault::Expected("pack"))),
        }
    }
}

/// The rest of a line: an address.
fn read_url(words: &mut Words<'_>) -> Result<String, TextError> {
    let url = words.remainder()?;
    if url.len() > URL_BYTES_MAX {
        return Err(words.fault(Fault::TooMany { what: "bytes in the address", max: URL_BYTES_MAX as u64 }));
    }
    let here = url.starts_with('/') && !url.starts_with("//");
    let known = here || url.starts_with("https://") || url.starts_with("http://");
    match known && url.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(url.to_string()),
        false => Err(words.fault(Fault::NotA { what: "an address", text: url.to_string() })),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Chunk;
    use super::super::pack::{FRAME_PACKED_MAX, PACK_CHUNKS_MAX};
    use super::*;
    use crate::ids::ChunkId;
    use alloc::format;
    use proptest::prelude::*;

    const URL: &str = "https://bucket.example/packs/1?token=x";

    fn frame(seed: u32, packed: u32, chunks: &[u32]) -> Frame {
        let chunk = |bytes: &u32| Chunk {
            id: ChunkId::of(&[seed.to_le_bytes(), bytes.to_le_bytes()].concat()),
            bytes: *bytes,
        };
        Frame { packed, chunks: chunks.iter().map(chunk).collect() }
    }

    #[test]
    fn p27_a_grant_that_lies_is_refused_with_a_reason() {
        let (pack, chunk) = (PackId::of(b""), ChunkId::of(b""));
        let head = format!("baton-grant 1\npack {pack} {URL}\n");
        let one = format!("chunk {chunk} 1\n");
        let many = |count: usize, packed: u32| {
            (0..count).map(|_| format!("frame 0 {packed}\n{one}")).collect::<String>()
        };
        for (text, line, reason) in [
            (String::new(), 1, "not a grant"),
            ("baton-pack 1\n".to_string(), 1, "not a grant"),
            ("baton-grant 2\n".to_string(), 1, "version \"2\""),
            ("baton-grant 1\nframe 0 1\n".to_string(), 2, "`pack …`"),
            (format!("baton-grant 1\npack {URL}\n"), 2, "not a pack's hash"),
            (format!("baton-grant 1\npack {pack}\n"), 2, "word is missing"),
            (format!("baton-grant 1\npack {pack} file:///etc/passwd\n"), 2, "not an address"),
            (format!("baton-grant 1\npack {pack} //elsewhere/\n"), 2, "not an address"),
            (format!("baton-grant 1\npack {pack} https://a b\n"), 2, "not an address"),
            (format!("baton-grant 1\npack {pack} https://a\r\n"), 2, "not an address"),
            (
                format!("baton-grant 1\npack {pack} https://{}\n", "a".repeat(URL_BYTES_MAX)),
                2,
                "bytes in the address",
            ),
            (format!("{head}frame 0 5\n"), 4, "no chunk"),
            (format!("{head}frame 0\n{one}"), 3, "word is missing"),
            (format!("{head}frame -1 5\n{one}"), 3, "not a number"),
            (format!("{head}frame 18446744073709551615 5\n{one}"), 5, "bytes in the pack"),
            (format!("{head}frame {} 5\n{one}", PACK_BYTES_MAX - 4), 5, "bytes in the pack"),
            (format!("{head}frame 0 {}\n{one}", FRAME_PACKED_MAX + 1), 3, "packed bytes in the frame"),
            (format!("{head}{}", many(5, FRAME_PACKED_MAX)), 13, "packed bytes in the grant"),
            (format!("{head}{}", many(PACK_CHUNKS_MAX + 1, 1)), 32_772, "more than 16384 chunks"),
            (format!("{head}frame 0 5\n{one}rubbish\n"), 5, "`pack …`"),
            (format!("{head}frame 0 5\nchunk {chunk} 1"), 4, "ends too early"),
            (
                format!("baton-grant 1\n{}", format!("pack {pack} {URL}\n").repeat(PACKS_MAX + 1)),
                258,
                "more than 256 packs",
            ),
        ] {
            let refused = Grant::parse(&text).unwrap_err();
            assert!(refused.what.to_string().contains(reason), "{text:.99}: {}", refused.what);
            assert_eq!(refused.line, line, "{text:.99}: {}", refused.what);
        }
    }

    proptest! {
        #[test]
        fn any_grant_is_read_back_and_cut_short_it_is_refused_or_less(
            packs in prop::collection::vec(
                prop::collection::vec((0..9999u64, 1..9999u32, prop::collection::vec(1..9999u32, 1..5)), 0..4), 0..4),
        ) {
            let placed = |(n, (start, packed, chunks)): (usize, &(u64, u32, Vec<u32>))| {
                (frame(n as u32, *packed, chunks), *start..*start + u64::from(*packed))
            };
            let pack = |(n, frames): (usize, &Vec<_>)| GrantedPack {
                id: PackId::of(&n.to_le_bytes()),
                url: if n == 0 { "/v1/packs/1?token=x".to_string() } else { URL.to_string() },
                frames: frames.iter().enumerate().map(placed).collect(),
            };
            let grant = Grant { packs: packs.iter().enumerate().map(pack).collect() };
            let text = grant.to_text();
            prop_assert!(text.len() <= GRANT_BYTES_MAX);
            prop_assert_eq!(Grant::parse(&text), Ok(grant.clone()));
            for end in 0..text.len().min(600) {
                let shorter = Grant::parse(&text[..end]);
                prop_assert!(shorter.is_err() || shorter != Ok(grant.clone()));
            }
        }
    }
}
