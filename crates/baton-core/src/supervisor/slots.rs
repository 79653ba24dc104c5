//! Slots: sets of listening sockets, one socket per listener, that generations take turns to own.
//!
//! A socket that leaves a reuseport group moves the last one to its index, and nothing makes that atomic with
//! the selector. So slots never leave: when a generation is gone, its slot waits for the next one. Behind those
//! that the selector names there are always others, at least as many as other generations live: should a
//! program take a socket out of the group, one of those moves and not a named one.

use alloc::vec::Vec;

/// The index of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Free,
    Taken,
    /// Given back; connections that still land there are being forwarded.
    Leaving {
        owner_gone: bool,
        quiet: bool,
    },
}

/// Which slots there are and who has them.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    uses: Vec<Use>,
}

impl Slots {
    /// Takes the lowest free slot.
    pub fn take(&mut self) -> Slot {
        let free = self.uses.iter().position(|used| *used == Use::Free).unwrap_or(self.uses.len());
        if free == self.uses.len() {
            self.uses.push(Use::Free);
        }
        self.uses[free] = Use::Taken;
        Slot(free as u32)
    }

    /// Nobody shall get this slot's connections any more; `false`, if that was so before. `owner_gone`: no process
    /// holds it.
    pub fn leave(&mut self, slot: Slot, owner_gone: bool) -> bool {
        let Some(used @ Use::Taken) = self.uses.get_mut(slot.0 as usize) else { return false };
        *used = Use::Leaving { owner_gone, quiet: false };
        true
    }

    /// The processes that held the slot are gone.
    pub fn owner_gone(&mut self, slot: Slot) {
        self.settle(slot, true, false);
    }

    /// Nothing has landed on the slot for long enough.
    pub fn quiet(&mut self, slot: Slot) {
        self.settle(slot, false, true);
    }

    fn settle(&mut self, slot: Slot, gone: bool, silent: bool) {
        if let Some(used) = self.uses.get_mut(slot.0 as usize)
            && let Use::Leaving { owner_gone, quiet } = *used
        {
            let (owner_gone, quiet) = (owner_gone || gone, quiet || silent);
            *used = if owner_gone && quiet { Use::Free } else { Use::Leaving { owner_gone, quiet } };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slot_comes_back_when_its_owner_is_gone_and_it_is_quiet() {
        let mut slots = Slots::default();
        assert_eq!((slots.take(), slots.take()), (Slot(0), Slot(1)));
        assert!(slots.leave(Slot(0), false));
        assert!(!slots.leave(Slot(0), false), "once is enough");
        slots.quiet(Slot(0));
        assert_eq!(slots.take(), Slot(2));
        slots.owner_gone(Slot(0));
        assert_eq!(slots.take(), Slot(0));
        slots.leave(Slot(2), true);
        slots.quiet(Slot(2));
        assert_eq!(slots.take(), Slot(2));
    }

    proptest! {
        #[test]
        fn no_slot_is_given_to_two(steps in proptest::collection::vec((0u8..4, 0u32..6), 0..200)) {
            let mut slots = Slots::default();
            let mut taken = std::collections::BTreeSet::new();
            for (step, slot) in steps {
                match step {
                    0 => prop_assert!(taken.insert(slots.take()), "given twice"),
                    1 => { slots.leave(Slot(slot), false); }
                    2 => { slots.quiet(Slot(slot)); }
                    _ => slots.owner_gone(Slot(slot)),
                }
                taken.retain(|slot| slots.uses[slot.0 as usize] != Use::Free);
            }
        }
    }
}
