//! Whoever takes the clients of one listener, and sends each to the program that it goes to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use baton_core::run::Address;
use baton_core::units::Share;
use baton_sys::socket;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::backend::Backend;
use super::splice::Pipes;
use super::{header, hint, splice};
use crate::capacity::Capacity;
use crate::group::reached_at;
use crate::log;
use crate::outlive::{caught, fault, rest};
use crate::stream::{Incoming, Stream};

/// How long to wait before a program that cannot be reached is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long a client waits for a program that can be reached.
const PATIENCE: Duration = Duration::from_secs(60);
/// When descriptors are used up, how long until some may be free.
const NO_DESCRIPTORS: Duration = Duration::from_millis(20);

/// Whom new connections go to.
#[derive(Debug, Clone)]
pub(super) enum Target {
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
    pub(super) fn first(&self) -> Option<&Backend> {
        match self {
            Self::Backend(backend) | Self::Split(backend, ..) => Some(backend),
            Self::Nobody | Self::Closed => None,
        }
    }
}

/// Accepts the clients of one listener, on a thread of its own: the loop never waits for them.
pub(super) struct Acceptor {
    pub(super) public: Address,
    /// How many may wait to be accepted.
    pub(super) backlog: u16,
    pub(super) targets: watch::Receiver<Target>,
}

/// A connection's place with a program. It is given back when the connection ends.
pub(super) struct Place {
    backend: Backend,
    _permit: OwnedSemaphorePermit,
}

impl Acceptor {
    /// Begins on a thread of its own.
    pub(super) fn start(self, socket: OwnedFd) -> io::Result<()> {
        socket::set_blocking(socket.as_fd(), false)?;
        std::thread::Builder::new().name("proxy".to_owned()).spawn(move || self.run(socket)).map(drop)
    }

    /// Accepts until the listener is closed, and returns when the last connection has ended.
    pub(super) fn run(self, socket: OwnedFd) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return log::say(format_args!("the proxy of {} cannot work: {error}", self.public)),
        };
        let connections = tokio::task::LocalSet::new();
        connections.block_on(&runtime, self.accept_all(socket));
        runtime.block_on(connections);
    }

    pub(super) async fn accept_all(mut self, socket: OwnedFd) {
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

    pub(super) async fn accept_until_closed(&mut self, incoming: &Incoming, pipes: &Pipes) {
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
    /// come for them. Until they are on their way, [`settled`](super::Proxy::settled) waits.
    pub(super) async fn accept_rest(&self, incoming: &Incoming, pipes: &Pipes) {
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

    pub(super) fn begin(&self, client: Stream, place: Place, room: OwnedSemaphorePermit, pipes: &Pipes) {
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
