//! Places members on machines.
//!
//! An engine only starts and stops members: which release they run is between them and control.

pub mod local;
