//! Linux does what this crate relies on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod group;
mod intercepted;
mod mounted;
mod own;
mod spawned;

/// Held by tests that fork and by those that count on `close` being the last: between fork and exec the child
/// holds a copy of every socket.
static FORKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
