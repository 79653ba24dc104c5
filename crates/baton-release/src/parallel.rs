//! The same work on many things, on a few threads.

use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(feature = "push")]
use std::sync::{Condvar, MutexGuard};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many things are worked on at once. Most of the time is spent waiting for a network or a disk, so it does
/// not depend on the number of processors; a store must bear it from thousands of members.
const THREADS: usize = 8;

/// How many packs are worked on at once: each is in memory, up to twice while it is read, and a bootloader has little of it.
const PACKS: usize = 2;

/// How many ranges are read at once for each of those packs. A member has not more than 16 connections for them.
const RANGES: usize = 8;

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

/// The same for ranges of packs, of each of which a server sends a part at the same time.
pub(crate) fn for_each_range<T: Sync, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    on_threads(RANGES, items, work)
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
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Does `work` on an item and on everything that comes out of it; stops at the first error and returns it.
#[cfg(feature = "push")]
pub(crate) fn for_each_out_of<T: Send, E: Send>(
    first: T,
    work: impl Fn(T) -> Result<Vec<T>, E> + Sync,
) -> Result<(), E> {
    let heap = Mutex::new(Heap { waiting: vec![first], under_way: 0, asleep: 0, failed: None });
    let changed = Condvar::new();
    let worker = || {
        let mut held = lock(&heap);
        loop {
            if let Some(item) = held.waiting.pop() {
                held.under_way += 1;
                drop(held);
                let done = work(item);
                held = lock(&heap);
                held.under_way -= 1;
                match done {
                    Ok(more) => held.waiting.extend(more),
                    Err(error) => {
                        held.waiting.clear();
                        held.failed.get_or_insert(error);
                    }
                }
                // This worker goes on with one of them itself. Waking those who find nothing costs more than the work.
                for _ in 0..held.asleep.min(held.waiting.len().saturating_sub(1)) {
                    changed.notify_one();
                }
            } else if held.under_way > 0 && held.failed.is_none() {
                held.asleep += 1;
                held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                held.asleep -= 1;
            } else {
                changed.notify_all();
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..THREADS {
            scope.spawn(worker);
        }
        worker();
    });
    match heap.into_inner().unwrap_or_else(PoisonError::into_inner).failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// What is still to be done, while what is under way may add to it.
#[cfg(feature = "push")]
struct Heap<T, E> {
    waiting: Vec<T>,
    under_way: usize,
    /// How many wait for something to do.
    asleep: usize,
    failed: Option<E>,
}

#[cfg(feature = "push")]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn what_comes_out_of_it_is_done_too() {
        let seen = Mutex::new(Vec::new());
        let done: Result<(), ()> = for_each_out_of(1_u32, |n| {
            lock(&seen).push(n);
            Ok([2 * n, 2 * n + 1].into_iter().filter(|n| *n < 1000).collect())
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!((done, seen), (Ok(()), (1..1000).collect()));
        assert_eq!(
            for_each_out_of(1_u64, |n| if n > 500 { Err(n > 500) } else { Ok(vec![n + 1; 2]) }),
            Err(true)
        );
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
