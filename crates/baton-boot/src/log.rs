//! The bootloader's own lines.

use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait for stderr. When nobody reads it, later ones are lost: a stop must not wait for a log.
const LINES_MAX: usize = 256;
/// How long the last lines may take at the end.
const FLUSH: Duration = Duration::from_millis(200);

/// Something for the thread that writes.
enum Entry {
    Line(String),
    /// Everything before this is written: tell whoever waits.
    Flush(SyncSender<()>),
}

/// Where lines go; a thread of its own writes them.
static LINES: OnceLock<Option<SyncSender<Entry>>> = OnceLock::new();

/// Says one line on stderr. Never waits, and a log that cannot be written is no reason to stop.
pub fn say(what: impl Display) {
    let line = format!("baton-boot: {what}\n");
    if let Some(lines) = LINES.get_or_init(start) {
        let _ = lines.try_send(Entry::Line(line));
    }
}

/// Waits until what was said is written, if somebody reads it.
pub fn flush() {
    let Some(Some(lines)) = LINES.get() else { return };
    let (done, wait) = sync_channel(1);
    if lines.try_send(Entry::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(FLUSH);
    }
}

fn start() -> Option<SyncSender<Entry>> {
    let (lines, entries) = sync_channel(LINES_MAX);
    let write = move || {
        for entry in entries {
            match entry {
                // One write, so that the line is not torn by the program's own.
                Entry::Line(line) => drop(std::io::stderr().write_all(line.as_bytes())),
                Entry::Flush(done) => drop(done.try_send(())),
            }
        }
    };
    std::thread::Builder::new().name("log".to_owned()).stack_size(128 * 1024).spawn(write).ok()?;
    Some(lines)
}

/// An error with all its causes: `a: b: c`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
