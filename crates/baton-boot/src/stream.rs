//! Connections over TCP or over a Unix socket: to whoever forwards or asks they are the same.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use baton_core::run::Address;
use baton_sys::connection;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// After how long a client that says nothing is asked by the kernel whether it is there, how long after that again, and how
/// often: one that has vanished is known to after two minutes. (Who acknowledges no data is given up by the kernel anyway,
/// `net.ipv4.tcp_retries2`.)
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// One connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to an address. Unlike one for TCP, a Unix socket whose queue is full refuses with `WouldBlock`.
    pub async fn connect(to: &Address) -> io::Result<Self> {
        match to {
            Address::Tcp(address) => TcpStream::connect(address).await.map(Self::Tcp),
            Address::Unix(path) => UnixStream::connect(path.as_str()).await.map(Self::Unix),
        }
    }

    /// A connection that was accepted elsewhere.
    pub fn accepted(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        if is_unix(&socket)? {
            return UnixStream::from_std(socket.into()).map(Self::Unix);
        }
        TcpStream::from_std(socket.into()).map(Self::Tcp)
    }

    /// Sends small pieces at once, where a connection would hold them back otherwise.
    pub fn at_once(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Has the kernel find out when the other side has vanished without a word.
    pub fn keep_alive(&self) -> io::Result<()> {
        // Who has the other side of a Unix socket cannot vanish without the kernel's knowing.
        let Self::Tcp(stream) = self else { return Ok(()) };
        let (idle, interval, probes) = KEEP_ALIVE;
        sockopt::set_tcp_keepidle(stream, idle)?;
        sockopt::set_tcp_keepintvl(stream, interval)?;
        sockopt::set_tcp_keepcnt(stream, probes)?;
        Ok(sockopt::set_socket_keepalive(stream, true)?)
    }

    /// Waits until the other side is known to be lost: it has reset the connection, or was asked in vain. Its end is none.
    pub async fn lost(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.ready(Interest::ERROR).await?,
            Self::Unix(stream) => stream.ready(Interest::ERROR).await?,
        };
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// Whether the process at the other end, which has said that it says no more, does not listen any more either. Only known
    /// of processes of this machine; of others, and where the kernel does not tell, it is not so.
    pub fn is_closed_by_other(&self) -> bool {
        match self {
            Self::Tcp(stream) => match (stream.local_addr(), stream.peer_addr()) {
                (Ok(local), Ok(peer)) => connection::is_left(local, peer).unwrap_or(false),
                // It is connected no more.
                (Err(_), _) | (_, Err(_)) => true,
            },
            Self::Unix(stream) => {
                let mut polled = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty())];
                let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
                polled[0].revents().contains(PollFlags::HUP)
            }
        }
    }

    /// Waits until it may be read.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// Waits until it may be written to.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Does what is ready, or takes note that it is not.
    pub fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, io),
            Self::Unix(stream) => stream.try_io(interest, io),
        }
    }

    /// Reads what is there now.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what fits now.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

fn is_unix(socket: &OwnedFd) -> io::Result<bool> {
    Ok(sockopt::socket_domain(socket)? == AddressFamily::UNIX)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// A listening socket from which connections are accepted.
#[derive(Debug)]
pub enum Incoming {
    /// Of a TCP listener.
    Tcp(TcpListener),
    /// Of a Unix socket.
    Unix(UnixListener),
}

impl Incoming {
    /// Accepts from this socket, which does not block.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        if is_unix(&socket)? {
            return UnixListener::from_std(socket.into()).map(Self::Unix);
        }
        TcpListener::from_std(socket.into()).map(Self::Tcp)
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Whether a connection waits at this moment: the event loop may not have looked yet, so the kernel is asked.
    pub fn has_waiting(&self) -> bool {
        let socket = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }
}
