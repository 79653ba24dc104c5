//! The header that the bootloader writes for a proxied program, read by somebody else's reader.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use ppp::v2::{Addresses, Command, Header};

// The bootloader is a program and has no library: its file is compiled in.
#[path = "../../crates/baton-boot/src/proxy/header.rs"]
mod header;

fuzz_target!(|input: (SocketAddrBytes, SocketAddrBytes, &[u8])| {
    let (client, listener, payload) = input;
    let (client, listener) = (address(client), address(listener));
    let sent = [&header::header(client, listener), payload].concat();
    let read = Header::try_from(sent.as_slice()).unwrap_or_else(|error| panic!("{error} in {sent:?}"));
    assert_eq!(read.command, Command::Proxy);
    assert_eq!(&sent[read.len()..], payload, "the program's bytes begin elsewhere");
    let (from, to) = match read.addresses {
        Addresses::IPv4(four) => (
            SocketAddr::from((four.source_address, four.source_port)),
            SocketAddr::from((four.destination_address, four.destination_port)),
        ),
        Addresses::IPv6(six) => (
            SocketAddr::from((six.source_address, six.source_port)),
            SocketAddr::from((six.destination_address, six.destination_port)),
        ),
        other => panic!("neither IPv4 nor IPv6: {other:?}"),
    };
    // An IPv4 address beside an IPv6 one travels mapped.
    let plain = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    assert_eq!((plain(from), plain(to)), (plain(client), plain(listener)));

    let probe = header::local();
    let read = Header::try_from(probe.as_slice()).unwrap_or_else(|error| panic!("{error} in {probe:?}"));
    assert_eq!((read.command, read.len()), (Command::Local, probe.len()));
});

type SocketAddrBytes = (bool, [u8; 16], u16);

fn address((four, ip, port): SocketAddrBytes) -> SocketAddr {
    let [a, b, c, d, ..] = ip;
    let ip: IpAddr = if four { Ipv4Addr::from([a, b, c, d]).into() } else { Ipv6Addr::from(ip).into() };
    SocketAddr::new(ip, port)
}
