//! What `/proc` tells of a process and its sockets, read. Pure: a process chooses what its threads are called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How many frames of a kernel stack are read: the outermost are the same everywhere.
const FRAMES_MAX: usize = 6;

/// The name and state in a line of `stat`. The name is in parentheses and may contain anything.
pub(super) fn stat(line: &str) -> Option<(String, char)> {
    let (_, rest) = line.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    Some((name.to_owned(), rest.chars().next()?))
}

/// Calls in which threads wait, by their number on x86-64, and whether their first argument is a descriptor.
const CALLS: [(u32, &str, bool); 27] = [
    (0, "read", true),
    (1, "write", true),
    (7, "poll", false),
    (19, "readv", true),
    (20, "writev", true),
    (23, "select", false),
    (34, "pause", false),
    (35, "nanosleep", false),
    (42, "connect", true),
    (43, "accept", true),
    (44, "sendto", true),
    (45, "recvfrom", true),
    (47, "recvmsg", true),
    (61, "wait4", false),
    (73, "flock", true),
    (74, "fsync", true),
    (128, "rt_sigtimedwait", false),
    (130, "rt_sigsuspend", false),
    (202, "futex", false),
    (230, "clock_nanosleep", false),
    (232, "epoll_wait", true),
    (247, "waitid", false),
    (270, "pselect6", false),
    (271, "ppoll", false),
    (281, "epoll_pwait", true),
    (288, "accept4", true),
    (441, "epoll_pwait2", true),
];

/// Reads `syscall`: the number of the call and its arguments, or `running`.
pub(super) fn call(line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    // A thread that does not run but is in no call either has -1.
    let number: u32 = words.next()?.parse().ok()?;
    let first = words.next().and_then(|word| i64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    let known = CALLS.iter().find(|(known, ..)| *known == number);
    Some(match (known, first) {
        (Some((_, name, true)), Some(fd)) => format!("{name}(fd {fd})"),
        (Some((_, name, _)), _) => (*name).to_owned(),
        (None, _) => format!("system call {number}"),
    })
}

/// Reads `stack`: lines such as `[<0>] do_epoll_wait+0x5c3/0x6c0`.
pub(super) fn stack(text: &str) -> Vec<String> {
    let frames = text.lines().filter_map(|line| line.split_once("] ")).map(|(_, frame)| frame);
    let names = frames.filter_map(|frame| frame.split('+').next()).filter(|name| !name.is_empty());
    names.take(FRAMES_MAX).map(str::to_owned).collect()
}

/// The inode in a link such as `socket:[123]`.
pub(super) fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// `__SO_ACCEPTCON` among the flags of a Unix socket: it listens (`include/uapi/linux/net.h`).
const ACCEPTS: u32 = 1 << 16;

/// One line of `/proc/net/unix`, if it is of a socket that listens: its inode and its name.
pub(super) fn unix_listener(line: &str) -> Option<(u64, &str)> {
    let mut rest = line;
    let mut fields = [""; 7];
    for field in &mut fields {
        (*field, rest) = rest.trim_start().split_once(' ')?;
    }
    let [_, _, _, flags, _, _, inode] = fields;
    let listens = u32::from_str_radix(flags, 16).ok()? & ACCEPTS != 0;
    listens.then_some((inode.parse().ok()?, rest))
}

/// Whether a mask of `/proc/PID/status`, such as `SigCgt`, has a signal: hexadecimal, with signal 1 as the lowest bit.
pub(super) fn has_signal(status: &str, mask: &str, number: i32) -> bool {
    let found = status.lines().find_map(|line| line.strip_prefix(mask)?.strip_prefix(':'));
    found
        .and_then(|found| u64::from_str_radix(found.trim(), 16).ok())
        .is_some_and(|found| found >> (number - 1) & 1 == 1)
}

/// A TCP socket: its own address, the other side's, and its state.
pub(super) type Socket = (SocketAddr, SocketAddr, &'static str);

/// One line of `/proc/net/tcp` or `tcp6`: the inode, and what it says of the socket.
pub(super) fn socket(line: &str) -> Option<(u64, Socket)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let state = usize::from_str_radix(fields.get(3)?, 16).ok()?;
    let state = TCP_STATES.get(state.checked_sub(1)?)?;
    let inode = fields.get(9)?.parse().ok()?;
    Some((inode, (address(fields.get(1)?)?, address(fields.get(2)?)?, state)))
}

/// By their number in the kernel, from 1 on.
const TCP_STATES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// An address such as `0100007F:1F90`: words of four bytes in the machine's order, and the port.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (index, place) in bytes.chunks_mut(4).enumerate() {
                place.copy_from_slice(&word(index * 8)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read_whatever_it_is_called() {
        let line = "42 (a) S (b) D 7 42 40 0 -1";
        assert_eq!(stat(line), Some(("a) S (b".to_owned(), 'D')));
        assert_eq!(stat("42 (x"), None);
    }

    #[test]
    fn a_call_is_told_by_name_and_descriptor() {
        for (line, told) in [
            ("0 0x5 0x7ffd 0x400 0x0 0x0 0x0 0x7ffd 0x7f00\n", Some("read(fd 5)")),
            ("202 0x7f 0x80 0x0\n", Some("futex")),
            ("232 0x4 0x7ff\n", Some("epoll_wait(fd 4)")),
            ("333 0x4\n", Some("system call 333")),
            ("running\n", None),
            ("-1 0x7ffc 0x7f\n", None),
            ("", None),
        ] {
            assert_eq!(call(line).as_deref(), told, "{line:?}");
        }
    }

    #[test]
    fn a_stack_is_told_by_its_innermost_functions() {
        let text = "[<0>] wait_woken+0x50/0x60\n[<0>] sk_wait_data+0x1/0x2\nnonsense\n[<0>] \n";
        assert_eq!(stack(text), ["wait_woken", "sk_wait_data"]);
        assert_eq!(stack(&"[<0>] f+0x1/0x2\n".repeat(50)).len(), FRAMES_MAX);
    }

    #[test]
    fn a_unix_socket_that_listens_is_told_from_others() {
        let line = |flags: &str, name: &str| format!("ffff8880: 00000002 00000000 {flags} 0001 01 77 {name}");
        assert_eq!(unix_listener(&line("00010000", "/run/a b.sock")), Some((77, "/run/a b.sock")));
        assert_eq!(unix_listener(&line("00010000", "@name")), Some((77, "@name")));
        assert_eq!(unix_listener(&line("00000000", "/run/x")), None);
        assert_eq!(unix_listener("ffff8880: 00000002 00000000 00010000 0001 01 77"), None);
        assert_eq!(unix_listener("Num RefCount Protocol Flags Type St Inode Path"), None);
    }

    #[test]
    fn what_a_process_does_at_a_signal_is_one_bit() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001000\nSigCgt:\t0000000180004000\n";
        for (mask, number, has) in [
            ("SigCgt", 15, true),
            ("SigCgt", 16, false),
            ("SigIgn", 13, true),
            ("SigBlk", 2, true),
            ("SigBlk", 64, false),
            ("SigFoo", 2, false),
        ] {
            assert_eq!(has_signal(status, mask, number), has, "{mask} {number}");
        }
    }

    #[test]
    fn sockets_are_read_from_the_kernels_tables() {
        let v4 =
            "   1: 0100007F:1F90 0200000A:0050 01 00000000:00000000 00:00000000 00000000  0 0 77 1 0 20 4";
        let expected = (
            77,
            (SocketAddr::from(([127, 0, 0, 1], 8080)), SocketAddr::from(([10, 0, 0, 2], 80)), "ESTABLISHED"),
        );
        assert_eq!(socket(v4), Some(expected));
        let v6 =
            "0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0 0 0 0 0 9";
        let (_, (local, _, state)) = socket(v6).unwrap();
        assert_eq!((local.to_string().as_str(), state), ("[::1]:22", "LISTEN"));
        for line in [
            "",
            "sl local_address",
            "1: xx yy 01 0 0 0 0 0 1",
            "1: 0100007F:1F90 0200000A:0050 FF 0 0 0 0 0 1",
        ] {
            assert_eq!(socket(line), None, "{line:?}");
        }
        assert_eq!(socket_inode("socket:[12]"), Some(12));
        assert_eq!(socket_inode("pipe:[12]"), None);
    }
}
