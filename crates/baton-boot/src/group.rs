//! The sockets of one listener: a reuseport group with one socket a slot, or one for each copy of its program.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use baton_core::run::{Address, Listen};
use baton_core::seating::{Chosen, Seat, Seating};
use baton_core::supervisor::{Selection, Slot};
use baton_core::units::Share;
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
    /// By seat. The bootloader's own copies: what waits in a queue outlives the program.
    sockets: Vec<Arc<OwnedFd>>,
    seating: Seating,
    held: HeldPorts,
    questions: usize,
    selection: Selection,
    /// Which copy the private path leads to.
    asked: u32,
    spares: usize,
}

impl Group {
    /// Starts listening: clients wait at the first of two sockets.
    ///
    /// # Errors
    /// When somebody else listens on the address, among others.
    pub fn open(listen: Listen, address: SocketAddr) -> Result<Self, GroupError> {
        let open = || {
            let held = HeldPorts::hold(address)?;
            let first = Choice { serving: vec![0], private: 0, held: held.first(), rest: None };
            let sockets = socket::group(address, listen.backlog, |group| selector::attach(group, &first))?;
            Ok((sockets, held))
        };
        let (sockets, held) = open().map_err(|source| GroupError::new("opening", &listen, source))?;
        let mut seating = Seating::new();
        seating.open();
        Ok(Self {
            listen,
            address,
            sockets: sockets.map(Arc::new).into(),
            seating,
            held,
            questions: 0,
            selection: Selection::of(Slot(0)),
            asked: 0,
            spares: 0,
        })
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

    /// The socket of a copy in a slot: its own, or that of all.
    pub fn socket(&self, slot: Slot, copy: u32) -> Option<Arc<OwnedFd>> {
        self.at(self.seating.seat(slot, copy)?)
    }

    /// All sockets of a slot.
    pub fn sockets(&self, slot: Slot) -> Vec<Arc<OwnedFd>> {
        self.seating.of(slot).iter().filter_map(|seat| self.at(*seat)).collect()
    }

    /// Those of a slot that had a copy once and have none now.
    pub fn vacant(&self, slot: Slot) -> Vec<Arc<OwnedFd>> {
        self.seating.vacant(slot).iter().filter_map(|seat| self.at(*seat)).collect()
    }

    fn at(&self, seat: Seat) -> Option<Arc<OwnedFd>> {
        self.sockets.get(seat.0 as usize).cloned()
    }

    /// Gives new connections to these slots, from this moment on, with sockets behind them for at least so many other
    /// generations.
    pub fn select(&mut self, selection: Selection, spares: usize) -> Result<(), GroupError> {
        self.take_back_what_left();
        for slot in [selection.serving, selection.private] {
            self.claim(slot, 1)?;
        }
        for _ in 0..self.seating.short(selection, spares) {
            // Without a spare it works as well, until a program leaves the group.
            if let Err(error) = self.add() {
                log::say(log::chain(&error));
                break;
            }
        }
        (self.selection, self.spares) = (selection, spares);
        self.apply()
    }

    /// A copy has ended: the others get its connections. Tells the socket in whose queue some may wait, if it has one
    /// of its own.
    pub fn bypass(&mut self, slot: Slot, copy: u32) -> Result<Option<Arc<OwnedFd>>, GroupError> {
        let Some(seat) = self.seating.bypass(slot, copy) else { return Ok(None) };
        self.select(self.selection, self.spares)?;
        Ok(self.at(seat))
    }

    /// A copy is about to be launched again: its socket is made fit for it, and gets its part of the connections.
    pub fn take_back(&mut self, slot: Slot, copy: u32) -> Result<(), GroupError> {
        let Some(socket) = self.seating.take_back(slot, copy).and_then(|seat| self.at(seat)) else {
            return Ok(());
        };
        self.reset(&socket)?;
        self.set_options(&socket)?;
        self.select(self.selection, self.spares)
    }

    /// Lets the private path lead to a copy, where it leads to its slot and the copies have sockets of their own;
    /// whether it does.
    pub fn aim(&mut self, slot: Slot, copy: u32) -> Result<bool, GroupError> {
        if slot != self.selection.private || self.seating.copies(slot) <= 1 {
            return Ok(false);
        }
        self.asked = copy;
        self.apply().map(|()| true)
    }

    /// Puts the selector back that a program may have replaced by one of its own.
    pub fn put_back(&self) -> Result<(), GroupError> {
        self.apply()
    }

    /// The inodes of its sockets.
    pub fn inodes(&self) -> BTreeSet<u64> {
        self.sockets.iter().filter_map(|socket| socket::inode(socket).ok()).collect()
    }

    fn claim(&mut self, slot: Slot, copies: usize) -> Result<(), GroupError> {
        while self.seating.claim(slot, copies) > 0 {
            self.add()?;
        }
        Ok(())
    }

    fn add(&mut self) -> Result<(), GroupError> {
        let socket = socket::join_group(self.address, self.listen.backlog);
        let socket = socket.map_err(|source| self.failed("adding a socket to", source))?;
        self.seating.open();
        self.sockets.push(Arc::new(socket));
        Ok(())
    }

    /// Makes a slot fit for its next owner, of which each of so many copies gets a socket. Nobody else may hold them.
    ///
    /// One that is selected for private connections is made as good as new, and it is made sure that the
    /// private path leads to it. The serving one keeps the clients that wait there.
    pub fn prepare(&mut self, slot: Slot, listen: &Listen, copies: u32) -> Result<(), GroupError> {
        self.listen = listen.clone();
        self.claim(slot, copies as usize)?;
        self.seating.launch(slot, copies as usize);
        let private = if slot == self.selection.serving { self.selection.private } else { slot };
        self.select(Selection { private, ..self.selection }, self.spares)?;
        let sockets = self.sockets(slot);
        sockets.iter().try_for_each(|socket| self.reset(socket))?;
        if slot != self.selection.serving {
            self.make_reachable(slot)?;
        }
        // Only now: with some of them nothing arrives that says nothing.
        sockets.iter().try_for_each(|socket| self.set_options(socket))
    }

    fn reset(&self, socket: &OwnedFd) -> Result<(), GroupError> {
        let reset = socket::set_blocking(socket.as_fd(), true)
            .and_then(|()| options::reset(socket.as_fd()))
            .and_then(|()| socket::listen(socket.as_fd(), self.listen.backlog));
        reset.map_err(|source| self.failed("resetting a socket of", source))
    }

    fn set_options(&self, socket: &OwnedFd) -> Result<(), GroupError> {
        let set = options::set(socket.as_fd(), &self.listen.options);
        set.map_err(|source| self.failed("setting options of", source))
    }

    /// Makes sure that the private path leads to a slot.
    fn make_reachable(&mut self, slot: Slot) -> Result<(), GroupError> {
        if self.answers_at(slot)? {
            return self.apply();
        }
        self.learn_order()?;
        self.select(Selection { private: slot, ..self.selection }, self.spares)?;
        match self.answers_at(slot)? {
            true => self.apply(),
            false => Err(self.failed("finding a socket of", io::ErrorKind::NotFound.into())),
        }
    }

    /// Tells the kernel who gets new connections.
    fn apply(&self) -> Result<(), GroupError> {
        let chosen = self.chosen()?;
        self.attach(chosen)
    }

    /// The same, and private connections for this seat.
    fn apply_private(&self, seat: Seat) -> Result<(), GroupError> {
        let private = self.seating.position(seat).ok_or_else(|| self.unknown())?;
        let chosen = self.chosen()?;
        self.attach(Chosen { private, ..chosen })
    }

    fn chosen(&self) -> Result<Chosen, GroupError> {
        self.seating.choose(self.selection, self.asked).ok_or_else(|| self.unknown())
    }

    fn attach(&self, chosen: Chosen) -> Result<(), GroupError> {
        let Chosen { serving, private, rest } = chosen;
        let choice = Choice { serving, private, held: self.held.first(), rest: rest.and_then(rest_of) };
        let attached = self.sockets.first().map(|any| selector::attach(any.as_fd(), &choice));
        attached.unwrap_or(Ok(())).map_err(|source| self.failed("choosing a socket of", source))
    }

    /// A program that called `shutdown` on its listener took it out of the group, and the last one took its
    /// place. Here it comes back, at the end.
    fn take_back_what_left(&mut self) {
        for (seat, socket) in (0..).map(Seat).zip(&self.sockets) {
            let left = socket::queue(socket.as_fd()).is_ok_and(|queue| !queue.listening);
            if left && self.seating.position(seat).is_some() {
                self.seating.left(seat);
                if socket::listen(socket.as_fd(), self.listen.backlog).is_ok() {
                    self.seating.joined(seat);
                }
            }
        }
    }

    /// Whether private connections arrive at each seat of this slot that has a copy.
    fn answers_at(&mut self, slot: Slot) -> Result<bool, GroupError> {
        let seats: Vec<Seat> =
            self.seating.of(slot).iter().take(self.seating.copies(slot)).copied().collect();
        for seat in seats {
            self.apply_private(seat)?;
            if !self.answers(seat).map_err(|source| self.failed("asking", source))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn answers(&mut self, seat: Seat) -> io::Result<bool> {
        let Some(socket) = self.at(seat) else { return Ok(false) };
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

    /// Finds out which seat is at which position by sending a connection to each. It is asked for when
    /// somebody outside has changed the group in a way that could not be followed.
    fn learn_order(&mut self) -> Result<(), GroupError> {
        let serving = self.chosen()?.serving;
        let mut learnt: Vec<Option<usize>> = vec![None; self.seating.order().len()];
        for (position, owner) in learnt.iter_mut().enumerate() {
            let private = position as u32;
            self.attach(Chosen { serving: serving.clone(), private, rest: None })?;
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
        let missing = (0..self.sockets.len()).find(|seat| !learnt.contains(&Some(*seat)));
        let known = learnt.iter().flatten().count();
        if known + 1 < learnt.len() {
            return Err(self.failed("learning the order of", io::ErrorKind::InvalidData.into()));
        }
        let order = learnt.into_iter().filter_map(|owner| owner.or(missing));
        self.seating.learnt(order.map(|seat| Seat(seat as u32)).collect());
        Ok(())
    }

    /// How many connections wait, by seat.
    fn waiting(&self) -> Vec<u32> {
        self.sockets
            .iter()
            .map(|socket| socket::queue(socket.as_fd()).map_or(0, |queue| queue.waiting))
            .collect()
    }

    fn unknown(&self) -> GroupError {
        self.failed("finding a socket of", io::ErrorKind::NotFound.into())
    }

    fn failed(&self, what: &'static str, source: io::Error) -> GroupError {
        GroupError::new(what, &self.listen, source)
    }
}

/// Who gets what the serving slot does not; nobody, where nothing is left.
fn rest_of((share, indices): (Share, Vec<u32>)) -> Option<Rest> {
    u32::try_from(share.bound()).ok().map(|from| Rest { from, indices })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Listener;
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
            per_worker: false,
        };
        Group::open(listen, address).unwrap()
    }

    fn select(group: &mut Group, serving: u32, private: u32) -> Result<(), GroupError> {
        group.select(Selection { private: Slot(private), ..Selection::of(Slot(serving)) }, 2)
    }

    fn prepare(group: &mut Group, slot: u32) {
        let listen = group.listen().clone();
        group.prepare(Slot(slot), &listen, 1).unwrap();
    }

    /// A program that calls `shutdown` on its listener takes it out of the group.
    fn leave(group: &Group, slot: u32) {
        let socket = group.socket(Slot(slot), 0).unwrap();
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
            (0..60).map(|_| TcpStream::connect(group.reached_at()).unwrap()).collect();
        let found = group.waiting().into_iter().enumerate().filter(|(_, waiting)| *waiting > 0);
        let found = found.map(|(slot, _)| slot).collect();
        empty(group);
        found
    }

    #[test]
    fn programs_that_leave_the_group_move_nobody_who_is_named() {
        let mut group = group();
        for slot in [1, 2] {
            select(&mut group, 0, slot).unwrap();
            prepare(&mut group, slot);
        }
        // Each one that served leaves when it is replaced, in turns between two slots.
        let mut serving = 1;
        for _ in 0..6 {
            select(&mut group, serving, serving).unwrap();
            assert_eq!(reached(&group), [serving as usize]);
            let other = if serving == 1 { 2 } else { 1 };
            leave(&group, other);
            assert_eq!(reached(&group), [serving as usize], "somebody else has left: {:?}", group.seating);
            select(&mut group, serving, other).unwrap();
            prepare(&mut group, other);
            serving = other;
        }
    }

    #[test]
    fn an_order_that_was_changed_from_outside_is_learnt_again() {
        let mut group = group();
        select(&mut group, 0, 1).unwrap();
        let mut order = group.seating.order().to_vec();
        order.swap(1, 3);
        group.seating.learnt(order);
        select(&mut group, 0, 1).unwrap();
        prepare(&mut group, 1);
        let order = group.seating.order();
        assert!(order.iter().copied().eq((0..).map(Seat).take(order.len())), "{order:?}");
        select(&mut group, 1, 1).unwrap();
        assert_eq!(reached(&group), [1]);
    }

    #[test]
    fn a_selector_that_a_program_has_attached_is_replaced() {
        let mut group = group();
        for slot in [1, 2] {
            select(&mut group, 0, slot).unwrap();
            prepare(&mut group, slot);
        }
        select(&mut group, 1, 2).unwrap();
        let own = Choice { serving: vec![2], private: 2, held: 0, rest: None };
        selector::attach(group.socket(Slot(2), 0).unwrap().as_fd(), &own).unwrap();
        assert_eq!(reached(&group), [2]);
        let mut listener = Listener::Group(group, std::collections::BTreeMap::new());
        listener.way(Slot(2), 0, true).unwrap();
        let Listener::Group(group, _) = listener else { panic!("it is a group") };
        assert_eq!(reached(&group), [1]);
    }

    #[test]
    fn copies_that_leave_the_group_move_none_that_serves() {
        let mut group = group();
        let listen = group.listen().clone();
        for slot in [1, 2] {
            select(&mut group, 0, slot).unwrap();
            group.prepare(Slot(slot), &listen, 3).unwrap();
        }
        let seats = |group: &Group, slot: u32| -> Vec<usize> {
            group.seating.of(Slot(slot)).iter().map(|seat| seat.0 as usize).collect()
        };
        let mut serving = 1;
        for _ in 0..6 {
            select(&mut group, serving, serving).unwrap();
            let (serves, other) = (seats(&group, serving), 3 - serving);
            assert_eq!(reached(&group), serves);
            for copy in 0..3 {
                let socket = group.socket(Slot(other), copy).unwrap();
                rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).unwrap();
            }
            assert_eq!(reached(&group), serves, "somebody else has left: {:?}", group.seating);
            assert!(group.bypass(Slot(serving), 1).unwrap().is_some());
            assert_eq!(reached(&group), [serves[0], serves[2]]);
            group.take_back(Slot(serving), 1).unwrap();
            assert_eq!(reached(&group), serves);
            select(&mut group, serving, other).unwrap();
            group.prepare(Slot(other), &listen, 3).unwrap();
            serving = other;
        }
    }
}
