//! A list that grows at its front. A copy shares what there was, as with any list of links; but each link has many values, so
//! that most of what is added asks for no memory.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// How many values a link has at the most.
const LINK_MAX: usize = 32;

#[derive(Debug)]
pub(crate) struct Chain<T> {
    front: Option<Arc<Link<T>>>,
    len: usize,
}

#[derive(Debug)]
struct Link<T> {
    /// The latest is at the end.
    values: Vec<T>,
    next: Option<Arc<Self>>,
}

impl<T> Chain<T> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, value: T) {
        self.len += 1;
        // What a copy has too stays as it is, and after a copy few come.
        let mut room = 1;
        if let Some(link) = self.front.as_mut().and_then(Arc::get_mut) {
            if link.values.len() < LINK_MAX {
                link.values.push(value);
                return;
            }
            room = LINK_MAX;
        }
        let mut values = Vec::with_capacity(room);
        values.push(value);
        self.front = Some(Arc::new(Link { values, next: self.front.take() }));
    }

    /// All of them, the latest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let links = core::iter::successors(self.front.as_deref(), |link| link.next.as_deref());
        links.flat_map(|link| link.values.iter().rev())
    }
}

impl<T> Default for Chain<T> {
    fn default() -> Self {
        Self { front: None, len: 0 }
    }
}

impl<T> Clone for Chain<T> {
    fn clone(&self) -> Self {
        Self { front: self.front.clone(), len: self.len }
    }
}

impl<T> Drop for Chain<T> {
    /// One link after the other: where each ended the next one, a long chain would need a deep stack.
    fn drop(&mut self) {
        let mut front = self.front.take();
        while let Some(link) = front.and_then(Arc::into_inner) {
            front = link.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn values(chain: &Chain<usize>) -> Vec<usize> {
        let mut values: Vec<_> = chain.iter().copied().collect();
        values.reverse();
        values
    }

    proptest! {
        /// At each step one of the chains gets a value, or a copy of it is kept beside it.
        #[test]
        fn a_copy_stays_as_it_was_and_goes_on_by_itself(
            steps in proptest::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.1)), 0..300)
        ) {
            let mut chains = std::vec![(Chain::default(), Vec::new())];
            for (number, (which, copies)) in steps.into_iter().enumerate() {
                let (chain, expected) = which.get_mut(&mut chains[..]);
                if copies {
                    let copy = (chain.clone(), expected.clone());
                    chains.push(copy);
                } else {
                    chain.push(number);
                    expected.push(number);
                }
            }
            for (chain, expected) in chains {
                prop_assert_eq!(chain.len(), expected.len());
                prop_assert_eq!(values(&chain), expected);
            }
        }
    }

    #[test]
    fn a_long_chain_of_which_there_were_many_copies_ends_without_a_deep_stack() {
        let mut chain = Chain::default();
        for number in 0..300_000 {
            let _copy = chain.clone();
            chain.push(number);
        }
        assert_eq!(chain.iter().count(), 300_000);
    }
}
