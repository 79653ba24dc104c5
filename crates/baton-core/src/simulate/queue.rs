//! Events in the order of virtual time.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use crate::units::Millis;

/// For so many moments from now on each has a place of its own: what is sent, fetched and started mostly lies within.
const NEAR: usize = 4096;
const WORD: usize = u64::BITS as usize;
const WORDS: usize = NEAR / WORD;

/// Gives the earliest event first, and of several at one moment the one that was added first.
pub(super) struct Queue<E> {
    /// The moment of the event that was given last: none comes before it.
    from: Millis,
    /// The events of the moments from then on, in a ring.
    near: Box<[VecDeque<E>]>,
    /// Which places in it have events, one bit each.
    taken: [u64; WORDS],
    /// The events of later moments.
    far: BTreeMap<Millis, VecDeque<E>>,
    pushed: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        let near = (0..NEAR).map(|_| VecDeque::new()).collect();
        Self { from: Millis::ZERO, near, taken: [0; WORDS], far: BTreeMap::new(), pushed: 0 }
    }

    pub(super) fn push(&mut self, at: Millis, event: E) {
        self.pushed += 1;
        if self.is_near(at) {
            let place = place_of(at);
            self.near[place].push_back(event);
            self.taken[place / WORD] |= 1 << (place % WORD);
        } else {
            self.far.entry(at).or_default().push_back(event);
        }
    }

    pub(super) fn pop(&mut self) -> Option<(Millis, E)> {
        let at = self.next_at()?;
        self.advance(at);
        let place = place_of(at);
        let event = self.near[place].pop_front()?;
        if self.near[place].is_empty() {
            self.taken[place / WORD] &= !(1 << (place % WORD));
        }
        Some((at, event))
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.next_near().or_else(|| self.far.first_key_value().map(|(at, _)| *at))
    }

    /// How many events there ever were.
    pub(super) const fn pushed(&self) -> u64 {
        self.pushed
    }

    fn is_near(&self, at: Millis) -> bool {
        at.since(self.from).0 < NEAR as u64
    }

    /// The first moment of those that are near which has events.
    fn next_near(&self) -> Option<Millis> {
        let first = place_of(self.from);
        let since_first = u64::MAX << (first % WORD);
        // Once around: what lies before the first place, in the same word, is the latest.
        let place = (0..=WORDS).find_map(|ahead| {
            let word = (first / WORD + ahead) % WORDS;
            let mask = match ahead {
                0 => since_first,
                WORDS => !since_first,
                _ => u64::MAX,
            };
            let taken = self.taken[word] & mask;
            (taken != 0).then(|| word * WORD + taken.trailing_zeros() as usize)
        })?;
        Some(self.from + Millis(((place + NEAR - first) % NEAR) as u64))
    }

    /// It is that moment now. What is near by now was added before anything else could be at its moment.
    fn advance(&mut self, to: Millis) {
        self.from = to;
        while let Some(first) = self.far.first_entry() {
            let place = place_of(*first.key());
            if first.key().since(to).0 >= NEAR as u64 {
                break;
            }
            self.near[place] = first.remove();
            self.taken[place / WORD] |= 1 << (place % WORD);
        }
    }
}

/// Where in the ring a moment is.
const fn place_of(at: Millis) -> usize {
    (at.0 % NEAR as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each step adds an event so much later, or takes one.
        #[test]
        fn the_earliest_comes_first_and_of_one_moment_what_was_added_first(
            steps in proptest::collection::vec(prop_oneof![
                (0..100_u64).prop_map(Some),
                (0..3 * NEAR as u64).prop_map(Some),
                (0..1_000_000_u64).prop_map(Some),
                Just(None),
                Just(None),
            ], 0..400)
        ) {
            let (mut queue, mut expected, mut now) = (Queue::new(), Vec::new(), Millis::ZERO);
            for (number, step) in steps.into_iter().enumerate() {
                if let Some(after) = step {
                    queue.push(now + Millis(after), number);
                    expected.push((now + Millis(after), number));
                    continue;
                }
                expected.sort_unstable();
                prop_assert_eq!(queue.next_at(), expected.first().map(|(at, _)| *at));
                let popped = queue.pop();
                prop_assert_eq!(popped, (!expected.is_empty()).then(|| expected.remove(0)));
                now = popped.map_or(now, |(at, _)| at);
            }
            expected.sort_unstable();
            prop_assert_eq!(core::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), expected);
        }
    }
}
