//! Where deploys and releases are kept: the StateStore and ArtefactStore implementations.
