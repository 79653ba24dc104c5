//! Ports that are free.

use std::net::{SocketAddr, TcpListener};
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
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
