//! What the bootloader reads of a program that binds: the address in its memory, and the texts of `/proc` about it
//! and its sockets; and which listener is meant.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;

// Private to their crate: the files are compiled in.
#[path = "../../crates/baton-sys/src/intercept/matching.rs"]
mod matching;
#[path = "../../crates/baton-sys/src/process/inspect/told.rs"]
mod process;
#[path = "../../crates/baton-sys/src/intercept/told.rs"]
mod told;

use matching::{Decision, Family, Ours, Socket};

fuzz_target!(|memory: &[u8]| {
    if let Some(asked) = told::address(memory) {
        read_as_written(asked, memory);
        judge(asked);
    }
    let text = &*String::from_utf8_lossy(memory);
    if let Some(flags) = told::Flags::parse(text) {
        assert!(text.contains("flags:"), "{flags:?} out of nothing");
    }
    if let Some(status) = told::Status::parse(text) {
        assert!(status.process >= 0);
    }
    assert!(!told::watches(text, 7) || text.contains("ino:7"));
    describe(text);
});

/// An address has one spelling in memory, but for what the kernel does not look at.
fn read_as_written(asked: SocketAddr, memory: &[u8]) {
    let written = sockaddr(asked);
    assert_eq!(told::address(&written), Some(asked));
    assert_eq!(written[..4], memory[..4], "family or port");
    for end in 0..written.len().min(memory.len()) {
        // Shorter than its family, it is refused and not made up.
        let least = if asked.is_ipv4() { 8 } else { 24 };
        assert_eq!(told::address(&written[..end]).is_some(), end >= least, "{end} bytes of {asked}");
    }
}

fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(four) => {
            [&(libc::AF_INET as u16).to_ne_bytes()[..], &port, &four.ip().octets(), &[0; 8]].concat()
        }
        SocketAddr::V6(six) => {
            [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &port, &[0; 4], &six.ip().octets(), &[0; 4]].concat()
        }
    }
}

/// Only a listener on the very port is ever meant, and only a socket of its family is put in a program's hands.
fn judge(asked: SocketAddr) {
    let listeners: Vec<Ours> = ["0.0.0.0:80", "127.0.0.1:8080", "[::]:8080", "[::1]:80", "10.0.0.1:80"]
        .iter()
        .zip(1..)
        .map(|(address, inode)| Ours { address: address.parse().unwrap(), inode })
        .collect();
    let Some(meant) = matching::meant(asked, &listeners) else { return };
    assert_eq!(listeners[meant].address.port(), asked.port());
    for (family, registered) in
        [(Family::V4, false), (Family::V6, false), (Family::V4, true), (Family::V6, true)]
    {
        let socket = Socket { family, inode: 99, registered };
        if let Decision::Substitute(given) = matching::decide(asked, socket, meant, &listeners) {
            assert_eq!((given, family, registered), (meant, Family::of(asked), false));
            assert!(asked.is_ipv6() || listeners[given].address.is_ipv4(), "its clients would be garbled");
        }
    }
}

fn describe(text: &str) {
    if let Some((name, _)) = process::stat(text) {
        assert!(text.contains(&name));
    }
    let _ = process::call(text);
    assert!(process::stack(text).iter().all(|frame| text.contains(frame) && !frame.contains('\n')));
    assert_eq!(
        process::socket_inode(text).is_some(),
        process::socket_inode(text.trim_end()).is_some() && text == text.trim_end()
    );
    assert!(!process::has_signal(text, "SigCgt", 15) || text.contains("SigCgt:"));
    for line in text.lines() {
        let _ = process::socket(line);
        assert!(process::unix_listener(line).is_none_or(|(_, name)| line.ends_with(name)));
    }
}
