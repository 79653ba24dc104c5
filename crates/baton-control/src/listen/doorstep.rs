//! Who has connected and is not known yet: so many of one network, so that nobody keeps the others out by mere connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::network::Network;

/// How many of one network may be there: a host, or a network behind one address, whose members all come back at once. Whoever
/// comes then is sent away and comes again, as after any failure.
const OF_NETWORK_MAX: usize = 1024;
/// How many there may be in all: some megabytes.
const ALL_MAX: usize = 8192;
/// How many of one network may agree on a key at once: a quarter of all that may.
const HANDSHAKES_OF_NETWORK_MAX: usize = 128;

/// Connections of which nobody has shown who it is.
#[derive(Debug, Default)]
pub(crate) struct Doorstep(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    of_network: HashMap<Network, Crowd>,
    all: usize,
}

/// Those of one network.
#[derive(Debug)]
struct Crowd {
    count: usize,
    turns: Arc<Semaphore>,
}

/// The place of one connection. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    doorstep: Arc<Doorstep>,
    from: Network,
    turns: Arc<Semaphore>,
}

impl Doorstep {
    /// A place, if there is one for this address.
    pub(crate) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let (from, mut waiting) = (Network::from(from), self.lock());
        if waiting.all >= ALL_MAX {
            return None;
        }
        let crowd = waiting.of_network.entry(from).or_insert_with(|| Crowd {
            count: 0,
            turns: Arc::new(Semaphore::new(HANDSHAKES_OF_NETWORK_MAX)),
        });
        if crowd.count >= OF_NETWORK_MAX {
            return None;
        }
        crowd.count += 1;
        let turns = Arc::clone(&crowd.turns);
        waiting.all += 1;
        Some(Place { doorstep: Arc::clone(self), from, turns })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.of_network.is_empty() && waiting.all == 0
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // What is counted is changed in one step, so a panic of another holder does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until it is its turn to agree on a key.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.doorstep.lock();
        waiting.all -= 1;
        let Some(crowd) = waiting.of_network.get_mut(&self.from) else { return };
        crowd.count -= 1;
        if crowd.count == 0 {
            waiting.of_network.remove(&self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f58_one_address_has_a_part_of_the_room_and_gives_it_back() {
        let doorstep = Arc::new(Doorstep::default());
        let of = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut crowd: Vec<_> = (0..OF_NETWORK_MAX).map(|_| doorstep.enter(of(1)).unwrap()).collect();
        assert!(doorstep.enter(of(1)).is_none());
        assert!(doorstep.enter(of(2)).is_some(), "others are let in");
        crowd.pop();
        crowd.push(doorstep.enter(of(1)).unwrap());
        let others: Vec<_> =
            (2..).flat_map(|last| (0..OF_NETWORK_MAX).map(move |_| last)).take(ALL_MAX).collect();
        let inside: Vec<_> = others.into_iter().map_while(|last| doorstep.enter(of(last))).collect();
        assert_eq!(inside.len() + crowd.len(), ALL_MAX, "there is an end to it");
        drop((inside, crowd));
        assert!(doorstep.is_empty());
    }

    #[test]
    fn f58_a_host_with_many_addresses_of_ipv6_has_the_room_of_one() {
        let doorstep = Arc::new(Doorstep::default());
        let of = |network: u16, host: usize| {
            IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, u16::try_from(host).unwrap()])
        };
        let inside: Vec<_> = (0..ALL_MAX).map_while(|host| doorstep.enter(of(1, host))).collect();
        assert_eq!(inside.len(), OF_NETWORK_MAX);
        assert!(doorstep.enter(of(2, 0)).is_some(), "others are let in");
    }
}
