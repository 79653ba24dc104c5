//! What takes long with the releases of a member: to fetch one, and to put their directory in order. One after another, on one
//! thread, however much is asked for while a store does not answer: the others are for what must not wait for that.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_core::ids::ReleaseId;

use crate::outlive::outlive;

/// Something that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Bring a release to the disk.
    Fetch(ReleaseId),
    /// Remove old releases, and prepare for the next one.
    Upkeep,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Errands(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Nobody wants to have the others on the disk any more.
    needed: BTreeSet<ReleaseId>,
    waiting: VecDeque<Errand>,
    /// A thread is at it.
    busy: bool,
}

impl Errand {
    fn is_needed(self, needed: &BTreeSet<ReleaseId>) -> bool {
        match self {
            Self::Fetch(release) => needed.contains(&release),
            Self::Upkeep => true,
        }
    }
}

impl Errands {
    /// These releases are to be on the disk. Another one that still waits to be fetched is left out.
    pub fn need(&self, needed: impl Iterator<Item = ReleaseId>) {
        let mut queue = self.queue();
        queue.needed = needed.collect();
        let Queue { needed, waiting, .. } = &mut *queue;
        waiting.retain(|errand| errand.is_needed(needed));
    }

    /// Does this once all before it is done, with `work`: on this thread, which stays until nothing is left, or on the one
    /// that is at it.
    pub fn run(&self, errand: Errand, work: impl Fn(Errand)) {
        if self.add(errand) {
            outlive(|| {
                while let Some(errand) = self.next() {
                    work(errand);
                }
            });
        }
    }

    /// Whether nobody is at it, so that the caller has to be.
    fn add(&self, errand: Errand) -> bool {
        let mut queue = self.queue();
        if !queue.waiting.contains(&errand) && errand.is_needed(&queue.needed) {
            queue.waiting.push_back(errand);
        }
        !std::mem::replace(&mut queue.busy, true)
    }

    fn next(&self) -> Option<Errand> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        queue.busy = next.is_some();
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const ONE: ReleaseId = ReleaseId::from_bytes([1; 32]);
    const TWO: ReleaseId = ReleaseId::from_bytes([2; 32]);
    const THREE: ReleaseId = ReleaseId::from_bytes([3; 32]);

    #[test]
    fn what_nobody_needs_any_more_is_left_out_and_nothing_is_done_twice_in_a_row() {
        let (errands, done) = (Errands::default(), RefCell::new(Vec::new()));
        errands.need([ONE, TWO].into_iter());
        errands.run(Errand::Fetch(ONE), |errand| {
            if done.borrow().is_empty() {
                // As it comes while the store is slow: each returns at once.
                let at_once = |errand| errands.run(errand, |_| panic!("two at a time"));
                let first = [Errand::Fetch(TWO), Errand::Upkeep, Errand::Fetch(TWO), Errand::Upkeep];
                first.into_iter().for_each(at_once);
                errands.need([ONE, THREE].into_iter());
                // The second one comes late: it was on its way when another one took its place.
                [THREE, TWO, ONE, THREE].map(Errand::Fetch).into_iter().for_each(at_once);
            }
            done.borrow_mut().push(errand);
        });
        let expected = [Errand::Fetch(ONE), Errand::Upkeep, Errand::Fetch(THREE), Errand::Fetch(ONE)];
        assert_eq!(done.take(), expected);
        errands.run(Errand::Upkeep, |errand| done.borrow_mut().push(errand));
        assert_eq!(done.take(), [Errand::Upkeep], "whoever comes when all is done begins anew");
    }
}
