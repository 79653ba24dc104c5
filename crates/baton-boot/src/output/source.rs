//! One stream of one generation, on its way to a sink.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use baton_core::ids::GenerationId;
use baton_core::output::Stream;
use baton_core::output::json::Encoder;
use baton_core::output::lines::{End, Lines, Piece};
use baton_core::output::time::UnixMicros;
use baton_core::units::Millis;
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::fcntl_setpipe_size;

use super::kept::Kept;
use super::last_lines::LastLines;
use super::sink::{Sink, count_lines};

/// The size of a pipe whose program writes much, where the kernel allows it: a quarter of the turns that the
/// default of 64 KiB takes. Others stay small, since what a user may have in pipes is limited, for all processes
/// together.
pub const PIPE_BYTES: usize = 256 * 1024;
/// Whoever has so much in the pipe at once writes much.
const MUCH_BYTES: usize = 32 * 1024;
/// How much is read at once: a whole pipe. So every write that fits into the pipe is passed on as a whole.
pub const READ_BYTES: usize = PIPE_BYTES;
/// How many bytes of JSON are made before they are passed on.
const JSON_BYTES: usize = 64 * 1024;

/// Whose output it is, and which of its streams.
pub type Origin = (GenerationId, Stream);

/// One stream of one generation.
#[derive(Debug)]
pub struct Source {
    from: OwnedFd,
    /// Which one.
    pub origin: Origin,
    /// How long the program may be held up.
    pub stall: Millis,
    /// Keeps the last lines.
    pub last: LastLines,
    /// How it is passed on.
    form: Form,
    /// Its program has written much at once.
    is_large: bool,
    /// How many of the bytes that are to be read next are remembered already.
    remembered: usize,
}

/// How a stream is passed on.
#[derive(Debug)]
pub enum Form {
    /// As it is.
    Raw(Raw),
    /// As JSON lines.
    Json(Box<Json>),
}

/// Where in the stream it stands.
#[derive(Debug, Default)]
pub struct Raw {
    /// Something was dropped since the last byte that was passed on.
    dropped: bool,
    /// What was dropped last was the beginning of a line.
    torn: bool,
}

/// Lines on their way to become JSON.
#[derive(Debug)]
pub struct Json {
    lines: Lines,
    encoder: Encoder,
    /// What was read while the sink had room for its beginning only.
    rest: Vec<u8>,
    /// When that was read.
    time: UnixMicros,
}

impl Json {
    /// For lines of at most so many bytes.
    pub fn new(line_max: usize, encoder: Encoder) -> Self {
        let time = UnixMicros::default();
        Self { lines: Lines::new(line_max), encoder, rest: Vec::new(), time }
    }
}

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Some(usize),
    /// Nothing has been written since.
    Nothing,
    /// Everybody who could write has ended.
    End,
}

impl Source {
    /// A stream that is read at `from`, which never waits.
    pub fn new(from: OwnedFd, origin: Origin, stall: Millis, form: Form, last: LastLines) -> Self {
        last.begin();
        Self { from, origin, stall, last, form, is_large: false, remembered: 0 }
    }

    /// The descriptor to wait for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// Reads what has been written since.
    pub fn read(&mut self, buffer: &mut [u8]) -> Read {
        loop {
            return match rustix::io::read(&self.from, &mut *buffer) {
                Ok(0) => Read::End,
                Ok(count) => {
                    if count >= MUCH_BYTES && !self.is_large {
                        // What the kernel refuses works as well, with more turns.
                        self.is_large = true;
                        let _ = fcntl_setpipe_size(&self.from, PIPE_BYTES);
                    }
                    Read::Some(count)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Read::Nothing,
                Err(_) => Read::End,
            };
        }
    }

    /// Those of the bytes that were just read that are not remembered yet.
    pub fn fresh<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let known = self.remembered.min(bytes.len());
        self.remembered -= known;
        &bytes[known..]
    }

    /// Passes on what waits without reading it, if it is much and nothing else is to be done with it; to a sink
    /// that is free. Returns whether anything was done.
    pub fn refer(&mut self, kept: &mut Kept, time: UnixMicros, sink: &mut Sink, now: Millis) -> bool {
        let plain = matches!(self.form, Form::Raw(Raw { dropped: false, .. }));
        if !plain || !self.is_large || !sink.takes_references() {
            return false;
        }
        let waits = usize::try_from(ioctl_fionread(&self.from).unwrap_or_default()).unwrap_or_default();
        if waits < MUCH_BYTES {
            return false;
        }
        self.remembered = kept.refer(self, time, waits.min(READ_BYTES), now);
        let some = self.remembered > 0;
        self.pass_rest(sink, now);
        some
    }

    /// Whether something that was taken over is still to be passed on.
    pub fn has_rest(&self, sink: &Sink) -> bool {
        match &self.form {
            Form::Raw(_) => sink.is_owed_by(self.origin),
            Form::Json(json) => !json.rest.is_empty(),
        }
    }

    /// Passes bytes on to a sink that is free.
    pub fn pass(&mut self, mut bytes: &[u8], time: UnixMicros, sink: &mut Sink, now: Millis) {
        match &mut self.form {
            Form::Raw(raw) => {
                raw.resume(&mut bytes, self.origin.1, sink, now);
                sink.give(bytes, now);
            }
            Form::Json(json) => {
                json.time = time;
                let left = json.pass(bytes, sink, now);
                json.rest.extend_from_slice(left);
            }
        }
    }

    /// Passes on what was taken over before, to a sink that is free.
    pub fn pass_rest(&mut self, sink: &mut Sink, now: Millis) {
        match &mut self.form {
            Form::Raw(_) => {
                self.remembered -= sink.refer(self.from.as_fd(), self.origin, self.remembered, now);
            }
            Form::Json(json) => {
                let rest = std::mem::take(&mut json.rest);
                json.rest = json.pass(&rest, sink, now).to_vec();
            }
        }
    }

    /// Drops what was read before, and these bytes.
    pub fn lose(&mut self, bytes: &[u8], sink: &mut Sink) {
        match &mut self.form {
            Form::Raw(raw) => {
                sink.forgive(self.origin);
                raw.lose(bytes, self.origin.1, sink);
            }
            Form::Json(json) => {
                let rest = std::mem::take(&mut json.rest);
                json.lose(&rest, self.origin.1, sink);
                json.lose(bytes, self.origin.1, sink);
            }
        }
    }

    /// Passes on what has no line feed at the end of the stream; to a sink that is not free it is lost.
    pub fn end(&mut self, time: UnixMicros, sink: &mut Sink, now: Millis) {
        let Form::Json(json) = &mut self.form else { return };
        let Some(piece) = json.lines.end() else { return };
        if sink.is_free() {
            sink.add(|into| json.encoder.encode(time, piece, into));
            sink.flush(now);
        } else {
            count(piece, self.origin.1, sink);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.last.end();
    }
}

impl Raw {
    /// After something was dropped, goes on at the beginning of a line: no line is put together from two.
    fn resume(&mut self, bytes: &mut &[u8], stream: Stream, sink: &mut Sink, now: Millis) {
        if self.torn {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            let (torn, rest) = bytes.split_at(end);
            self.lose(torn, stream, sink);
            *bytes = rest;
        }
        if self.dropped && !bytes.is_empty() {
            self.dropped = false;
            sink.end_line(now);
        }
    }

    fn lose(&mut self, bytes: &[u8], stream: Stream, sink: &mut Sink) {
        if let Some(last) = bytes.last() {
            self.dropped = true;
            self.torn = *last != b'\n';
            sink.lose(stream, bytes.len(), count_lines(bytes));
        }
    }
}

impl Json {
    /// Passes on as much as the sink takes, and returns the rest.
    fn pass<'a>(&mut self, bytes: &'a [u8], sink: &mut Sink, now: Millis) -> &'a [u8] {
        let mut input = bytes;
        sink.end_line(now);
        while let Some(piece) = self.lines.next(&mut input) {
            let waiting = sink.add(|into| self.encoder.encode(self.time, piece, into));
            if waiting >= JSON_BYTES {
                sink.flush(now);
                if !sink.is_free() {
                    return input;
                }
            }
        }
        sink.flush(now);
        input
    }

    fn lose(&mut self, bytes: &[u8], stream: Stream, sink: &mut Sink) {
        let mut input = bytes;
        while let Some(piece) = self.lines.next(&mut input) {
            count(piece, stream, sink);
        }
    }
}

fn count(piece: Piece<'_>, stream: Stream, sink: &mut Sink) {
    sink.lose(stream, piece.bytes_in_stream(), usize::from(piece.end != End::NextPart));
}
