//! What a member finds of its past on its disk, and what it makes of it where some of that is lost.

use alloc::vec::Vec;

use crate::ids::{DeployId, Epoch, ReleaseId};
use crate::report::Seen;

/// A record on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Record<T> {
    /// It was never written.
    #[default]
    Absent,
    /// What it says.
    Says(T),
    /// It was written, and cannot be read any more.
    Lost,
}

impl<T> From<Option<T>> for Record<T> {
    fn from(known: Option<T>) -> Self {
        known.map_or(Self::Absent, Self::Says)
    }
}

impl<T: Copy> Record<T> {
    fn says(self) -> Option<T> {
        match self {
            Self::Says(what) => Some(what),
            Self::Absent | Self::Lost => None,
        }
    }
}

/// What a member finds on its disk when it starts.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// The newest deploy that it has heard of.
    pub seen: Record<Seen>,
    /// What it has committed to.
    pub committed: Record<(ReleaseId, Epoch)>,
    /// The releases on its disk that were proven there, each with the epoch in which it was last. In any order.
    pub proven: Vec<(ReleaseId, Epoch)>,
    /// The newest signed deploy that it has accepted: what it brought, and its epoch.
    pub warrant: Option<(ReleaseId, Epoch)>,
    /// The deploy whose release was on trial when everything here, the bootloader too, was killed at once, as the kernel does
    /// when memory runs out in a group that goes together (`memory.oom.group`).
    pub killed_in: Option<DeployId>,
}

impl Remembered {
    /// The newest deploy that the member has heard of, where that is known.
    pub fn seen(&self) -> Option<Seen> {
        self.seen.says()
    }

    /// What the member starts by itself. A release is written down as proven just before it is committed to, so that the one
    /// that was proven last stands for a record that is lost.
    pub fn committed(&self) -> Option<(ReleaseId, Epoch)> {
        match self.committed {
            Record::Absent => None,
            Record::Says(committed) => Some(committed),
            Record::Lost => self.oldest_first().pop(),
        }
    }

    /// What it starts when that cannot be launched any more: the first one last.
    pub fn fallbacks(&self) -> Vec<ReleaseId> {
        let committed = self.committed().map(|(release, _)| release);
        let proven = self.oldest_first().into_iter().map(|(release, _)| release);
        proven.filter(|release| Some(*release) != committed).collect()
    }

    /// The highest epoch that anything else tells of, when it is lost which deploy was the newest, and what that brought.
    /// Nothing below that is obeyed.
    pub fn floor(&self) -> Option<(ReleaseId, Epoch)> {
        if self.seen != Record::Lost {
            return None;
        }
        let others = self.proven.iter().copied().chain(self.committed()).chain(self.warrant);
        others.max_by_key(|(release, epoch)| (*epoch, *release))
    }

    fn oldest_first(&self) -> Vec<(ReleaseId, Epoch)> {
        let mut proven = self.proven.clone();
        proven.sort_by_key(|(release, epoch)| (*epoch, *release));
        proven
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::ids::DeployId;

    fn release(number: u8) -> ReleaseId {
        ReleaseId::from_bytes([number; 32])
    }

    #[test]
    fn f43_what_was_proven_last_stands_for_a_lost_record_and_the_others_for_a_lost_release() {
        let proven = vec![(release(2), Epoch(7)), (release(1), Epoch(9)), (release(3), Epoch(3))];
        let cases = [
            (Record::Absent, None, vec![release(3), release(2), release(1)]),
            (
                Record::Says((release(2), Epoch(8))),
                Some((release(2), Epoch(8))),
                vec![release(3), release(1)],
            ),
            (Record::Lost, Some((release(1), Epoch(9))), vec![release(3), release(2)]),
        ];
        for (committed, starts, fallbacks) in cases {
            let remembered = Remembered { committed, proven: proven.clone(), ..Remembered::default() };
            assert_eq!(remembered.committed(), starts, "{committed:?}");
            assert_eq!(remembered.fallbacks(), fallbacks, "{committed:?}");
        }
        assert_eq!(Remembered { committed: Record::Lost, ..Remembered::default() }.committed(), None);
    }

    #[test]
    fn p12_the_highest_epoch_that_anything_tells_of_stands_for_a_lost_one() {
        let seen = Seen { epoch: Epoch(12), deploy: DeployId::from_bytes([1; 16]) };
        let brought = |epoch: u64| (release(epoch as u8), Epoch(epoch));
        let of = |seen, committed, proven: &[u64], warrant: Option<u64>| Remembered {
            seen,
            committed,
            proven: proven.iter().copied().map(brought).collect(),
            warrant: warrant.map(brought),
            killed_in: None,
        };
        let committed = Record::Says(brought(4));
        let cases = [
            (of(Record::Says(seen), committed, &[4], None), None),
            (of(Record::Absent, Record::Absent, &[], None), None),
            (of(Record::Lost, Record::Absent, &[], None), None),
            (of(Record::Lost, committed, &[], None), Some(4)),
            (of(Record::Lost, committed, &[4, 6], None), Some(6)),
            (of(Record::Lost, committed, &[4, 6], Some(9)), Some(9)),
            (of(Record::Lost, Record::Lost, &[2], Some(1)), Some(2)),
        ];
        for (remembered, floor) in cases {
            assert_eq!(remembered.floor(), floor.map(brought), "{remembered:?}");
        }
    }
}
