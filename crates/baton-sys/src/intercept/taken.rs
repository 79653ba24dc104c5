//! The descriptors that have got a listener's socket: who binds the address beside one of them hears that it is in use.
//!
//! Any number of descriptors could have our socket. But a program that looks whether a port is free, and goes elsewhere if it
//! is not, must not share the connections of another part of itself.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use rustix::net::sockopt;

use super::caller::Caller;
use super::matching::{Claim, is_in_use};
use crate::socket;

/// How many are remembered: more than any program has.
const KEPT: usize = 256;

/// One of them.
#[derive(Debug)]
struct Taken {
    listener: usize,
    process: i32,
    fd: RawFd,
    claim: Claim,
    /// The backlog of our socket at that moment: `listen` mostly changes it.
    backlog: Option<u32>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Descriptors(RefCell<Vec<Taken>>);

/// What the socket that a program binds asks for; nothing, where it cannot be looked at.
pub(super) fn claim(asked: std::net::SocketAddr, theirs: BorrowedFd<'_>) -> Option<Claim> {
    Some(Claim {
        asked,
        reuse_address: sockopt::socket_reuseaddr(theirs).ok()?,
        reuse_port: sockopt::socket_reuseport(theirs).ok()?,
        listens: false,
    })
}

impl Descriptors {
    /// Whether a claim to a listener's address stands against one of a descriptor that is still open.
    pub(super) fn forbid(&self, caller: Caller, listener: usize, ours: BorrowedFd<'_>, claim: Claim) -> bool {
        let Ok(inode) = socket::inode(ours) else { return false };
        let mut taken = self.0.borrow_mut();
        taken.retain(|one| one.listener != listener || caller.inode_of(one.process, one.fd) == Some(inode));
        let backlog = socket::backlog(ours).ok();
        let listens = |one: &Taken| one.backlog != backlog;
        let before = |one: &Taken| Claim { listens: listens(one), ..one.claim };
        taken.iter().any(|one| one.listener == listener && is_in_use(before(one), claim))
    }

    /// The caller's descriptor has got a listener's socket.
    pub(super) fn add(&self, caller: Caller, listener: usize, ours: BorrowedFd<'_>, claim: Claim) {
        let Ok(process) = caller.process() else { return };
        let mut taken = self.0.borrow_mut();
        let surplus = (taken.len() + 1).saturating_sub(KEPT);
        taken.drain(..surplus);
        let backlog = socket::backlog(ours.as_fd()).ok();
        taken.push(Taken { listener, process, fd: caller.fd(), claim, backlog });
    }
}
