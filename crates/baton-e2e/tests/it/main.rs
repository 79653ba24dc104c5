//! The load generator against servers that misbehave on purpose, and the example programs under load.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod binary;
mod boot;
mod cgroup;
mod closed;
mod conformance;
mod copies;
mod demo;
#[cfg(feature = "deployments")]
mod deployments;
mod deploys;
mod dev;
mod doctor;
mod endurance;
mod examples;
mod faults;
mod flavors;
mod fleet;
mod generator;
mod given;
#[cfg(feature = "guides")]
mod guides;
mod handover;
mod health;
mod init;
mod listeners;
mod load;
mod main_pid;
mod metric;
mod moto;
mod output;
mod page;
mod program;
mod queues;
#[expect(dead_code, reason = "the tests of the store need more of it")]
#[path = "../../../baton-store/tests/redis/server.rs"]
mod redis_server;
mod reload;
mod rollouts;
mod secrets;
mod server;
mod servers;
mod service_manager;
mod shared;
mod sharing;
mod split;
mod supply;
mod trips;
mod trust;
mod unix;
mod wait;
mod watching;
