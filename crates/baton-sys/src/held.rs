//! Loopback ports that this process holds, so that a connection from one of them is known to be its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::ports;
use crate::selector::HELD_PORTS;
use crate::socket::bound_alone_then_shared;

/// How often to look for a free, aligned run of ports: half of all there are. One try nearly always does.
const TRIES: usize = 800;

/// [`HELD_PORTS`] neighbouring ports on the loopback address, bound and never listening.
#[derive(Debug)]
pub struct HeldPorts {
    first: u16,
    ip: IpAddr,
    _sockets: Vec<OwnedFd>,
}

impl HeldPorts {
    /// Holds ports on the loopback address of this family.
    pub fn hold(like: SocketAddr) -> io::Result<Self> {
        let ip: IpAddr = if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let mut last = None;
        for _ in 0..TRIES {
            let port = fastrand::u16(ports::PRIVATE);
            match hold_from(ip, port - port % HELD_PORTS) {
                Ok(held) => return Ok(held),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    /// The first port: a multiple of [`HELD_PORTS`].
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The address to bind a private connection to; `turn` counts them, so that neighbours in time differ.
    pub fn address(&self, turn: usize) -> SocketAddr {
        SocketAddr::new(self.ip, self.first + (turn % usize::from(HELD_PORTS)) as u16)
    }
}

fn hold_from(ip: IpAddr, first: u16) -> io::Result<HeldPorts> {
    let hold = |port| bound_alone_then_shared(SocketAddr::new(ip, port));
    let sockets = (first..first + HELD_PORTS).map(hold).collect::<io::Result<_>>()?;
    Ok(HeldPorts { first, ip, _sockets: sockets })
}
