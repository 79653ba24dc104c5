//! The thread that called `bind`, read through `/proc/<tid>` alone: other ways to look into a process are refused
//! in many containers.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::matching::{Family, Socket};
use super::notify::Call;
use super::user::{AsUser, Ids};
use crate::socket;

/// The largest address: `sockaddr_storage`.
const ADDRESS_ROOM: usize = 128;

/// A thread that waits in `bind(fd, address, length)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    tid: u32,
    fd: RawFd,
    address: u64,
    length: usize,
}

/// How the program has its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) close_on_exec: bool,
    pub(super) nonblocking: bool,
}

impl Caller {
    pub(super) fn of(call: Call) -> Self {
        let [fd, address, length, ..] = call.arguments;
        // The kernel too looks only at the low half of the two numbers.
        Self { tid: call.tid, fd: fd as u32 as RawFd, address, length: length as u32 as usize }
    }

    /// The number of the descriptor that the program binds.
    pub(super) fn fd(self) -> RawFd {
        self.fd
    }

    /// The address that the program asks for; `None` if it is no IP address, or cannot be read by the program
    /// itself either.
    ///
    /// # Errors
    /// If this process may not read the program's memory, or may open no more files.
    pub(super) fn asked(self) -> io::Result<Option<SocketAddr>> {
        let mut room = [0; ADDRESS_ROOM];
        let Some(bytes) = room.get_mut(..self.length) else { return Ok(None) };
        let memory = self.permitted(|| File::open(self.path("mem")))?;
        match memory.map(|memory| memory.read_exact_at(bytes, self.address)) {
            Some(Ok(())) => Ok(parse(bytes)),
            // A bad pointer, or the program is gone.
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// The socket that the program binds; `None` if the descriptor is no TCP socket.
    ///
    /// # Errors
    /// If this process may not look at the program's descriptors, or may open no more files.
    pub(super) fn socket(self) -> io::Result<Option<(Socket, Flags)>> {
        let found = self.permitted(|| {
            let path = self.path(&format!("fd/{}", self.fd));
            let file = fs::metadata(&path)?;
            if !file.file_type().is_socket() {
                return Ok(None);
            }
            let (inode, Some(family)) = (file.ino(), tcp_family(&path)?) else { return Ok(None) };
            let info = fs::read_to_string(self.path(&format!("fdinfo/{}", self.fd)))?;
            let flags = parse_flags(&info).ok_or(io::ErrorKind::InvalidData)?;
            Ok(Some((Socket { family, inode, registered: self.is_registered(inode)? }, flags)))
        });
        Ok(found?.flatten())
    }

    /// Whether one of the program's epoll descriptors watches the socket.
    fn is_registered(self, inode: u64) -> io::Result<bool> {
        for fd in fs::read_dir(self.path("fd"))? {
            let fd = fd?;
            // It may be closed meanwhile.
            let is_epoll =
                fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventpoll]");
            if is_epoll {
                let info = self.path(&format!("fdinfo/{}", fd.file_name().to_string_lossy()));
                if fs::read_to_string(info).is_ok_and(|info| watches(&info, inode)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// A descriptor of our own for the program's socket.
    ///
    /// # Errors
    /// `PermissionDenied` in most containers, and for another user's program without `CAP_SYS_PTRACE`.
    pub(super) fn borrow(self, expected: Socket) -> io::Result<OwnedFd> {
        let process = Pid::from_raw(self.status()?.process).ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let borrowed = pidfd_getfd(process, self.fd, PidfdGetfdFlags::empty())?;
        // A thread may have descriptors of its own, and we asked its process.
        if socket::inode(&borrowed)? == expected.inode {
            Ok(borrowed)
        } else {
            Err(io::Error::other("the thread has descriptors of its own"))
        }
    }

    /// Reads as ourselves, or, where that is refused, as the program's user. `None` if there is no such thing: a
    /// descriptor that is not open, a thread that is gone.
    fn permitted<T>(self, read: impl Fn() -> io::Result<T>) -> io::Result<Option<T>> {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let mut result = read();
        if result.as_ref().is_err_and(denied) {
            let _user = AsUser::become_user(self.status()?.user)?;
            result = read();
        }
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn status(self) -> io::Result<Status> {
        let text = fs::read_to_string(self.path("status"))?;
        Status::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn path(self, below: &str) -> String {
        format!("/proc/{}/{below}", self.tid)
    }
}

/// What `/proc/<tid>/status` tells of a thread.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    process: i32,
    user: Ids,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u32>().ok()
        };
        let user = Ids { user: number("Uid:")?, group: number("Gid:")? };
        Some(Self { process: number("Tgid:")?.try_into().ok()?, user })
    }
}

/// The family of a TCP socket; MPTCP sockets accept TCP connections and count as such.
fn tcp_family(path: &str) -> io::Result<Option<Family>> {
    let mut name = [0u8; 32];
    let length = rustix::fs::getxattr(path, "system.sockprotoname", &mut name)?;
    Ok(match name.get(..length).and_then(|name| name.split(|byte| *byte == 0).next()) {
        Some(b"TCP" | b"MPTCP") => Some(Family::V4),
        Some(b"TCPv6" | b"MPTCPv6") => Some(Family::V6),
        _ => None,
    })
}

/// Reads a `sockaddr_in` or `sockaddr_in6`, as long as the program says that it is.
fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip: IpAddr = match family {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads the `flags:` line of `/proc/<tid>/fdinfo/<fd>`.
fn parse_flags(info: &str) -> Option<Flags> {
    let octal = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = OFlags::from_bits_retain(u32::from_str_radix(octal.trim(), 8).ok()?);
    Some(Flags {
        close_on_exec: flags.contains(OFlags::CLOEXEC),
        nonblocking: flags.contains(OFlags::NONBLOCK),
    })
}

/// Whether the `tfd:` lines of an epoll descriptor's `fdinfo` name this inode, there in hexadecimal.
fn watches(info: &str, inode: u64) -> bool {
    let wanted = format!("ino:{inode:x}");
    info.lines()
        .filter(|line| line.starts_with("tfd:"))
        .any(|line| line.split_ascii_whitespace().any(|field| field == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_the_kernel_reads_it() {
        let v4 = [&(libc::AF_INET as u16).to_ne_bytes()[..], &[0x1f, 0x90, 127, 0, 0, 1], &[0; 8]].concat();
        assert_eq!(parse(&v4), "127.0.0.1:8080".parse().ok());
        let head = [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &[0, 80], &[0; 4]].concat();
        let v6 = [&head[..], &Ipv6Addr::LOCALHOST.octets(), &[0; 4]].concat();
        assert_eq!(parse(&v6), "[::1]:80".parse().ok());
        assert_eq!(parse(&[v6, vec![0; 100]].concat()), "[::1]:80".parse().ok());
        // Too short for its family, another family, nothing.
        assert_eq!(parse(&head), None);
        assert_eq!(parse(&[1, 0, b'/', b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn what_proc_tells_is_read() {
        let flags = parse_flags("pos:\t0\nflags:\t02004002\nmnt_id:\t9\nino:\t7\n").unwrap();
        assert_eq!(flags, Flags { close_on_exec: true, nonblocking: true });
        let flags = parse_flags("pos:\t0\nflags:\t02\n").unwrap();
        assert_eq!(flags, Flags { close_on_exec: false, nonblocking: false });
        assert_eq!(parse_flags("pos:\t0\n"), None);

        let text = "Name:\tx\nTgid:\t41\nPid:\t42\nUid:\t1000\t1000\t1000\t1000\nGid:\t5\t5\t5\t5\n";
        let status = Status { process: 41, user: Ids { user: 1000, group: 5 } };
        assert_eq!(Status::parse(text), Some(status));
        assert_eq!(Status::parse("Name:\tx\n"), None);

        let epoll = "pos:\t0\ntfd:        5 events:       19 data:        5  pos:0 ino:1a2b sdev:8\n";
        assert!(watches(epoll, 0x1a2b));
        assert!(!watches(epoll, 0x1a2));
        assert!(!watches("ino:1a2b\n", 0x1a2b));
    }
}
