//! The server: what it knows of the fleet, sessions with members, slots, the API and metrics.
//!
//! One thread, the keeper, decides and writes: members' news and operators' proposals come to it in one queue,
//! it decides with the pure functions of `baton-core`, writes to the state store, tells the members, and puts
//! what it knows on a board. Whoever only reads (the API, the metrics) looks at the board and never waits for
//! a disk.

mod access;
mod api;
mod audit;
pub mod backup;
mod board;
mod chain;
mod claim;
mod clock;
mod decision;
mod gauge;
mod guard;
mod happened;
mod heartbeats;
mod identity;
mod keeper;
mod lenders;
mod listen;
mod metrics;
mod order;
mod outgoing;
mod preview;
mod proposal;
mod reread;
#[cfg(test)]
mod sample;
mod secrets;
mod server;
mod session;
mod sessions;
mod skew;
#[cfg(test)]
#[path = "../../baton-release/tests/disk/small.rs"]
mod small_disk;
mod space;
mod tls;
mod view;
mod watcher;

pub use access::{AccessError, LedgerError, SealError, Unreadable};
pub use audit::AuditError;
pub use baton_store::state::{Backup, BackupError, InvalidAddress, RedisAddress, StateError};
pub use claim::ClaimError;
pub use gauge::{InvalidPrometheus, LoginError, PrometheusLogin};
pub use identity::Missing;
pub use secrets::AllowedError;
pub use server::{Artefacts, Callers, Config, Server, ServerError, State};
pub use tls::{Certificates, TlsError};
