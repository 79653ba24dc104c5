//! What the program writes: passed on as it is, with the last lines kept for reports of its failure.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How much is read at once: the size of a pipe.
const BUFFER_BYTES: usize = 64 * 1024;
/// How many lines a failure report has: a stack trace and what led to it.
const LINES_KEPT: usize = 40;
/// How much of one line is kept.
const LINE_BYTES_KEPT: usize = 512;

/// The last lines of one generation's output.
#[derive(Debug, Clone, Default)]
pub struct LastLines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    complete: VecDeque<String>,
    open: Vec<u8>,
    /// Streams that are still being read.
    streams: usize,
}

/// How long to wait for what a program that has ended wrote at last: only a sink that stalls takes as long.
const LAST_WORDS: Duration = Duration::from_millis(20);

impl LastLines {
    /// The lines, oldest first.
    pub fn get(&self) -> Vec<String> {
        let lines = self.lock();
        let open = (!lines.open.is_empty()).then(|| readable(&lines.open));
        lines.complete.iter().cloned().chain(open).collect()
    }

    /// Waits, for a moment at most, until all that was written has been read.
    pub fn wait_for_end(&self) {
        let reading = |lines: &mut Lines| lines.streams > 0;
        drop(self.0.ended.wait_timeout_while(self.lock(), LAST_WORDS, reading));
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream_ended(&self) {
        self.lock().streams -= 1;
        self.0.ended.notify_all();
    }

    fn add(&self, bytes: &[u8]) {
        let mut lines = self.lock();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LINE_BYTES_KEPT.saturating_sub(lines.open.len()).min(text.len());
            lines.open.extend_from_slice(&text[..room]);
            if text.len() < part.len() {
                let line = readable(&std::mem::take(&mut lines.open));
                lines.complete.push_back(line);
            }
        }
        let surplus = lines.complete.len().saturating_sub(LINES_KEPT);
        lines.complete.drain(..surplus);
    }
}

/// A line without anything that could drive a terminal or end it early.
fn readable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end_matches('\r')
        .replace(|c: char| c.is_control() && c != '\t', "\u{fffd}")
}

/// Where one of the program's streams goes.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// Our standard output.
    Stdout,
    /// Our standard error.
    Stderr,
}

/// Starts a thread that passes on what arrives at `from` until every holder of its other end has ended.
///
/// A thread, because a sink that stalls must hold up the program, and nothing of ours.
pub fn pass_on(from: OwnedFd, to: Stream, lines: &LastLines) -> io::Result<()> {
    let name = match to {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    lines.lock().streams += 1;
    let read = lines.clone();
    let copy = move || {
        match to {
            Stream::Stdout => copy_all(from, io::stdout().as_fd(), &read),
            Stream::Stderr => copy_all(from, io::stderr().as_fd(), &read),
        }
        read.stream_ended();
    };
    let started = std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(copy);
    started.map(drop).inspect_err(|_| lines.stream_ended())
}

fn copy_all(from: OwnedFd, to: BorrowedFd<'_>, lines: &LastLines) {
    let mut from = std::fs::File::from(from);
    let mut to = to.try_clone_to_owned().map(std::fs::File::from).ok();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        lines.add(read);
        // A sink that is gone is no reason to stop reading: the program would stand still.
        if to.as_mut().is_some_and(|to| to.write_all(read).is_err()) {
            to = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_whole_or_cut_and_cannot_drive_a_terminal() {
        let lines = LastLines::default();
        (0..100).for_each(|n| lines.add(format!("line {n}\r\n").as_bytes()));
        lines.add(&[b'x'; 2000]);
        lines.add(b"\n\x1b[31mre");
        lines.add(b"d");
        let kept = lines.get();
        assert_eq!(kept.len(), LINES_KEPT + 1);
        assert_eq!(kept[LINES_KEPT - 2], "line 99");
        assert_eq!(kept[LINES_KEPT - 1].len(), LINE_BYTES_KEPT);
        assert_eq!(kept[LINES_KEPT], "\u{fffd}[31mred");
    }
}
