//! The last lines of one generation, for the report of its failure.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::ids::GenerationId;
use baton_core::output::ring::{Line, Ring};
use baton_core::output::time::UnixMicros;
use baton_core::output::{Stream, readable};
use baton_core::words::CUT;

/// How many lines a failure report has: a stack trace and what led to it.
const LINES_KEPT: usize = 40;
/// How much of one line a report has.
const LINE_BYTES_KEPT: usize = 512;
/// How much of the output is kept for them. A ring of their own, or a generation that serves and writes much
/// would push out what a candidate beside it said before it failed.
const BYTES_KEPT: usize = 32 * 1024;
/// How long to wait for what a program that has ended wrote at last: only a sink that stalls takes as long.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The last lines of one generation's output.
#[derive(Debug, Clone)]
pub struct LastLines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lines: Mutex<Lines>,
    ended: Condvar,
}

#[derive(Debug)]
struct Lines {
    ring: Ring,
    /// Streams that are still being read.
    streams: usize,
}

impl Default for LastLines {
    fn default() -> Self {
        let lines = Lines { ring: Ring::new(BYTES_KEPT), streams: 0 };
        Self(Arc::new(Shared { lines: Mutex::new(lines), ended: Condvar::new() }))
    }
}

impl LastLines {
    /// The lines, oldest first.
    pub fn get(&self) -> Vec<String> {
        let (lines, _) = self.lock().ring.tail(LINES_KEPT);
        lines.iter().map(shown).collect()
    }

    /// Waits, for a moment at most, until all that was written has been read.
    pub fn wait_for_end(&self) {
        let reading = |lines: &mut Lines| lines.streams > 0;
        drop(self.0.ended.wait_timeout_while(self.lock(), LAST_WORDS, reading));
    }

    /// One more stream is being read from now on.
    pub(super) fn begin(&self) {
        self.lock().streams += 1;
    }

    /// What was read of a stream.
    pub(super) fn add(&self, generation: GenerationId, stream: Stream, time: UnixMicros, bytes: &[u8]) {
        self.lock().ring.add(generation, stream, time, bytes);
    }

    /// So much was written of a stream that what is kept does not lead to what follows.
    pub(super) fn forget(&self, generation: GenerationId, stream: Stream) {
        self.lock().ring.forget(generation, stream);
    }

    /// A stream has ended.
    pub(super) fn end(&self) {
        let mut lines = self.lock();
        lines.streams = lines.streams.saturating_sub(1);
        self.0.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line as the report has it, with a mark wherever something of it is missing: that may be a part of a secret, of
/// which the rest is hidden later.
fn shown(line: &Line) -> String {
    let text = readable(&line.bytes);
    let kept = &text[..text.floor_char_boundary(LINE_BYTES_KEPT)];
    let mark = |torn: bool| if torn { CUT } else { "" };
    [mark(line.cut), kept, mark(kept.len() < text.len())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::run::secrets::{Secret, Values, hide};

    #[test]
    fn the_last_lines_are_kept_whole_or_cut_and_cannot_drive_a_terminal() {
        let lines = LastLines::default();
        let add = |stream, bytes: &[u8]| lines.add(GenerationId(1), stream, UnixMicros(0), bytes);
        (0..100).for_each(|n| add(Stream::Stdout, format!("line {n}\r\n").as_bytes()));
        add(Stream::Stdout, &[b'x'; 2000]);
        add(Stream::Stderr, b"\x1b[31mre");
        add(Stream::Stdout, b"\n");
        add(Stream::Stderr, b"d");
        let kept = lines.get();
        assert_eq!(kept.len(), LINES_KEPT);
        assert_eq!(kept[LINES_KEPT - 3], "line 99");
        assert_eq!(kept[LINES_KEPT - 2], "x".repeat(LINE_BYTES_KEPT) + "…");
        assert_eq!(kept[LINES_KEPT - 1], "\u{fffd}[31mred");
    }

    /// Of values that are longer than what is kept of a line, stand at its end, or are older than what is kept at all.
    #[test]
    fn p43_no_piece_of_a_secret_is_left_in_the_last_lines() {
        let letters =
            |count: usize| (0..count).map(|at| char::from(b'A' + (at * 7 % 26) as u8)).collect::<String>();
        let (long, short, huge) = (letters(600), letters(40), letters(100_000));
        let pem =
            ["-----BEGIN KEY-----", &letters(64)[3..], &letters(64)[9..], "-----END KEY-----"].join("\n");
        let of = [&long, &short, &huge, &pem].map(|value| ("A".to_owned(), Secret::new(value.clone())));
        let values = Values { merged: Vec::new(), named: of.to_vec() };
        let told = |written: &[u8]| {
            let lines = LastLines::default();
            lines.add(GenerationId(1), Stream::Stdout, UnixMicros(0), written);
            hide(&lines.get().join("\n"), [&values])
        };
        for written in [
            format!("token {long}\n"),
            format!("{}{short} and more\n", "x".repeat(500)),
            format!("{}ü{short} and more\n", "x".repeat(499)),
            format!("token {huge} and more\n"),
            format!("token {huge}"),
            format!("{pem}\n{}", "x\n".repeat(38)),
            pem.replace('\n', "\r\n"),
        ] {
            let told = told(written.as_bytes());
            let left = told.split(|c: char| !c.is_ascii_uppercase()).map(str::len).max();
            assert!(left < Some(16) && told.contains("[secret]"), "{told}");
        }
    }
}
