//! Children that have ended, a few at a time: they may end faster than they are taken, and nothing else may wait for that.

/// How many are taken before everything else gets its turn.
const AT_ONCE: usize = 512;

/// Takes what comes next until nothing does; whether there may be more.
pub fn a_few<T>(mut next: impl FnMut() -> Option<T>, mut take: impl FnMut(T)) -> bool {
    for _ in 0..AT_ONCE {
        match next() {
            Some(one) => take(one),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p20_f7_children_that_end_faster_than_they_are_taken_are_taken_a_few_at_a_time() {
        let mut taken = 0;
        let more = a_few(
            || Some(()),
            |()| {
                taken += 1;
                assert!(taken <= AT_ONCE, "everything else waits");
            },
        );
        assert!(more);
        let mut few = [1, 2, 3].into_iter();
        let mut sum = 0;
        assert!(!a_few(|| few.next(), |one| sum += one));
        assert_eq!(sum, 6);
    }
}
