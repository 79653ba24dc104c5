//! Listening sockets of a reuseport group.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::unix;

/// A new listening socket that alone has this address and lets others of the same user join from now on.
///
/// # Errors
/// `AddrInUse` when somebody listens there. It listens before it becomes shareable, so of two processes that
/// try at once only one succeeds: two groups on one address would silently become one.
pub fn first_of_group(address: SocketAddr, backlog: u16) -> io::Result<OwnedFd> {
    let socket = tcp(address)?;
    // Connections of an earlier process may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    listen(socket.as_fd(), backlog)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    Ok(socket)
}

/// A new listening socket that nobody can share.
///
/// # Errors
/// `AddrInUse` when somebody listens there.
pub fn alone(address: SocketAddr, backlog: u16) -> io::Result<OwnedFd> {
    let socket = tcp(address)?;
    // Connections of an earlier process may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    listen(socket.as_fd(), backlog)?;
    Ok(socket)
}

/// The first two listening sockets of a group that alone has this address, of which the kernel chooses from the first
/// connection on as `choose` has told it.
///
/// It can be told that of two and more, and until then it draws: what it gives to the second one meanwhile, nobody may ever
/// accept. So that one takes none before. A client that is drawn to it in this moment gets no answer, and its kernel asks
/// again, mostly a second later.
///
/// # Errors
/// As [`first_of_group`] and `choose`.
pub fn group(
    address: SocketAddr,
    backlog: u16,
    choose: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<[OwnedFd; 2]> {
    let first = first_of_group(address, backlog)?;
    let second = sharing(self::address(&first)?)?;
    // Where that is refused, it is opened as before.
    let is_deaf = deafen(second.as_fd()).is_ok();
    listen(second.as_fd(), backlog)?;
    choose(first.as_fd())?;
    if is_deaf {
        undeafen(second.as_fd())?;
    }
    Ok([first, second])
}

/// A new listening socket that joins the group on this address, at the end. It gets connections at once, unless the kernel was
/// told how to choose.
pub fn join_group(address: SocketAddr, backlog: u16) -> io::Result<OwnedFd> {
    let socket = sharing(address)?;
    listen(socket.as_fd(), backlog)?;
    Ok(socket)
}

/// One that is bound to the address of a group, and is none of it before it listens.
fn sharing(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp(address)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    // So that its connections in TIME_WAIT do not keep the next process from starting a group.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// Lets the kernel drop whatever is sent to a socket (`man 7 socket`, `SO_ATTACH_FILTER`).
fn deafen(socket: BorrowedFd<'_>) -> io::Result<()> {
    // Nothing of a packet is let through.
    let mut nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let filter = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    set_filter(socket, libc::SO_ATTACH_FILTER, &filter)
}

/// Lets it hear again.
fn undeafen(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_filter(socket, libc::SO_DETACH_FILTER, &0i32)
}

fn set_filter<T>(socket: BorrowedFd<'_>, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value has the size that we state, and what it points at lives until the call returns; the kernel copies it.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A new TCP socket for this address, bound and not listening, that shares its address with others of the
/// same user.
pub fn bound_shared(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp(address)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// A new TCP socket for this address, bound and not listening, that alone had it when it was bound and lets
/// others of the same user share it from now on.
pub fn bound_alone_then_shared(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp(address)?;
    net::bind(&socket, &address)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    Ok(socket)
}

/// Whether a program could listen on this address now.
///
/// Nothing listens there for the answer: a client that tries meanwhile is refused, as by any free port, and does
/// not end in a queue that is about to be closed.
pub fn is_free(address: SocketAddr) -> bool {
    let bound = || {
        let socket = tcp(address)?;
        // As programs do: connections that have ended do not stand in their way, a listener does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        io::Result::Ok(net::bind(&socket, &address)?)
    };
    bound().is_ok()
}

/// Makes the socket listen; if it listens already, only changes how many connections may wait.
pub fn listen(socket: BorrowedFd<'_>, backlog: u16) -> io::Result<()> {
    Ok(net::listen(socket, i32::from(backlog))?)
}

/// Binds a socket of either family to an IPv4 address.
pub fn bind(socket: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    // Connections of an earlier program may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(socket, true)?;
    let to = match (sockopt::socket_domain(socket)?, to) {
        (AddressFamily::INET6, SocketAddr::V4(to)) => (to.ip().to_ipv6_mapped(), to.port()).into(),
        _ => to,
    };
    Ok(net::bind(socket, &to)?)
}

/// The address that the socket is bound to.
pub fn address(socket: impl AsFd) -> io::Result<SocketAddr> {
    Ok(net::getsockname(socket)?.try_into()?)
}

fn tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// What the kernel says of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The socket listens: it is in its group.
    pub listening: bool,
    /// Connections that are established and that nobody has accepted.
    pub waiting: u32,
}

/// `tcpi_state` of a listening socket.
const TCP_LISTEN: u8 = 10;

/// The state of the accept queue (`TCP_INFO`: of a listening socket, `tcpi_unacked` is the queue's length). Of a
/// Unix socket the kernel only tells whether any wait: `waiting` is 1 then.
pub fn queue(socket: BorrowedFd<'_>) -> io::Result<Queue> {
    match tcp_info(socket) {
        Ok(info) => Ok(Queue { listening: info.tcpi_state == TCP_LISTEN, waiting: info.tcpi_unacked }),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => unix_queue(socket),
        Err(error) => Err(error),
    }
}

/// How many connections may wait at a listening TCP socket (`tcpi_sacked`): what was said in `listen` last, by whoever.
pub fn backlog(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(tcp_info(socket)?.tcpi_sacked)
}

fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the buffer has the size we state, and any bytes are a valid `tcp_info`.
    unsafe {
        let failed = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut size,
        );
        if failed == 0 { Ok(info.assume_init()) } else { Err(io::Error::last_os_error()) }
    }
}

fn unix_queue(socket: BorrowedFd<'_>) -> io::Result<Queue> {
    let standing = unix::standing(socket)?;
    Ok(Queue { listening: standing.listening, waiting: standing.waiting.into() })
}

/// Accepts one connection. Blocks if the socket does and none waits.
pub fn accept(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(net::accept_with(socket, SocketFlags::CLOEXEC)?)
}

/// Whether calls on the socket wait. The flag belongs to the open file: it changes for everybody who holds
/// the socket.
pub fn set_blocking(socket: BorrowedFd<'_>, blocking: bool) -> io::Result<()> {
    let flags = fcntl_getfl(socket)?;
    let wanted = if blocking { flags - OFlags::NONBLOCK } else { flags | OFlags::NONBLOCK };
    if wanted != flags {
        fcntl_setfl(socket, wanted)?;
    }
    Ok(())
}

/// The inode of a socket: its identity among all descriptors that refer to it.
pub fn inode(socket: impl AsFd) -> io::Result<u64> {
    Ok(fstat(socket)?.st_ino)
}
