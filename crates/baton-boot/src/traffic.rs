//! How many connections a generation that bakes has accepted, where that is asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::ids::GenerationId;
use baton_core::supervisor::Event;
use baton_sys::accepted::Accepted;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::log;

/// How often it is counted, and told if it has grown: control hears of it as often.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How late the kernel may tell that a connection has gone: those of before the handover count for nothing.
const SETTLE: Duration = Duration::from_millis(100);

/// The counts that go on.
#[derive(Default)]
pub struct Traffic {
    counts: BTreeMap<GenerationId, Count>,
}

struct Count {
    task: JoinHandle<()>,
    /// How many of the connections are this bootloader's own: its probes prove nothing. Those of before [`SETTLE`] are among
    /// them, whether or not they are counted: too few are counted rather than too many.
    own: Arc<AtomicU64>,
}

impl Drop for Count {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Traffic {
    /// Counts what is accepted at these addresses from now on, until it is enough.
    pub fn count(
        &mut self,
        generation: GenerationId,
        addresses: Vec<SocketAddr>,
        enough: u64,
        events: mpsc::UnboundedSender<Event>,
    ) {
        let accepted = match Accepted::since_now(addresses) {
            Ok(accepted) => accepted,
            Err(error) => {
                log::say(format_args!(
                    "generation {generation}: the kernel does not tell how many connections it accepts: {error}"
                ));
                return;
            }
        };
        let own = Arc::<AtomicU64>::default();
        let task = tokio::spawn(watch(generation, accepted, Arc::clone(&own), enough, events));
        self.counts.insert(generation, Count { task, own });
    }

    /// A generation is about to be asked over a connection how it is.
    pub fn note_own(&self, generation: GenerationId) {
        if let Some(count) = self.counts.get(&generation) {
            count.own.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody wants to know any more.
    pub fn forget(&mut self, generation: GenerationId) {
        self.counts.remove(&generation);
    }
}

async fn watch(
    generation: GenerationId,
    mut accepted: Accepted,
    own: Arc<AtomicU64>,
    enough: u64,
    events: mpsc::UnboundedSender<Event>,
) {
    let says_no_more = |error| {
        log::say(format_args!(
            "generation {generation}: the kernel tells no more how many connections it accepts: {error}"
        ));
    };
    tokio::time::sleep(SETTLE).await;
    if let Err(error) = accepted.forget_ended() {
        return says_no_more(error);
    }
    let (mut ticks, mut told) = (interval(COUNT_EVERY), None);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while told.is_none_or(|told| told < enough) {
        ticks.tick().await;
        // It takes the kernel a moment to list them, and no disk.
        let counted = match accepted.count() {
            Ok(counted) => counted.saturating_sub(own.load(Ordering::Relaxed)).min(enough),
            Err(error) => return says_no_more(error),
        };
        if told.is_none_or(|told| told < counted) {
            told = Some(counted);
            if events.send(Event::Accepted(generation, counted)).is_err() {
                return;
            }
        }
    }
}
