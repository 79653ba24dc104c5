//! The bootloader's own lines.

use std::fmt::Display;
use std::io::Write;

/// Writes one line to stderr. A log that cannot be written is no reason to stop, so an error is ignored.
pub fn say(what: impl Display) {
    let line = format!("baton-boot: {what}\n");
    // One write, so that the line is not torn by the program's own.
    let _ = std::io::stderr().write_all(line.as_bytes());
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
