//! Going on after a panic.
//!
//! A panic is a fault of the bootloader, and no reason to end a program that works: as process 1 it would take the
//! container with it. What was being done is lost and told; whatever comes next is done as ever. What aborts cannot be
//! outlived: a stack that is full, an allocation that fails, a second panic within the first.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::task::Poll;
use std::time::Duration;

use crate::log;

/// How long to rest after a panic: what panics at once again shall not take the program's processor.
pub const REST: Duration = Duration::from_secs(1);

/// Has panics told as the bootloader tells everything else.
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| log::say_now(&told(panic))));
}

fn told(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("a panic without words");
    format!("fault in the bootloader{place}: {what}; the program goes on, please report this")
}

/// Does something until it returns, however often it panics.
pub fn outlive<T>(mut work: impl FnMut() -> T) -> T {
    outlive_resting(REST, &mut work)
}

fn outlive_resting<T>(rest: Duration, work: &mut impl FnMut() -> T) -> T {
    loop {
        match catch_unwind(AssertUnwindSafe(&mut *work)) {
            Ok(done) => return done,
            Err(_) => std::thread::park_timeout(rest),
        }
    }
}

/// What comes of something that waits; nothing, if it panicked. [`REST`] before it is done again.
pub async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// The [`REST`] of something that waits. What is to be done until it returns, however often it panics, is
/// `while caught(work()).await.is_none() { rest().await }`.
pub async fn rest() {
    tokio::time::sleep(REST).await;
}

/// What comes of something; nothing, if it panicked.
pub fn caught_now<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Panics where a test wants a fault: once for each time that `BATON_TEST_FAULTS` has this name. What is shipped has none of this.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "it is what it is for")]
pub fn fault(name: &str) {
    use std::sync::{LazyLock, Mutex, PoisonError};
    static WANTED: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| {
        let names = std::env::var("BATON_TEST_FAULTS").unwrap_or_default();
        Mutex::new(names.split(',').map(str::to_owned).collect())
    });
    let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = wanted.iter().position(|wanted| wanted == name) {
        wanted.swap_remove(index);
        drop(wanted);
        panic!("the one that a test wants in {name}");
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub fn fault(_: &str) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_done_again_and_keeps_what_it_has() {
        let mut tries = Vec::new();
        let sum = outlive_resting(Duration::ZERO, &mut || {
            tries.push(tries.len());
            assert!(tries.len() > 3, "not yet");
            tries.iter().sum::<usize>()
        });
        assert_eq!((sum, tries), (6, vec![0, 1, 2, 3]));
    }

    #[tokio::test]
    async fn what_waits_and_panics_is_done_again() {
        let mut tries = 0;
        let mut work = async || {
            tries += 1;
            tokio::task::yield_now().await;
            assert!(tries > 2, "not yet");
        };
        while caught(work()).await.is_none() {}
        assert_eq!(tries, 3);
    }

    #[tokio::test]
    async fn what_waits_is_caught_before_and_after_it_waited() {
        assert_eq!(caught(async { 7 }).await, Some(7));
        let at_once: Option<()> = caught(async { panic!("at once") }).await;
        assert_eq!(at_once, None);
        let later: Option<()> = caught(async {
            tokio::task::yield_now().await;
            panic!("later")
        })
        .await;
        assert_eq!(later, None);
    }
}
