//! How many connections a generation that bakes has accepted, where that is asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::ids::GenerationId;
use baton_core::run::Address;
use baton_core::supervisor::Event;
use baton_sys::accepted::{Accepted, is_at};
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
    addresses: Vec<SocketAddr>,
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
        let accepted = match Accepted::since_now(addresses.clone()) {
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
        self.counts.insert(generation, Count { task, addresses, own });
    }

    /// A generation is about to be asked over a connection how it is. Behind a proxy or a relay that goes another way than
    /// what is counted.
    pub fn note_own(&self, generation: GenerationId, to: &Address) {
        let count = self.counts.get(&generation);
        if let Some(count) = count.filter(|count| to.tcp().is_some_and(|to| is_at(&count.addresses, to))) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_are_left_out_only_where_they_would_be_counted() {
        let (mut traffic, id) = (Traffic::default(), GenerationId(1));
        let (events, _told) = mpsc::unbounded_channel();
        let addresses = ["0.0.0.0:8080", "127.0.0.1:9090"].map(|address| address.parse().unwrap());
        traffic.count(id, addresses.to_vec(), 20, events);
        for (to, own) in [
            ("127.0.0.1:8080", 1),
            ("127.0.0.1:9090", 2),
            ("127.0.0.2:9090", 2),
            ("127.0.0.1:40000", 2),
            ("unix:/run/web.sock", 2),
        ] {
            traffic.note_own(id, &to.parse().unwrap());
            assert_eq!(traffic.counts[&id].own.load(Ordering::Relaxed), own, "{to}");
        }
    }
}
