//! A server's turn to prune, which it has for as long as it takes, however long that is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_release::store::{Kind, StoreError};
use baton_store::state::{PRUNE_TURN, StateStore};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::super::{Refusal, blocking};

/// How often it is renewed: several times before it would end, should one or two of them fail.
const RENEW_EVERY: Duration = Duration::from_secs(6);

/// The turn to prune of this server, renewed until it ends.
pub(super) struct Turn {
    held: Arc<Held>,
    has_ended: bool,
    _renewing: AbortOnDropHandle<()>,
}

/// What stands in the state store.
struct Held {
    states: Arc<dyn StateStore>,
    begun: u64,
    renewed: Mutex<Instant>,
}

impl Turn {
    /// Takes it, where no other server has it. Blocks, on a thread of the runtime.
    pub(super) fn begin(states: Arc<dyn StateStore>) -> Result<Self, Refusal> {
        let renewed = Mutex::new(Instant::now());
        let Some(begun) = states.begin_prune(PRUNE_TURN)? else {
            return Err(Refusal::unavailable(
                "another server is removing releases, or was killed while it did, a minute ago at most: try again",
            ));
        };
        let held = Arc::new(Held { states, begun, renewed });
        let renewing = AbortOnDropHandle::new(tokio::spawn(renew(Arc::clone(&held))));
        Ok(Self { held, has_ended: false, _renewing: renewing })
    }

    /// Whether it has not ended. Blocks.
    pub(super) fn holds(&self) -> Result<(), StoreError> {
        self.held.holds()
    }

    /// Ends it: on return another server may have one. Blocks. Where that fails, it ends by itself.
    pub(super) fn end(mut self) {
        self.held.end();
        self.has_ended = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Whoever asked for the pruning has gone, and others are served on this thread.
        if let (false, Ok(runtime)) = (self.has_ended, Handle::try_current()) {
            let held = Arc::clone(&self.held);
            drop(runtime.spawn_blocking(move || held.end()));
        }
    }
}

/// Renews a turn again and again: a look through a large store takes longer than a turn holds. Whether it was lost is found out
/// before anything is removed.
async fn renew(held: Arc<Held>) {
    loop {
        sleep(RENEW_EVERY).await;
        let held = Arc::clone(&held);
        let _ = blocking(move || held.holds()).await;
    }
}

impl Held {
    fn holds(&self) -> Result<(), StoreError> {
        let lost =
            || StoreError::new(Kind::Unavailable, "go on with removing: another server may have begun");
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.elapsed() < RENEW_EVERY {
            return Ok(());
        }
        let now = Instant::now();
        if !self.states.go_on_pruning(self.begun, PRUNE_TURN).map_err(|error| lost().because(error))? {
            return Err(lost());
        }
        *renewed = now;
        Ok(())
    }

    fn end(&self) {
        let _ = self.states.end_prune(self.begun);
    }
}

#[cfg(test)]
mod tests;
