//! The listening sockets of other processes, as the kernel lists them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::AddressFamily;

use crate::accepted::list;

/// How many established connections wait to be accepted at this port, on any address.
pub fn waiting_at(port: u16) -> io::Result<u32> {
    let mut waiting = 0;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match std::fs::read_to_string(table) {
            Ok(text) => waiting += text.lines().filter_map(|line| listener(line, port)).sum::<u32>(),
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(waiting)
}

/// `TCPF_LISTEN`.
const LISTENING: u32 = 1 << 10;

/// The sockets that get connections to this address, or some of them, and are none of ours: each by its inode.
///
/// # Errors
/// The kernel does not tell: it is another one, or a sandbox is in between.
pub fn strangers_at(address: SocketAddr, ours: &BTreeSet<u64>) -> io::Result<BTreeSet<u64>> {
    let mut found = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        list(family, address.port(), LISTENING, &mut found)?;
    }
    let strange = |inode: &u64| *inode != 0 && !ours.contains(inode);
    let gets_some = found.iter().filter(|told| takes_from(told.local.ip(), address.ip()));
    Ok(gets_some.map(|told| told.inode).filter(strange).collect())
}

/// Whether a listener there gets connections to this address: one at another address gets those that mean it alone.
fn takes_from(there: IpAddr, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let narrower = address.is_unspecified() && (address.is_ipv6() || there.is_ipv4());
    there == address || narrower
}

/// `st` of a listening socket.
const LISTEN: &str = "0A";

/// The queue of a line, if it is a listener at this port: `sl local_address rem_address st tx_queue:rx_queue`,
/// where `rx_queue` of a listener is its accept queue (`man 5 proc`, `net/ipv4/tcp_ipv4.c`).
fn listener(line: &str, port: u16) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let (_, local_port) = local.rsplit_once(':')?;
    if state != LISTEN || u16::from_str_radix(local_port, 16) != Ok(port) {
        return None;
    }
    u32::from_str_radix(queues.split_once(':')?.1, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_queue_of_a_listener_is_seen_on_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let address = listener.local_addr().unwrap();
            assert_eq!(waiting_at(address.port()).unwrap(), 0);
            let _clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert_eq!(waiting_at(address.port()).unwrap(), 3);
            let _accepted = listener.accept().unwrap();
            assert_eq!(waiting_at(address.port()).unwrap(), 2);
        }
    }

    #[test]
    fn a_stranger_gets_what_means_its_address_alone() {
        for (there, address, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("0.0.0.0", "0.0.0.0", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("0.0.0.0", "127.0.0.1", false),
            ("127.0.0.2", "127.0.0.1", false),
            ("0.0.0.0", "::", true),
            ("::1", "::", true),
            ("::", "0.0.0.0", false),
            ("::1", "0.0.0.0", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
        ] {
            assert_eq!(
                takes_from(there.parse().unwrap(), address.parse().unwrap()),
                expected,
                "{there} {address}"
            );
        }
    }

    #[test]
    fn who_listens_beside_ours_is_found() {
        use std::os::fd::AsFd;
        for ip in ["127.0.0.1:0", "[::]:0"] {
            let first = crate::socket::first_of_group(ip.parse().unwrap(), 8).unwrap();
            let address = crate::socket::address(&first).unwrap();
            let ours = BTreeSet::from([crate::socket::inode(first.as_fd()).unwrap()]);
            assert_eq!(strangers_at(address, &ours).unwrap(), BTreeSet::new());
            let other = crate::socket::join_group(address, 8).unwrap();
            let stranger = crate::socket::inode(other.as_fd()).unwrap();
            assert_eq!(strangers_at(address, &ours).unwrap(), BTreeSet::from([stranger]));
            drop(other);
            assert_eq!(strangers_at(address, &ours).unwrap(), BTreeSet::new());
        }
    }

    #[test]
    fn other_lines_are_not_taken_for_listeners() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000007 00:00000000 00000000  0 0 1 1 0 100 0 0";
        assert_eq!(listener(line, 8080), Some(7));
        assert_eq!(listener(line, 8081), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), 8080), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue rx_queue", 8080), None);
    }
}
