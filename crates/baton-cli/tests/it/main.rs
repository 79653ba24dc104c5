//! The real program, against the real server.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod away;
mod broken;
mod build;
mod closed;
mod control;
mod program;
mod push;
mod reader;
mod releases;
mod serve;
mod simulate;
mod story;
mod usage;
mod wait;
