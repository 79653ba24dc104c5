//! Which trees this process has read through or written itself.
//!
//! Nothing on a disk can vouch for what else is on it: who can alter a file, or a disk that fails beneath the file
//! system, can as well alter what was written down about it. So what is relied on is in memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use baton_core::ids::ReleaseId;

use super::stamps::{Stamps, Sum};

/// What is known of the releases on disk: the sum of the stamps that a tree had when its content was known to be right.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<ReleaseId, Sum>>);

impl Known {
    /// The content of a release was right when its tree had these stamps.
    pub(super) fn learn(&self, id: ReleaseId, stamps: &Stamps) {
        self.with(|known| known.insert(id, stamps.sum()));
    }

    /// Whether it was right with these stamps.
    pub(super) fn has(&self, id: ReleaseId, stamps: &Stamps) -> bool {
        self.with(|known| known.get(&id).copied()) == Some(stamps.sum())
    }

    /// The release is gone.
    pub(super) fn forget(&self, id: ReleaseId) {
        self.with(|known| known.remove(&id));
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<ReleaseId, Sum>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
