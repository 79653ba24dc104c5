//! Stores keep what they promise, whatever happens to them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod artefact;
mod state;
