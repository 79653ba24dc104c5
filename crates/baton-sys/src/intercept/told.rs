//! What is told of a program that binds: the address in its memory, and the texts of `/proc` about its thread and
//! its descriptors. Pure: others wrote all of it, and any bytes are read or refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::fs::OFlags;

/// How the program has its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) close_on_exec: bool,
    pub(super) nonblocking: bool,
}

impl Flags {
    /// Reads the `flags:` line of `/proc/<tid>/fdinfo/<fd>`, there in octal digits.
    pub(super) fn parse(info: &str) -> Option<Self> {
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = OFlags::from_bits_retain(u32::from_str_radix(octal.trim(), 8).ok()?);
        Some(Self {
            close_on_exec: flags.contains(OFlags::CLOEXEC),
            nonblocking: flags.contains(OFlags::NONBLOCK),
        })
    }
}

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// What `/proc/<tid>/status` tells of a thread.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) process: i32,
    pub(super) user: Ids,
}

impl Status {
    /// Reads the lines that matter.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u32>().ok()
        };
        let user = Ids { user: number("Uid:")?, group: number("Gid:")? };
        Some(Self { process: number("Tgid:")?.try_into().ok()?, user })
    }
}

/// Reads a `sockaddr_in` or `sockaddr_in6`, as long as the program says that it is.
pub(super) fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip: IpAddr = match family {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether the `tfd:` lines of an epoll descriptor's `fdinfo` name this inode, there in hexadecimal.
pub(super) fn watches(info: &str, inode: u64) -> bool {
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
        assert_eq!(address(&v4), "127.0.0.1:8080".parse().ok());
        let head = [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &[0, 80], &[0; 4]].concat();
        let v6 = [&head[..], &Ipv6Addr::LOCALHOST.octets(), &[0; 4]].concat();
        assert_eq!(address(&v6), "[::1]:80".parse().ok());
        assert_eq!(address(&[v6, vec![0; 100]].concat()), "[::1]:80".parse().ok());
        // Too short for its family, another family, nothing.
        assert_eq!(address(&head), None);
        assert_eq!(address(&[1, 0, b'/', b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(address(&[]), None);
    }

    #[test]
    fn what_proc_tells_is_read() {
        let flags = Flags::parse("pos:\t0\nflags:\t02004002\nmnt_id:\t9\nino:\t7\n").unwrap();
        assert_eq!(flags, Flags { close_on_exec: true, nonblocking: true });
        let flags = Flags::parse("pos:\t0\nflags:\t02\n").unwrap();
        assert_eq!(flags, Flags { close_on_exec: false, nonblocking: false });
        assert_eq!(Flags::parse("pos:\t0\n"), None);

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
