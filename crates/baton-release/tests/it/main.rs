//! Releases on their whole way: from a directory through a store to a member's disk.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod cache;
mod collected;
mod crash;
mod disk_full;
mod external;
mod hostile;
mod launch;
mod mirrors;
mod peers;
mod race;
mod regained;
mod remembered;
mod remote;
mod retention;
mod round_trip;
mod sample;
mod seen;
#[path = "../disk/small.rs"]
mod small_disk;
mod spare;
mod trips;
