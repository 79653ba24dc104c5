//! Who has connected and is not known yet: so many of one address and of one network, so that nobody keeps the others out by
//! mere connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::network::{Network, networks};

/// How many of one address may be there: a host, or a network behind one address, whose members all come back at once. Whoever
/// comes then is sent away and comes again, as after any failure.
const OF_ADDRESS_MAX: usize = 512;
/// How many there may be in all: some megabytes, and twice what the largest network may have.
const ALL_MAX: usize = 8192;
/// How many of one address may agree on a key at once: the largest network has half of all that may.
const HANDSHAKES_OF_ADDRESS_MAX: usize = 32;

/// Connections of which nobody has shown who it is.
#[derive(Debug, Default)]
pub(crate) struct Doorstep(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    of_network: HashMap<Network, Crowd>,
    all: usize,
}

/// Those of one address, or of one network.
#[derive(Debug)]
struct Crowd {
    count: usize,
    turns: Arc<Semaphore>,
}

/// The place of one connection. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    doorstep: Arc<Doorstep>,
    from: IpAddr,
    /// Of the address first.
    turns: Vec<Arc<Semaphore>>,
}

impl Doorstep {
    /// A place, if there is one for this address, and in each network that it is in.
    pub(crate) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let mut waiting = self.lock();
        let is_crowded = |(network, addresses): (Network, u32)| {
            let count = waiting.of_network.get(&network).map_or(0, |crowd| crowd.count);
            count >= OF_ADDRESS_MAX * addresses as usize
        };
        if waiting.all >= ALL_MAX || networks(from).any(is_crowded) {
            return None;
        }
        waiting.all += 1;
        let turns = networks(from).map(|(network, addresses)| {
            let turns = || Arc::new(Semaphore::new(HANDSHAKES_OF_ADDRESS_MAX * addresses as usize));
            let crowd =
                waiting.of_network.entry(network).or_insert_with(|| Crowd { count: 0, turns: turns() });
            crowd.count += 1;
            Arc::clone(&crowd.turns)
        });
        Some(Place { doorstep: Arc::clone(self), from, turns: turns.collect() })
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
    /// Waits until it is its turn to agree on a key: among those of its address first, so that who waits there takes no turn of
    /// its neighbours.
    pub(crate) async fn turn(&self) -> Option<Vec<OwnedSemaphorePermit>> {
        let mut mine = Vec::with_capacity(self.turns.len());
        for turns in &self.turns {
            mine.push(Arc::clone(turns).acquire_owned().await.ok()?);
        }
        Some(mine)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.doorstep.lock();
        waiting.all -= 1;
        for (network, _) in networks(self.from) {
            let Some(crowd) = waiting.of_network.get_mut(&network) else { continue };
            crowd.count -= 1;
            if crowd.count == 0 {
                waiting.of_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// As many as get in of so many, each from the address of its number.
    fn crowd(doorstep: &Arc<Doorstep>, many: usize, from: impl Fn(usize) -> IpAddr) -> Vec<Place> {
        (0..many).filter_map(|number| doorstep.enter(from(number))).collect()
    }

    fn v6(network: u16, host: usize) -> IpAddr {
        IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, u16::try_from(host).unwrap()])
    }

    #[test]
    fn f58_one_address_has_a_part_of_the_room_and_gives_it_back() {
        let doorstep = Arc::new(Doorstep::default());
        let of = |network: u8, host: u8| IpAddr::from([10, 0, network, host]);
        let mut own = crowd(&doorstep, ALL_MAX, |_| of(1, 1));
        assert_eq!(own.len(), OF_ADDRESS_MAX);
        assert!(doorstep.enter(of(1, 2)).is_some(), "its neighbours are let in");
        own.pop();
        own.push(doorstep.enter(of(1, 1)).unwrap());
        let others = crowd(&doorstep, 4 * ALL_MAX, |number| of((number / 1000) as u8, (number % 250) as u8));
        assert_eq!(others.len() + own.len(), ALL_MAX, "there is an end to it");
        drop((own, others));
        assert!(doorstep.is_empty());
    }

    #[test]
    fn f58_who_has_a_whole_network_takes_what_that_has_and_nobody_elses() {
        let doorstep = Arc::new(Doorstep::default());
        let network = crowd(&doorstep, ALL_MAX, |host| v6(1, host));
        assert_eq!(network.len(), 4 * OF_ADDRESS_MAX);
        assert!(doorstep.enter(v6(2, 0)).is_some(), "another network of the same site");
        let site = crowd(&doorstep, ALL_MAX, |host| v6((host % 1000) as u16, host));
        assert_eq!(site.len() + network.len(), 8 * OF_ADDRESS_MAX);
        assert!(doorstep.enter(IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1])).is_some(), "another site");
        let v4 = crowd(&doorstep, ALL_MAX, |number| IpAddr::from([10, 0, 0, (number % 256) as u8]));
        assert_eq!(v4.len(), 4 * OF_ADDRESS_MAX, "a network of IPv4");
        assert!(doorstep.enter(IpAddr::from([10, 0, 1, 0])).is_some());
    }

    #[test]
    fn f58_a_neighbour_with_one_address_takes_neither_places_nor_turns_of_the_others() {
        let doorstep = Arc::new(Doorstep::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let neighbour = crowd(&doorstep, ALL_MAX, |_| v6(1, 1));
            let mut turns = Vec::new();
            for place in &neighbour {
                turns.extend(timeout(Duration::ZERO, place.turn()).await);
            }
            assert_eq!(turns.len(), HANDSHAKES_OF_ADDRESS_MAX);
            let others: Vec<_> = iter::successors(Some(2), |host| Some(host + 1))
                .map_while(|host| doorstep.enter(v6(1, host)))
                .collect();
            assert_eq!(others.len(), 3 * OF_ADDRESS_MAX);
            let mut theirs = Vec::new();
            for place in &others {
                theirs.extend(timeout(Duration::ZERO, place.turn()).await);
            }
            assert_eq!(theirs.len(), 3 * HANDSHAKES_OF_ADDRESS_MAX, "each of them is one alone");
            // Who is elsewhere has its turn all the same.
            let elsewhere = doorstep.enter(v6(2, 1)).unwrap();
            assert!(timeout(Duration::ZERO, elsewhere.turn()).await.is_ok());
        });
    }
}
