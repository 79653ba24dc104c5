//! Ports that are free.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports below those that the kernel gives to outgoing connections, of which load makes many, and below those that
/// proxies take.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// An address that nobody listens on, and that nobody is given by chance.
pub fn free_address() -> SocketAddr {
    // Each is tried once in a process: somebody who got one may not have bound it yet.
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(fastrand::u16(PORTS)));
    loop {
        let port = PORTS.start + next.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        // The second is every address of both families, for programs that bind all.
        let all: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into()];
        let is_taken = |address: &IpAddr| {
            let bound = TcpListener::bind((*address, port));
            bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
        };
        if !all.iter().any(is_taken) {
            return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        }
    }
}
