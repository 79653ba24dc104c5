//! Where releases lie.

mod bucket;
mod folder;
mod held;

pub use baton_release::store::conformance;
pub use baton_release::store::memory::MemoryStore;
pub use bucket::{BucketError, BucketStore};
pub use folder::FolderStore;
