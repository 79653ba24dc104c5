//! The load generator against servers that misbehave on purpose, and the example programs under load.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod binary;
mod boot;
mod demo;
mod deploys;
mod examples;
mod fleet;
mod generator;
mod handover;
mod init;
mod load;
mod program;
mod reload;
mod server;
mod wait;
