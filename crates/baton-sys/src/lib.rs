//! Linux, as the bootloader needs it: processes, signals, reuseport sockets and their selector, and what programs
//! bind.
//!
//! The only crate with `unsafe` code. Nothing here decides anything: it does one thing and says how it went.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod accepted;
pub mod attributes;
pub mod connection;
pub mod descriptors;
pub mod held;
pub mod intercept;
pub mod listening;
pub mod memory;
pub mod mount;
pub mod options;
pub mod parent;
pub mod ports;
pub mod priority;
pub mod process;
pub mod selector;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod terminal;
pub mod unix;
