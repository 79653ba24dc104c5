//! Who counts together, among those whom nobody knows.
//!
//! One address has its part, and so has each network that it is in: as much as a few addresses. Whoever has one address in a
//! network takes a part of what that has, and leaves the rest to its neighbours; whoever has all the addresses of a network takes
//! what that has, and leaves the rest to everybody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Of IPv4: an address, and the smallest network that is routed by itself.
const V4: [Reach; 2] = [Reach { bits: 32, addresses: 1 }, Reach { bits: 24, addresses: 4 }];
/// Of IPv6: an address, of which a host in a network of its own has as many as it likes; a network of hosts, which in a cloud is
/// that of many machines; and a site, which has as many networks as it likes.
const V6: [Reach; 3] =
    [Reach { bits: 128, addresses: 1 }, Reach { bits: 64, addresses: 4 }, Reach { bits: 48, addresses: 8 }];

/// How far a count reaches.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// How many of the first bits of an address are the same.
    bits: u32,
    /// How many times the part of one address those have together.
    addresses: u32,
}

/// Addresses that begin alike: one of them, or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    first: IpAddr,
    bits: u32,
}

/// All that an address is counted with, itself first, each with how many times the part of one address it has.
pub(crate) fn networks(address: IpAddr) -> impl Iterator<Item = (Network, u32)> + Clone {
    // A server that listens at `::` sees IPv4 as addresses of one network of IPv6.
    let address = address.to_canonical();
    let reaches: &'static [Reach] = if address.is_ipv4() { &V4 } else { &V6 };
    reaches.iter().map(move |reach| {
        let first = match address {
            IpAddr::V4(address) => {
                let hosts = u32::MAX.checked_shr(reach.bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !hosts))
            }
            IpAddr::V6(address) => {
                let hosts = u128::MAX.checked_shr(reach.bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !hosts))
            }
        };
        (Network { first, bits: reach.bits }, reach.addresses)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f58_f105_an_address_is_counted_by_itself_and_with_those_around_it() {
        for (address, expected) in [
            ("10.1.2.3", &[("10.1.2.3", 32, 1), ("10.1.2.0", 24, 4)][..]),
            ("::ffff:10.1.2.3", &[("10.1.2.3", 32, 1), ("10.1.2.0", 24, 4)]),
            ("255.255.255.255", &[("255.255.255.255", 32, 1), ("255.255.255.0", 24, 4)]),
            (
                "2001:db8:1:2:3:4:5:6",
                &[("2001:db8:1:2:3:4:5:6", 128, 1), ("2001:db8:1:2::", 64, 4), ("2001:db8:1::", 48, 8)],
            ),
            ("::1", &[("::1", 128, 1), ("::", 64, 4), ("::", 48, 8)]),
        ] {
            let found: Vec<_> = networks(address.parse().unwrap())
                .map(|(network, addresses)| (network.first.to_string(), network.bits, addresses))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(first, bits, addresses)| ((*first).to_owned(), *bits, *addresses))
                .collect();
            assert_eq!(found, expected, "{address}");
        }
        // A network is not its first address.
        let own: Vec<_> = networks("10.1.2.0".parse().unwrap()).collect();
        assert_ne!(own[0].0, own[1].0);
    }
}
