//! The server as its users meet it: over HTTP and over sessions, on a real port, with real stores.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod api;
mod certificates;
mod closed;
mod codes;
mod floods;
mod full_disk;
mod guard;
mod identity;
mod light;
mod metrics;
mod prune;
#[path = "../../../baton-store/tests/redis/server.rs"]
#[expect(dead_code, reason = "the tests of the store need more of it")]
mod redis_server;
mod repaired;
mod restart;
mod rollout;
mod running;
mod secrets;
#[path = "../../../baton-release/tests/disk/small.rs"]
mod small_disk;
mod verify;
