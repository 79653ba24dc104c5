//! One listener: how its connections reach the generation that serves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use baton_core::run::{Address, Handover, Listen, SocketPath};
use baton_core::supervisor::{Selection, Slot};
use baton_sys::selector::HELD_PORTS;

use crate::group::{Group, GroupError, reached_at};
use crate::proxy::{Proxy, Relay};
use crate::rescue::Watched;
use crate::unix::{Owner, Unix};

/// A listener by the way in which it is handed over.
#[derive(Debug)]
pub enum Listener {
    /// Each generation has a socket of its own. It accepts from it, or, where it cannot have it, the bootloader
    /// does and relays.
    Group(Group, BTreeMap<Slot, Relay>),
    /// Each generation has a socket of its own, and a path leads to one of them.
    Unix(Unix),
    /// The bootloader accepts. It forwards to where a program listens, or to a private socket that it is given.
    Proxy(Proxy),
}

/// A program that is about to have a slot.
#[derive(Debug, Clone, Default)]
pub struct Tenant {
    /// Who it runs as, if not who we are.
    pub owner: Option<Owner>,
    /// How many sockets of a port its copies have.
    pub sockets: u32,
    /// It cannot have them: it is relayed to, at a port for each of so many copies.
    pub relayed: Option<u32>,
    /// Where it is forwarded to, if not at a port.
    pub path: Option<SocketPath>,
}

/// Ends when a program has accepted all that was forwarded to it.
pub type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a generation is reached by a probe.
#[derive(Debug)]
pub struct Way {
    /// Where.
    pub to: Address,
    /// Addresses to dial from, one after the other until one is free; empty for any.
    pub from: Vec<SocketAddr>,
    /// The sockets of which it accepts from one, where the bootloader has them too.
    pub sockets: Vec<Arc<OwnedFd>>,
    /// What to say first.
    pub greeting: Vec<u8>,
}

impl Way {
    /// Straight to an address that only this program has.
    fn direct(to: Address) -> Self {
        Self { to, from: Vec::new(), sockets: Vec::new(), greeting: Vec::new() }
    }
}

impl Listener {
    /// Starts listening.
    pub fn open(listen: Listen, owner: Option<Owner>) -> Result<Self, GroupError> {
        match (listen.handover, listen.address.clone()) {
            (Handover::Auto | Handover::Inherit, Address::Tcp(address)) => {
                Ok(Self::Group(Group::open(listen, address)?, BTreeMap::new()))
            }
            (Handover::Auto | Handover::Inherit, Address::Unix(path)) => {
                Ok(Self::Unix(Unix::open(listen, path, owner)?))
            }
            (Handover::Proxy(_), _) => Self::forward(listen, owner),
        }
    }

    /// Starts listening where the sockets of generations cannot share an address, or are not to.
    pub fn forward(listen: Listen, owner: Option<Owner>) -> Result<Self, GroupError> {
        Ok(Self::Proxy(Proxy::open(listen, owner)?))
    }

    /// Whether its address is one that the sockets of its generations share.
    pub fn is_shared(listen: &Listen) -> bool {
        listen.handover.passes_socket() && listen.address.tcp().is_some()
    }

    /// What the settings say of it.
    pub fn listen(&self) -> &Listen {
        match self {
            Self::Group(group, _) => group.listen(),
            Self::Unix(unix) => unix.listen(),
            Self::Proxy(proxy) => proxy.listen(),
        }
    }

    /// Gives new connections to these slots.
    pub fn select(&mut self, selection: Selection, spares: usize) -> Result<(), GroupError> {
        match self {
            Self::Group(group, _) => group.select(selection, spares),
            // Every slot is reached directly, and a path leads to one: releases that want more are refused.
            Self::Unix(unix) => unix.select(selection.serving, selection.private),
            Self::Proxy(proxy) => proxy.select(selection),
        }
    }

    /// Makes a slot fit for its next owner, whose settings say this of the listener.
    pub fn prepare(&mut self, slot: Slot, listen: &Listen, tenant: Tenant) -> Result<(), GroupError> {
        match self {
            Self::Group(group, relays) => {
                group.prepare(slot, listen, tenant.sockets)?;
                relay(group, relays, slot, tenant.relayed)
            }
            Self::Unix(unix) => unix.prepare(slot, listen, tenant.owner),
            Self::Proxy(proxy) => proxy.prepare(slot, listen, tenant),
        }
    }

    /// Makes sure that clients find it, whatever a program that has gone did to its name.
    pub fn keep_name(&mut self) -> Result<(), GroupError> {
        match self {
            Self::Group(..) => Ok(()),
            Self::Unix(unix) => unix.keep_name(),
            Self::Proxy(proxy) => proxy.keep_name(),
        }
    }

    /// The socket that a copy of the program in a slot accepts from, where it has one.
    pub fn socket(&self, slot: Slot, copy: u32) -> Option<Arc<OwnedFd>> {
        match self {
            Self::Group(_, relays) if relays.contains_key(&slot) => None,
            Self::Group(group, _) => group.socket(slot, copy),
            Self::Unix(unix) => unix.socket(slot),
            Self::Proxy(proxy) => proxy.socket(slot),
        }
    }

    /// Where a copy of the program in this slot is to listen, unless it takes a socket.
    pub fn to_bind(&self, slot: Slot, copy: u32) -> Address {
        let backend = match self {
            Self::Group(_, relays) => relays.get(&slot).map(|relay| relay.backend(copy)),
            Self::Unix(_) => None,
            Self::Proxy(proxy) => proxy.to_bind(slot, copy),
        };
        backend.unwrap_or(&self.listen().address).clone()
    }

    /// A copy of the program in a slot has ended. Tells the queue in which clients may wait for it, if that is its own.
    pub fn bypass(&mut self, slot: Slot, copy: u32) -> Result<Option<Watched>, GroupError> {
        let Self::Group(group, _) = self else { return Ok(None) };
        let to: Address = group.reached_at().into();
        Ok(group.bypass(slot, copy)?.map(|socket| Watched { socket, to }))
    }

    /// A copy is about to be launched again.
    pub fn take_back(&mut self, slot: Slot, copy: u32) -> Result<(), GroupError> {
        let Self::Group(group, _) = self else { return Ok(()) };
        group.take_back(slot, copy)
    }

    /// The way to a slot, and to this copy where each can be reached; `private`: it is not the one that everybody
    /// reaches.
    pub fn way(&mut self, slot: Slot, copy: u32, private: bool) -> Result<Option<Way>, GroupError> {
        Ok(match self {
            Self::Group(group, relays) if let Some(relay) = relays.get(&slot) => {
                Some(Way::direct(relay.asked(group.listen(), copy).clone()))
            }
            Self::Group(group, _) => {
                let aimed = group.aim(slot, copy)?;
                // A candidate may have brought a selector of its own.
                group.put_back()?;
                let held = if private || aimed { HELD_PORTS } else { 0 };
                let from = (0..held).map(|_| group.private_address()).collect();
                let sockets =
                    if aimed { group.socket(slot, copy).into_iter().collect() } else { group.sockets(slot) };
                Some(Way { to: group.reached_at().into(), from, sockets, greeting: Vec::new() })
            }
            Self::Unix(unix) => unix.private_address(slot).map(|address| Way {
                sockets: unix.socket(slot).into_iter().collect(),
                ..Way::direct(address)
            }),
            Self::Proxy(proxy) => proxy.asked(slot, copy).cloned().map(|to| Way {
                sockets: proxy.socket(slot).into_iter().collect(),
                greeting: proxy.greeting(slot),
                ..Way::direct(to)
            }),
        })
    }

    /// The end of forwarding to a slot, whose program is about to be asked to stop, if connections are forwarded.
    pub fn settled(&mut self, slot: Slot, limit: Duration) -> Option<Settled> {
        match self {
            // What arrives from now on is rescued, as from any slot.
            Self::Group(_, relays) => relays.remove(&slot).map(|relay| Box::pin(relay.end(limit)) as Settled),
            Self::Unix(_) => None,
            Self::Proxy(proxy) => Some(Box::pin(proxy.settled(slot, limit))),
        }
    }

    /// The queues of a slot, in which clients may wait for a program that does not come any more.
    pub fn queues(&self, slot: Slot) -> Vec<Watched> {
        let (sockets, to) = match self {
            Self::Group(group, _) => (group.sockets(slot), group.reached_at().into()),
            Self::Unix(unix) => (unix.socket(slot).into_iter().collect(), unix.listen().address.clone()),
            Self::Proxy(proxy) => {
                let Address::Tcp(address) = proxy.listen().address else { return Vec::new() };
                (proxy.socket(slot).into_iter().collect(), reached_at(address).into())
            }
        };
        watched(sockets, &to)
    }

    /// Those for which a program that was just launched has no copy, while the one before had.
    pub fn vacant(&self, slot: Slot) -> Vec<Watched> {
        let Self::Group(group, _) = self else { return Vec::new() };
        watched(group.vacant(slot), &group.reached_at().into())
    }
}

/// Relays a slot from now on, to so many copies of its program, if it has a socket of its own; or does so no more.
fn relay(
    group: &Group,
    relays: &mut BTreeMap<Slot, Relay>,
    slot: Slot,
    copies: Option<u32>,
) -> Result<(), GroupError> {
    let Some((copies, socket)) = copies.zip(group.socket(slot, 0)) else {
        relays.remove(&slot);
        return Ok(());
    };
    match relays.get_mut(&slot) {
        Some(known) => known.prepare(group.listen(), &socket, copies),
        None => {
            relays.insert(slot, Relay::open(group.listen(), &socket, copies)?);
            Ok(())
        }
    }
}

fn watched(sockets: Vec<Arc<OwnedFd>>, to: &Address) -> Vec<Watched> {
    sockets.into_iter().map(|socket| Watched { socket, to: to.clone() }).collect()
}
