//! Who counts as one, among those whom nobody knows.

use std::net::{IpAddr, Ipv6Addr};

/// How many of the first bits of an IPv6 address name a network. The rest of them its hosts choose, as many addresses as they
/// like: whoever has one host there has 2^64.
const NETWORK_BITS: u32 = 64;

/// An address of IPv4, or a network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        // A server that listens at `::` sees IPv4 as addresses of one network of IPv6.
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let hosts = u128::MAX >> NETWORK_BITS;
                Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !hosts)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f58_f105_the_addresses_of_one_network_count_as_one() {
        let is_one = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|address| Network::from(address.parse::<IpAddr>().unwrap()));
            a == b
        };
        assert!(is_one("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
        assert!(!is_one("2001:db8::1", "2001:db8:0:1::1"));
        assert!(is_one("10.0.0.1", "10.0.0.1") && !is_one("10.0.0.1", "10.0.0.2"));
        assert!(is_one("::ffff:10.0.0.1", "10.0.0.1") && !is_one("::ffff:10.0.0.1", "::ffff:10.0.0.2"));
    }
}
