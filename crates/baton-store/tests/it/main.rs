//! Stores keep what they promise, whatever happens to them.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod artefact;
#[path = "../redis/server.rs"]
mod redis_server;
mod secrets;
#[path = "../../../baton-release/tests/disk/small.rs"]
mod small_disk;
mod state;
