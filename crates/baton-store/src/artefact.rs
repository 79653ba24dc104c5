//! Where releases lie.

mod folder;

pub use baton_release::store::conformance;
pub use baton_release::store::memory::MemoryStore;
pub use folder::FolderStore;
