//! Where this member listens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use baton_core::run::{Handover, Listen};
use baton_core::supervisor::{Plan, Slot};

use crate::config::Config;
use crate::group::GroupError;
use crate::listener::Listener;
use crate::log;

/// Why a release cannot listen here.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The member was told where to have a listener that the release does not know.
    #[error("BATON_LISTEN names a listener {0:?}, and this release has none of that name")]
    Unknown(String),
    /// Who accepts on an address is settled when it is opened.
    #[error(
        "this release has handover {wanted:?} for {address}, and it is open for {open:?}; to change between \
         \"proxy\" and the others start the member anew, or take another address"
    )]
    OtherWay {
        /// Where.
        address: SocketAddr,
        /// What the release asks for.
        wanted: &'static str,
        /// How it is open.
        open: &'static str,
    },
    /// The kernel refused.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// The listeners of a member: those of every release that runs in it.
///
/// One is opened when the first program that wants it is launched, and closed when the last one is gone. Until a
/// program serves on it, clients wait there.
#[derive(Debug)]
pub struct Listeners {
    /// Where this member listens instead of what its releases say, by name.
    moved: Vec<(String, SocketAddr)>,
    open: Vec<Open>,
    /// What the program in a slot listens on, in the order of its settings.
    slots: BTreeMap<Slot, Vec<Listen>>,
    /// Slots whose program is gone. That of the serving one waits for the next.
    left: BTreeSet<Slot>,
    serving: Slot,
    /// How many sockets there must be behind those that the selector names.
    pub spares: usize,
    /// What was wrong with the last selection, until one succeeds.
    failed: Option<String>,
}

#[derive(Debug)]
struct Open {
    listener: Listener,
    /// Some program that serves, or did, listens here.
    served: bool,
}

impl Listeners {
    /// Nothing is open yet.
    pub fn new(config: &Config) -> Self {
        Self {
            moved: config.listen.clone(),
            open: Vec::new(),
            slots: BTreeMap::new(),
            left: BTreeSet::new(),
            serving: Slot(0),
            spares: 1,
            failed: None,
        }
    }

    /// All that are open.
    pub fn all(&self) -> impl Iterator<Item = &Listener> {
        self.open.iter().map(|open| &open.listener)
    }

    /// Those of the program in a slot, with what its settings say of them, in their order.
    pub fn of(&self, slot: Slot) -> Vec<(&Listen, &Listener)> {
        let listens = self.slots.get(&slot).into_iter().flatten();
        listens.filter_map(|listen| Some((listen, self.at(listen.address)?))).collect()
    }

    /// The one that the program in a slot calls by this name.
    pub fn named(&mut self, slot: Slot, name: &str) -> Option<&mut Listener> {
        let address = self.slots.get(&slot)?.iter().find(|listen| listen.name == name)?.address;
        let mut open = self.open.iter_mut().map(|open| &mut open.listener);
        open.find(|listener| listener.listen().address == address)
    }

    fn at(&self, address: SocketAddr) -> Option<&Listener> {
        self.all().find(|listener| listener.listen().address == address)
    }

    /// Gives new connections to one slot and private ones to another; `false` when some listener did not.
    pub fn select(&mut self, serving: Slot, private: Slot) -> bool {
        self.failed = None;
        self.serving = serving;
        for open in &mut self.open {
            let address = open.listener.listen().address;
            let uses = |listens: &Vec<Listen>| listens.iter().any(|listen| listen.address == address);
            let used = self.slots.get(&serving).is_some_and(uses);
            if open.served && !used {
                // The release that serves gave it up. Whoever had it has it until the end.
                continue;
            }
            open.served |= used;
            // Should it fail, the selector stays as it was: whoever serves goes on serving.
            if let Err(error) = open.listener.select(serving, private, self.spares) {
                let error = log::chain(&error);
                log::say(&error);
                self.failed.get_or_insert(error);
            }
        }
        self.close_unused();
        self.failed.is_none()
    }

    /// What is wrong with the selection, if anything is: nothing may be launched that could not be told apart
    /// from what serves.
    pub fn fault(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Makes a slot fit for a launch of this plan, and opens what nobody has listened on yet.
    ///
    /// `relay`: the program cannot have the sockets of listeners with `handover = "auto"`.
    pub fn prepare(&mut self, plan: &Plan, slot: Slot, relay: bool) -> Result<(), ListenError> {
        let known = |name: &str| plan.settings.listen.iter().any(|listen| listen.name == name);
        if let Some((name, _)) = self.moved.iter().find(|(name, _)| !known(name)) {
            return Err(ListenError::Unknown(name.clone()));
        }
        let wanted: Vec<Listen> = plan.settings.listen.iter().map(|listen| self.here(listen)).collect();
        for listen in &wanted {
            self.open(listen, slot)?;
        }
        self.left.remove(&slot);
        self.slots.insert(slot, wanted);
        let serving = slot == self.serving;
        for listen in self.slots.get(&slot).into_iter().flatten() {
            let mut open = self.open.iter_mut();
            let Some(open) = open.find(|open| open.listener.listen().address == listen.address) else {
                continue;
            };
            // Launched where clients wait already, it serves them at once.
            open.served |= serving;
            open.listener.prepare(slot, listen)?;
            open.listener.relay(slot, relay && listen.handover == Handover::Auto)?;
        }
        Ok(())
    }

    fn open(&mut self, listen: &Listen, candidate: Slot) -> Result<(), ListenError> {
        if let Some(open) = self.at(listen.address) {
            let (wanted, has) = (listen.handover, open.listen().handover);
            if wanted.passes_socket() != has.passes_socket() {
                let (wanted, open) = (wanted.word(), has.word());
                return Err(ListenError::OtherWay { address: listen.address, wanted, open });
            }
            return Ok(());
        }
        let listener = Listener::open(listen.clone(), self.serving, candidate, self.spares)?;
        self.open.push(Open { listener, served: false });
        Ok(())
    }

    /// A listener as this member has it.
    fn here(&self, listen: &Listen) -> Listen {
        let moved = self.moved.iter().find(|(name, _)| *name == listen.name);
        Listen { address: moved.map_or(listen.address, |(_, address)| *address), ..listen.clone() }
    }

    /// The program in a slot is gone. What no other one listens on is closed.
    pub fn forget(&mut self, slot: Slot) {
        self.left.insert(slot);
        self.close_unused();
    }

    fn close_unused(&mut self) {
        // Until anybody serves, clients wait for the first one that does, however many tries that takes.
        if self.open.iter().all(|open| !open.served) {
            return;
        }
        let serving = self.serving;
        self.slots.retain(|slot, _| *slot == serving || !self.left.contains(slot));
        self.left.retain(|slot| *slot == serving);
        let used = |address| self.slots.values().flatten().any(|listen| listen.address == address);
        self.open.retain(|open| used(open.listener.listen().address));
    }

    /// The end of forwarding to a slot, whose program is about to be asked to stop, where anything is forwarded at
    /// all: what was sent to it before has been accepted.
    pub fn settled(
        &mut self,
        slot: Slot,
        limit: Duration,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let settled: Vec<_> =
            self.open.iter_mut().filter_map(|open| open.listener.settled(slot, limit)).collect();
        if settled.is_empty() {
            return None;
        }
        Some(async move {
            for settled in settled {
                settled.await;
            }
        })
    }

    /// The queues of a slot in which clients may wait for a program that does not come any more, as far as there
    /// is another one to send them to.
    pub fn queues(&self, slot: Slot) -> Vec<crate::rescue::Watched> {
        let served = |listen: &Listen| {
            self.slots.get(&self.serving).is_some_and(|all| all.iter().any(|l| l.address == listen.address))
        };
        self.all().filter(|listener| served(listener.listen())).filter_map(|l| l.queue(slot)).collect()
    }

    /// Stops listening: from now on clients are refused.
    pub fn close(&mut self) {
        self.open.clear();
    }
}
