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
