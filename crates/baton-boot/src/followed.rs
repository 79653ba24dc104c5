//! A process that was not started as a main process and is one now.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_core::supervisor::Event;
use baton_sys::process::{self, Process};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::tree::Main;

/// When to look again whether a process has ended that cannot be waited for: there may be no descriptor left.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A main process that may be another one's child. It is watched, whoever reaps it, for as long as this is kept.
#[derive(Debug)]
pub struct Followed {
    /// Which.
    pub main: Main,
    ended: Arc<AtomicBool>,
    watch: JoinHandle<()>,
}

impl Followed {
    /// Watches this one from now on; when it has ended, that is said to `events` so that somebody looks.
    pub fn watch(main: Main, events: mpsc::UnboundedSender<Event>) -> Self {
        let ended = Arc::<AtomicBool>::default();
        let seen = ended.clone();
        let watch = tokio::spawn(async move {
            if let Some(process) = main.process() {
                until_ended(process).await;
            }
            seen.store(true, Ordering::Relaxed);
            // The receiver lives as long as the member.
            let _ = events.send(Event::Woken);
        });
        Self { main, ended, watch }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn until_ended(process: Process) {
    loop {
        match process::open(process).and_then(watched) {
            Ok(open) if open.readable().await.is_ok() => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Ok(_) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

#[expect(
    deprecated,
    reason = "its unsafe successor asks that the descriptor stay open, as this one does by its type"
)]
fn watched(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(process, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "nobody reaps this child but the test")]
    fn sleeping() -> (std::process::Child, Main) {
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        (child, Main { pid, started: process::started(pid) })
    }

    #[tokio::test]
    async fn the_end_of_one_that_is_followed_is_seen_before_anybody_reaps_it() {
        let (mut child, main) = sleeping();
        let (events, mut happened) = mpsc::unbounded_channel();
        let followed = Followed::watch(main, events.clone());
        assert!(!followed.has_ended());
        child.kill().unwrap();
        assert_eq!(happened.recv().await, Some(Event::Woken));
        assert!(followed.has_ended());
        child.wait().unwrap();
        // Nor is one waited for that was gone before.
        let followed = Followed::watch(main, events);
        assert_eq!(happened.recv().await, Some(Event::Woken));
        assert!(followed.has_ended());
    }

    #[tokio::test]
    async fn whoever_is_followed_no_more_is_watched_no_more() {
        let (mut child, main) = sleeping();
        let (events, _happened) = mpsc::unbounded_channel();
        for _ in 0..100 {
            drop(Followed::watch(main, events.clone()));
            let followed = Followed::watch(main, events.clone());
            tokio::task::yield_now().await;
            drop(followed);
        }
        // Each watch holds one.
        while events.strong_count() > 1 {
            tokio::task::yield_now().await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
