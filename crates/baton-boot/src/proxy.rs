//! A listener whose connections the bootloader accepts itself and forwards to the generation that serves.
//!
//! Each slot has a private port on the loopback address, which its program binds. Established connections stay
//! with their generation; whom new ones go to is one value. While nobody can be reached, clients wait.

mod header;
mod splice;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton_core::run::{Listen, Proxy as Limits};
use baton_core::supervisor::Slot;
use baton_sys::socket;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::group::GroupError;
use crate::log;
use splice::Pipes;

/// Ports below those that the kernel gives to outgoing connections, so that none of these takes one.
const PRIVATE_PORTS: std::ops::Range<u16> = 20_000..32_768;
/// How many ports are tried before the machine counts as full.
const PORT_TRIES: usize = 200;
/// How long to wait before a program that cannot be reached is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long a client waits for a program that can be reached.
const PATIENCE: Duration = Duration::from_secs(60);
/// When descriptors are used up, how long until some may be free.
const NO_DESCRIPTORS: Duration = Duration::from_millis(20);
/// How long connections that were forwarded may wait to be accepted before their program is asked to stop.
const SETTLE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Connections of a generation when no limit is set: more than a process can have open.
const UNLIMITED: usize = 1 << 24;

/// One proxied listener.
#[derive(Debug)]
pub struct Proxy {
    listen: Listen,
    limits: Limits,
    /// By slot.
    backends: Vec<Backend>,
    serving: Slot,
    target: watch::Sender<Target>,
}

/// Whom new connections go to.
#[derive(Debug, Clone)]
enum Target {
    /// Nobody yet: they wait.
    Nobody,
    /// This program.
    Backend(Backend),
    /// They are not accepted any more.
    Closed,
}

/// Where one slot's program is reached.
#[derive(Debug, Clone)]
struct Backend {
    port: u16,
    places: Arc<Semaphore>,
    /// Connections that are being made and that the program cannot have accepted yet.
    under_way: Arc<AtomicUsize>,
}

impl Backend {
    /// One with a port that nobody has, and so many places.
    fn find(listen: &Listen, places: usize, others: &[Self]) -> Result<Self, GroupError> {
        let taken = |port: u16| others.iter().any(|backend| backend.port == port);
        let port = (0..PORT_TRIES).map(|_| fastrand::u16(PRIVATE_PORTS)).find(|p| !taken(*p) && is_free(*p));
        let none = || GroupError::new("finding a private port for", listen, io::ErrorKind::AddrInUse.into());
        Ok(Self {
            port: port.ok_or_else(none)?,
            places: Arc::new(Semaphore::new(places)),
            under_way: Arc::default(),
        })
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// Forwards what arrives at one slot's socket to the program that has the slot, which listens on a private port.
#[derive(Debug)]
pub struct Relay {
    backend: Backend,
    target: watch::Sender<Target>,
}

impl Relay {
    /// Starts to accept from this socket, which nobody else accepts from.
    pub fn open(listen: &Listen, socket: &OwnedFd) -> Result<Self, GroupError> {
        let backend = Backend::find(listen, UNLIMITED, &[])?;
        let (target, targets) = watch::channel(Target::Backend(backend.clone()));
        let acceptor = Acceptor { public: listen.address, header: false, targets };
        let open = || acceptor.start(socket.try_clone()?.into());
        open().map_err(|source| GroupError::new("relaying", listen, source))?;
        Ok(Self { backend, target })
    }

    /// Makes it fit for the next program in its slot; clients that wait are its own.
    pub fn prepare(&mut self, listen: &Listen) -> Result<(), GroupError> {
        if !is_free(self.backend.port) {
            self.backend = Backend::find(listen, UNLIMITED, &[])?;
            self.target.send_replace(Target::Backend(self.backend.clone()));
        }
        Ok(())
    }

    /// Where the program is to listen, and is reached.
    pub fn backend(&self) -> SocketAddr {
        self.backend.address()
    }

    /// Stops accepting, and waits until the program has accepted what was forwarded to it.
    pub fn end(self) -> impl Future<Output = ()> + Send + 'static {
        self.target.send_replace(Target::Closed);
        async move {
            let _ = tokio::time::timeout(SETTLE, self.target.closed()).await;
            settle(&self.backend).await;
        }
    }
}

impl Proxy {
    /// Starts listening; clients wait until somebody is selected.
    ///
    /// # Errors
    /// When somebody else listens on the address, among others.
    pub fn open(listen: Listen, limits: Limits) -> Result<Self, GroupError> {
        let (target, targets) = watch::channel(Target::Nobody);
        let open = || {
            let acceptor = Acceptor { public: listen.address, header: limits.proxy_protocol, targets };
            acceptor.start(socket::alone(listen.address, listen.backlog)?.into())
        };
        match open() {
            Ok(()) => Ok(Self { listen, limits, backends: Vec::new(), serving: Slot(0), target }),
            Err(source) => Err(GroupError::new("opening", &listen, source)),
        }
    }

    /// What the settings say of the listener.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Where the program of a slot is to listen, and is reached.
    pub fn backend(&self, slot: Slot) -> Option<SocketAddr> {
        self.backends.get(slot.0 as usize).map(Backend::address)
    }

    /// What a probe says first.
    pub fn greeting(&self) -> Vec<u8> {
        if self.limits.proxy_protocol { header::local() } else { Vec::new() }
    }

    /// Sends new connections to this slot from now on.
    pub fn select(&mut self, serving: Slot) -> Result<(), GroupError> {
        self.serving = serving;
        if let Some(backend) = self.backends.get(serving.0 as usize) {
            self.target.send_replace(Target::Backend(backend.clone()));
        }
        Ok(())
    }

    /// Makes a slot fit for its next owner: its port is free.
    pub fn prepare(&mut self, slot: Slot) -> Result<(), GroupError> {
        while self.backends.len() <= slot.0 as usize {
            let backend = self.new_backend()?;
            self.backends.push(backend);
        }
        let index = slot.0 as usize;
        if self.backends.get(index).is_some_and(|backend| !is_free(backend.port)) {
            self.backends[index] = self.new_backend()?;
            if slot == self.serving {
                return self.select(slot);
            }
        }
        Ok(())
    }

    fn new_backend(&self) -> Result<Backend, GroupError> {
        let places = self.limits.max_connections.map_or(UNLIMITED, |limit| limit as usize);
        Backend::find(&self.listen, places, &self.backends)
    }

    /// Waits until the program of a slot that is not selected any more has accepted what was forwarded to it:
    /// when it closes its socket, what still waits there would be reset.
    pub fn settled(&self, slot: Slot) -> impl Future<Output = ()> + Send + 'static {
        let backend = self.backends.get(slot.0 as usize).cloned();
        async move {
            if let Some(backend) = backend {
                settle(&backend).await;
            }
        }
    }
}

async fn settle(backend: &Backend) {
    let end = Instant::now() + SETTLE;
    while Instant::now() < end && !is_settled(backend) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_settled(backend: &Backend) -> bool {
    backend.under_way.load(Ordering::SeqCst) == 0
        // Where the kernel does not tell, nothing is known to wait.
        && baton_sys::listening::waiting_at(backend.port).unwrap_or(0) == 0
}

fn is_free(port: u16) -> bool {
    let free = |address: SocketAddr| StdListener::bind(address).is_ok();
    // The program may bind any address with this port.
    free((Ipv4Addr::UNSPECIFIED, port).into())
}

/// Accepts the clients of one listener, on a thread of its own: the loop never waits for them.
struct Acceptor {
    public: SocketAddr,
    header: bool,
    targets: watch::Receiver<Target>,
}

/// A connection's place with a program. It is given back when the connection ends.
struct Place {
    backend: Backend,
    _permit: OwnedSemaphorePermit,
}

impl Acceptor {
    /// Begins on a thread of its own.
    fn start(self, socket: StdListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        std::thread::Builder::new().name("proxy".to_owned()).spawn(move || self.run(socket)).map(drop)
    }

    /// Accepts until the listener is closed, and returns when the last connection has ended.
    fn run(self, socket: StdListener) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return log::say(format_args!("the proxy of {} cannot work: {error}", self.public)),
        };
        let connections = tokio::task::LocalSet::new();
        connections.block_on(&runtime, self.accept_all(socket));
        runtime.block_on(connections);
    }

    async fn accept_all(mut self, socket: StdListener) {
        let pipes = Pipes::default();
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return log::say(format_args!("the proxy of {} cannot work: {error}", self.public)),
        };
        // A place comes first: who has none waits in the kernel's queue, where a client costs nothing.
        while let Some(place) = place(&mut self.targets).await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                changed = self.targets.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            match accepted {
                Ok((client, from)) => {
                    let header = self.header.then(|| header::header(from, self.public));
                    let (targets, pipes) = (self.targets.clone(), pipes.clone());
                    tokio::task::spawn_local(async move {
                        // What goes wrong between two others is theirs; both see the end of it.
                        let _ = forward(client, header, place, targets, &pipes).await;
                    });
                }
                Err(_) => tokio::time::sleep(NO_DESCRIPTORS).await,
            }
        }
    }
}

/// A place with whoever serves, as soon as there is one; nothing when the listener was closed.
async fn place(targets: &mut watch::Receiver<Target>) -> Option<Place> {
    loop {
        let target = targets.wait_for(|target| !matches!(target, Target::Nobody)).await.ok()?.clone();
        let Target::Backend(backend) = target else { return None };
        tokio::select! {
            permit = backend.places.clone().acquire_owned() => {
                let permit = permit.ok()?;
                return Some(Place { backend, _permit: permit });
            }
            changed = targets.changed() => changed.ok()?,
        }
    }
}

async fn forward(
    client: TcpStream,
    header: Option<Vec<u8>>,
    place: Place,
    targets: watch::Receiver<Target>,
    pipes: &Pipes,
) -> io::Result<()> {
    let (server, _place) = connect(place, targets).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    if let Some(header) = header {
        // The first bytes of a connection always fit into its buffer.
        let sent = server.try_write(&header)?;
        if sent < header.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    splice::both_ways(pipes, &client, &server).await
}

/// Connects to the program that has the place, or to whoever serves by then.
async fn connect(mut place: Place, mut targets: watch::Receiver<Target>) -> io::Result<(TcpStream, Place)> {
    let end = Instant::now() + PATIENCE;
    let mut wait = RETRY.0;
    loop {
        let backend = place.backend.clone();
        backend.under_way.fetch_add(1, Ordering::SeqCst);
        // Whom to go to is looked at after this connection is counted: either the switch sees it, or it the switch.
        let current = match targets.borrow_and_update().clone() {
            Target::Backend(current) => current,
            Target::Nobody | Target::Closed => backend.clone(),
        };
        let selected = current.port == backend.port;
        let connected =
            if selected { TcpStream::connect(backend.address()).await.map(Some) } else { Ok(None) };
        backend.under_way.fetch_sub(1, Ordering::SeqCst);
        match connected {
            Ok(Some(server)) => return Ok((server, place)),
            Ok(None) => {}
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
        if !selected {
            let permit = current.places.clone().acquire_owned().await;
            let closed = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
            place = Place { backend: current, _permit: permit.map_err(closed)? };
        }
    }
}
