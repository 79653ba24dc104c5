//! Members as real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod local;
