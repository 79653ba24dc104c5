//! Which sockets of a listener's reuseport group belong to whom, and which of them get new connections.
//!
//! Each socket of the group is a seat. A slot has one, or, where each copy of a program has a queue of its own, one
//! for each copy. The kernel knows them by their position, and one that leaves the group moves the last one to its
//! place. So seats are not taken away: a slot keeps those that it has, and behind those that the selector names there
//! are always others, at least as many as may leave.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::supervisor::{Selection, Slot};
use crate::units::Share;

/// A socket of the group, by the number in which it was opened, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub u32);

/// Who gets new connections, as positions in the group; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Everybody reaches one of these.
    pub serving: Vec<u32>,
    /// Probes reach this one.
    pub private: u32,
    /// While only a part of everybody reaches `serving`: which part, and whom the others reach.
    pub rest: Option<(Share, Vec<u32>)>,
}

#[derive(Debug, Clone, Default)]
struct Row {
    /// By copy.
    seats: Vec<Seat>,
    /// How many of them have a copy: there may have been more once.
    copies: usize,
    /// Copies that do not run.
    bypassed: BTreeSet<u32>,
}

impl Row {
    /// Those that get connections. Where no copy runs, clients wait for all of them.
    fn drawn(&self) -> impl Iterator<Item = (u32, Seat)> {
        let copies = || (0..).zip(self.seats.iter().copied()).take(self.copies);
        let nobody = copies().all(|(copy, _)| self.bypassed.contains(&copy));
        copies().filter(move |(copy, _)| nobody || !self.bypassed.contains(copy))
    }
}

/// The seats of one listener.
#[derive(Debug, Clone)]
pub struct Seating {
    /// By position, as the kernel counts.
    order: Vec<Seat>,
    opened: u32,
    rows: BTreeMap<Slot, Row>,
}

impl Default for Seating {
    fn default() -> Self {
        Self::new()
    }
}

impl Seating {
    /// A group of one, that belongs to nobody yet.
    pub fn new() -> Self {
        Self { order: alloc::vec![Seat(0)], opened: 1, rows: BTreeMap::new() }
    }

    /// One more was opened: it is the last of the group.
    pub fn open(&mut self) {
        self.order.push(Seat(self.opened));
        self.opened += 1;
    }

    /// Gives a slot as many seats as it will have copies, those in front first; what it had it keeps. Tells how many
    /// must be opened before it has enough.
    pub fn claim(&mut self, slot: Slot, copies: usize) -> usize {
        let owned: BTreeSet<Seat> = self.rows.values().flat_map(|row| row.seats.iter().copied()).collect();
        let row = self.rows.entry(slot).or_default();
        let missing = copies.saturating_sub(row.seats.len());
        row.seats.extend(self.order.iter().filter(|seat| !owned.contains(seat)).take(missing));
        row.copies = row.copies.max(1);
        copies.saturating_sub(row.seats.len())
    }

    /// So many copies are about to be launched in a slot, and get its connections.
    pub fn launch(&mut self, slot: Slot, copies: usize) {
        if let Some(row) = self.rows.get_mut(&slot) {
            (row.copies, row.bypassed) = (copies.max(1), BTreeSet::new());
        }
    }

    /// A copy has ended: the others get its connections. Tells the seat in whose queue some may wait; none, if it
    /// shares one with the others.
    pub fn bypass(&mut self, slot: Slot, copy: u32) -> Option<Seat> {
        let row = self.rows.get_mut(&slot).filter(|row| row.copies > 1)?;
        let seat = row.seats.get(copy as usize).copied()?;
        row.bypassed.insert(copy);
        Some(seat)
    }

    /// A copy is about to be launched again. Tells its seat, if that was bypassed.
    pub fn take_back(&mut self, slot: Slot, copy: u32) -> Option<Seat> {
        let row = self.rows.get_mut(&slot)?;
        let bypassed = row.bypassed.remove(&copy);
        row.seats.get(copy as usize).copied().filter(|_| bypassed)
    }

    /// All seats of a slot.
    pub fn of(&self, slot: Slot) -> &[Seat] {
        self.rows.get(&slot).map_or(&[], |row| &row.seats)
    }

    /// Those that had a copy before the last launch and have none now.
    pub fn vacant(&self, slot: Slot) -> &[Seat] {
        self.rows.get(&slot).and_then(|row| row.seats.get(row.copies..)).unwrap_or(&[])
    }

    /// How many copies of a slot have a seat of their own.
    pub fn copies(&self, slot: Slot) -> usize {
        self.rows.get(&slot).map_or(0, |row| row.copies)
    }

    /// The seat of a copy: its own, or that of all.
    pub fn seat(&self, slot: Slot, copy: u32) -> Option<Seat> {
        let row = self.rows.get(&slot)?;
        let index = if row.copies > 1 { copy as usize } else { 0 };
        row.seats.get(index).copied()
    }

    /// Where a seat is in the group.
    pub fn position(&self, seat: Seat) -> Option<u32> {
        self.order.iter().position(|other| *other == seat).map(|position| position as u32)
    }

    /// All seats, by position.
    pub fn order(&self) -> &[Seat] {
        &self.order
    }

    /// The order was found out anew.
    pub fn learnt(&mut self, order: Vec<Seat>) {
        self.order = order;
    }

    /// A seat has left the group, and the last one has its place.
    pub fn left(&mut self, seat: Seat) {
        if let Some(position) = self.position(seat) {
            self.order.swap_remove(position as usize);
        }
    }

    /// A seat that had left is back, as the last one.
    pub fn joined(&mut self, seat: Seat) {
        if self.position(seat).is_none() {
            self.order.push(seat);
        }
    }

    /// Who gets new connections, and which copy a probe; nothing, where a slot has no seat in the group.
    pub fn choose(&self, selection: Selection, asked: u32) -> Option<Chosen> {
        let serving = self.drawn(selection.serving)?;
        let private = self.private(selection.private, asked)?;
        let rest = match selection.split {
            Some(split) => Some((split.share, self.drawn(split.rest)?)),
            None => None,
        };
        Some(Chosen { serving, private, rest })
    }

    fn drawn(&self, slot: Slot) -> Option<Vec<u32>> {
        let row = self.rows.get(&slot)?;
        let drawn: Vec<u32> = row.drawn().filter_map(|(_, seat)| self.position(seat)).collect();
        Some(drawn).filter(|drawn| !drawn.is_empty())
    }

    /// The copy that is asked, or another one, if it does not run.
    fn private(&self, slot: Slot, asked: u32) -> Option<u32> {
        let row = self.rows.get(&slot)?;
        let asked = row.drawn().find(|(copy, _)| *copy == asked).or_else(|| row.drawn().next());
        self.position(asked?.1)
    }

    /// How many must be opened, so that behind all that is named so many generations can leave the group.
    pub fn short(&self, selection: Selection, generations: usize) -> usize {
        let named =
            [Some(selection.serving), Some(selection.private), selection.split.map(|split| split.rest)];
        let seats = named.iter().flatten().flat_map(|slot| self.of(*slot));
        let last = seats.filter_map(|seat| self.position(*seat)).max().unwrap_or(0);
        let widest = self.rows.values().map(|row| row.copies).max().unwrap_or(1);
        (last as usize + 1 + generations * widest).saturating_sub(self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Split;
    use proptest::prelude::*;
    use std::vec;

    /// Slots with so many copies each, every one launched.
    fn seating(copies: &[usize]) -> Seating {
        let mut seating = Seating::new();
        for (slot, copies) in (0..).map(Slot).zip(copies) {
            seat(&mut seating, slot, *copies);
        }
        seating
    }

    fn seat(seating: &mut Seating, slot: Slot, copies: usize) {
        while seating.claim(slot, copies) > 0 {
            seating.open();
        }
        seating.launch(slot, copies);
    }

    fn chosen(serving: &[u32], private: u32) -> Option<Chosen> {
        Some(Chosen { serving: serving.into(), private, rest: None })
    }

    #[test]
    fn those_are_drawn_whose_copies_run() {
        // Copies that have ended, which one is asked, who is drawn, and whom the probe reaches.
        let table: [(&[u32], u32, &[u32], u32); 7] = [
            (&[], 0, &[1, 2, 3], 1),
            (&[], 2, &[1, 2, 3], 3),
            (&[0], 0, &[2, 3], 2),
            (&[1], 1, &[1, 3], 1),
            (&[2, 0], 1, &[2], 2),
            (&[0, 1, 2], 1, &[1, 2, 3], 2),
            (&[7], 7, &[1, 2, 3], 1),
        ];
        for (ended, asked, drawn, private) in table {
            let mut seating = seating(&[1, 3]);
            let told = ended.iter().filter_map(|copy| seating.bypass(Slot(1), *copy)).count();
            assert_eq!(told, ended.iter().filter(|copy| **copy < 3).count());
            assert_eq!(seating.choose(Selection::of(Slot(1)), asked), chosen(drawn, private), "{ended:?}");
            for copy in ended {
                assert_eq!(seating.take_back(Slot(1), *copy).is_some(), *copy < 3);
                assert_eq!(seating.take_back(Slot(1), *copy), None, "it is back");
            }
            assert_eq!(seating.choose(Selection::of(Slot(1)), 0), chosen(&[1, 2, 3], 1), "{ended:?}");
        }
    }

    #[test]
    fn copies_that_share_a_seat_are_not_bypassed() {
        let mut seating = seating(&[1]);
        assert_eq!((seating.bypass(Slot(0), 0), seating.bypass(Slot(0), 2)), (None, None));
        assert_eq!(seating.seat(Slot(0), 2), Some(Seat(0)));
        assert_eq!(seating.choose(Selection::of(Slot(0)), 2), chosen(&[0], 0));
    }

    #[test]
    fn a_split_is_drawn_from_both() {
        let seating = seating(&[2, 3]);
        let split = Split { share: Share::from_percent(5), rest: Slot(0) };
        let selection = Selection { split: Some(split), ..Selection::of(Slot(1)) };
        let rest = Some((split.share, vec![0, 1]));
        assert_eq!(seating.choose(selection, 1), Some(Chosen { serving: vec![2, 3, 4], private: 3, rest }));
    }

    #[test]
    fn a_launch_with_fewer_copies_leaves_seats_vacant_and_one_with_more_takes_them_again() {
        let mut seating = seating(&[3]);
        seating.bypass(Slot(0), 0);
        seat(&mut seating, Slot(0), 1);
        assert_eq!(seating.choose(Selection::of(Slot(0)), 0), chosen(&[0], 0));
        assert_eq!(seating.vacant(Slot(0)), [Seat(1), Seat(2)]);
        seat(&mut seating, Slot(0), 4);
        assert_eq!(seating.of(Slot(0)), [0, 1, 2, 3].map(Seat));
        assert!(seating.vacant(Slot(0)).is_empty());
    }

    /// What may happen to a group.
    #[derive(Debug, Clone)]
    enum Step {
        Launch(u32, usize),
        Bypass(u32, u32),
        TakeBack(u32, u32),
        /// A program takes the seat of a copy out of the group. The bootloader does not know.
        Leave(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (slot, copy) = (0..4u32, 0..5u32);
        prop_oneof![
            (slot.clone(), 1..5usize).prop_map(|(slot, copies)| Step::Launch(slot, copies)),
            (slot.clone(), copy.clone()).prop_map(|(slot, copy)| Step::Bypass(slot, copy)),
            (slot.clone(), copy.clone()).prop_map(|(slot, copy)| Step::TakeBack(slot, copy)),
            (slot, copy).prop_map(|(slot, copy)| Step::Leave(slot, copy)),
        ]
    }

    /// The seats that the kernel finds at these positions.
    fn at(kernel: &[Seat], positions: &[u32]) -> Vec<Seat> {
        positions.iter().map(|position| kernel[*position as usize]).collect()
    }

    proptest! {
        /// Whatever happens, and whoever of the others leaves: a connection reaches a seat of the slot that serves.
        #[test]
        fn nobody_goes_astray(steps in proptest::collection::vec(step(), 0..60), serving in 0..4u32) {
            let mut seating = seating(&[1, 2, 1, 3]);
            let selection = Selection::of(Slot(serving));
            for step in steps {
                match step {
                    Step::Launch(slot, copies) => seat(&mut seating, Slot(slot), copies),
                    Step::Bypass(slot, copy) => drop(seating.bypass(Slot(slot), copy)),
                    Step::TakeBack(slot, copy) => drop(seating.take_back(Slot(slot), copy)),
                    Step::Leave(slot, copy) => if let Some(seat) = seating.seat(Slot(slot), copy) {
                        seating.left(seat);
                        seating.joined(seat);
                    },
                }
                for _ in 0..seating.short(selection, 3) {
                    seating.open();
                }
                let chosen = seating.choose(selection, 0).unwrap();
                let drawn = at(seating.order(), &chosen.serving);
                prop_assert!(drawn.iter().all(|seat| seating.of(Slot(serving)).contains(seat)));
                prop_assert!(drawn.iter().all(|seat| !seating.vacant(Slot(serving)).contains(seat)));
                let mut kernel = seating.clone();
                for slot in (0..4).filter(|slot| *slot != serving) {
                    for copy in 0..kernel.copies(Slot(slot)) {
                        kernel.left(seating.seat(Slot(slot), copy as u32).unwrap());
                    }
                }
                prop_assert_eq!(at(kernel.order(), &chosen.serving), drawn, "somebody else is there");
            }
        }

        #[test]
        fn no_seat_is_given_to_two(launches in proptest::collection::vec((0..5u32, 1..5usize), 0..30)) {
            let mut seating = Seating::new();
            for (slot, copies) in launches {
                seat(&mut seating, Slot(slot), copies);
                let all: Vec<Seat> = (0..5).flat_map(|slot| seating.of(Slot(slot)).to_vec()).collect();
                let each: BTreeSet<Seat> = all.iter().copied().collect();
                prop_assert_eq!(all.len(), each.len());
                prop_assert!(seating.order().len() <= 25, "it does not grow without end");
            }
        }
    }
}
