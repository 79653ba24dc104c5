//! One listener: how its connections reach the generation that serves.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use baton_core::run::{Handover, Listen};
use baton_core::supervisor::Slot;
use baton_sys::selector::HELD_PORTS;

use crate::group::{Group, GroupError};
use crate::proxy::Proxy;
use crate::rescue::Watched;

/// A listener by the way in which it is handed over.
#[derive(Debug)]
pub enum Listener {
    /// Each generation accepts from a socket of its own.
    Group(Group),
    /// The bootloader accepts.
    Proxy(Proxy),
}

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

impl Listener {
    /// Starts listening. Until the candidate is healthy, clients wait at the slot that serves, whose program, if
    /// there is one, does not listen here.
    pub fn open(listen: Listen, serving: Slot, candidate: Slot, spares: usize) -> Result<Self, GroupError> {
        let mut listener = match listen.handover {
            Handover::Auto | Handover::Inherit => Self::Group(Group::open(listen)?),
            Handover::Proxy(limits) => Self::Proxy(Proxy::open(listen, limits)?),
        };
        listener.select(serving, candidate, spares)?;
        Ok(listener)
    }

    /// What the settings say of it.
    pub fn listen(&self) -> &Listen {
        match self {
            Self::Group(group) => group.listen(),
            Self::Proxy(proxy) => proxy.listen(),
        }
    }

    /// Gives new connections to one slot and private ones to another.
    pub fn select(&mut self, serving: Slot, private: Slot, spares: usize) -> Result<(), GroupError> {
        match self {
            Self::Group(group) => group.select(serving, private, spares),
            // Every slot is reached directly.
            Self::Proxy(proxy) => proxy.select(serving),
        }
    }

    /// Makes a slot fit for its next owner.
    pub fn prepare(&mut self, slot: Slot) -> Result<(), GroupError> {
        match self {
            Self::Group(group) => group.prepare(slot),
            Self::Proxy(proxy) => proxy.prepare(slot),
        }
    }

    /// The socket of a slot, where each has one.
    pub fn socket(&self, slot: Slot) -> Option<Arc<OwnedFd>> {
        match self {
            Self::Group(group) => group.socket(slot),
            Self::Proxy(_) => None,
        }
    }

    /// The port that a program in this slot is to bind.
    pub fn port(&self, slot: Slot) -> u16 {
        match self {
            Self::Group(group) => group.listen().address.port(),
            Self::Proxy(proxy) => proxy.backend(slot).unwrap_or(proxy.listen().address).port(),
        }
    }

    /// The way to a slot; `private`: it is not the one that everybody reaches.
    pub fn way(&mut self, slot: Slot, private: bool) -> Option<Way> {
        match self {
            Self::Group(group) => {
                let held = if private { HELD_PORTS } else { 0 };
                let from = (0..held).map(|_| group.private_address()).collect();
                let (to, socket) = (group.reached_at(), group.socket(slot));
                Some(Way { to, from, socket, greeting: Vec::new() })
            }
            Self::Proxy(proxy) => {
                let to = proxy.backend(slot)?;
                Some(Way { to, from: Vec::new(), socket: None, greeting: proxy.greeting() })
            }
        }
    }

    /// The end of forwarding to a slot, if connections are forwarded.
    pub fn settled(&self, slot: Slot) -> Option<impl Future<Output = ()> + Send + 'static> {
        match self {
            Self::Group(_) => None,
            Self::Proxy(proxy) => Some(proxy.settled(slot)),
        }
    }

    /// The queue of a slot, in which clients may wait for a program that does not come any more.
    pub fn queue(&self, slot: Slot) -> Option<Watched> {
        match self {
            Self::Group(group) => group.socket(slot).map(|socket| Watched { socket, to: group.reached_at() }),
            Self::Proxy(_) => None,
        }
    }
}
