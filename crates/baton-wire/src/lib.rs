//! What leaves the process: protobuf sessions, stored records and the JSON of the API.

pub mod access;
pub mod api;
pub mod session;
pub mod stored;

/// Generated from `proto/baton/v1`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    reason = "generated; the protobuf files are its documentation"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/baton.v1.rs"));
}
