//! A listener whose connections the bootloader accepts itself and forwards to the generation that serves.
//!
//! Each slot has a private port on the loopback address, which its program binds; or, where programs take sockets and only
//! cannot share the public address, a private socket that the program is given. Established connections stay
//! with their generation; whom new ones go to is one value. While nobody can be reached, clients wait.

mod exchange;
mod framing;
mod header;
mod hint;
mod splice;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton_core::run::{Address, Handover, Listen, Proxy as Limits};
use baton_core::supervisor::{Selection, Slot};
use baton_core::units::Share;
use baton_sys::{options, ports, socket, unix};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::capacity::Capacity;
use crate::group::{GroupError, reached_at};
use crate::listener::Tenant;
use crate::log;
use crate::outlive::{caught, fault, rest};
use crate::stream::{Incoming, Stream};
use crate::unix::{Owner, Shown, Unix};
use splice::Pipes;

/// How many ports are tried before the machine counts as full.
const PORT_TRIES: usize = 200;
/// How long to wait before a program that cannot be reached is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long a client waits for a program that can be reached.
const PATIENCE: Duration = Duration::from_secs(60);
/// When descriptors are used up, how long until some may be free.
const NO_DESCRIPTORS: Duration = Duration::from_millis(20);
/// How often to look whether a program has accepted what was forwarded to it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The one socket of a listener at a path.
const FRONT: Slot = Slot(0);
/// Connections of a generation when no limit is set: more than a process can have open.
const UNLIMITED: usize = 1 << 24;

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

/// Whom new connections go to.
#[derive(Debug, Clone)]
enum Target {
    /// Nobody yet: they wait.
    Nobody,
    /// This program.
    Backend(Backend),
    /// This share of them the first program, and the rest the other one.
    Split(Backend, Share, Backend),
    /// They are not accepted any more.
    Closed,
}

impl Target {
    /// Who gets them; of two, the one that is on trial.
    fn first(&self) -> Option<&Backend> {
        match self {
            Self::Backend(backend) | Self::Split(backend, ..) => Some(backend),
            Self::Nobody | Self::Closed => None,
        }
    }
}

/// Where one slot's program is reached.
#[derive(Debug, Clone)]
struct Backend {
    /// Where its first copy is, by which it is told from others.
    at: Address,
    /// The socket there, where its program is given one. What waits in its queue outlives the program.
    socket: Option<Arc<OwnedFd>>,
    /// Where its other copies are: they cannot all bind one port.
    other_copies: Arc<[Address]>,
    /// Which of them gets the next connection.
    turn: Arc<AtomicUsize>,
    /// How clients find the listener while it serves.
    shown: Shown,
    /// What the settings of its program say.
    limits: Limits,
    places: Arc<Semaphore>,
    /// Connections that are being made and that the program cannot have accepted yet.
    under_way: Arc<AtomicUsize>,
}

impl Backend {
    /// One at the tenant's path, else at a port that nobody has.
    fn find(listen: &Listen, limits: Limits, tenant: Tenant, others: &[Self]) -> Result<Self, GroupError> {
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
    fn of_copies(listen: &Listen, copies: u32) -> Result<Self, GroupError> {
        let first = Self::find(listen, Limits::default(), Tenant::default(), &[])?;
        let mut others: Vec<Address> = Vec::new();
        for _ in 1..copies {
            let taken = |port| others.iter().chain([&first.at]).any(|at| at.port() == Some(port));
            others.push(free_port(listen, taken)?);
        }
        Ok(Self { other_copies: others.into(), ..first })
    }

    /// One whose program is given a socket, at a port that nobody has.
    fn with_socket(listen: &Listen) -> Result<Self, GroupError> {
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
    fn renew(&self, listen: &Listen, wanted: Wanted) -> Result<bool, GroupError> {
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
    fn of_copy(&self, copy: u32) -> &Address {
        self.places_of_copies().nth(copy as usize).unwrap_or(&self.at)
    }

    /// Where a copy is asked how it is: by itself, where each is to be asked, else any that listens.
    fn asked(&self, listen: &Listen, copy: u32) -> &Address {
        if listen.per_worker || self.other_copies.is_empty() {
            return self.of_copy(copy);
        }
        let listens = |at: &&Address| at.port().is_some_and(|port| !is_free(port));
        self.in_turn().find(listens).unwrap_or(&self.at)
    }

    /// All places where it is reached, by copy.
    fn places_of_copies(&self) -> impl Iterator<Item = &Address> + Clone {
        std::iter::once(&self.at).chain(self.other_copies.iter())
    }

    /// The same, the one first whose turn it is.
    fn in_turn(&self) -> impl Iterator<Item = &Address> {
        let count = self.other_copies.len() + 1;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        self.places_of_copies().cycle().skip(turn).take(count)
    }

    /// Connects to the copy whose turn it is or, where that cannot be reached, to another one.
    async fn connect(&self) -> io::Result<Stream> {
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
enum Wanted {
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
        let before = std::mem::replace(&mut self.backends[index], Backend { shown, ..new });
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

/// Waits until nothing is on its way to the program any more and nothing waits to be accepted there.
async fn settle(backend: &Backend, limit: Duration) {
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

fn has_waiting(socket: &OwnedFd) -> bool {
    socket::queue(socket.as_fd()).is_ok_and(|queue| queue.waiting > 0)
}

fn is_free(port: u16) -> bool {
    // The program may bind any address with this port.
    socket::is_free((Ipv4Addr::UNSPECIFIED, port).into())
}

/// Accepts the clients of one listener, on a thread of its own: the loop never waits for them.
struct Acceptor {
    public: Address,
    /// How many may wait to be accepted.
    backlog: u16,
    targets: watch::Receiver<Target>,
}

/// A connection's place with a program. It is given back when the connection ends.
struct Place {
    backend: Backend,
    _permit: OwnedSemaphorePermit,
}

impl Acceptor {
    /// Begins on a thread of its own.
    fn start(self, socket: OwnedFd) -> io::Result<()> {
        socket::set_blocking(socket.as_fd(), false)?;
        std::thread::Builder::new().name("proxy".to_owned()).spawn(move || self.run(socket)).map(drop)
    }

    /// Accepts until the listener is closed, and returns when the last connection has ended.
    fn run(self, socket: OwnedFd) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return log::say(format_args!("the proxy of {} cannot work: {error}", self.public)),
        };
        let connections = tokio::task::LocalSet::new();
        connections.block_on(&runtime, self.accept_all(socket));
        runtime.block_on(connections);
    }

    async fn accept_all(mut self, socket: OwnedFd) {
        let pipes = Pipes::default();
        let incoming = match Incoming::new(socket) {
            Ok(incoming) => incoming,
            Err(error) => return log::say(format_args!("the proxy of {} cannot work: {error}", self.public)),
        };
        while caught(self.accept_until_closed(&incoming, &pipes)).await.is_none() {
            rest().await;
        }
        // Once: whoever is counted as on the way is counted out at its end.
        let _ = caught(self.accept_rest(&incoming, &pipes)).await;
    }

    async fn accept_until_closed(&mut self, incoming: &Incoming, pipes: &Pipes) {
        // A place comes first: who has none waits in the kernel's queue, where a client costs nothing.
        while let Some((place, room)) = place(&mut self.targets).await {
            fault("proxy");
            let accepted = tokio::select! {
                // First, or a client of this moment would be sent to a program that is about to stop.
                biased;
                changed = self.targets.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                accepted = incoming.accept() => accepted,
            };
            match accepted {
                Ok(client) => self.begin(client, place, room, pipes),
                Err(_) => tokio::time::sleep(NO_DESCRIPTORS).await,
            }
        }
    }

    /// Accepts those that wait at a listener that is closed at a stop: the kernel has answered them, and nobody else will
    /// come for them. Until they are on their way, [`settled`](Proxy::settled) waits.
    async fn accept_rest(&self, incoming: &Incoming, pipes: &Pipes) {
        if self.targets.has_changed().is_ok() {
            return;
        }
        let Some(backend) = self.targets.borrow().first().cloned() else { return };
        // More cannot have waited when it was closed (`man 2 listen`).
        for _ in 0..=self.backlog {
            // A place comes second: all may be taken, and nobody need one.
            if !incoming.has_waiting() {
                break;
            }
            let Some(place) = place_with(backend.clone()).await else { break };
            let Some(room) = Capacity::of_process().connection().await else { break };
            let Ok(client) = incoming.accept().await else { break };
            self.begin(client, place, room, pipes);
        }
        // Behind all of them: each is counted by then.
        tokio::task::spawn_local(async move { backend.under_way.fetch_sub(1, Ordering::SeqCst) });
    }

    fn begin(&self, client: Stream, place: Place, room: OwnedSemaphorePermit, pipes: &Pipes) {
        let (public, targets, pipes) = (self.public.clone(), self.targets.clone(), pipes.clone());
        tokio::task::spawn_local(async move {
            // What goes wrong between two others is theirs; both see the end of it.
            let _ = forward(client, place, public, targets, &pipes).await;
            drop(room);
        });
    }
}

/// A place with whoever serves, as soon as there is one and there are descriptors for a connection; nothing when the
/// listener was closed.
async fn place(targets: &mut watch::Receiver<Target>) -> Option<(Place, OwnedSemaphorePermit)> {
    loop {
        let target = targets.wait_for(|target| !matches!(target, Target::Nobody)).await.ok()?.clone();
        let (backend, other) = match target {
            Target::Nobody | Target::Closed => return None,
            Target::Backend(backend) => (backend, None),
            Target::Split(backend, share, rest) if share.holds(fastrand::u32(..)) => (backend, Some(rest)),
            Target::Split(backend, _, rest) => (rest, Some(backend)),
        };
        let both = async {
            let place = tokio::select! {
                // Whoever is drawn comes first; where it has no place, a client of the other one is not to wait for it.
                biased;
                place = place_with(backend) => place?,
                place = place_with_other(other) => place?,
            };
            Some((place, Capacity::of_process().connection().await?))
        };
        tokio::select! {
            both = both => return both,
            changed = targets.changed() => changed.ok()?,
        }
    }
}

async fn place_with(backend: Backend) -> Option<Place> {
    let permit = backend.places.clone().acquire_owned().await.ok()?;
    Some(Place { backend, _permit: permit })
}

async fn place_with_other(other: Option<Backend>) -> Option<Place> {
    match other {
        Some(other) => place_with(other).await,
        None => std::future::pending().await,
    }
}

async fn forward(
    client: Stream,
    place: Place,
    public: Address,
    targets: watch::Receiver<Target>,
    pipes: &Pipes,
) -> io::Result<()> {
    let (server, place) = connect(place, public, targets.clone()).await?;
    client.at_once()?;
    server.at_once()?;
    if place.as_ref().is_some_and(|place| place.backend.limits.proxy_protocol) {
        let header = match &client {
            Stream::Tcp(client) => header::header(client.peer_addr()?, client.local_addr()?),
            Stream::Unix(_) => header::unknown(),
        };
        // The first bytes of a connection always fit into its buffer.
        let sent = server.try_write(&header)?;
        if sent < header.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    match &place {
        Some(Place { backend, .. }) if backend.limits.close_hint => {
            hint::both_ways(&client, &server, || leaves(&targets, &backend.at)).await
        }
        Some(_) | None => splice::both_ways(pipes, &client, &server).await,
    }
}

/// Whether the program at this address gets no new connections any more.
fn leaves(targets: &watch::Receiver<Target>, at: &Address) -> bool {
    let replaced = match &*targets.borrow() {
        Target::Backend(serving) => serving.at != *at,
        Target::Split(serving, _, rest) => ![&serving.at, &rest.at].contains(&at),
        Target::Nobody => false,
        Target::Closed => true,
    };
    // Nobody is left who could say so: the listener was closed.
    replaced || targets.has_changed().is_err()
}

/// Connects to the program that has the place, or to whoever serves by then.
async fn connect(
    mut place: Place,
    public: Address,
    mut targets: watch::Receiver<Target>,
) -> io::Result<(Stream, Option<Place>)> {
    let end = Instant::now() + PATIENCE;
    let mut wait = RETRY.0;
    loop {
        let backend = place.backend.clone();
        backend.under_way.fetch_add(1, Ordering::SeqCst);
        // Whom to go to is looked at after this connection is counted: either the switch sees it, or it the switch.
        let target = targets.borrow_and_update().clone();
        let other = match target {
            Target::Backend(current) => Some(current).filter(|current| current.at != backend.at),
            Target::Split(current, _, rest) => {
                Some(current).filter(|current| ![&current.at, &rest.at].contains(&&backend.at))
            }
            Target::Nobody => None,
            Target::Closed => {
                backend.under_way.fetch_sub(1, Ordering::SeqCst);
                // Whoever serves now is reached as everybody reaches it.
                let public = match public {
                    Address::Tcp(address) => reached_at(address).into(),
                    path @ Address::Unix(_) => path,
                };
                return Ok((Stream::connect(&public).await?, None));
            }
        };
        let connected = match other {
            Some(_) => None,
            None => Some(backend.connect().await),
        };
        backend.under_way.fetch_sub(1, Ordering::SeqCst);
        match connected {
            Some(Ok(server)) => return Ok((server, Some(place))),
            Some(Err(error)) if Instant::now() >= end => return Err(error),
            Some(Err(_)) => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
            None => {}
        }
        if let Some(current) = other {
            let permit = current.places.clone().acquire_owned().await;
            let closed = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
            place = Place { backend: current, _permit: permit.map_err(closed)? };
        }
    }
}
