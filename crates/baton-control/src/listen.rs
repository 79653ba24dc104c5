//! Where connections come in: one port, with TLS or without.

mod doorstep;
mod visitor;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use self::doorstep::Doorstep;
pub(crate) use self::visitor::Visit;
use self::visitor::{Visitor, prepare};

/// How long a client may take to agree on a key.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How many may be about to, of whom one address may have a part only.
const HANDSHAKES_MAX: usize = 512;
/// Connections that are agreed upon and not taken yet.
const AGREED_MAX: usize = 16;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct CallerAddress {
    /// The other end.
    pub address: SocketAddr,
    /// The connection.
    pub visit: Arc<Visit>,
}

impl Connected<IncomingStream<'_, Incoming>> for CallerAddress {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        Self { address: *stream.remote_addr(), visit: stream.io().visit() }
    }
}

/// Connections.
pub(crate) enum Incoming {
    /// As they are.
    Plain {
        /// Where they come in.
        listener: TcpListener,
        /// Who is not known yet.
        doorstep: Arc<Doorstep>,
    },
    /// Once a key was agreed upon.
    Tls {
        /// Those.
        agreed: mpsc::Receiver<(Visitor, SocketAddr)>,
        /// Where.
        address: SocketAddr,
    },
}

impl Incoming {
    /// The connections of this listener. With TLS a task takes them from now on, until nobody wants them any more.
    pub(crate) fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let doorstep = Arc::default();
        let Some(tls) = tls else { return Ok(Self::Plain { listener, doorstep }) };
        let address = listener.local_addr()?;
        let (sender, agreed) = mpsc::channel(AGREED_MAX);
        tokio::spawn(agree(listener, TlsAcceptor::from(tls), doorstep, sender));
        Ok(Self::Tls { agreed, address })
    }
}

impl Listener for Incoming {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        match self {
            Self::Plain { listener, doorstep } => loop {
                let (stream, address) = Listener::accept(listener).await;
                if let Some(place) = doorstep.enter(address.ip()) {
                    prepare(&stream);
                    return (Visitor::new(Either::Left(stream), place), address);
                }
            },
            Self::Tls { agreed, .. } => match agreed.recv().await {
                Some(visitor) => visitor,
                // The task that takes connections ends after this.
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain { listener, .. } => listener.local_addr(),
            Self::Tls { address, .. } => Ok(*address),
        }
    }
}

/// Takes connections and agrees on keys, many at a time: one that is slow holds up nobody, and those of one address hold up
/// nobody elsewhere.
async fn agree(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    doorstep: Arc<Doorstep>,
    agreed: mpsc::Sender<(Visitor, SocketAddr)>,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let (stream, address) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = agreed.closed() => return,
        };
        let Some(place) = doorstep.enter(address.ip()) else { continue };
        prepare(&stream);
        let (acceptor, agreed, room) = (acceptor.clone(), agreed.clone(), Arc::clone(&room));
        tokio::spawn(async move {
            let handshake = async {
                // Neither is ever closed, so there is always a permit.
                let _of_address = place.turn().await?;
                let _of_all = room.acquire().await.ok()?;
                // Who speaks no TLS, or does not trust this server, has been told so.
                timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await.ok()?.ok()
            };
            let handshake = handshake.await;
            if let Some(stream) = handshake {
                let _ = agreed.send((Visitor::new(Either::Right(stream), place), address)).await;
            }
        });
    }
}
