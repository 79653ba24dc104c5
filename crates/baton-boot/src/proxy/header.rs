//! Who the client is, told to the program: the header of the PROXY protocol, version 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2).

use std::net::SocketAddr;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY: the connection is on behalf of somebody else.
const PROXIED: u8 = 0x21;
/// Version 2, command LOCAL: the connection is the bootloader's own.
const LOCAL: u8 = 0x20;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header of a probe, which has no client.
pub fn local() -> Vec<u8> {
    [&SIGNATURE[..], &[LOCAL, UNSPECIFIED, 0, 0]].concat()
}

/// The header for a connection of a client that has no address, as over a Unix socket: it is on behalf of somebody
/// else, and nobody can say who ("for an unknown, unspecified or unsupported protocol").
pub fn unknown() -> Vec<u8> {
    [&SIGNATURE[..], &[PROXIED, UNSPECIFIED, 0, 0]].concat()
}

/// The header for a connection that `client` made to `listener`.
pub fn header(client: SocketAddr, listener: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (client, listener) {
        (SocketAddr::V4(client), SocketAddr::V4(listener)) => {
            (TCP_OVER_IPV4, [client.ip().octets(), listener.ip().octets()].concat())
        }
        (client, listener) => (TCP_OVER_IPV6, [mapped(client), mapped(listener)].concat()),
    };
    let ports = [client.port().to_be_bytes(), listener.port().to_be_bytes()].concat();
    // 12 or 36: an address pair of either family.
    let length = (addresses.len() + ports.len()) as u16;
    [&SIGNATURE[..], &[PROXIED, family], &length.to_be_bytes(), &addresses, &ports].concat()
}

/// The address as IPv6 has it.
fn mapped(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(address) => address.ip().octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_the_specification() {
        let header =
            |client: &str, listener: &str| header(client.parse().unwrap(), listener.parse().unwrap());
        let expected = [
            &b"\r\n\r\n\0\r\nQUIT\n"[..],
            &[0x21, 0x11, 0, 12],
            &[192, 0, 2, 1, 198, 51, 100, 2],
            &[0xC0, 0x01, 0x01, 0xBB],
        ];
        assert_eq!(header("192.0.2.1:49153", "198.51.100.2:443"), expected.concat());
        assert_eq!(local(), *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        assert_eq!(unknown(), *b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0");
        let six = header("[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!((six.len(), six[13], &six[14..16]), (16 + 36, 0x21, &[0, 36][..]));
        assert_eq!(six[16..20], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(six[48..], [0, 1, 0, 2]);
    }
}
