//! How many connections a generation that bakes has accepted, where that is asked for.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::ids::GenerationId;
use baton_core::run::Address;
use baton_core::supervisor::Event;
use baton_sys::accepted::{Accepted, is_at};
use tokio::sync::mpsc;

use crate::log;

/// How often it is counted, and told if it has grown: control hears of it as often.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How late the kernel may tell that a connection has gone: those of before the handover count for nothing.
const SETTLE: Duration = Duration::from_millis(100);

/// The counts that go on.
#[derive(Clone, Default)]
pub struct Traffic {
    counts: Arc<Mutex<BTreeMap<GenerationId, Count>>>,
}

struct Count {
    addresses: Vec<SocketAddr>,
    /// How many of the connections are this bootloader's own: its probes prove nothing. Those of before [`SETTLE`] are among
    /// them, whether or not they are counted: too few are counted rather than too many.
    own: Arc<AtomicU64>,
    /// The thread that counts ends when this goes.
    _wanted: Sender<()>,
}

/// A connection of this bootloader's own that is about to be accepted where it would be counted.
#[must_use]
pub struct Noted(Vec<Arc<AtomicU64>>);

impl Noted {
    /// It was not accepted.
    pub fn withdraw(self) {
        for own in self.0 {
            own.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Traffic {
    /// Counts what is accepted at these addresses from now on, until it is enough. On a thread of its own: it may take the
    /// kernel long to list them.
    pub fn count(
        &self,
        generation: GenerationId,
        addresses: Vec<SocketAddr>,
        enough: u64,
        events: mpsc::UnboundedSender<Event>,
    ) {
        let (_wanted, ends) = channel();
        let own = Arc::<AtomicU64>::default();
        let counter = Counter {
            generation,
            addresses: addresses.clone(),
            own: Arc::clone(&own),
            enough,
            events,
            ends,
            accepted: None,
            told: None,
        };
        let thread = std::thread::Builder::new().name("traffic".to_owned()).stack_size(256 * 1024);
        if let Err(error) = thread.spawn(move || counter.run()) {
            return log::say(format_args!(
                "generation {generation}: cannot count the connections that it accepts: {error}"
            ));
        }
        self.counts().insert(generation, Count { addresses, own, _wanted });
    }

    /// A generation is about to be asked over a connection how it is. Behind a proxy or a relay that goes another way than
    /// what is counted.
    pub fn note_own(&self, generation: GenerationId, to: &Address) {
        let counts = self.counts();
        if let Some(count) = counts.get(&generation).filter(|count| count.is_at(to)) {
            count.own.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What waits at an address is about to be accepted here and sent on to whoever serves: it is counted there.
    pub fn note_rescued(&self, to: &Address) -> Noted {
        let counts = self.counts();
        let there = counts.values().filter(|count| count.is_at(to));
        let noted: Vec<_> = there.map(|count| Arc::clone(&count.own)).collect();
        for own in &noted {
            own.fetch_add(1, Ordering::Relaxed);
        }
        Noted(noted)
    }

    /// Nobody wants to know any more.
    pub fn forget(&self, generation: GenerationId) {
        self.counts().remove(&generation);
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<GenerationId, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn is_at(&self, to: &Address) -> bool {
        to.tcp().is_some_and(|to| is_at(&self.addresses, to))
    }
}

/// What counts for one generation.
struct Counter {
    generation: GenerationId,
    addresses: Vec<SocketAddr>,
    own: Arc<AtomicU64>,
    enough: u64,
    events: mpsc::UnboundedSender<Event>,
    ends: Receiver<()>,
    /// From when the kernel has told for the first time.
    accepted: Option<Accepted>,
    told: Option<u64>,
}

impl Counter {
    /// Counts until there are enough, or until nobody wants to know. What the kernel refuses it may tell later: a
    /// descriptor was missing, for example.
    fn run(mut self) {
        let mut failed = false;
        while self.told.is_none_or(|told| told < self.enough) {
            match self.look() {
                Ok(counted) => self.tell(counted),
                Err(error) if !std::mem::replace(&mut failed, true) => log::say(format_args!(
                    "generation {}: cannot count the connections that it accepts, and tries again: {error}",
                    self.generation
                )),
                Err(_) => {}
            }
            if !self.is_wanted_after(COUNT_EVERY) {
                return;
            }
        }
    }

    fn look(&mut self) -> io::Result<u64> {
        if self.accepted.is_none() {
            let mut accepted = Accepted::since_now(self.addresses.clone())?;
            self.is_wanted_after(SETTLE);
            accepted.forget_ended()?;
            self.accepted = Some(accepted);
        }
        let counted = self.accepted.as_mut().map_or(Ok(0), Accepted::count)?;
        Ok(counted.saturating_sub(self.own.load(Ordering::Relaxed)).min(self.enough))
    }

    fn tell(&mut self, counted: u64) {
        if self.told.is_none_or(|told| told < counted) {
            self.told = Some(counted);
            // The receiver lives as long as the member.
            let _ = self.events.send(Event::Accepted(self.generation, counted));
        }
    }

    fn is_wanted_after(&self, time: Duration) -> bool {
        self.ends.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_left_out_only_where_they_would_be_counted() {
        let (traffic, id) = (Traffic::default(), GenerationId(1));
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
            assert_eq!(traffic.counts()[&id].own.load(Ordering::Relaxed), own, "{to}");
        }
    }

    #[test]
    fn what_is_rescued_counts_once_and_what_was_not_accepted_after_all_does_not() {
        let (traffic, id) = (Traffic::default(), GenerationId(1));
        let (events, _told) = mpsc::unbounded_channel();
        traffic.count(id, vec!["0.0.0.0:8080".parse().unwrap()], 20, events);
        let own = || traffic.counts()[&id].own.load(Ordering::Relaxed);
        for (to, accepted, expected) in [
            ("127.0.0.1:8080", true, 1),
            ("127.0.0.1:8080", false, 1),
            ("127.0.0.1:9090", true, 1),
            ("unix:/run/web.sock", true, 1),
            ("127.0.0.1:8080", true, 2),
        ] {
            let noted = traffic.note_rescued(&to.parse().unwrap());
            if !accepted {
                noted.withdraw();
            }
            assert_eq!(own(), expected, "{to}");
        }
    }
}
