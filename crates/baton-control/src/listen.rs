//! Where connections come in: one port, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// How long a client may take to agree on a key.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How many may be about to. Others wait in the kernel's queue, so that who connects and says nothing takes no memory.
const HANDSHAKES_MAX: usize = 512;
/// Connections that are agreed upon and not taken yet.
const AGREED_MAX: usize = 16;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallerAddress(pub SocketAddr);

impl Connected<IncomingStream<'_, Incoming>> for CallerAddress {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        Self(*stream.remote_addr())
    }
}

type Agreed = (TlsStream<TcpStream>, SocketAddr);

/// Connections.
pub(crate) enum Incoming {
    /// As they are.
    Plain(TcpListener),
    /// Once a key was agreed upon.
    Tls {
        /// Those.
        agreed: mpsc::Receiver<Agreed>,
        /// Where.
        address: SocketAddr,
    },
}

impl Incoming {
    /// The connections of this listener. With TLS a task takes them from now on, until nobody wants them any more.
    pub(crate) fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(listener)) };
        let address = listener.local_addr()?;
        let (sender, agreed) = mpsc::channel(AGREED_MAX);
        tokio::spawn(agree(listener, TlsAcceptor::from(tls), sender));
        Ok(Self::Tls { agreed, address })
    }
}

impl Listener for Incoming {
    type Io = Either<TcpStream, TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self {
            Self::Plain(listener) => {
                let (stream, address) = Listener::accept(listener).await;
                at_once(&stream);
                (Either::Left(stream), address)
            }
            Self::Tls { agreed, .. } => match agreed.recv().await {
                Some((stream, address)) => (Either::Right(stream), address),
                // The task that takes connections ends after this.
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(listener) => listener.local_addr(),
            Self::Tls { address, .. } => Ok(*address),
        }
    }
}

/// Takes connections and agrees on keys, many at a time: one that is slow holds up nobody.
async fn agree(mut listener: TcpListener, acceptor: TlsAcceptor, agreed: mpsc::Sender<Agreed>) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        // The room is never closed, so there is always a permit.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, address) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = agreed.closed() => return,
        };
        at_once(&stream);
        let (handshake, agreed) = (acceptor.accept(stream), agreed.clone());
        tokio::spawn(async move {
            // Who speaks no TLS, or does not trust this server, has been told so.
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, handshake).await {
                drop(permit);
                let _ = agreed.send((stream, address)).await;
            }
        });
    }
}

/// Orders are a few bytes, and must not wait for more of them.
fn at_once(stream: &TcpStream) {
    // A connection that cannot do that is one all the same.
    drop(stream.set_nodelay(true));
}
