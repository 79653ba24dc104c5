//! Listening sockets at our addresses that are none of ours: anybody of the same user can open one beside those of a
//! reuseport group, and a program can do it by itself. It may get connections, and no selector speaks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_sys::{listening, process};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::log;

/// How often it is looked for them.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A listener, and what is ours there.
#[derive(Debug)]
pub struct Place {
    /// What the settings call it.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The inodes of our sockets.
    pub ours: BTreeSet<u64>,
}

/// Those that were found at the last look.
#[derive(Debug, Default)]
pub struct Strangers {
    looked: Option<Instant>,
    /// Looks, off the loop.
    looks: Option<JoinHandle<()>>,
    found: Arc<Mutex<BTreeMap<SocketAddr, Found>>>,
}

/// What was found at one listener.
#[derive(Debug, Default)]
struct Found {
    /// All that were not ours: one may be, that was opened after ours were listed and before all were.
    suspects: BTreeSet<u64>,
    /// Those that were not ours the time before either, and whose they are.
    strangers: BTreeMap<u64, String>,
}

impl Strangers {
    /// Whether it is time to look again.
    pub fn is_due(&self) -> bool {
        let looks = self.looks.as_ref().is_some_and(|looks| !looks.is_finished());
        !looks && self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY)
    }

    /// Looks at all listeners. Strangers that are new are told.
    pub fn look(&mut self, places: Vec<Place>) {
        self.looked = Some(Instant::now());
        let found = Arc::clone(&self.found);
        self.looks = Some(spawn_blocking(move || {
            locked(&found).retain(|address, _| places.iter().any(|place| place.address == *address));
            places.iter().for_each(|place| look(place, &found));
        }));
    }

    /// Whose sockets there are at an address.
    pub fn at(&self, address: SocketAddr) -> Vec<String> {
        let found = locked(&self.found);
        found.get(&address).into_iter().flat_map(|found| found.strangers.values().cloned()).collect()
    }
}

fn look(place: &Place, found: &Mutex<BTreeMap<SocketAddr, Found>>) {
    let Place { name, address, ours } = place;
    // Where the kernel does not tell, nobody is known.
    let suspects = listening::strangers_at(*address, ours).unwrap_or_default();
    let before = locked(found).remove(address).unwrap_or_default();
    let mut strangers = BTreeMap::new();
    for inode in suspects.intersection(&before.suspects) {
        let owner = before.strangers.get(inode).cloned().unwrap_or_else(|| {
            let owner = owner(*inode);
            log::say(format_args!(
                "{owner} listens at listener {name:?} on {address} too, with a socket that is not the bootloader's: it may \
                 get connections, and a handover may fail; end it, or let it have another address"
            ));
            owner
        });
        strangers.insert(*inode, owner);
    }
    locked(found).insert(*address, Found { suspects, strangers });
}

fn locked<T>(found: &Mutex<T>) -> MutexGuard<'_, T> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

fn owner(inode: u64) -> String {
    let has_it = |pid: &i32| process::holds_socket(&[*pid], inode) == Some(true);
    let pids = process::all().unwrap_or_default().into_iter().map(|process| process.pid);
    match pids.into_iter().find(has_it) {
        Some(pid) => match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim_end().escape_debug()),
            Err(_) => format!("process {pid}"),
        },
        None => "somebody".to_owned(),
    }
}
