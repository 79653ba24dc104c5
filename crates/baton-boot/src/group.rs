//! The sockets of one listener: a reuseport group with one socket a slot.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use baton_core::run::{Address, Listen};
use baton_core::supervisor::{Selection, Slot, Split};
use baton_sys::held::HeldPorts;
use baton_sys::selector::{self, Choice, HELD_PORTS, Rest};
use baton_sys::{options, socket};

use crate::log;

/// How often a position is asked whose it is while the group is learnt: a live program may accept the
/// question before its queue is looked at.
const QUESTIONS: usize = 50;

/// Why a listener cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} listener {name:?} on {address} failed")]
pub struct GroupError {
    what: &'static str,
    name: String,
    address: Address,
    #[source]
    source: io::Error,
}

impl GroupError {
    /// That `what` failed for this listener.
    pub fn new(what: &'static str, listen: &Listen, source: io::Error) -> Self {
        Self { what, name: listen.name.clone(), address: listen.address.clone(), source }
    }
}

/// Where this process reaches a listener on this address.
pub fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The reuseport group of one listener.
#[derive(Debug)]
pub struct Group {
    listen: Listen,
    address: SocketAddr,
    /// By slot. The bootloader's own copies: what waits in a queue outlives the program.
    sockets: Vec<Arc<OwnedFd>>,
    /// Which slot is at which position of the group, as the kernel counts them.
    order: Vec<usize>,
    held: HeldPorts,
    questions: usize,
    selection: Selection,
    spares: usize,
}

impl Group {
    /// Starts listening, with one socket.
    ///
    /// # Errors
    /// When somebody else listens on the address, among others.
    pub fn open(listen: Listen, address: SocketAddr) -> Result<Self, GroupError> {
        let open = || {
            let first = socket::first_of_group(address, listen.backlog)?;
            Ok((first, HeldPorts::hold(address)?))
        };
        match open() {
            Ok((first, held)) => Ok(Self {
                listen,
                address,
                sockets: vec![Arc::new(first)],
                order: vec![0],
                held,
                questions: 0,
                selection: Selection::of(Slot(0)),
                spares: 0,
            }),
            Err(source) => Err(GroupError::new("opening", &listen, source)),
        }
    }

    /// What the settings say of the listener.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Where this process reaches the listener.
    pub fn reached_at(&self) -> SocketAddr {
        reached_at(self.address)
    }

    /// An address to dial from on the private path: the next of those held.
    pub fn private_address(&mut self) -> SocketAddr {
        self.questions = self.questions.wrapping_add(1);
        self.held.address(self.questions)
    }

    /// The socket of a slot.
    pub fn socket(&self, slot: Slot) -> Option<Arc<OwnedFd>> {
        self.sockets.get(slot.0 as usize).cloned()
    }

    /// Gives new connections to these slots, from this moment on, with at least so many others behind them.
    pub fn select(&mut self, selection: Selection, spares: usize) -> Result<(), GroupError> {
        let Selection { serving, private, split } = selection;
        self.take_back_what_left();
        while self.sockets.len() <= serving.max(private).0 as usize {
            self.add()?;
        }
        let (everybody, probes) = (self.position(serving)?, self.position(private)?);
        let rest = split.map(|split| self.rest(split)).transpose()?.flatten();
        let last = everybody.max(probes).max(rest.map_or(0, |rest| rest.index));
        while self.order.len() <= last as usize + spares {
            // Without a spare it works as well, until a program leaves the group.
            if let Err(error) = self.add() {
                log::say(log::chain(&error));
                break;
            }
        }
        self.selection = selection;
        self.spares = spares;
        self.attach(Choice { serving: everybody, private: probes, held: self.held.first(), rest })
    }

    /// Who gets what the serving slot does not; nobody, where nothing is left.
    fn rest(&self, split: Split) -> Result<Option<Rest>, GroupError> {
        let index = self.position(split.rest)?;
        Ok(u32::try_from(split.share.bound()).ok().map(|from| Rest { from, index }))
    }

    fn add(&mut self) -> Result<(), GroupError> {
        let socket = socket::join_group(self.address, self.listen.backlog);
        let socket = socket.map_err(|source| self.failed("adding a socket to", source))?;
        self.order.push(self.sockets.len());
        self.sockets.push(Arc::new(socket));
        Ok(())
    }

    /// Makes a slot fit for its next owner. Nobody else may hold its socket.
    ///
    /// One that is selected for private connections is made as good as new, and it is made sure that the
    /// private path leads to it. The serving one keeps the clients that wait there.
    pub fn prepare(&mut self, slot: Slot, listen: &Listen) -> Result<(), GroupError> {
        self.listen = listen.clone();
        let Some(socket) = self.socket(slot) else { return Err(self.unknown(slot)) };
        let reset = socket::set_blocking(socket.as_fd(), true)
            .and_then(|()| options::reset(socket.as_fd()))
            .and_then(|()| socket::listen(socket.as_fd(), self.listen.backlog));
        reset.map_err(|source| self.failed("resetting a socket of", source))?;
        if slot != self.selection.serving {
            self.make_reachable(slot)?;
        }
        // Only now: with some of them nothing arrives that says nothing.
        let set = options::set(socket.as_fd(), &self.listen.options);
        set.map_err(|source| self.failed("setting options of", source))
    }

    /// Makes sure that the private path leads to a slot.
    fn make_reachable(&mut self, slot: Slot) -> Result<(), GroupError> {
        if self.answers_at(slot).map_err(|source| self.failed("asking", source))? {
            return Ok(());
        }
        self.learn_order()?;
        self.select(Selection { private: slot, ..self.selection }, self.spares)?;
        match self.answers_at(slot) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.failed("finding a socket of", io::ErrorKind::NotFound.into())),
            Err(source) => Err(self.failed("asking", source)),
        }
    }

    fn attach(&self, choice: Choice) -> Result<(), GroupError> {
        let attached = self.sockets.first().map(|any| selector::attach(any.as_fd(), choice));
        attached.unwrap_or(Ok(())).map_err(|source| self.failed("choosing a socket of", source))
    }

    /// Where a slot is in the group.
    fn position(&self, slot: Slot) -> Result<u32, GroupError> {
        let position = self.order.iter().position(|owner| *owner == slot.0 as usize);
        position.map(|position| position as u32).ok_or_else(|| self.unknown(slot))
    }

    /// A program that called `shutdown` on its listener took it out of the group, and the last one took its
    /// place. Here it comes back, at the end.
    fn take_back_what_left(&mut self) {
        for slot in 0..self.sockets.len() {
            let socket = self.sockets[slot].as_fd();
            let left = socket::queue(socket).is_ok_and(|queue| !queue.listening);
            if left && let Some(position) = self.order.iter().position(|owner| *owner == slot) {
                self.order.swap_remove(position);
                if socket::listen(socket, self.listen.backlog).is_ok() {
                    self.order.push(slot);
                }
            }
        }
    }

    /// Whether a private connection arrives at this slot.
    fn answers_at(&mut self, slot: Slot) -> io::Result<bool> {
        let Some(socket) = self.socket(slot) else { return Ok(false) };
        let question = self.connect_privately()?;
        let arrived = socket::queue(socket.as_fd())?.waiting;
        // Nobody else holds the socket: whatever waits there are questions.
        for _ in 0..arrived {
            drop(socket::accept(socket.as_fd())?);
        }
        drop(question);
        Ok(arrived > 0)
    }

    /// A private connection, from the first held port that is free: probes may have some of them.
    fn connect_privately(&mut self) -> io::Result<OwnedFd> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for _ in 0..HELD_PORTS {
            let from = self.private_address();
            match self.connect_from(from) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect_from(&self, from: SocketAddr) -> io::Result<OwnedFd> {
        let socket = socket::bound_shared(from)?;
        // Closed normally it would block its port for the next one.
        rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO))?;
        rustix::net::connect(&socket, &self.reached_at())?;
        Ok(socket)
    }

    /// Finds out which slot is at which position by sending a connection to each. It is asked for when
    /// somebody outside has changed the group in a way that could not be followed.
    fn learn_order(&mut self) -> Result<(), GroupError> {
        let serving = self.position(self.selection.serving).unwrap_or(0);
        let mut learnt: Vec<Option<usize>> = vec![None; self.order.len()];
        for (position, owner) in learnt.iter_mut().enumerate() {
            let private = position as u32;
            self.attach(Choice { serving, private, held: self.held.first(), rest: None })?;
            for _ in 0..QUESTIONS {
                let before = self.waiting();
                let question = self.connect_privately().map_err(|source| self.failed("asking", source))?;
                let after = self.waiting();
                *owner = before.iter().zip(&after).position(|(before, after)| after > before);
                drop(question);
                if owner.is_some() {
                    break;
                }
            }
        }
        // A program that accepts at once can hide its position: with one such, it is the one left over.
        let missing = (0..self.sockets.len()).find(|slot| !learnt.contains(&Some(*slot)));
        let known = learnt.iter().flatten().count();
        if known + 1 < learnt.len() {
            return Err(self.failed("learning the order of", io::ErrorKind::InvalidData.into()));
        }
        self.order = learnt.into_iter().filter_map(|owner| owner.or(missing)).collect();
        Ok(())
    }

    /// How many connections wait, by slot.
    fn waiting(&self) -> Vec<u32> {
        self.sockets
            .iter()
            .map(|socket| socket::queue(socket.as_fd()).map_or(0, |queue| queue.waiting))
            .collect()
    }

    fn unknown(&self, slot: Slot) -> GroupError {
        self.failed("finding a socket of", io::Error::other(format!("there is no slot {}", slot.0)))
    }

    fn failed(&self, what: &'static str, source: io::Error) -> GroupError {
        GroupError::new(what, &self.listen, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::run::{Handover, MODE_DEFAULT, SocketOptions};
    use std::net::TcpStream;

    fn group() -> Group {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listen = Listen {
            name: "http".into(),
            address: address.into(),
            mode: MODE_DEFAULT,
            handover: Handover::Inherit,
            backlog: 64,
            options: SocketOptions::default(),
        };
        Group::open(listen, address).unwrap()
    }

    fn select(group: &mut Group, serving: u32, private: u32) -> Result<(), GroupError> {
        group.select(Selection { private: Slot(private), ..Selection::of(Slot(serving)) }, 2)
    }

    fn prepare(group: &mut Group, slot: u32) {
        let listen = group.listen().clone();
        group.prepare(Slot(slot), &listen).unwrap();
    }

    /// A program that calls `shutdown` on its listener takes it out of the group.
    fn leave(group: &Group, slot: u32) {
        let socket = group.socket(Slot(slot)).unwrap();
        rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).unwrap();
    }

    fn empty(group: &Group) {
        for (socket, waiting) in group.sockets.iter().zip(group.waiting()) {
            (0..waiting).for_each(|_| drop(socket::accept(socket.as_fd()).unwrap()));
        }
    }

    /// Connects as everybody does, and tells where that ended.
    fn reached(group: &Group) -> Vec<usize> {
        empty(group);
        let _clients: Vec<TcpStream> =
            (0..20).map(|_| TcpStream::connect(group.reached_at()).unwrap()).collect();
        let found = group.waiting().into_iter().enumerate().filter(|(_, waiting)| *waiting > 0);
        let found = found.map(|(slot, _)| slot).collect();
        empty(group);
        found
    }

    #[test]
    fn programs_that_leave_the_group_move_nobody_who_is_named() {
        let mut group = group();
        select(&mut group, 0, 1).unwrap();
        prepare(&mut group, 1);
        // Each one that served leaves when it is replaced, in turns between two slots.
        let mut serving = 1;
        for _ in 0..6 {
            select(&mut group, serving, serving).unwrap();
            assert_eq!(reached(&group), [serving as usize]);
            let other = if serving == 1 { 2 } else { 1 };
            leave(&group, other);
            assert_eq!(reached(&group), [serving as usize], "somebody else has left: {:?}", group.order);
            select(&mut group, serving, other).unwrap();
            prepare(&mut group, other);
            serving = other;
        }
    }

    #[test]
    fn an_order_that_was_changed_from_outside_is_learnt_again() {
        let mut group = group();
        select(&mut group, 0, 1).unwrap();
        group.order.swap(1, 3);
        select(&mut group, 0, 1).unwrap();
        prepare(&mut group, 1);
        assert!(group.order.iter().copied().eq(0..group.order.len()), "{:?}", group.order);
        select(&mut group, 1, 1).unwrap();
        assert_eq!(reached(&group), [1]);
    }
}
