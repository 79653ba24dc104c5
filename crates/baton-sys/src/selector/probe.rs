//! Proves that sockets can share an address here and that a selector is obeyed, before anything depends on it: old kernels
//! and some sandboxes refuse one of the two, or take it and do nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

use super::{Choice, attach};
use crate::socket;

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
    for (index, chosen) in (0..).zip([&first, &second]) {
        // No client has one of the ports from 0 on.
        let choice = Choice { serving: vec![index], private: index, held: 0, rest: None };
        attach(first.as_fd(), &choice).map_err(failed("setsockopt(SO_ATTACH_REUSEPORT_CBPF)"))?;
        if !arrives_at(chosen, address).map_err(failed("connect"))? {
            return Err(failed("choosing a socket (SO_ATTACH_REUSEPORT_CBPF)")(io::Error::other(
                "it is taken and has no effect",
            )));
        }
    }
    Ok(())
}

/// Whether a connection to an address ends in the queue of this socket, which is empty.
fn arrives_at(chosen: impl AsFd, address: SocketAddr) -> io::Result<bool> {
    let client = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // It leaves nothing behind.
    sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    rustix::net::connect(&client, &address)?;
    Ok(socket::queue(chosen.as_fd())?.waiting > 0)
}
