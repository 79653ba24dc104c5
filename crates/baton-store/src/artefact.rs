//! Where releases lie.

mod folder;
mod held;

pub use baton_release::store::conformance;
pub use baton_release::store::memory::MemoryStore;
pub use folder::FolderStore;
