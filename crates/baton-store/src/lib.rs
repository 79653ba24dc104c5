//! Where deploys and releases are kept: the StateStore and ArtefactStore implementations; and where secrets are.

pub mod artefact;
mod innermost;
pub mod reserve;
pub mod secrets;
pub mod state;
