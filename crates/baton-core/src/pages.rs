//! A map of members by their names, of which a copy shares all that is not changed afterwards.
//!
//! A page has a few members side by side: to find one reads little that is not near by, to go through all reads on and on, and
//! what is changed after a copy was made is copied page by page.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::MemberId;

/// How many members the pages have, taken together, for each page at the most.
const PAGE: usize = 8;
/// How many pages a group has at the most. A change after a copy copies one group of pages, and one page.
const GROUP: usize = 64;

#[derive(Debug, Clone)]
pub(crate) struct Pages<V> {
    groups: Vec<Arc<[Arc<Page<V>>]>>,
    /// How many pages there are: none, or a power of two.
    pages: usize,
    size: usize,
}

#[derive(Debug, Clone)]
struct Page<V> {
    /// A part of the hash of each name: nearly always enough to tell who it is.
    marks: Vec<u32>,
    values: Vec<(MemberId, V)>,
}

impl<V: Clone> Pages<V> {
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn get(&self, id: &MemberId) -> Option<&V> {
        let (group, page) = self.place_of(id)?;
        let page = &self.groups[group][page];
        page.find(id).map(|at| &page.values[at].1)
    }

    pub(crate) fn get_mut(&mut self, id: &MemberId) -> Option<&mut V> {
        let (group, page) = self.place_of(id)?;
        // First: nothing is copied for somebody who is not there.
        let at = self.groups[group][page].find(id)?;
        Some(&mut self.page_mut(group, page).values[at].1)
    }

    /// Adds a member, or gives it another value.
    pub(crate) fn insert(&mut self, id: &MemberId, value: V) {
        if let Some(known) = self.get_mut(id) {
            *known = value;
            return;
        }
        if self.size >= PAGE * self.pages {
            self.grow();
        }
        if let Some((group, page)) = self.place_of(id) {
            self.page_mut(group, page).push(id.clone(), value);
            self.size += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: &MemberId) {
        let Some((group, page)) = self.place_of(id) else { return };
        let Some(at) = self.groups[group][page].find(id) else { return };
        let page = self.page_mut(group, page);
        page.marks.swap_remove(at);
        page.values.swap_remove(at);
        self.size -= 1;
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&MemberId, &V)> {
        let pages = self.groups.iter().flat_map(|group| group.iter());
        pages.flat_map(|page| page.values.iter()).map(|(id, value)| (id, value))
    }

    /// In which group the page of a member is, and where in it; none where there is no page yet.
    fn place_of(&self, id: &MemberId) -> Option<(usize, usize)> {
        let page = id.digest() as usize & self.pages.checked_sub(1)?;
        Some((page / GROUP, page % GROUP))
    }

    fn page_mut(&mut self, group: usize, page: usize) -> &mut Page<V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.groups[group])[page])
    }

    /// Makes twice as many pages.
    fn grow(&mut self) {
        self.pages = (2 * self.pages).max(1);
        let mut pages: Vec<_> = (0..self.pages).map(|_| Page::new()).collect();
        for (id, value) in self.iter() {
            pages[id.digest() as usize & (self.pages - 1)].push(id.clone(), value.clone());
        }
        let mut pages = pages.into_iter().map(Arc::new).peekable();
        self.groups.clear();
        while pages.peek().is_some() {
            self.groups.push(pages.by_ref().take(GROUP).collect());
        }
    }
}

impl<V> Page<V> {
    const fn new() -> Self {
        Self { marks: Vec::new(), values: Vec::new() }
    }

    fn find(&self, id: &MemberId) -> Option<usize> {
        let mark = mark_of(id);
        let like = self.marks.iter().enumerate().filter(|(_, known)| **known == mark);
        like.map(|(at, _)| at).find(|at| self.values[*at].0 == *id)
    }

    fn push(&mut self, id: MemberId, value: V) {
        self.marks.push(mark_of(&id));
        self.values.push((id, value));
    }
}

impl<V> Default for Pages<V> {
    fn default() -> Self {
        Self { groups: Vec::new(), pages: 0, size: 0 }
    }
}

/// Another part of the hash than that which says on which page a member is.
const fn mark_of(id: &MemberId) -> u32 {
    (id.digest() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16),
        Change(u16),
        Remove(u16),
        /// A copy is kept, or the one kept before is gone on with.
        Copy,
        GoBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        let member = || 0..3000_u16;
        prop_oneof![
            300 => member().prop_map(Step::Insert),
            100 => member().prop_map(Step::Change),
            100 => member().prop_map(Step::Remove),
            3 => Just(Step::Copy),
            1 => Just(Step::GoBack),
        ]
    }

    fn id(member: u16) -> MemberId {
        std::format!("m-{member}").parse().unwrap()
    }

    fn check(pages: &Pages<usize>, expected: &BTreeMap<MemberId, usize>) {
        assert_eq!(pages.size(), expected.len());
        assert_eq!(
            pages.iter().map(|(id, value)| (id.clone(), *value)).collect::<BTreeMap<_, _>>(),
            *expected
        );
        assert!((0..3000).map(id).all(|id| pages.get(&id) == expected.get(&id)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn it_has_what_any_map_would_and_a_copy_stays_as_it_was(
            steps in proptest::collection::vec(step(), 0..4000)
        ) {
            let mut now = (Pages::default(), BTreeMap::new());
            let mut kept = now.clone();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(member) => {
                        now.0.insert(&id(member), number);
                        now.1.insert(id(member), number);
                    }
                    Step::Change(member) => {
                        let value = now.0.get_mut(&id(member));
                        prop_assert_eq!(value.is_some(), now.1.contains_key(&id(member)));
                        value.into_iter().for_each(|value| *value = number);
                        now.1.entry(id(member)).and_modify(|value| *value = number);
                    }
                    Step::Remove(member) => {
                        now.0.remove(&id(member));
                        now.1.remove(&id(member));
                    }
                    Step::Copy => kept = now.clone(),
                    Step::GoBack => {
                        check(&now.0, &now.1);
                        now = kept.clone();
                    }
                }
            }
            check(&now.0, &now.1);
            check(&kept.0, &kept.1);
        }
    }

    #[test]
    fn a_page_stays_small_however_many_members_there_are() {
        let mut pages = Pages::default();
        (0..10_000).for_each(|member| pages.insert(&id(member), ()));
        let largest = pages.groups.iter().flat_map(|group| group.iter()).map(|page| page.values.len()).max();
        assert!(largest < Some(4 * PAGE), "{largest:?}");
        assert!(pages.groups.iter().all(|group| group.len() <= GROUP));
    }
}
