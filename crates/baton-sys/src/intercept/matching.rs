//! Which of our sockets a call of `bind` shall get: pure decisions over plain data.
//!
//! A call means a listener when the port is the same and the addresses overlap:
//!
//! | the program binds | the listener is on | it is meant because |
//! | --- | --- | --- |
//! | an address | the same address | |
//! | an address | all addresses | the program's own socket could never be replaced by the next generation's |
//! | all addresses | one address | the operator wrote the address; all but it stay closed |
//! | `::1` or `127.0.0.1` | the other of the two | both are what `localhost` means |
//! | an address | another address | it is not meant: they do not touch each other |
//!
//! `0.0.0.0` stands for every IPv4 address and for `localhost`, `::` for every address of both families: whether
//! the program's socket is for IPv6 alone is not asked, since it would not share the port with the next
//! generation's. The exact address wins over others, then the same family, then the order of the listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kind of socket that the program binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A TCP socket of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) family: Family,
    pub(super) inode: u64,
    /// It is in the interest list of an epoll descriptor, where a socket put in its place would not be.
    pub(super) registered: bool,
}

/// A listener of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ours {
    pub(super) address: SocketAddr,
    /// Of the socket that the program gets, if it is not to keep its own.
    pub(super) inode: Option<u64>,
}

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The kernel shall do what the program asked for.
    LetThrough,
    /// Nothing is left to do: the descriptor is this listener's socket already.
    AlreadyOurs(usize),
    /// The program shall get this listener's socket.
    Substitute(usize),
    /// The program's own socket shall be bound to where this listener's connections are forwarded to.
    Move(usize),
    /// The program means this listener, whose socket is IPv6 and would garble the addresses of an IPv4 program.
    OtherFamily(usize),
    /// The program means this listener, and would never hear of a connection to its socket.
    RegisteredBeforeBind(usize),
}

/// Which listener is meant by a call of `bind` with this address, if any.
pub(super) fn meant(asked: SocketAddr, listeners: &[Ours]) -> Option<usize> {
    let distance = |ours: SocketAddr| {
        let near = ours.port() == asked.port() && asked.port() != 0 && overlap(ours.ip(), asked.ip());
        near.then(|| {
            let same = ours.ip().to_canonical() == asked.ip().to_canonical();
            (cannot_have(asked, ours), !same, Family::of(ours) != Family::of(asked))
        })
    };
    let near =
        listeners.iter().enumerate().filter_map(|(index, ours)| Some((distance(ours.address)?, index)));
    near.min().map(|(_, index)| index)
}

/// What to do for a program that binds this socket to this address, which means that listener.
pub(super) fn decide(asked: SocketAddr, socket: Socket, listener: usize, listeners: &[Ours]) -> Decision {
    let Some(ours) = listeners.get(listener) else { return Decision::LetThrough };
    if Some(socket.inode) == ours.inode {
        return Decision::AlreadyOurs(listener);
    }
    // The kernel has the right error for an address of the wrong family, and for what is bound already.
    if socket.family != Family::of(asked) || listeners.iter().any(|ours| ours.inode == Some(socket.inode)) {
        return Decision::LetThrough;
    }
    if ours.inode.is_none() {
        return Decision::Move(listener);
    }
    if cannot_have(asked, ours.address) {
        return Decision::OtherFamily(listener);
    }
    if socket.registered {
        return Decision::RegisteredBeforeBind(listener);
    }
    Decision::Substitute(listener)
}

/// A socket as the kernel sees it beside another one of the same port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// What was asked for.
    pub(super) asked: SocketAddr,
    /// `SO_REUSEADDR` was set.
    pub(super) reuse_address: bool,
    /// `SO_REUSEPORT` was set.
    pub(super) reuse_port: bool,
    /// It listens, as far as that is known.
    pub(super) listens: bool,
}

/// Whether the kernel would say of two sockets of one program, both of its own, that the address of the second one is in use
/// (`man 7 socket`). Of different families they get along: a program that serves both has its IPv6 socket for IPv6 alone.
pub(super) fn is_in_use(first: Claim, second: Claim) -> bool {
    let (one, other) = (first.asked.ip(), second.asked.ip());
    let meets = one == other || one.is_unspecified() || other.is_unspecified();
    let reuses = first.reuse_address && second.reuse_address && !first.listens;
    let shares = first.reuse_port && second.reuse_port;
    one.is_ipv4() == other.is_ipv4() && meets && !reuses && !shares
}

/// An IPv4 program would take the IPv6 addresses of its connections for IPv4 ones.
fn cannot_have(asked: SocketAddr, ours: SocketAddr) -> bool {
    asked.is_ipv4() && ours.is_ipv6()
}

fn overlap(ours: IpAddr, asked: IpAddr) -> bool {
    let (ours, asked) = (ours.to_canonical(), asked.to_canonical());
    ours == asked || is_localhost(ours) && is_localhost(asked) || covers(ours, asked) || covers(asked, ours)
}

fn covers(wide: IpAddr, narrow: IpAddr) -> bool {
    match wide {
        IpAddr::V4(wide) => wide.is_unspecified() && (narrow.is_ipv4() || is_localhost(narrow)),
        IpAddr::V6(wide) => wide.is_unspecified(),
    }
}

fn is_localhost(address: IpAddr) -> bool {
    address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(addresses: &str) -> Vec<Ours> {
        let one =
            |(inode, address): (u64, &str)| Ours { address: address.parse().unwrap(), inode: Some(inode) };
        (1..).zip(addresses.split_ascii_whitespace()).map(one).collect()
    }

    #[test]
    fn a_call_means_the_listener_whose_address_overlaps_most() {
        for (asked, listeners, expected) in [
            // The same address.
            ("127.0.0.1:80", "127.0.0.1:80", Some(0)),
            ("0.0.0.0:80", "0.0.0.0:80", Some(0)),
            ("[::1]:80", "[::1]:80", Some(0)),
            ("[::]:80", "[::]:80", Some(0)),
            ("[::ffff:10.0.0.5]:80", "10.0.0.5:80", Some(0)),
            // One of the two is all addresses.
            ("127.0.0.1:80", "0.0.0.0:80", Some(0)),
            ("10.0.0.5:80", "0.0.0.0:80", Some(0)),
            ("0.0.0.0:80", "10.0.0.5:80", Some(0)),
            ("[::]:80", "0.0.0.0:80", Some(0)),
            ("[::]:80", "127.0.0.1:80", Some(0)),
            ("[::1]:80", "0.0.0.0:80", Some(0)),
            ("[2001:db8::1]:80", "[::]:80", Some(0)),
            ("0.0.0.0:80", "[::]:80", Some(0)),
            ("0.0.0.0:80", "[::1]:80", Some(0)),
            // localhost.
            ("[::1]:80", "127.0.0.1:80", Some(0)),
            ("127.0.0.1:80", "[::1]:80", Some(0)),
            // Addresses that do not touch each other.
            ("127.0.0.2:80", "127.0.0.1:80", None),
            ("10.0.0.5:80", "127.0.0.1:80", None),
            ("[2001:db8::1]:80", "0.0.0.0:80", None),
            ("[2001:db8::1]:80", "10.0.0.5:80", None),
            ("0.0.0.0:80", "[2001:db8::1]:80", None),
            // The port.
            ("0.0.0.0:81", "0.0.0.0:80", None),
            ("0.0.0.0:0", "0.0.0.0:80", None),
            ("0.0.0.0:0", "0.0.0.0:0", None),
            ("0.0.0.0:80", "", None),
            // The nearest of several.
            ("127.0.0.1:80", "10.0.0.5:80 127.0.0.1:80", Some(1)),
            ("127.0.0.1:81", "127.0.0.1:80 127.0.0.1:81", Some(1)),
            ("0.0.0.0:80", "10.0.0.5:80 127.0.0.1:80", Some(0)),
            ("[::]:80", "0.0.0.0:80 [::]:80", Some(1)),
            ("[::1]:80", "0.0.0.0:80 [::]:80", Some(1)),
            ("0.0.0.0:80", "[::]:80 0.0.0.0:80", Some(1)),
            ("127.0.0.1:80", "[::1]:80 0.0.0.0:80", Some(1)),
        ] {
            assert_eq!(meant(asked.parse().unwrap(), &ours(listeners)), expected, "{asked} of {listeners}");
        }
    }

    #[test]
    fn an_address_is_in_use_where_the_kernel_would_say_so() {
        let claim = |text: &str| {
            let (asked, options) = text.split_once(' ').unwrap_or((text, ""));
            let has = |option| options.contains(option);
            Claim {
                asked: asked.parse().unwrap(),
                reuse_address: has("address"),
                reuse_port: has("port"),
                listens: has("listens"),
            }
        };
        for (first, second, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "[::]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("127.0.0.1:80 address", "127.0.0.1:80 address", false),
            ("127.0.0.1:80 address listens", "127.0.0.1:80 address", true),
            ("127.0.0.1:80 address", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:80 address", true),
            ("127.0.0.1:80 port listens", "127.0.0.1:80 port", false),
            ("127.0.0.1:80", "127.0.0.1:80 port", true),
            ("127.0.0.1:80 port", "127.0.0.1:80", true),
        ] {
            assert_eq!(is_in_use(claim(first), claim(second)), expected, "{first}, {second}");
        }
    }

    #[test]
    fn a_socket_is_replaced_only_by_one_that_the_program_can_use() {
        use Decision::*;
        use Family::*;
        let mut listeners = ours("0.0.0.0:80 0.0.0.0:81 [::]:82 [::]:83");
        listeners[3].inode = None;
        let fresh = 99;
        for (asked, family, inode, registered, listener, expected) in [
            ("0.0.0.0:80", V4, fresh, false, 0, Substitute(0)),
            ("127.0.0.1:81", V4, fresh, false, 1, Substitute(1)),
            ("[::]:80", V6, fresh, false, 0, Substitute(0)),
            ("[::]:82", V6, fresh, false, 2, Substitute(2)),
            ("0.0.0.0:82", V4, fresh, false, 2, OtherFamily(2)),
            ("0.0.0.0:82", V4, fresh, true, 2, OtherFamily(2)),
            ("0.0.0.0:80", V4, fresh, true, 0, RegisteredBeforeBind(0)),
            // One that is relayed keeps its socket, whatever that is.
            ("0.0.0.0:83", V4, fresh, false, 3, Move(3)),
            ("[::]:83", V6, fresh, true, 3, Move(3)),
            ("[::]:83", V4, fresh, true, 3, LetThrough),
            ("0.0.0.0:83", V4, 1, false, 3, LetThrough),
            // Our own socket, bound once more to its address or to another.
            ("0.0.0.0:80", V4, 1, false, 0, AlreadyOurs(0)),
            ("0.0.0.0:80", V4, 1, true, 0, AlreadyOurs(0)),
            ("[::]:80", V4, 1, false, 0, AlreadyOurs(0)),
            ("0.0.0.0:81", V4, 1, false, 1, LetThrough),
            // An address of the wrong family for its socket.
            ("[::]:80", V4, fresh, false, 0, LetThrough),
            ("0.0.0.0:80", V6, fresh, false, 0, LetThrough),
            ("0.0.0.0:99", V4, fresh, false, 7, LetThrough),
        ] {
            let socket = Socket { family, inode, registered };
            let decided = decide(asked.parse().unwrap(), socket, listener, &listeners);
            assert_eq!(decided, expected, "{asked} {socket:?}");
        }
    }
}
