//! What was read lately.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use baton_core::ids::{PackId, ReleaseId};

/// How much is kept: the manifests of a few dozen large releases. All members ask for the same ones at the same time.
const BYTES_MAX: usize = 64 << 20;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A frame: the pack, and where in it.
    Frame(PackId, u64),
    /// The packed outline of a release.
    Outline(ReleaseId),
}

/// What was read lately, each found to be right. What came first goes first.
#[derive(Default)]
pub(super) struct Recent {
    content: HashMap<Key, Arc<[u8]>>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Recent {
    pub(super) fn get(&self, key: &Key) -> Option<Arc<[u8]>> {
        self.content.get(key).cloned()
    }

    pub(super) fn keep(&mut self, key: Key, content: Arc<[u8]>) {
        if self.content.contains_key(&key) {
            return;
        }
        self.bytes += content.len();
        self.content.insert(key, content);
        self.order.push_back(key);
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.front().copied() else { break };
            self.forget(&oldest);
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(content) = self.content.remove(key) {
            self.bytes -= content.len();
            self.order.retain(|other| other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let mut recent = Recent::default();
        let key = |n: u64| Key::Frame(PackId::of(b"pack"), n);
        let quarter: Arc<[u8]> = vec![0; BYTES_MAX / 4].into();
        (0..6).for_each(|n| recent.keep(key(n), Arc::clone(&quarter)));
        recent.keep(key(5), Arc::clone(&quarter));
        let here: Vec<u64> = (0..6).filter(|n| recent.get(&key(*n)).is_some()).collect();
        assert_eq!((here, recent.bytes), (vec![2, 3, 4, 5], BYTES_MAX));
        recent.forget(&key(3));
        recent.forget(&key(3));
        recent.keep(key(6), quarter);
        let here: Vec<u64> = (0..7).filter(|n| recent.get(&key(*n)).is_some()).collect();
        assert_eq!((here, recent.order.len()), (vec![2, 4, 5, 6], 4));
    }
}
