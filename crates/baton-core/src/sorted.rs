//! A set in order, of which a copy shares all that is not changed afterwards: pieces of many values, one after the other.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// How many values a piece has at the most. A change after a copy copies one piece, and the list of all pieces.
const PIECE_MAX: usize = 128;

#[derive(Debug, Clone)]
pub(crate) struct Sorted<T> {
    /// None of them is empty.
    pieces: Arc<Vec<Arc<Vec<T>>>>,
}

impl<T: Ord + Clone> Sorted<T> {
    /// All of them, the least first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    pub(crate) fn insert(&mut self, value: T) {
        let at = self.piece_of(&value);
        let pieces = Arc::make_mut(&mut self.pieces);
        // What is greater than all there is goes to the end of the last piece.
        let at = at.min(pieces.len().saturating_sub(1));
        let Some(piece) = pieces.get_mut(at) else {
            return pieces.push(Arc::new(alloc::vec![value]));
        };
        let piece = Arc::make_mut(piece);
        if let Err(place) = piece.binary_search(&value) {
            piece.insert(place, value);
        }
        if piece.len() > PIECE_MAX {
            let rest = piece.split_off(PIECE_MAX / 2);
            pieces.insert(at + 1, Arc::new(rest));
        }
    }

    pub(crate) fn remove(&mut self, value: &T) {
        let at = self.piece_of(value);
        let place = self.pieces.get(at).and_then(|piece| piece.binary_search(value).ok());
        let Some(place) = place else { return };
        let pieces = Arc::make_mut(&mut self.pieces);
        let piece = Arc::make_mut(&mut pieces[at]);
        piece.remove(place);
        if piece.is_empty() {
            pieces.remove(at);
        }
    }

    /// The first piece that does not end before this value.
    fn piece_of(&self, value: &T) -> usize {
        self.pieces.partition_point(|piece| piece.last().is_some_and(|last| last < value))
    }
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { pieces: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16),
        Remove(u16),
        /// A copy is kept, or the one kept before is gone on with.
        Copy,
        GoBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            300 => (0..2000_u16).prop_map(Step::Insert),
            200 => (0..2000_u16).prop_map(Step::Remove),
            3 => Just(Step::Copy),
            1 => Just(Step::GoBack),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn it_has_what_any_set_would_in_order_and_a_copy_stays_as_it_was(
            steps in proptest::collection::vec(step(), 0..4000)
        ) {
            let mut now = (Sorted::default(), BTreeSet::new());
            let mut kept = now.clone();
            for step in steps {
                match step {
                    Step::Insert(value) => {
                        now.0.insert(value);
                        now.1.insert(value);
                    }
                    Step::Remove(value) => {
                        now.0.remove(&value);
                        now.1.remove(&value);
                    }
                    Step::Copy => kept = now.clone(),
                    Step::GoBack => {
                        prop_assert!(now.0.iter().eq(&now.1));
                        now = kept.clone();
                    }
                }
            }
            prop_assert!(now.0.iter().eq(&now.1));
            prop_assert!(kept.0.iter().eq(&kept.1));
            prop_assert!(now.0.pieces.iter().all(|piece| (1..=PIECE_MAX).contains(&piece.len())));
        }
    }
}
