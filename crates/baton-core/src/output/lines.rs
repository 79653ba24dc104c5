//! A stream of bytes as lines, whatever the portions are in which it arrives.

use alloc::vec::Vec;

use memchr::memchr;

/// The longest character of UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;

/// A line, or a part of a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What it says, without the line feed.
    pub bytes: &'a [u8],
    /// Which part of its line it is, counted from 1; none when it is the whole line.
    pub part: Option<u32>,
    /// What comes behind it.
    pub end: End,
}

/// What comes behind a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A line feed.
    LineFeed,
    /// The next part of the same line.
    NextPart,
    /// Nothing: the stream ended without a line feed.
    EndOfStream,
}

impl Piece<'_> {
    /// How many bytes of the stream it stands for.
    pub fn bytes_in_stream(&self) -> usize {
        self.bytes.len() + usize::from(self.end == End::LineFeed)
    }
}

/// Cuts one stream into lines, and lines that are too long into parts.
///
/// A part ends between two characters where the bytes around it are UTF-8. At most one line's bytes are held.
#[derive(Debug)]
pub struct Lines {
    longest: usize,
    /// The beginning of the next piece.
    open: Vec<u8>,
    /// How much of `open` the last piece took.
    taken: usize,
    /// Parts of the line that have been given out.
    parts: u32,
}

impl Lines {
    /// Lines of at most `longest` bytes; fewer than the longest character has are taken for that many.
    pub const fn new(longest: usize) -> Self {
        let longest = if longest < CHARACTER_BYTES_MAX { CHARACTER_BYTES_MAX } else { longest };
        Self { longest, open: Vec::new(), taken: 0, parts: 0 }
    }

    /// Takes the next piece off the front of `input`. Without one, all of `input` is held, as the beginning of a
    /// line whose rest is still to come.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Piece<'a>> {
        self.let_go();
        // One byte more than a piece can have: a line feed may stand there.
        let room = (self.longest - self.open.len()).min(input.len());
        let window = input.get(..=room).unwrap_or(input);
        match (memchr(b'\n', window), window.len() > room) {
            (Some(at), _) => {
                let line = split_off_front(input, at);
                *input = &input[1..];
                Some(self.ended(line, End::LineFeed))
            }
            (None, true) => Some(self.part(input, room)),
            (None, false) => {
                self.open.extend_from_slice(input);
                *input = &[];
                None
            }
        }
    }

    /// What is left of the stream at its end.
    pub fn end(&mut self) -> Option<Piece<'_>> {
        self.let_go();
        (!self.open.is_empty()).then(|| self.ended(&[], End::EndOfStream))
    }

    /// Forgets the piece that was given out last.
    fn let_go(&mut self) {
        self.open.drain(..self.taken);
        self.taken = 0;
    }

    /// The last piece of a line.
    fn ended<'a>(&'a mut self, rest: &'a [u8], end: End) -> Piece<'a> {
        let parts = core::mem::take(&mut self.parts);
        let part = (parts > 0).then(|| parts.saturating_add(1));
        if self.open.is_empty() {
            return Piece { bytes: rest, part, end };
        }
        self.open.extend_from_slice(rest);
        self.taken = self.open.len();
        Piece { bytes: &self.open, part, end }
    }

    /// A piece of a line that is too long: as much as `room` bytes of the input add to what is open.
    fn part<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8], room: usize) -> Piece<'a> {
        self.parts = self.parts.saturating_add(1);
        let part = Some(self.parts);
        let end = End::NextPart;
        if self.open.is_empty() {
            let cut = between_characters(&input[..=room]);
            return Piece { bytes: split_off_front(input, cut), part, end };
        }
        self.open.extend_from_slice(split_off_front(input, room + 1));
        self.taken = between_characters(&self.open);
        Piece { bytes: &self.open[..self.taken], part, end }
    }
}

fn split_off_front<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(count);
    *input = rest;
    front
}

/// Where to cut before the last byte or a little earlier, so that no character is torn: between two bytes of
/// which the second begins a character. Bytes that are not UTF-8 are cut before the last one.
fn between_characters(bytes: &[u8]) -> usize {
    let last = bytes.len() - 1;
    let begins = |at: &usize| bytes[*at] & 0b1100_0000 != 0b1000_0000;
    (last.saturating_sub(CHARACTER_BYTES_MAX - 1).max(1)..=last).rev().find(begins).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    /// A piece that owns its bytes.
    type Owned = (Vec<u8>, Option<u32>, End);

    fn cut(longest: usize, portions: &[&[u8]]) -> Vec<Owned> {
        let mut lines = Lines::new(longest);
        let mut pieces = Vec::new();
        let own = |piece: Piece<'_>| (piece.bytes.to_vec(), piece.part, piece.end);
        for portion in portions {
            let mut input = *portion;
            while let Some(piece) = lines.next(&mut input) {
                pieces.push(own(piece));
            }
            assert!(input.is_empty());
            assert!(lines.open.len() <= lines.longest);
        }
        pieces.extend(lines.end().map(own));
        pieces
    }

    fn whole(line: &str) -> Owned {
        (line.into(), None, End::LineFeed)
    }

    #[test]
    fn lines_are_cut_at_line_feeds_and_where_they_are_too_long() {
        let part = |text: &str, part, end| (Vec::from(text), Some(part), end);
        for (portions, expected) in [
            (&["a\nb\n"][..], vec![whole("a"), whole("b")]),
            (&["", "a", "", "b", "\n\n"], vec![whole("ab"), whole("")]),
            (&["a\r\n"], vec![whole("a\r")]),
            (&["open"], vec![("open".into(), None, End::EndOfStream)]),
            (&["12345678\n"], vec![whole("12345678")]),
            (&["12345678"], vec![("12345678".into(), None, End::EndOfStream)]),
            (&["12345678", "\n"], vec![whole("12345678")]),
            (&["123456789\n"], vec![part("12345678", 1, End::NextPart), part("9", 2, End::LineFeed)]),
            (
                &["1234", "56789012345678"],
                vec![
                    part("12345678", 1, End::NextPart),
                    part("90123456", 2, End::NextPart),
                    part("78", 3, End::EndOfStream),
                ],
            ),
            (&["1234567ä\n"], vec![part("1234567", 1, End::NextPart), part("ä", 2, End::LineFeed)]),
            (
                &["12", "34567\u{10348}\n"],
                vec![part("1234567", 1, End::NextPart), part("\u{10348}", 2, End::LineFeed)],
            ),
        ] {
            let portions: Vec<&[u8]> = portions.iter().map(|portion| portion.as_bytes()).collect();
            assert_eq!(cut(8, &portions), expected, "{portions:?}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_cut_all_the_same() {
        let pieces = cut(8, &[&[0x80; 20]]);
        let sizes: Vec<usize> = pieces.iter().map(|(bytes, ..)| bytes.len()).collect();
        assert_eq!(sizes, [8, 8, 4]);
    }

    /// Portions of these bytes that end at these places.
    fn portions(bytes: &[u8], mut ends: Vec<usize>) -> Vec<&[u8]> {
        ends.iter_mut().for_each(|end| *end = (*end).min(bytes.len()));
        ends.extend([0, bytes.len()]);
        ends.sort_unstable();
        ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn f87_pieces_give_the_stream_back_whatever_the_portions_are(
            bytes in prop_oneof![
                any::<Vec<u8>>(),
                "[a\n\r\u{1b}]{0,60}".prop_map(String::into_bytes),
                "[aä€\u{10348}\n]{0,60}".prop_map(String::into_bytes),
            ],
            ends in prop::collection::vec(0usize..200, 0..8),
            longest in 0usize..20,
        ) {
            let pieces = cut(longest, &portions(&bytes, ends));
            let mut stream = Vec::new();
            let mut parts = 0;
            for (bytes, part, end) in &pieces {
                stream.extend_from_slice(bytes);
                prop_assert!(bytes.len() <= longest.max(CHARACTER_BYTES_MAX) && !bytes.contains(&b'\n'));
                parts = if part.is_some() { parts + 1 } else { 0 };
                prop_assert_eq!(part.unwrap_or(0), parts);
                match end {
                    End::LineFeed => {
                        stream.push(b'\n');
                        parts = 0;
                    }
                    End::NextPart => prop_assert!(part.is_some() && !bytes.is_empty()),
                    End::EndOfStream => prop_assert!(!bytes.is_empty()),
                }
            }
            let text = core::str::from_utf8(&bytes).is_ok();
            prop_assert!(!text || pieces.iter().all(|(bytes, ..)| core::str::from_utf8(bytes).is_ok()));
            prop_assert_eq!(&stream, &bytes);
            prop_assert_eq!(&pieces, &cut(longest, &[&bytes]));
        }
    }
}
