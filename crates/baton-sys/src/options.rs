//! Options of listening sockets, which accepted connections inherit: those that settings ask for, and those that a
//! program set on its socket before `bind`, and would lose with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use baton_core::run::SocketOptions;
use baton_core::units::{Bytes, Millis};
use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, c_int};
use rustix::net::{self, SocketFlags, SocketType, sockopt};

/// An option: its name for people, its level and its number.
type SocketOption = (&'static str, c_int, c_int);

/// What is copied: what accepted connections inherit, and how the queue behaves. Left out is what decides who
/// shares an address (`SO_REUSEADDR`, `SO_REUSEPORT`, `SO_BINDTODEVICE`, `SO_INCOMING_CPU`, `IPV6_V6ONLY`), which is
/// our socket's business, and what does not read back as it was set (`TCP_MAXSEG`, `TCP_WINDOW_CLAMP`).
const COPIED: [SocketOption; 29] = [
    ("SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE),
    ("SO_LINGER", SOL_SOCKET, libc::SO_LINGER),
    ("SO_OOBINLINE", SOL_SOCKET, libc::SO_OOBINLINE),
    ("SO_PRIORITY", SOL_SOCKET, libc::SO_PRIORITY),
    ("SO_MARK", SOL_SOCKET, libc::SO_MARK),
    ("SO_RCVLOWAT", SOL_SOCKET, libc::SO_RCVLOWAT),
    ("SO_RCVTIMEO", SOL_SOCKET, libc::SO_RCVTIMEO),
    ("SO_SNDTIMEO", SOL_SOCKET, libc::SO_SNDTIMEO),
    ("SO_BUSY_POLL", SOL_SOCKET, libc::SO_BUSY_POLL),
    ("SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP),
    ("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY),
    ("TCP_DEFER_ACCEPT", IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    ("TCP_FASTOPEN", IPPROTO_TCP, libc::TCP_FASTOPEN),
    ("TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE),
    ("TCP_KEEPINTVL", IPPROTO_TCP, libc::TCP_KEEPINTVL),
    ("TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT),
    ("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    ("TCP_CONGESTION", IPPROTO_TCP, libc::TCP_CONGESTION),
    ("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    ("TCP_LINGER2", IPPROTO_TCP, libc::TCP_LINGER2),
    ("TCP_SYNCNT", IPPROTO_TCP, libc::TCP_SYNCNT),
    ("TCP_SAVE_SYN", IPPROTO_TCP, libc::TCP_SAVE_SYN),
    ("TCP_THIN_LINEAR_TIMEOUTS", IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS),
    ("IP_TOS", IPPROTO_IP, libc::IP_TOS),
    ("IP_TTL", IPPROTO_IP, libc::IP_TTL),
    ("IP_MTU_DISCOVER", IPPROTO_IP, libc::IP_MTU_DISCOVER),
    ("IPV6_TCLASS", IPPROTO_IPV6, libc::IPV6_TCLASS),
    ("IPV6_UNICAST_HOPS", IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    ("IPV6_MTU_DISCOVER", IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
];

/// Buffer sizes, which the kernel doubles when it is told them.
const BUFFERS: [SocketOption; 2] =
    [("SO_SNDBUF", SOL_SOCKET, libc::SO_SNDBUF), ("SO_RCVBUF", SOL_SOCKET, libc::SO_RCVBUF)];

/// Which buffers the kernel does not size by itself any more: number 72 (`asm-generic/socket.h`; Linux 5.14).
const BUFFER_LOCK: SocketOption = ("SO_BUF_LOCK", SOL_SOCKET, 72);

/// Longer than every value here: a name of an algorithm has 16 bytes, a time 16.
const ROOM: usize = 64;

/// Makes our socket as the program's is, also where an earlier program left something else. Returns the names
/// of the options that the kernel does not let us set.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Vec<&'static str> {
    let mut refused = Vec::new();
    for option in COPIED {
        // What one of the two does not have cannot be lost.
        let (Ok(wanted), Ok(is)) = (get(from, option), get(to, option)) else { continue };
        if wanted != is && set_one(to, option, &wanted).is_err() {
            refused.push(option.0);
        }
    }
    copy_buffers(from, to, &mut refused);
    refused
}

/// Makes the socket as a new one is, whatever its last owner has set. What the kernel does not let us take back stays.
pub fn reset(socket: BorrowedFd<'_>) -> io::Result<()> {
    let family = sockopt::socket_domain(socket)?;
    let fresh = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let _refused = copy(fresh.as_fd(), socket);
    Ok(())
}

/// Sets what is asked for, and leaves the rest as it is.
///
/// # Errors
/// Names the option that the kernel does not take.
pub fn set(socket: BorrowedFd<'_>, options: &SocketOptions) -> io::Result<()> {
    let SocketOptions { nodelay, keepalive, defer_accept, user_timeout, rcvbuf, sndbuf } = *options;
    let seconds = |time: Millis| time.0 / 1000;
    let bytes = |size: Bytes| size.0;
    let wanted: [(&str, Option<u64>); 7] = [
        ("TCP_NODELAY", nodelay.map(u64::from)),
        ("SO_KEEPALIVE", keepalive.map(|_| 1)),
        ("TCP_KEEPIDLE", keepalive.map(seconds)),
        ("TCP_DEFER_ACCEPT", defer_accept.map(seconds)),
        ("TCP_USER_TIMEOUT", user_timeout.map(|time| time.0)),
        ("SO_RCVBUF", rcvbuf.map(bytes)),
        ("SO_SNDBUF", sndbuf.map(bytes)),
    ];
    for (name, value) in wanted {
        let Some(value) = value else { continue };
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot set {name}: {error}"));
        let option = COPIED.iter().chain(&BUFFERS).find(|option| option.0 == name);
        let option = option.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let number = c_int::try_from(value).unwrap_or(c_int::MAX);
        set_one(socket, *option, &number.to_ne_bytes()).map_err(failed)?;
    }
    Ok(())
}

fn copy_buffers(from: BorrowedFd<'_>, to: BorrowedFd<'_>, refused: &mut Vec<&'static str>) {
    for option in BUFFERS {
        let (Ok(wanted), Ok(is)) = (get_number(from, option), get_number(to, option)) else { continue };
        if wanted != is && set_one(to, option, &(wanted / 2).to_ne_bytes()).is_err() {
            refused.push(option.0);
        }
    }
    // Setting a size locked it; one that the program never set must go on growing by itself.
    if let (Ok(wanted), Ok(is)) = (get(from, BUFFER_LOCK), get(to, BUFFER_LOCK))
        && wanted != is
        && set_one(to, BUFFER_LOCK, &wanted).is_err()
    {
        refused.push(BUFFER_LOCK.0);
    }
}

fn get_number(socket: BorrowedFd<'_>, option: SocketOption) -> io::Result<c_int> {
    let bytes = get(socket, option)?;
    let bytes = bytes.as_slice().try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(c_int::from_ne_bytes(bytes))
}

fn get(socket: BorrowedFd<'_>, (_, level, number): SocketOption) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; ROOM];
    let mut length = ROOM as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `value`, and how many into `length`.
    let failed = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, number, value.as_mut_ptr().cast(), &raw mut length)
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    value.truncate(length as usize);
    Ok(value)
}

fn set_one(socket: BorrowedFd<'_>, (_, level, number): SocketOption, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`.
    let failed =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, number, value.as_ptr().cast(), length) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::socket;

    /// Another value than the default, that every user may set.
    fn unusual(name: &str) -> Option<Vec<u8>> {
        let number = |number: c_int| Some(number.to_ne_bytes().to_vec());
        match name {
            "SO_LINGER" => Some([1i32.to_ne_bytes(), 7i32.to_ne_bytes()].concat()),
            "SO_RCVTIMEO" | "SO_SNDTIMEO" => Some([9i64.to_ne_bytes(), 0i64.to_ne_bytes()].concat()),
            "TCP_CONGESTION" => Some(b"reno".to_vec()),
            "TCP_KEEPCNT" | "TCP_SYNCNT" | "TCP_LINGER2" | "TCP_DEFER_ACCEPT" | "SO_RCVLOWAT" => number(3),
            "IP_TOS" | "IPV6_TCLASS" => number(0x10),
            "SO_MARK" | "SO_BUSY_POLL" => None,
            "IP_MTU_DISCOVER" | "IPV6_MTU_DISCOVER" => number(2),
            "SO_SNDBUF" | "SO_RCVBUF" => number(30_000),
            _ if name.starts_with("SO_") || name == "TCP_NODELAY" || name.contains("THIN") => number(1),
            "TCP_SAVE_SYN" => number(1),
            _ => number(60),
        }
    }

    #[test]
    fn every_option_is_copied_and_taken_back() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listening = |()| socket::first_of_group(address.parse().unwrap(), 16).unwrap();
            let (plain, changed, ours) = (listening(()), listening(()), listening(()));
            let all: Vec<SocketOption> = COPIED.into_iter().chain(BUFFERS).collect();
            let value = |socket: &OwnedFd, option: SocketOption| {
                let mut value = get(socket.as_fd(), option).ok()?;
                // The kernel keeps the seconds of a linger that is switched off.
                if option.0 == "SO_LINGER" && value.starts_with(&[0; 4]) {
                    value.truncate(4);
                }
                Some(value)
            };
            let values =
                |socket| -> Vec<_> { all.iter().map(|option| (option.0, value(socket, *option))).collect() };
            for option in &all {
                if let Some(value) = unusual(option.0) {
                    let before = get(changed.as_fd(), *option).ok();
                    let done = set_one(changed.as_fd(), *option, &value);
                    // The IPv6 ones cannot be set on an IPv4 socket.
                    if before.is_some() {
                        done.unwrap_or_else(|error| panic!("{}: {error}", option.0));
                        assert_ne!(get(changed.as_fd(), *option).ok(), before, "{}", option.0);
                    }
                }
            }
            assert!(copy(changed.as_fd(), ours.as_fd()).is_empty());
            assert_eq!(values(&ours), values(&changed));
            assert!(copy(plain.as_fd(), ours.as_fd()).is_empty());
            assert_eq!(values(&ours), values(&plain));
            assert_eq!(get_number(ours.as_fd(), BUFFER_LOCK).unwrap(), 0);
        }
    }

    #[test]
    fn what_settings_ask_for_is_inherited_by_connections_and_can_be_taken_back() {
        let listener = socket::first_of_group("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let all: Vec<SocketOption> = COPIED.into_iter().chain(BUFFERS).collect();
        let values = |socket: &OwnedFd| -> Vec<_> {
            all.iter().map(|option| (option.0, get(socket.as_fd(), *option).ok())).collect()
        };
        let before = values(&listener);
        let options = SocketOptions {
            nodelay: Some(true),
            keepalive: Some(Millis::from_secs(77)),
            defer_accept: None,
            user_timeout: Some(Millis(1234)),
            rcvbuf: Some(Bytes(30_000)),
            sndbuf: Some(Bytes(40_000)),
        };
        set(listener.as_fd(), &options).unwrap();
        let _client = std::net::TcpStream::connect(socket::address(&listener).unwrap()).unwrap();
        let accepted = socket::accept(listener.as_fd()).unwrap();
        let number = |name: &str| {
            let option = all.iter().find(|option| option.0 == name).unwrap();
            get_number(accepted.as_fd(), *option).unwrap()
        };
        for (name, expected) in [
            ("TCP_NODELAY", 1),
            ("SO_KEEPALIVE", 1),
            ("TCP_KEEPIDLE", 77),
            ("TCP_USER_TIMEOUT", 1234),
            // The kernel doubles these.
            ("SO_RCVBUF", 60_000),
            ("SO_SNDBUF", 80_000),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
        set(listener.as_fd(), &SocketOptions { defer_accept: Some(Millis::from_secs(3)), ..options })
            .unwrap();
        assert_ne!(values(&listener), before);
        reset(listener.as_fd()).unwrap();
        assert_eq!(values(&listener), before);
    }
}
