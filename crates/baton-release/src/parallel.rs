//! The same work on many things, on a few threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many things are worked on at once. Most of the time is spent waiting for a network or a disk, so it does
/// not depend on the number of processors; a store must bear it from thousands of members.
const THREADS: usize = 8;

/// How many packs are worked on at once: each is in memory, and a bootloader has little of it.
const PACKS: usize = 4;

/// Does `work` on every item; stops at the first error and returns it.
pub(crate) fn for_each<T: Sync, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    on_threads(THREADS, items, work)
}

/// The same where each item takes the memory of a pack.
pub(crate) fn for_each_pack<T: Sync, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    on_threads(PACKS, items, work)
}

fn on_threads<T: Sync, E: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let worker = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(item) {
                next.store(items.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(|held| held.into_inner()).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match failed.into_inner().unwrap_or_else(|held| held.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once() {
        for count in [0, 1, 3, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let sum = AtomicUsize::new(0);
            let done: Result<(), ()> = for_each(&items, |item| {
                sum.fetch_add(item + 1, Ordering::Relaxed);
                Ok(())
            });
            assert_eq!((done, sum.into_inner()), (Ok(()), count * (count + 1) / 2));
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let items: Vec<usize> = (0..100_000).collect();
        let done = AtomicUsize::new(0);
        let result = for_each(&items, |_| match done.fetch_add(1, Ordering::Relaxed) {
            5 => Err("five"),
            _ => Ok(()),
        });
        assert_eq!(result, Err("five"));
        assert!(done.into_inner() < items.len());
    }
}
