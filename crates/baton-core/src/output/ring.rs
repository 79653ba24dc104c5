//! The last output of programs, in memory that does not grow.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use memchr::memchr;

use super::Stream;
use super::time::UnixMicros;
use crate::ids::GenerationId;

/// More bytes than this are several records, since the oldest goes as a whole.
const RECORD_BYTES_MAX: usize = 8 * 1024;
/// A record's generation (4 bytes), time (8), length (2), and flags with the stream (1).
const HEADER_BYTES: usize = 15;
/// Two records with as many bytes as their headers have.
const CAPACITY_MIN: usize = 4 * HEADER_BYTES;
const FLAG_STDERR: u8 = 1;
/// The record goes on with a line that began before it.
const FLAG_WITHIN_LINE: u8 = 2;

/// A stream of one generation.
type Origin = (GenerationId, Stream);

/// The last bytes that programs wrote, with their origin and time: at most as many as it was made for, with all
/// that is noted about them. Lines are put together when somebody asks for them.
#[derive(Debug)]
pub struct Ring {
    /// Records, each behind its header; allocated once.
    bytes: VecDeque<u8>,
    capacity: usize,
    /// How many bytes were ever put in.
    written: u64,
    /// Streams whose last byte was not a line feed.
    within_line: Vec<Origin>,
}

/// A moment in what a ring was given: everything before it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(u64);

/// A line that a program wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its first byte that is left was read.
    pub time: UnixMicros,
    /// Who wrote it.
    pub generation: GenerationId,
    /// Where to.
    pub stream: Stream,
    /// What it says, without the line feed.
    pub bytes: Box<[u8]>,
    /// Whether its beginning was overwritten already.
    pub cut: bool,
    /// Whether it has no line feed yet.
    pub open: bool,
}

/// A line that is being put together.
struct Unfinished {
    at: u64,
    time: UnixMicros,
    bytes: Vec<u8>,
    cut: bool,
}

struct Record<'a> {
    generation: GenerationId,
    stream: Stream,
    time: UnixMicros,
    within_line: bool,
    bytes: &'a [u8],
}

impl Ring {
    /// An empty ring that takes up `capacity` bytes once it is full.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(CAPACITY_MIN);
        Self { bytes: VecDeque::with_capacity(capacity), capacity, written: 0, within_line: Vec::new() }
    }

    /// Adds what was read of a stream, in place of what is oldest.
    pub fn add(&mut self, generation: GenerationId, stream: Stream, time: UnixMicros, bytes: &[u8]) {
        let (origin, largest) =
            ((generation, stream), RECORD_BYTES_MAX.min(self.capacity / 2 - HEADER_BYTES));
        // Of much more than there is room for only the end would be left anyway.
        let skipped = bytes.len().saturating_sub(self.capacity);
        let (skipped, bytes) = bytes.split_at(skipped);
        self.note_end(origin, skipped);
        for bytes in bytes.chunks(largest) {
            while self.bytes.len() + HEADER_BYTES + bytes.len() > self.capacity {
                self.drop_oldest();
            }
            let flags = u8::from(stream == Stream::Stderr) * FLAG_STDERR
                + u8::from(self.within_line.contains(&origin)) * FLAG_WITHIN_LINE;
            self.bytes.extend(&generation.0.to_le_bytes());
            self.bytes.extend(&time.0.to_le_bytes());
            // It is at most RECORD_BYTES_MAX.
            self.bytes.extend(&(bytes.len() as u16).to_le_bytes());
            self.bytes.push_back(flags);
            self.bytes.extend(bytes);
            self.written += (HEADER_BYTES + bytes.len()) as u64;
            self.note_end(origin, bytes);
        }
    }

    /// Something of a stream is missing here, more than there is room for: what came before is as old as that.
    pub fn forget(&mut self, generation: GenerationId, stream: Stream) {
        self.bytes.clear();
        self.note_end((generation, stream), b"?");
    }

    /// A stream has ended: nothing follows its last line.
    pub fn end(&mut self, generation: GenerationId, stream: Stream) {
        self.within_line.retain(|origin| *origin != (generation, stream));
    }

    /// The last `count` lines, oldest first, those without a line feed at the end; and where to go on from.
    pub fn tail(&mut self, count: usize) -> (Vec<Line>, Cursor) {
        let mut last = VecDeque::new();
        self.for_each_line(|_, line| {
            if last.len() == count {
                last.pop_front();
            }
            last.push_back(line);
        });
        last.truncate(count);
        (last.into(), Cursor(self.written))
    }

    /// The lines that ended after the cursor, oldest first, without those that have no line feed yet; and where
    /// to go on from.
    pub fn since(&mut self, cursor: Cursor) -> (Vec<Line>, Cursor) {
        let mut lines = Vec::new();
        self.for_each_line(|end, line| {
            if end > cursor.0 && !line.open {
                lines.push(line);
            }
        });
        (lines, Cursor(self.written))
    }

    /// Whether something that came after the cursor is not there any more.
    pub fn has_lost(&self, cursor: Cursor) -> bool {
        cursor.0 < self.written - self.bytes.len() as u64
    }

    /// How much memory it takes up once it is full, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Gives every line and the place of its end, in the order of their ends.
    fn for_each_line(&mut self, mut give: impl FnMut(u64, Line)) {
        let mut at = self.written - self.bytes.len() as u64;
        let mut unfinished: BTreeMap<Origin, Unfinished> = BTreeMap::new();
        let mut rest: &[u8] = self.bytes.make_contiguous();
        while let Some(record) = take_record(&mut rest) {
            let origin = (record.generation, record.stream);
            let line = |unfinished: Unfinished, open| Line {
                time: unfinished.time,
                generation: origin.0,
                stream: origin.1,
                bytes: unfinished.bytes.into(),
                cut: unfinished.cut,
                open,
            };
            at += HEADER_BYTES as u64;
            let mut bytes = record.bytes;
            let mut cut = record.within_line;
            while !bytes.is_empty() {
                let end = memchr(b'\n', bytes);
                let (text, after) = bytes.split_at(end.unwrap_or(bytes.len()));
                let begin = || Unfinished { at, time: record.time, bytes: Vec::new(), cut };
                unfinished.entry(origin).or_insert_with(begin).bytes.extend_from_slice(text);
                at += text.len() as u64;
                bytes = after;
                if end.is_some() {
                    (at, bytes, cut) = (at + 1, &after[1..], false);
                    unfinished.remove(&origin).into_iter().for_each(|whole| give(at, line(whole, false)));
                }
            }
        }
        let mut left: Vec<(Origin, Unfinished)> = unfinished.into_iter().collect();
        left.sort_by_key(|(_, unfinished)| unfinished.at);
        for ((generation, stream), Unfinished { time, bytes, cut, .. }) in left {
            give(at, Line { time, generation, stream, bytes: bytes.into(), cut, open: true });
        }
    }

    fn drop_oldest(&mut self) {
        let mut header = self.bytes.iter().take(HEADER_BYTES).copied();
        let low = header.nth(12).unwrap_or_default();
        let high = header.next().unwrap_or_default();
        let size = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high]));
        self.bytes.drain(..size.min(self.bytes.len()));
    }

    fn note_end(&mut self, origin: Origin, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.end(origin.0, origin.1);
            if *last != b'\n' {
                self.within_line.push(origin);
            }
        }
    }
}

fn take_record<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let (header, after) = rest.split_first_chunk::<HEADER_BYTES>()?;
    let [g0, g1, g2, g3, time @ .., low, high, flags] = *header;
    let (bytes, after) = after.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
    *rest = after;
    Some(Record {
        generation: GenerationId(u32::from_le_bytes([g0, g1, g2, g3])),
        stream: if flags & FLAG_STDERR == 0 { Stream::Stdout } else { Stream::Stderr },
        time: UnixMicros(u64::from_le_bytes(time)),
        within_line: flags & FLAG_WITHIN_LINE != 0,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    const ONE: GenerationId = GenerationId(1);
    const TWO: GenerationId = GenerationId(2);

    fn texts(lines: &[Line]) -> Vec<String> {
        let text = |line: &Line| {
            let marks = [(line.cut, '<'), (line.open, '>')];
            let marks: String = marks.iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect();
            let stream = if line.stream == Stream::Stdout { "" } else { "!" };
            alloc::format!("{}{stream}{marks} {}", line.generation, String::from_utf8_lossy(&line.bytes))
        };
        lines.iter().map(text).collect()
    }

    #[test]
    fn lines_are_marked_with_where_they_came_from_and_when() {
        let mut ring = Ring::new(1000);
        ring.add(ONE, Stream::Stdout, UnixMicros(1), b"a\nhal");
        ring.add(TWO, Stream::Stderr, UnixMicros(2), b"error\nopen");
        ring.add(ONE, Stream::Stdout, UnixMicros(3), b"f\n\n");
        let (lines, _) = ring.tail(10);
        assert_eq!(texts(&lines), ["1 a", "2! error", "1 half", "1 ", "2!> open"]);
        let times: Vec<u64> = lines.iter().map(|line| line.time.0).collect();
        assert_eq!(times, [1, 2, 1, 3, 2]);
        assert_eq!(texts(&ring.tail(2).0), ["1 ", "2!> open"]);
        assert!(ring.tail(0).0.is_empty());
    }

    #[test]
    fn whoever_follows_gets_each_line_once_when_it_has_ended() {
        let mut ring = Ring::new(1000);
        ring.add(ONE, Stream::Stdout, UnixMicros(1), b"a\nha");
        let (lines, cursor) = ring.since(Cursor::default());
        assert_eq!(texts(&lines), ["1 a"]);
        ring.add(TWO, Stream::Stdout, UnixMicros(2), b"b\n");
        ring.add(ONE, Stream::Stdout, UnixMicros(3), b"lf\nc");
        let (lines, cursor) = ring.since(cursor);
        assert_eq!(texts(&lines), ["2 b", "1 half"]);
        let (lines, again) = ring.since(cursor);
        assert_eq!((lines, again), (vec![], cursor));
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_left_of_a_line_is_marked() {
        let mut ring = Ring::new(60);
        ring.add(ONE, Stream::Stdout, UnixMicros(1), b"first\nsecond");
        ring.add(ONE, Stream::Stdout, UnixMicros(2), b" goes on\n");
        assert_eq!(texts(&ring.tail(9).0), ["1 first", "1 second goes on"]);
        let (_, cursor) = ring.tail(0);
        ring.add(TWO, Stream::Stdout, UnixMicros(3), b"x\n");
        assert_eq!(texts(&ring.tail(9).0), ["1<  goes on", "2 x"]);
        assert!(!ring.has_lost(cursor));
        ring.add(TWO, Stream::Stdout, UnixMicros(3), &[b'y'; 500]);
        assert!(ring.has_lost(cursor));
        let (lines, _) = ring.tail(9);
        assert!(lines.len() == 1 && lines[0].cut && lines[0].open && lines[0].bytes.len() >= 15);
    }

    #[test]
    fn what_follows_a_gap_is_not_joined_with_what_came_before() {
        let mut ring = Ring::new(1000);
        ring.add(ONE, Stream::Stdout, UnixMicros(1), b"a\nbefore");
        let (_, cursor) = ring.tail(0);
        ring.forget(ONE, Stream::Stdout);
        ring.add(ONE, Stream::Stdout, UnixMicros(2), b"after\nb\n");
        assert_eq!(texts(&ring.since(cursor).0), ["1< after", "1 b"]);
    }

    fn any_write() -> impl Strategy<Value = (u32, bool, Vec<u8>)> {
        let bytes = prop_oneof![
            prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..20),
            prop::collection::vec(any::<u8>(), 100..400),
        ];
        (1u32..3, any::<bool>(), bytes)
    }

    proptest! {
        #[test]
        fn it_never_takes_up_more_and_what_it_has_is_the_end_of_each_stream(
            writes in prop::collection::vec(any_write(), 0..60),
            capacity in 0usize..600,
        ) {
            let mut ring = Ring::new(capacity);
            let allocated = ring.bytes.capacity();
            let mut all: BTreeMap<Origin, Vec<u8>> = BTreeMap::new();
            for (generation, stderr, bytes) in &writes {
                let stream = if *stderr { Stream::Stderr } else { Stream::Stdout };
                ring.add(GenerationId(*generation), stream, UnixMicros(0), bytes);
                all.entry((GenerationId(*generation), stream)).or_default().extend(bytes);
                prop_assert!(ring.bytes.len() <= ring.capacity() && ring.bytes.capacity() == allocated);
            }
            let mut kept: BTreeMap<Origin, Vec<u8>> = BTreeMap::new();
            for line in ring.tail(usize::MAX).0 {
                let kept = kept.entry((line.generation, line.stream)).or_default();
                prop_assert!(!line.cut || kept.is_empty());
                kept.extend(&line.bytes);
                kept.extend((!line.open).then_some(b'\n'));
            }
            for (origin, kept) in kept {
                prop_assert!(all[&origin].ends_with(&kept));
            }
        }

        #[test]
        fn whoever_follows_misses_nothing_while_there_is_room(
            writes in prop::collection::vec(any_write(), 0..30),
            look in prop::collection::vec(any::<bool>(), 30),
        ) {
            let mut ring = Ring::new(1 << 16);
            let (mut cursor, mut followed) = (Cursor::default(), Vec::new());
            for ((generation, stderr, bytes), look) in writes.iter().zip(look) {
                let stream = if *stderr { Stream::Stderr } else { Stream::Stdout };
                ring.add(GenerationId(*generation), stream, UnixMicros(0), bytes);
                if look {
                    let (lines, next) = ring.since(cursor);
                    followed.extend(lines);
                    cursor = next;
                }
            }
            followed.extend(ring.since(cursor).0);
            let mut all = ring.tail(usize::MAX).0;
            all.retain(|line| !line.open);
            prop_assert_eq!(followed, all);
        }
    }
}
