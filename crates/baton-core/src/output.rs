//! What programs write: cut into lines, spelled as JSON, kept for a while, and let go when nobody reads it.

pub mod json;
pub mod lines;
pub mod patience;
pub mod ring;
pub mod time;

use alloc::string::String;
use core::fmt;

/// One of a program's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// `stdout` or `stderr`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text of several lines that cannot drive a terminal: every control character but line feed and tab is replaced.
pub fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\t' && c != '\n', "\u{fffd}")
}

/// A line as text that can neither drive a terminal nor end early: what is not UTF-8, and every control character
/// but the tab, is replaced.
pub fn readable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end_matches('\r')
        .replace(|c: char| c.is_control() && c != '\t', "\u{fffd}")
}
