//! Where deploys and releases are kept: the StateStore and ArtefactStore implementations.

pub mod artefact;
pub mod state;
