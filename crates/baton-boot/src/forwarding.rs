//! Connections that the bootloader forwards: as long as a program's answers are on their way, it must not end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often to look whether the last one has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Those of all threads.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// One of them, until the value goes.
#[derive(Debug)]
pub struct Forwarding(());

impl Forwarding {
    /// Begins.
    pub fn begin() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until no answer is on its way any more.
pub async fn over(limit: Duration) {
    let end = Instant::now() + limit;
    while UNDER_WAY.load(Ordering::SeqCst) > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
