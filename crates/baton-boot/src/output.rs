//! What the program writes: passed on as it is, with the last lines kept for reports of its failure.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// How much is read at once: the size of a pipe.
const BUFFER_BYTES: usize = 64 * 1024;
/// How many lines a failure report has: a stack trace and what led to it.
const LINES_KEPT: usize = 40;
/// How much of one line is kept.
const LINE_BYTES_KEPT: usize = 512;

/// The last lines of one generation's output.
#[derive(Debug, Clone, Default)]
pub struct LastLines(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    complete: VecDeque<String>,
    open: Vec<u8>,
}

impl LastLines {
    /// The lines, oldest first.
    pub fn get(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = (!lines.open.is_empty()).then(|| readable(&lines.open));
        lines.complete.iter().cloned().chain(open).collect()
    }

    fn add(&self, bytes: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
pub fn pass_on(from: OwnedFd, to: Stream, lines: LastLines) -> io::Result<()> {
    let name = match to {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let copy = move || match to {
        Stream::Stdout => copy_all(from, io::stdout().as_fd(), &lines),
        Stream::Stderr => copy_all(from, io::stderr().as_fd(), &lines),
    };
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(copy)?;
    Ok(())
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
