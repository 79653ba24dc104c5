//! Where a message of HTTP/1.1 ends (RFC 9112, sections 6 and 7), as far as that can be read in one way only.

use httparse::Header;

/// The body that follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// In chunks, each with its length.
    Chunked,
}

impl Body {
    /// There is none.
    pub const NONE: Self = Self::Length(0);

    /// What a request's headers say; nothing, where that is not clear.
    pub fn of_request(headers: &[Header<'_>]) -> Option<Self> {
        match Self::said(headers) {
            Said::Nothing => Some(Self::NONE),
            Said::Body(body) => Some(body),
            Said::Unclear => None,
        }
    }

    /// The same of an answer. One without a length ends with its connection.
    pub fn of_answer(headers: &[Header<'_>]) -> Option<Self> {
        match Self::said(headers) {
            Said::Body(body) => Some(body),
            Said::Nothing | Said::Unclear => None,
        }
    }

    fn said(headers: &[Header<'_>]) -> Said {
        let with = |name: &'static str| {
            headers
                .iter()
                .filter(move |header| header.name.eq_ignore_ascii_case(name))
                .map(|header| header.value)
        };
        let (mut lengths, mut codings) = (with("Content-Length"), with("Transfer-Encoding"));
        match ((lengths.next(), lengths.next()), (codings.next(), codings.next())) {
            ((None, _), (None, _)) => Said::Nothing,
            ((Some(length), None), (None, _)) => {
                number(length).map_or(Said::Unclear, |n| Said::Body(Self::Length(n)))
            }
            ((None, _), (Some(coding), None)) if coding.eq_ignore_ascii_case(b"chunked") => {
                Said::Body(Self::Chunked)
            }
            _ => Said::Unclear,
        }
    }
}

enum Said {
    Nothing,
    Body(Body),
    Unclear,
}

/// Digits alone: signs and lists are read in different ways.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// What comes next in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// A head, from its beginning.
    #[default]
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// Some part of a body in chunks.
    Chunk(Chunk),
}

/// A part of a body in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// The length of the next one: what of it was read, in so many digits.
    Length(u64, u8),
    /// What else is in that line.
    Extension(u64),
    /// The end of that line.
    LineFeed(u64),
    /// So many bytes of it.
    Data(u64),
    /// The two bytes behind it.
    DataReturn,
    /// The second of them.
    DataLineFeed,
    /// A line of the trailer, from its beginning.
    Trailer,
    /// The rest of that line.
    TrailerLine,
    /// The end of that line.
    TrailerLineFeed,
    /// The end of the empty line behind all.
    LastLineFeed,
}

/// No length has more hexadecimal digits.
const DIGITS_MAX: u8 = 15;

impl Place {
    /// What comes behind a head.
    pub fn after(body: Body) -> Self {
        match body {
            Body::NONE => Self::Head,
            Body::Length(length) => Self::Body(length),
            Body::Chunked => Self::Chunk(Chunk::Length(0, 0)),
        }
    }

    /// Passes over what of these bytes belongs to the body, and tells how many that are; nothing when they are not as
    /// they should be.
    pub fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let left = bytes.len() - at;
            match *self {
                Self::Head => break,
                Self::Body(length) => {
                    let (skipped, rest) = skip(length, left);
                    *self = if rest == 0 { Self::Head } else { Self::Body(rest) };
                    at += skipped;
                }
                Self::Chunk(Chunk::Data(length)) => {
                    let (skipped, rest) = skip(length, left);
                    *self = Self::Chunk(if rest == 0 { Chunk::DataReturn } else { Chunk::Data(rest) });
                    at += skipped;
                }
                Self::Chunk(chunk) => {
                    *self = chunk.next(*bytes.get(at)?)?;
                    at += 1;
                }
            }
        }
        Some(at)
    }
}

/// How much of a length there is, and how much of it comes later.
fn skip(length: u64, left: usize) -> (usize, u64) {
    let skipped = usize::try_from(length).unwrap_or(usize::MAX).min(left);
    (skipped, length.saturating_sub(u64::try_from(skipped).unwrap_or(u64::MAX)))
}

impl Chunk {
    /// What comes behind this byte.
    fn next(self, byte: u8) -> Option<Place> {
        let next = match (self, byte) {
            (Self::Length(length, digits), byte) if byte.is_ascii_hexdigit() && digits < DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16)?;
                Self::Length(length * 16 + u64::from(digit), digits + 1)
            }
            (Self::Length(_, 0), _) => return None,
            (Self::Length(length, _) | Self::Extension(length), b'\r') => Self::LineFeed(length),
            (Self::Length(length, _), b';' | b' ' | b'\t') => Self::Extension(length),
            (Self::Extension(length), byte) if byte != b'\n' => Self::Extension(length),
            (Self::LineFeed(0), b'\n') => Self::Trailer,
            (Self::LineFeed(length), b'\n') => Self::Data(length),
            (Self::DataReturn, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::Length(0, 0),
            (Self::Trailer, b'\r') => Self::LastLineFeed,
            (Self::Trailer | Self::TrailerLine, byte) if byte != b'\n' && byte != b'\r' => Self::TrailerLine,
            (Self::TrailerLine, b'\r') => Self::TrailerLineFeed,
            (Self::TrailerLineFeed, b'\n') => Self::Trailer,
            (Self::LastLineFeed, b'\n') => return Some(Place::Head),
            (
                Self::Length(..)
                | Self::Extension(_)
                | Self::LineFeed(_)
                | Self::Data(_)
                | Self::DataReturn
                | Self::DataLineFeed
                | Self::Trailer
                | Self::TrailerLine
                | Self::TrailerLineFeed
                | Self::LastLineFeed,
                _,
            ) => return None,
        };
        Some(Place::Chunk(next))
    }
}
