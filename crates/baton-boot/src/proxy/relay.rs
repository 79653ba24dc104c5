//! A private port behind the socket of one slot, for a program that takes no socket and cannot have its own bound in its place.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use baton_core::run::{Address, Listen};
use baton_sys::socket;
use tokio::sync::watch;

use super::acceptor::{Acceptor, Target};
use super::backend::{Backend, Wanted, settle};
use crate::group::GroupError;

/// Forwards what arrives at one slot's socket to the program that has the slot, which listens on a private port.
#[derive(Debug)]
pub struct Relay {
    backend: Backend,
    target: watch::Sender<Target>,
}

impl Relay {
    /// Starts to accept from this socket, which nobody else accepts from, for a program of so many copies.
    pub fn open(listen: &Listen, socket: &OwnedFd, copies: u32) -> Result<Self, GroupError> {
        let backend = Backend::of_copies(listen, copies)?;
        let (target, targets) = watch::channel(Target::Backend(backend.clone()));
        let acceptor = Acceptor { public: listen.address.clone(), backlog: listen.backlog, targets };
        let open = || acceptor.start(socket.try_clone()?);
        open().map_err(|source| GroupError::new("relaying", listen, source))?;
        Ok(Self { backend, target })
    }

    /// Makes it fit for the next program in its slot; clients that wait are its own.
    pub fn prepare(&mut self, listen: &Listen, socket: &OwnedFd, copies: u32) -> Result<(), GroupError> {
        // Whoever makes a socket fit for a program makes it block, and an accept that blocks stops everybody.
        socket::set_blocking(socket.as_fd(), false)
            .map_err(|source| GroupError::new("relaying", listen, source))?;
        if !self.backend.renew(listen, Wanted::Ports(copies))? {
            self.backend = Backend::of_copies(listen, copies)?;
            self.target.send_replace(Target::Backend(self.backend.clone()));
        }
        Ok(())
    }

    /// Where a copy of the program is to listen, and is reached.
    pub fn backend(&self, copy: u32) -> &Address {
        self.backend.of_copy(copy)
    }

    /// Where a copy is asked how it is.
    pub fn asked(&self, listen: &Listen, copy: u32) -> &Address {
        self.backend.asked(listen, copy)
    }

    /// Stops accepting, and waits until the program has accepted what was forwarded to it.
    pub fn end(self, limit: Duration) -> impl Future<Output = ()> + Send + 'static {
        self.target.send_replace(Target::Closed);
        async move { settle(&self.backend, limit).await }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.target.send_replace(Target::Closed);
    }
}
