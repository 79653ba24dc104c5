//! Whether a program that does not answer listens somewhere else.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use baton_core::run::Address;
use baton_core::supervisor::listens_elsewhere;
use baton_core::words::Words;
use baton_sys::process::inspect;
use baton_sys::socket;

use crate::tree::{self, Root};

/// How many sockets of one process are looked at.
const SOCKETS_MAX: usize = 1000;

/// The listener at which a program is asked how it is.
#[derive(Debug)]
pub struct Asked {
    /// Where its clients are.
    pub address: Address,
    /// What the program was told to bind.
    pub to_bind: Address,
    /// The socket that it accepts from, where the bootloader has it too.
    pub socket: Option<Arc<OwnedFd>>,
}

/// Looks where the processes of a generation listen, if nobody accepts where they should. Takes a while.
pub fn look(root: &Root, asked: &Asked) -> Option<Words> {
    // What was asked over connections waits in the queue of a socket from which nobody accepts.
    if let Some(own) = &asked.socket
        && socket::queue(own.as_fd()).is_ok_and(|queue| queue.waiting == 0)
    {
        return None;
    }
    let processes = tree::of(root).ok()?;
    let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
    let mut accepts_at: Vec<Address> = ports(&pids).chain(pids.iter().copied().flat_map(paths)).collect();
    accepts_at.sort_unstable();
    accepts_at.dedup();
    listens_elsewhere(&asked.address, &asked.to_bind, &accepts_at)
}

/// The addresses at which processes listen.
fn ports(pids: &[i32]) -> impl Iterator<Item = Address> {
    let sockets = inspect::connections(pids, SOCKETS_MAX).into_values().flatten().flatten();
    sockets.filter(|socket| socket.state == "LISTEN").map(|socket| socket.local.into())
}

/// The Unix sockets at which a process listens. Names that no settings can have are left out.
fn paths(pid: i32) -> impl Iterator<Item = Address> {
    let names = inspect::unix_listeners(pid).unwrap_or_default();
    names.into_iter().filter_map(|name| name.parse().ok().map(Address::Unix))
}
