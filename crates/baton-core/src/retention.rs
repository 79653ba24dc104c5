//! Which releases a member's disk need not keep.

use alloc::vec::Vec;

use crate::ids::{Epoch, ReleaseId};

/// How many proven releases stay on a member's disk beside what it runs and shall run.
pub const KEEP_DEFAULT: usize = 3;

/// A release on a member's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub release: ReleaseId,
    /// The epoch that it was last proven in here, if it ever was.
    pub proven: Option<Epoch>,
    /// It runs here, is what the member starts by itself, or what it shall have.
    pub held: bool,
}

/// The releases that may go, first those that shall go first: what was never proven, then what was proven longest ago.
///
/// What is held stays, and of the others the `keep` that were proven last. Time alone removes nothing.
pub fn surplus(on_disk: &[Kept], keep: usize) -> Vec<ReleaseId> {
    let mut loose: Vec<Kept> = on_disk.iter().filter(|kept| !kept.held).copied().collect();
    loose.sort_by_key(|kept| (kept.proven, kept.release));
    let proven = loose.iter().filter(|kept| kept.proven.is_some()).count();
    let stays = keep.min(proven);
    loose.truncate(loose.len() - stays);
    loose.into_iter().map(|kept| kept.release).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(release: u8, proven: Option<u64>, held: bool) -> Kept {
        Kept { release: ReleaseId::from_bytes([release; 32]), proven: proven.map(Epoch), held }
    }

    #[test]
    fn p28_what_is_held_and_the_last_proven_ones_stay() {
        let on_disk = [
            kept(1, Some(1), false),
            kept(2, None, false),
            kept(3, Some(9), true),
            kept(4, Some(5), false),
            kept(5, None, true),
            kept(6, Some(3), false),
            kept(7, Some(4), false),
            kept(8, None, false),
        ];
        let gone = |keep| surplus(&on_disk, keep).iter().map(|id| id.as_bytes()[0]).collect::<Vec<_>>();
        assert_eq!(gone(0), [2, 8, 1, 6, 7, 4]);
        assert_eq!(gone(1), [2, 8, 1, 6, 7]);
        assert_eq!(gone(3), [2, 8, 1]);
        assert_eq!(gone(4), [2, 8]);
        assert_eq!(gone(usize::MAX), [2, 8], "never proven is never kept for its own sake");
        assert_eq!(surplus(&[], 3), []);
    }
}
