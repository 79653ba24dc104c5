//! A listener whose connections the bootloader accepts itself and forwards to the generation that serves.
//!
//! Each slot has a private port on the loopback address, which its program binds; or, where programs take sockets and only
//! cannot share the public address, a private socket that the program is given. Established connections stay
//! with their generation; whom new ones go to is one value. While nobody can be reached, clients wait.

mod acceptor;
mod backend;
mod exchange;
mod framing;
mod header;
mod hint;
mod relay;
mod splice;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use baton_core::run::{Address, Handover, Listen, Proxy as Limits};
use baton_core::supervisor::{Selection, Slot};
use baton_sys::socket;
use tokio::sync::watch;

use self::acceptor::{Acceptor, Target};
use self::backend::{Backend, Wanted, settle};
pub use self::relay::Relay;
use crate::group::GroupError;
use crate::listener::Tenant;
use crate::unix::{Owner, Shown, Unix};

/// The one socket of a listener at a path.
const FRONT: Slot = Slot(0);

/// One proxied listener.
#[derive(Debug)]
pub struct Proxy {
    listen: Listen,
    /// What leads clients to it, where it is at a path. It has one socket, that of the first slot.
    front: Option<Unix>,
    /// By slot.
    backends: Vec<Backend>,
    selection: Selection,
    target: watch::Sender<Target>,
    /// How many there have been: one for each socket that clients could find.
    acceptors: usize,
}

impl Proxy {
    /// Starts listening; clients wait until somebody is selected.
    ///
    /// # Errors
    /// When somebody else listens on the address, among others.
    pub fn open(listen: Listen, owner: Option<Owner>) -> Result<Self, GroupError> {
        let failed = |source| GroupError::new("opening", &listen, source);
        let (socket, front) = match &listen.address {
            Address::Tcp(address) => (socket::alone(*address, listen.backlog).map_err(failed)?, None),
            Address::Unix(path) => {
                let mut front = Unix::open(listen.clone(), path.clone(), owner)?;
                front.select(FRONT, FRONT)?;
                let socket = front.socket(FRONT).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                (socket.try_clone().map_err(failed)?, Some(front))
            }
        };
        let (target, targets) = watch::channel(Target::Nobody);
        Acceptor { public: listen.address.clone(), backlog: listen.backlog, targets }
            .start(socket)
            .map_err(failed)?;
        let (backends, selection) = (Vec::new(), Selection::of(FRONT));
        Ok(Self { listen, front, backends, selection, target, acceptors: 1 })
    }

    /// Makes sure that clients find it.
    pub fn keep_name(&mut self) -> Result<(), GroupError> {
        let Some(front) = &mut self.front else { return Ok(()) };
        if front.is_lost(FRONT) {
            let socket = front.renew(FRONT)?;
            // Who waits at the other one is accepted as before.
            self.accept_from(&socket)?;
        }
        self.front.as_ref().map_or(Ok(()), Unix::keep_name)
    }

    /// What the settings say of the listener.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    fn backend(&self, slot: Slot) -> Option<&Backend> {
        self.backends.get(slot.0 as usize)
    }

    /// The private socket that the program of a slot is given, if it is.
    pub fn socket(&self, slot: Slot) -> Option<Arc<OwnedFd>> {
        self.backend(slot)?.socket.clone()
    }

    /// Where a copy of the program of a slot is to listen, unless it is given a socket.
    pub fn to_bind(&self, slot: Slot, copy: u32) -> Option<&Address> {
        let backend = self.backend(slot).filter(|backend| backend.socket.is_none())?;
        Some(backend.of_copy(copy))
    }

    /// Where a copy of the program of a slot is asked how it is.
    pub fn asked(&self, slot: Slot, copy: u32) -> Option<&Address> {
        let backend = self.backend(slot)?;
        // One socket is the same for all.
        if backend.socket.is_some() { Some(&backend.at) } else { Some(backend.asked(&self.listen, copy)) }
    }

    /// What a probe of the program in a slot says first.
    pub fn greeting(&self, slot: Slot) -> Vec<u8> {
        let header = self.backend(slot).is_some_and(|backend| backend.limits.proxy_protocol);
        if header { header::local() } else { Vec::new() }
    }

    /// Sends new connections to these slots from now on.
    pub fn select(&mut self, selection: Selection) -> Result<(), GroupError> {
        self.selection = selection;
        let backend = |slot: Slot| self.backends.get(slot.0 as usize).cloned();
        let Some(backend_of_serving) = backend(selection.serving) else { return Ok(()) };
        let shown = backend_of_serving.shown;
        let split = selection.split.and_then(|split| Some((split.share, backend(split.rest)?)));
        self.target.send_replace(match split {
            Some((share, rest)) => Target::Split(backend_of_serving, share, rest),
            None => Target::Backend(backend_of_serving),
        });
        match &mut self.front {
            Some(front) => front.show_as(FRONT, shown),
            None => Ok(()),
        }
    }

    /// Makes a slot fit for its next owner: its port is free, and its limits are those of its settings.
    pub fn prepare(&mut self, slot: Slot, listen: &Listen, tenant: Tenant) -> Result<(), GroupError> {
        let limits = match listen.handover {
            Handover::Proxy(limits) => limits,
            Handover::Auto | Handover::Inherit => Limits::default(),
        };
        self.listen = listen.clone();
        while self.backends.len() <= slot.0 as usize {
            let backend = Backend::find(listen, limits, tenant.clone(), &self.backends)?;
            self.backends.push(backend);
        }
        let index = slot.0 as usize;
        let shown = Shown { owner: tenant.owner, mode: listen.mode };
        let wanted = match tenant.relayed {
            None if listen.handover.passes_socket() => Wanted::Socket,
            copies => Wanted::Ports(copies.unwrap_or(1)),
        };
        // A path is in the folder of one generation.
        let known =
            |backend: &&Backend| tenant.path.is_none() && (backend.limits, backend.shown) == (limits, shown);
        let fits = self.backends.get(index).filter(known).map(|backend| backend.renew(listen, wanted));
        if fits.transpose()? == Some(true) {
            return Ok(());
        }
        let new = match wanted {
            Wanted::Socket => Backend::with_socket(listen)?,
            Wanted::Ports(copies @ 2..) => Backend::of_copies(listen, copies)?,
            Wanted::Ports(_) => Backend::find(listen, limits, tenant, &self.backends)?,
        };
        let before = std::mem::replace(&mut self.backends[index], new.shown_as(shown));
        if slot == self.selection.serving {
            self.select(self.selection)?;
        }
        match before.socket.filter(|socket| has_waiting(socket)) {
            // Nobody is given this one any more: who waits there is sent to whoever serves.
            Some(socket) => self.accept_from(&socket),
            None => Ok(()),
        }
    }

    /// Accepts from one more socket, and forwards as from the others.
    fn accept_from(&mut self, socket: &OwnedFd) -> Result<(), GroupError> {
        let acceptor = Acceptor {
            public: self.listen.address.clone(),
            backlog: self.listen.backlog,
            targets: self.target.subscribe(),
        };
        let start = || acceptor.start(socket.try_clone()?);
        start().map_err(|source| GroupError::new("opening", &self.listen, source))?;
        self.acceptors += 1;
        Ok(())
    }

    /// Waits until the program of a slot that is not selected any more has accepted what was forwarded to it:
    /// when it closes its socket, what still waits there would be reset.
    pub fn settled(&self, slot: Slot, limit: Duration) -> impl Future<Output = ()> + Send + 'static {
        let backend = self.backends.get(slot.0 as usize).cloned();
        async move {
            if let Some(backend) = backend {
                settle(&backend, limit).await;
            }
        }
    }
}

impl Drop for Proxy {
    /// Each acceptor may have clients to accept yet, who count as on their way until it has looked.
    fn drop(&mut self) {
        if let Some(backend) = self.target.borrow().first() {
            backend.under_way.fetch_add(self.acceptors, Ordering::SeqCst);
        }
    }
}

fn has_waiting(socket: &OwnedFd) -> bool {
    socket::queue(socket.as_fd()).is_ok_and(|queue| queue.waiting > 0)
}
