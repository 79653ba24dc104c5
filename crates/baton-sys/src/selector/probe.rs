//! Proves that sockets can share an address here and that a selector is obeyed, before anything depends on it: old kernels
//! and some sandboxes refuse one of the two, or take it and do nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::{Choice, attach};
use crate::socket;

/// How long a connection of this machine to itself may take to arrive, when it is busy.
const ARRIVES_WITHIN: Duration = Duration::from_millis(200);

/// Why a selector cannot be had here.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed")]
pub struct ProbeError {
    /// What was refused.
    pub step: &'static str,
    /// By what.
    #[source]
    pub source: io::Error,
}

/// Gives one connection to each of two sockets that share a port. Takes a tenth of a millisecond.
///
/// # Errors
/// The first step that this system refuses.
pub fn probe() -> Result<(), ProbeError> {
    let failed = |step| move |source: io::Error| ProbeError { step, source };
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // Without options, so that what fails below is their fault.
    let first = socket::alone(anywhere, 1).map_err(failed("listen"))?;
    let address = socket::address(&first).map_err(failed("getsockname"))?;
    sockopt::set_socket_reuseport(&first, true)
        .map_err(|error| failed("setsockopt(SO_REUSEPORT)")(error.into()))?;
    let second = socket::join_group(address, 1).map_err(failed("sharing a port (SO_REUSEPORT)"))?;
    for index in 0..2 {
        // No client has one of the ports from 0 on.
        let choice = Choice { serving: vec![index], private: index, held: 0, rest: None };
        attach(first.as_fd(), &choice).map_err(failed("setsockopt(SO_ATTACH_REUSEPORT_CBPF)"))?;
        let _client = connection_to(address).map_err(failed("connect"))?;
        let arrived = arrived_at([&first, &second], ARRIVES_WITHIN).map_err(failed("accept"))?;
        if arrived.is_none_or(|at| at != index) {
            return Err(failed("choosing a socket (SO_ATTACH_REUSEPORT_CBPF)")(io::Error::other(
                "it is taken and has no effect",
            )));
        }
    }
    Ok(())
}

/// A connection that leaves nothing behind.
fn connection_to(address: SocketAddr) -> io::Result<OwnedFd> {
    let client = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    rustix::net::connect(&client, &address)?;
    Ok(client)
}

/// At which of these sockets, by its place among them, a connection arrives, and takes it. Its client may know of it
/// earlier than they do.
fn arrived_at(sockets: [&OwnedFd; 2], limit: Duration) -> io::Result<Option<u32>> {
    let mut fds = sockets.map(|socket| PollFd::new(socket, PollFlags::IN));
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&left)) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    let readable = fds.iter().map(|fd| fd.revents().contains(PollFlags::IN));
    let Some((index, socket)) = (0..).zip(sockets).zip(readable).find_map(|(one, is)| is.then_some(one))
    else {
        return Ok(None);
    };
    socket::accept(socket.as_fd())?;
    Ok(Some(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_arrives_later_is_waited_for_and_taken() {
        let listener = || socket::alone((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
        let (first, second) = (listener(), listener());
        let both = [&first, &second];
        for (index, chosen) in (0..).zip(both) {
            let address = socket::address(chosen).unwrap();
            let arrived = std::thread::scope(|scope| {
                let (begun, begins) = std::sync::mpsc::channel();
                let client = scope.spawn(move || {
                    begins.recv().unwrap();
                    connection_to(address).unwrap()
                });
                begun.send(()).unwrap();
                let arrived = arrived_at(both, Duration::from_secs(60)).unwrap();
                client.join().unwrap();
                arrived
            });
            assert_eq!(arrived, Some(index));
        }
        assert_eq!(arrived_at(both, Duration::ZERO).unwrap(), None, "each was taken");
    }
}
