//! What becomes of what the program writes.

use crate::units::{Bytes, Millis};

/// Where standard output and error of a program go, and in what form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// The form.
    pub format: Format,
    /// A line of more bytes becomes several JSON objects. Nothing is cut in the other formats.
    pub line_max: Bytes,
    /// How long the program may be held up by somebody who does not read, before what it writes is dropped.
    pub stall: Millis,
}

/// The form in which output is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes as they are.
    Raw,
    /// One object a line.
    Json,
    /// The program has the bootloader's own descriptors and writes for itself. Nothing of it is kept.
    Inherit,
}

impl Output {
    /// Lines are long where they have a stack trace or a request in them; this holds what people look at.
    pub const LINE_MAX_DEFAULT: Bytes = Bytes::from_kib(64);
    /// A collector that is restarted is back by then, and most clients still wait.
    pub const STALL_DEFAULT: Millis = Millis::from_secs(1);
}

impl Default for Output {
    fn default() -> Self {
        Self { format: Format::Raw, line_max: Self::LINE_MAX_DEFAULT, stall: Self::STALL_DEFAULT }
    }
}
