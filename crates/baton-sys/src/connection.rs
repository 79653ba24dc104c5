//! Who has the other end of a connection between two sockets of this machine, as the kernel tells (`sock_diag(7)`).

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, recv, sendto};

use crate::accepted::{BY_FAMILY, ERROR, MESSAGE_MAX, TCP, Told, messages, open, told};

/// `NLM_F_REQUEST`: of one socket.
const ONE: u16 = 1;

/// Whether nobody has the other end of our connection any more. An end that only says no more still belongs to somebody.
///
/// # Errors
/// The kernel does not tell: it is another one, or a sandbox is in between.
pub fn is_left(local: SocketAddr, peer: SocketAddr) -> io::Result<bool> {
    // Where the kernel has no answers at all it says what it says of a socket that there is not. Ours there is.
    find(local, peer)?.ok_or(io::ErrorKind::Unsupported)?;
    Ok(!find(peer, local)?.is_some_and(|end| end.held))
}

/// The end of a connection that is at `local`.
fn find(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Told>> {
    let socket = open(0)?;
    sendto(&socket, &request(local, peer), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; MESSAGE_MAX];
    let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    match messages(buffer.get(..length).unwrap_or_default()).next() {
        Some((ERROR, content)) => match error(content) {
            Some(Errno::NOENT) => Ok(None),
            Some(error) => Err(error.into()),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        // Without a connection the kernel tells of the listener.
        Some((BY_FAMILY, content)) => Ok(told(content).filter(|told| told.connected)),
        Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2` with all of the socket's id but its cookie.
fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut request = Vec::with_capacity(72);
    request.extend(72_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(ONE.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family.as_raw() as u8, TCP, 0, 0]);
    // Whatever its state is.
    request.extend([0xff; 4]);
    request.extend(local.port().to_be_bytes());
    request.extend(peer.port().to_be_bytes());
    request.extend(bytes(local.ip()));
    request.extend(bytes(peer.ip()));
    request.extend([0; 4]);
    request.extend([0xff; 8]);
    request
}

fn bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// What a `struct nlmsgerr` says.
fn error(content: &[u8]) -> Option<Errno> {
    let code = i32::from_ne_bytes(content.get(..4)?.try_into().ok()?);
    Some(Errno::from_raw_os_error(-code))
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_end_is_left_when_it_is_closed_and_not_before() {
        // A client of the last one may come by the other family.
        for (bound, dialled) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "[::1]"), ("[::]", "127.0.0.1")] {
            let Ok(listener) = TcpListener::bind(format!("{bound}:0")) else { continue };
            let port = listener.local_addr().unwrap().port();
            let ours = TcpStream::connect(format!("{dialled}:{port}")).unwrap();
            let (local, peer) = (ours.local_addr().unwrap(), ours.peer_addr().unwrap());
            let theirs = listener.accept().unwrap().0;
            assert!(!is_left(local, peer).unwrap(), "{bound}: open");
            theirs.shutdown(Shutdown::Write).unwrap();
            assert!(!is_left(local, peer).unwrap(), "{bound}: says no more");
            drop(theirs);
            assert!(is_left(local, peer).unwrap(), "{bound}: closed");
        }
    }

    #[test]
    fn of_what_is_not_connected_nothing_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_left(address, ([127, 0, 0, 1], 1).into()).is_err());
    }
}
