//! A directory and its chunks: cut it, push it, fetch it, lay it out, verify it.
//!
//! A release is described by its [`Manifest`](baton_core::release::Manifest); its content lies in an
//! [`ArtefactStore`](store::ArtefactStore) as chunks that are named by their hash, many of them to a pack. Members keep
//! complete, verified releases in a [`ReleasesDir`](releases::ReleasesDir), from where they start without any network.
//!
//! Everything here blocks; callers that must not wait put it on a thread.

mod beneath;
pub mod cache;
mod chain;
pub mod check;
pub mod collect;
pub mod content;
pub mod control;
pub mod disk;
pub mod fetch;
pub mod lending;
pub mod manifest;
pub mod nearest;
pub mod pace;
pub mod pack;
mod parallel;
pub mod peers;
pub mod read;
pub mod record;
pub mod regain;
pub mod releases;
pub mod remote;
pub mod signing;
pub mod store;

#[cfg(feature = "push")]
pub mod build;
#[cfg(feature = "push")]
mod cut;
#[cfg(feature = "push")]
mod provenance;
#[cfg(feature = "push")]
pub mod push;
#[cfg(feature = "push")]
pub mod repair;
#[cfg(feature = "push")]
mod selection;
#[cfg(feature = "push")]
mod stat_cache;
#[cfg(feature = "push")]
mod twins;
#[cfg(feature = "push")]
mod upload;
#[cfg(feature = "push")]
mod walk;
