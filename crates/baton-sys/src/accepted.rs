//! How many connections the programs behind some addresses have accepted, as the kernel tells: it lists the sockets that there are
//! and says of each that goes (`sock_diag(7)`). No privilege is needed, and no program takes part.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with, sockopt,
};

/// The groups in which the kernel tells of TCP sockets that go, of both families (`linux/sock_diag.h`).
const GONE: u32 = 1 | 1 << 2;
/// `SOCK_DIAG_BY_FAMILY`: what is asked, and what is told.
pub(crate) const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` and `NLMSG_DONE` (`linux/netlink.h`).
pub(crate) const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const LIST: u16 = 0x301;
/// All states in which two ends are connected, or one of them is leaving: not those of listeners and of handshakes.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
pub(crate) const TCP: u8 = 6;
/// How much the kernel may have to tell before somebody listens. What is more is lost, and then too few are counted.
const BUFFER: usize = 1 << 20;
/// Longest message.
pub(crate) const MESSAGE_MAX: usize = 64 << 10;

/// A count that goes on.
#[derive(Debug)]
pub struct Accepted {
    gone: OwnedFd,
    addresses: Vec<SocketAddr>,
    /// Connections that were there before, each by what tells it from all others.
    before: BTreeSet<u64>,
    ended: u64,
}

/// What the kernel tells of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) local: SocketAddr,
    cookie: u64,
    /// By what a descriptor shows that it is this one, where some program has it.
    pub(crate) inode: u64,
    /// There is another end: it is no listener, nor a socket that was only bound.
    pub(crate) connected: bool,
    /// Some program has it; one that waits to be accepted nobody has.
    pub(crate) held: bool,
}

impl Accepted {
    /// Counts what is accepted at these addresses from now on. An unspecified address stands for all with its port.
    ///
    /// # Errors
    /// The kernel does not tell: it is another one, or a sandbox is in between.
    pub fn since_now(addresses: Vec<SocketAddr>) -> io::Result<Self> {
        let gone = open(GONE)?;
        // Where it is not to be had, a smaller one does for less.
        let _ = sockopt::set_socket_recv_buffer_size(&gone, BUFFER);
        // First it is listened to, or what ends meanwhile would be counted as new.
        let mut accepted = Self { gone, addresses, before: BTreeSet::new(), ended: 0 };
        accepted.before = accepted.list()?.into_iter().map(|told| told.cookie).collect();
        Ok(accepted)
    }

    /// Leaves out what has ended until now. The kernel tells a moment late of what has gone, and nothing shows that it went before
    /// the count began.
    ///
    /// # Errors
    /// The kernel does not tell any more.
    pub fn forget_ended(&mut self) -> io::Result<()> {
        self.hear()?;
        self.ended = 0;
        Ok(())
    }

    /// How many were accepted since. Some may be missing, where many have come and gone since this was last asked.
    ///
    /// # Errors
    /// The kernel does not tell any more.
    pub fn count(&mut self) -> io::Result<u64> {
        self.hear()?;
        let open = self.list()?;
        let new = open.iter().filter(|told| told.held && !self.before.contains(&told.cookie));
        Ok(self.ended + new.count() as u64)
    }

    /// Takes in what has ended.
    fn hear(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; MESSAGE_MAX];
        loop {
            match recv(&self.gone, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    let ended = messages(&buffer[..length]).filter_map(|(_, content)| told(content));
                    let ended = ended.filter(|told| told.connected && is_at(&self.addresses, told.local));
                    for told in ended.collect::<Vec<_>>() {
                        self.ended += u64::from(!self.before.remove(&told.cookie));
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                // It had more to tell than there was room for.
                Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The connections that there are.
    fn list(&self) -> io::Result<Vec<Told>> {
        let mut found = Vec::new();
        let ports: BTreeSet<u16> = self.addresses.iter().map(SocketAddr::port).collect();
        for port in ports {
            for family in [AddressFamily::INET, AddressFamily::INET6] {
                list(family, port, CONNECTED, &mut found)?;
            }
        }
        found.retain(|told| is_at(&self.addresses, told.local));
        Ok(found)
    }
}

pub(crate) fn open(groups: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Asks for all sockets of a family at a port that are in these states.
pub(crate) fn list(family: AddressFamily, port: u16, states: u32, found: &mut Vec<Told>) -> io::Result<()> {
    let socket = open(0)?;
    let mut request = Vec::with_capacity(72);
    // `struct nlmsghdr`, then `struct inet_diag_req_v2` with the id of a socket of which the port alone is known.
    request.extend(72_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(LIST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family.as_raw() as u8, TCP, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(port.to_be_bytes());
    request.extend([0; 38]);
    request.extend([0xff; 8]);
    sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        for (kind, content) in messages(&buffer[..length]) {
            match kind {
                DONE => return Ok(()),
                ERROR => return Err(io::Error::other("the kernel does not list connections")),
                _ => found.extend(told(content).filter(|told| told.local.port() == port)),
            }
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The kinds and contents of what the kernel says at once. What is cut off is none.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let content = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// A `struct inet_diag_msg`.
pub(crate) fn told(content: &[u8]) -> Option<Told> {
    let at = |from: usize, to: usize| content.get(from..to);
    let port = u16::from_be_bytes(at(4, 6)?.try_into().ok()?);
    let ip = match AddressFamily::from_raw(u16::from(*content.first()?)) {
        AddressFamily::INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(at(8, 12)?).ok()?)),
        AddressFamily::INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(at(8, 24)?).ok()?)),
        _ => return None,
    };
    let connected = at(6, 8)? != [0, 0];
    let cookie = u64::from_ne_bytes(at(44, 52)?.try_into().ok()?);
    let inode = u32::from_ne_bytes(at(68, 72)?.try_into().ok()?);
    let local = SocketAddr::new(ip.to_canonical(), port);
    Some(Told { local, cookie, inode: inode.into(), connected, held: inode != 0 })
}

/// Whether a connection that is accepted here is at one of the addresses; an unspecified one stands for all with its port.
pub fn is_at(addresses: &[SocketAddr], local: SocketAddr) -> bool {
    addresses.iter().any(|address| {
        let ip = address.ip().to_canonical();
        address.port() == local.port() && (ip.is_unspecified() || ip == local.ip())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    /// A client and the accepted end.
    fn connected(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// The kernel tells a moment later, and never of more.
    fn wait_for(accepted: &mut Accepted, count: u64) {
        let start = Instant::now();
        loop {
            let counted = accepted.count().unwrap();
            assert!(counted <= count && start.elapsed() < Duration::from_secs(60), "{counted} of {count}");
            if counted == count {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Both ends leave, the client first or the server.
    fn end((mut client, mut server): (TcpStream, TcpStream), client_first: bool) {
        let (first, last) = if client_first { (client, &mut server) } else { (server, &mut client) };
        drop(first);
        assert_eq!(last.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn what_is_accepted_is_counted_whoever_leaves_first_and_what_was_there_before_is_not() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let other = TcpListener::bind("127.0.0.1:0").unwrap();
            let old = connected(&listener);
            let mut accepted = Accepted::since_now(vec![listener.local_addr().unwrap()]).unwrap();
            assert_eq!(accepted.count().unwrap(), 0);
            end(connected(&listener), true);
            wait_for(&mut accepted, 1);
            accepted.forget_ended().unwrap();
            assert_eq!(accepted.count().unwrap(), 0);
            let _elsewhere = connected(&other);
            let waits = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert_eq!(accepted.count().unwrap(), 0, "it is not accepted yet");
            let stays = (waits, listener.accept().unwrap().0);
            wait_for(&mut accepted, 1);
            for number in 0..10 {
                end(connected(&listener), number % 2 == 0);
            }
            wait_for(&mut accepted, 11);
            end(old, true);
            end(stays, false);
            end(connected(&listener), true);
            wait_for(&mut accepted, 12);
        }
    }

    #[test]
    fn a_socket_that_was_never_accepted_is_not_counted_when_it_goes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepted = Accepted::since_now(vec![address]).unwrap();
        drop(listener);
        let listener = TcpListener::bind(address).unwrap();
        end(connected(&listener), true);
        // What the kernel tells of it comes last.
        wait_for(&mut accepted, 1);
    }

    #[test]
    fn any_bytes_are_messages_or_none() {
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of nothing");
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(told(&[2; 71]), None);
        let mut content = [0; 72];
        content[0] = 2;
        (content[4], content[5]) = (0x1f, 0x90);
        content[8..12].copy_from_slice(&[127, 0, 0, 1]);
        (content[44], content[68]) = (7, 1);
        let expected = Told {
            local: "127.0.0.1:8080".parse().unwrap(),
            cookie: 7,
            inode: 1,
            connected: false,
            held: true,
        };
        assert_eq!(told(&content), Some(expected));
        content[7] = 1;
        assert_eq!(told(&content), Some(Told { connected: true, ..expected }));
        assert!(is_at(&["0.0.0.0:8080".parse().unwrap()], expected.local));
        assert!(!is_at(&["127.0.0.2:8080".parse().unwrap()], expected.local));
    }
}
