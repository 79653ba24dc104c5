//! Where connections come in: one port, with TLS or without.

mod doorstep;
mod network;
mod visitor;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use baton_wire::session::prepare;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use self::doorstep::{Doorstep, Place};
pub(crate) use self::network::{Network, networks};
pub(crate) use self::visitor::Visit;
use self::visitor::Visitor;

/// How long a client may take to agree on a key, with the time that it waits for its turn: where many come at once, those who
/// say nothing must not keep it from the others for longer.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How many may be about to, of whom one address and one network may have a part only.
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

/// Takes connections and agrees on keys, many at a time: one that is slow holds up nobody, those of one address hold up none of
/// their neighbours, and those of one network nobody elsewhere.
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
            if let Some(stream) = handshake(HANDSHAKE_MAX, &place, &room, &acceptor, stream).await {
                let _ = agreed.send((Visitor::new(Either::Right(stream), place), address)).await;
            }
        });
    }
}

/// Waits for a turn and agrees on a key; none where that takes too long, or fails.
async fn handshake(
    limit: Duration,
    place: &Place,
    room: &Semaphore,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let agreed = async {
        // Neither is ever closed, so there is always a permit.
        let _of_network = place.turn().await?;
        let _of_all = room.acquire().await.ok()?;
        // Who speaks no TLS, or does not trust this server, has been told so.
        acceptor.accept(stream).await.ok()
    };
    timeout(limit, agreed).await.ok()?
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rustls::server::ResolvesServerCertUsingSni;

    use super::*;

    /// One that knows no certificate: nobody gets as far here.
    fn acceptor() -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let resolver = Arc::new(ResolvesServerCertUsingSni::new());
        TlsAcceptor::from(Arc::new(config.unwrap().with_no_client_auth().with_cert_resolver(resolver)))
    }

    #[tokio::test]
    async fn f58_who_waits_for_a_turn_for_too_long_is_sent_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (doorstep, room) = (Arc::new(Doorstep::default()), Semaphore::new(HANDSHAKES_MAX));
        let place = doorstep.enter(IpAddr::from([10, 0, 0, 1])).unwrap();
        let mut turns = Vec::new();
        while let Ok(turn) = timeout(Duration::ZERO, place.turn()).await {
            turns.push(turn);
        }
        // Nobody gives a turn back.
        let acceptor = acceptor();
        let ended = handshake(Duration::ZERO, &place, &room, &acceptor, stream);
        let ended = timeout(Duration::from_secs(60), ended).await;
        assert!(matches!(ended, Ok(None)), "it does not wait for ever");
    }
}
