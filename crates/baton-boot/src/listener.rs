//! One listener: how its connections reach the generation that serves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use baton_core::run::{Handover, Listen};
use baton_core::supervisor::Slot;
use baton_sys::selector::HELD_PORTS;

use crate::group::{Group, GroupError};
use crate::proxy::{Proxy, Relay};
use crate::rescue::Watched;

/// A listener by the way in which it is handed over.
#[derive(Debug)]
pub enum Listener {
    /// Each generation has a socket of its own. It accepts from it, or, where it cannot have it, the bootloader
    /// does and relays.
    Group(Group, BTreeMap<Slot, Relay>),
    /// The bootloader accepts.
    Proxy(Proxy),
}

/// Ends when a program has accepted all that was forwarded to it.
pub type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a generation is reached by a probe.
#[derive(Debug)]
pub struct Way {
    /// Where.
    pub to: SocketAddr,
    /// Addresses to dial from, one after the other until one is free; empty for any.
    pub from: Vec<SocketAddr>,
    /// The socket that it accepts from, where the bootloader has it too.
    pub socket: Option<Arc<OwnedFd>>,
    /// What to say first.
    pub greeting: Vec<u8>,
}

impl Way {
    /// Straight to a port that only this program has.
    fn direct(to: SocketAddr) -> Self {
        Self { to, from: Vec::new(), socket: None, greeting: Vec::new() }
    }
}

impl Listener {
    /// Starts listening. Until the candidate is healthy, clients wait at the slot that serves, whose program, if
    /// there is one, does not listen here.
    pub fn open(listen: Listen, serving: Slot, candidate: Slot, spares: usize) -> Result<Self, GroupError> {
        let mut listener = match listen.handover {
            Handover::Auto | Handover::Inherit => Self::Group(Group::open(listen)?, BTreeMap::new()),
            Handover::Proxy(_) => Self::Proxy(Proxy::open(listen)?),
        };
        listener.select(serving, candidate, spares)?;
        Ok(listener)
    }

    /// What the settings say of it.
    pub fn listen(&self) -> &Listen {
        match self {
            Self::Group(group, _) => group.listen(),
            Self::Proxy(proxy) => proxy.listen(),
        }
    }

    /// Gives new connections to one slot and private ones to another.
    pub fn select(&mut self, serving: Slot, private: Slot, spares: usize) -> Result<(), GroupError> {
        match self {
            Self::Group(group, _) => group.select(serving, private, spares),
            // Every slot is reached directly.
            Self::Proxy(proxy) => proxy.select(serving),
        }
    }

    /// Makes a slot fit for its next owner, whose settings say this of the listener.
    pub fn prepare(&mut self, slot: Slot, listen: &Listen) -> Result<(), GroupError> {
        match self {
            Self::Group(group, _) => group.prepare(slot, listen),
            Self::Proxy(proxy) => proxy.prepare(slot, listen),
        }
    }

    /// Relays a slot from now on, if it has a socket of its own, or does so no more.
    pub fn relay(&mut self, slot: Slot, relay: bool) -> Result<(), GroupError> {
        let Self::Group(group, relays) = self else { return Ok(()) };
        match (relays.get_mut(&slot), group.socket(slot)) {
            (Some(known), Some(socket)) if relay => known.prepare(group.listen(), &socket),
            (None, Some(socket)) if relay => {
                relays.insert(slot, Relay::open(group.listen(), &socket)?);
                Ok(())
            }
            _ => {
                relays.remove(&slot);
                Ok(())
            }
        }
    }

    /// The socket that the program in a slot accepts from, where it has one.
    pub fn socket(&self, slot: Slot) -> Option<Arc<OwnedFd>> {
        match self {
            Self::Group(_, relays) if relays.contains_key(&slot) => None,
            Self::Group(group, _) => group.socket(slot),
            Self::Proxy(_) => None,
        }
    }

    /// The port that a program in this slot is to bind.
    pub fn port(&self, slot: Slot) -> u16 {
        match self {
            Self::Group(group, relays) => {
                relays.get(&slot).map_or(group.listen().address, Relay::backend).port()
            }
            Self::Proxy(proxy) => proxy.backend(slot).unwrap_or(proxy.listen().address).port(),
        }
    }

    /// The way to a slot; `private`: it is not the one that everybody reaches.
    pub fn way(&mut self, slot: Slot, private: bool) -> Option<Way> {
        match self {
            Self::Group(_, relays) if let Some(relay) = relays.get(&slot) => {
                Some(Way::direct(relay.backend()))
            }
            Self::Group(group, _) => {
                let held = if private { HELD_PORTS } else { 0 };
                let from = (0..held).map(|_| group.private_address()).collect();
                let (to, socket) = (group.reached_at(), group.socket(slot));
                Some(Way { to, from, socket, greeting: Vec::new() })
            }
            Self::Proxy(proxy) => {
                let to = proxy.backend(slot)?;
                Some(Way { greeting: proxy.greeting(slot), ..Way::direct(to) })
            }
        }
    }

    /// The end of forwarding to a slot, whose program is about to be asked to stop, if connections are forwarded.
    pub fn settled(&mut self, slot: Slot, limit: Duration) -> Option<Settled> {
        match self {
            // What arrives from now on is rescued, as from any slot.
            Self::Group(_, relays) => relays.remove(&slot).map(|relay| Box::pin(relay.end(limit)) as Settled),
            Self::Proxy(proxy) => Some(Box::pin(proxy.settled(slot, limit))),
        }
    }

    /// The queue of a slot, in which clients may wait for a program that does not come any more.
    pub fn queue(&self, slot: Slot) -> Option<Watched> {
        match self {
            Self::Group(group, _) => {
                group.socket(slot).map(|socket| Watched { socket, to: group.reached_at() })
            }
            Self::Proxy(_) => None,
        }
    }
}
