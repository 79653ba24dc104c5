//! Where the program of one slot is reached, and whether all that was sent there has been accepted.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton_core::run::{Address, Listen, Proxy as Limits};
use baton_sys::{options, ports, socket, unix};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::group::GroupError;
use crate::listener::Tenant;
use crate::stream::Stream;
use crate::unix::Shown;

/// How many ports are tried before the machine counts as full.
const PORT_TRIES: usize = 200;
/// How often to look whether a program has accepted what was forwarded to it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Connections of a generation when no limit is set: more than a process can have open.
const UNLIMITED: usize = 1 << 24;

/// Where one slot's program is reached.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    /// Where its first copy is, by which it is told from others.
    pub(super) at: Address,
    /// The socket there, where its program is given one. What waits in its queue outlives the program.
    pub(super) socket: Option<Arc<OwnedFd>>,
    /// Where its other copies are: they cannot all bind one port.
    other_copies: Arc<[Address]>,
    /// Which of them gets the next connection.
    turn: Arc<AtomicUsize>,
    /// How clients find the listener while it serves.
    pub(super) shown: Shown,
    /// What the settings of its program say.
    pub(super) limits: Limits,
    pub(super) places: Arc<Semaphore>,
    /// Connections that are being made and that the program cannot have accepted yet.
    pub(super) under_way: Arc<AtomicUsize>,
}

impl Backend {
    /// One at the tenant's path, else at a port that nobody has.
    pub(super) fn find(
        listen: &Listen,
        limits: Limits,
        tenant: Tenant,
        others: &[Self],
    ) -> Result<Self, GroupError> {
        Ok(Self {
            at: match tenant.path {
                Some(path) => Address::Unix(path),
                None => free_port(listen, |port| others.iter().any(|other| other.at.port() == Some(port)))?,
            },
            socket: None,
            other_copies: Arc::default(),
            turn: Arc::default(),
            shown: Shown { owner: tenant.owner, mode: listen.mode },
            limits,
            places: Arc::new(Semaphore::new(
                limits.max_connections.map_or(UNLIMITED, |limit| limit as usize),
            )),
            under_way: Arc::default(),
        })
    }

    /// One with a port for each of so many copies.
    pub(super) fn of_copies(listen: &Listen, copies: u32) -> Result<Self, GroupError> {
        let first = Self::find(listen, Limits::default(), Tenant::default(), &[])?;
        let mut others: Vec<Address> = Vec::new();
        for _ in 1..copies {
            let taken = |port| others.iter().chain([&first.at]).any(|at| at.port() == Some(port));
            others.push(free_port(listen, taken)?);
        }
        Ok(Self { other_copies: others.into(), ..first })
    }

    pub(super) fn shown_as(self, shown: Shown) -> Self {
        Self { shown, ..self }
    }

    /// One whose program is given a socket, at a port that nobody has.
    pub(super) fn with_socket(listen: &Listen) -> Result<Self, GroupError> {
        let (mut backend, mut failed) =
            (Self::find(listen, Limits::default(), Tenant::default(), &[])?, None);
        for _ in 0..PORT_TRIES {
            let address = backend.at.tcp().unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
            match socket::alone(address, listen.backlog) {
                Ok(socket) => {
                    backend.socket = Some(Arc::new(socket));
                    return Ok(backend);
                }
                // Somebody was faster.
                Err(error) => failed = Some(error),
            }
            backend.at = free_port(listen, |_| false)?;
        }
        let source = failed.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
        Err(GroupError::new("opening a private socket for", listen, source))
    }

    /// Makes it fit for the next program in its slot, of so many copies if each has a port of its own, or else tells that
    /// it cannot be.
    pub(super) fn renew(&self, listen: &Listen, wanted: Wanted) -> Result<bool, GroupError> {
        match (&self.socket, wanted) {
            (Some(socket), Wanted::Socket) => {
                let renewed = socket::set_blocking(socket.as_fd(), true)
                    .and_then(|()| options::reset(socket.as_fd()))
                    .and_then(|()| socket::listen(socket.as_fd(), listen.backlog))
                    .and_then(|()| options::set(socket.as_fd(), &listen.options));
                renewed
                    .map(|()| true)
                    .map_err(|error| GroupError::new("resetting a socket of", listen, error))
            }
            (None, Wanted::Ports(copies)) => {
                let free = self.places_of_copies().all(|at| at.port().is_some_and(is_free));
                Ok(free && self.places_of_copies().count() == copies as usize)
            }
            (Some(_), Wanted::Ports(_)) | (None, Wanted::Socket) => Ok(false),
        }
    }

    /// Where a copy of the program is to listen, and is reached.
    pub(super) fn of_copy(&self, copy: u32) -> &Address {
        self.places_of_copies().nth(copy as usize).unwrap_or(&self.at)
    }

    /// Where a copy is asked how it is: by itself, where each is to be asked, else any that listens.
    pub(super) fn asked(&self, listen: &Listen, copy: u32) -> &Address {
        if listen.per_worker || self.other_copies.is_empty() {
            return self.of_copy(copy);
        }
        let listens = |at: &&Address| at.port().is_some_and(|port| !is_free(port));
        self.in_turn().find(listens).unwrap_or(&self.at)
    }

    /// All places where it is reached, by copy.
    pub(super) fn places_of_copies(&self) -> impl Iterator<Item = &Address> + Clone {
        std::iter::once(&self.at).chain(self.other_copies.iter())
    }

    /// The same, the one first whose turn it is.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &Address> {
        let count = self.other_copies.len() + 1;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        self.places_of_copies().cycle().skip(turn).take(count)
    }

    /// Connects to the copy whose turn it is or, where that cannot be reached, to another one.
    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let mut failed = io::ErrorKind::AddrNotAvailable.into();
        for at in self.in_turn() {
            match Stream::connect(at).await {
                Err(error) => failed = error,
                connected => return connected,
            }
        }
        Err(failed)
    }
}

/// What the next program in a slot is to have behind the listener.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    /// A socket that it is given.
    Socket,
    /// A port for each of so many copies.
    Ports(u32),
}

/// A port that nobody has, nor is about to have.
fn free_port(listen: &Listen, taken: impl Fn(u16) -> bool) -> Result<Address, GroupError> {
    let port = (0..PORT_TRIES).map(|_| fastrand::u16(ports::PRIVATE)).find(|p| !taken(*p) && is_free(*p));
    let none = || GroupError::new("finding a private port for", listen, io::ErrorKind::AddrInUse.into());
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port.ok_or_else(none)?)).into())
}

/// Waits until nothing is on its way to the program any more and nothing waits to be accepted there.
pub(super) async fn settle(backend: &Backend, limit: Duration) {
    let end = Instant::now() + limit;
    while Instant::now() < end && !is_settled(backend).await {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn is_settled(backend: &Backend) -> bool {
    if backend.under_way.load(Ordering::SeqCst) > 0 {
        return false;
    }
    let places: Vec<Address> = backend.places_of_copies().cloned().collect();
    // The list of all connections may be long, and the loop must not wait for it.
    let waits = tokio::task::spawn_blocking(move || places.iter().any(|at| waits_at(at).unwrap_or(false)));
    // Where the kernel does not tell, nothing is known to wait.
    !matches!(waits.await, Ok(true))
}

fn waits_at(at: &Address) -> io::Result<bool> {
    Ok(match at {
        Address::Tcp(address) => baton_sys::listening::waiting_at(address.port())? > 0,
        Address::Unix(path) => unix::waiting_at(Path::new(path.as_str()))? > 0,
    })
}

fn is_free(port: u16) -> bool {
    // The program may bind any address with this port.
    socket::is_free((Ipv4Addr::UNSPECIFIED, port).into())
}
