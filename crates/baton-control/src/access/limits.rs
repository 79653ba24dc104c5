//! How often each caller may ask, so that nobody keeps the server from the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use baton_core::access::{Bucket, Rate};
use baton_core::ids::{MemberId, ServiceName, TokenHash};
use baton_core::units::Millis;

use super::Caller;
use crate::listen::{Network, networks};

/// What one caller may ask: a push with 16 connections to a server nearby takes a fifth of it.
const CALLER: Rate = Rate { per_second: 500, burst: 1000 };
/// What may be asked from one address without credentials that are known: enough for whoever looks whether the server lives, and
/// for a fleet that shows what was revoked; too little to guess anything. A network has it several times.
const STRANGER: Rate = Rate { per_second: 20, burst: 100 };
/// How many refusals of those whom nobody knows are written down, from wherever they come: what tells that somebody tries, and
/// at the most some tens of megabytes a day.
const WRITTEN: Rate = Rate { per_second: 1, burst: 100 };
/// How many are remembered before those are forgotten that have not asked for a while: some megabytes.
const REMEMBERED_MAX: usize = 50_000;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Token(TokenHash),
    Member(ServiceName, MemberId),
    /// An address or a network, with how many times the part of one address it has.
    Network(Network, u32),
    /// All whom nobody knows, together.
    Strangers,
}

/// How much everybody has left.
#[derive(Debug, Default)]
pub(super) struct Limits(Mutex<HashMap<Who, Bucket>>);

impl Limits {
    /// Whether a caller may ask once more.
    pub(super) fn admit(&self, caller: &Caller, now: Millis) -> bool {
        match caller {
            // It is on this machine.
            Caller::Anybody => true,
            Caller::Holder(token) => self.take(Who::Token(token.hash), now),
            Caller::Member(credential) | Caller::Late(credential) => {
                self.take(Who::Member(credential.service.clone(), credential.member.clone()), now)
            }
        }
    }

    /// Whether somebody unknown may ask once more from this address, and from each network that it is in.
    pub(super) fn admit_stranger(&self, address: IpAddr, now: Millis) -> bool {
        self.take_of_all(networks(address).map(|(network, addresses)| Who::Network(network, addresses)), now)
    }

    /// Whether one more refusal of somebody unknown is written down.
    pub(super) fn writes_stranger(&self, now: Millis) -> bool {
        self.take(Who::Strangers, now)
    }

    fn take(&self, who: Who, now: Millis) -> bool {
        self.take_of_all(std::iter::once(who), now)
    }

    /// Takes one of each, if each has one left, and else of none: who is one too many takes nothing from its neighbours, and is
    /// remembered only where it has not asked too often with them.
    fn take_of_all(&self, all: impl Iterator<Item = Who> + Clone, now: Millis) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_left = |who: Who| {
            let bucket = buckets.get(&who).copied();
            bucket.is_none_or(|mut bucket| bucket.take(who.rate(), now))
        };
        if !all.clone().all(has_left) {
            return false;
        }
        let new = all.clone().filter(|who| !buckets.contains_key(who)).count();
        if new > 0 && buckets.len() + new > REMEMBERED_MAX {
            buckets.retain(|who, bucket| !bucket.is_full(who.rate(), now));
            if buckets.len() + new > REMEMBERED_MAX {
                return false;
            }
        }
        for who in all {
            let rate = who.rate();
            buckets.entry(who).or_insert_with(|| Bucket::full(rate, now)).take(rate, now);
        }
        true
    }
}

impl Who {
    /// How often it may ask.
    const fn rate(&self) -> Rate {
        match self {
            Self::Token(_) | Self::Member(..) => CALLER,
            Self::Network(_, addresses) => STRANGER.times(*addresses),
            Self::Strangers => WRITTEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f105_one_that_asks_too_often_does_not_take_it_from_others() {
        let limits = Limits::default();
        let asks = |many: u32, from: &dyn Fn(u32) -> IpAddr, at: u64| {
            (0..many).filter(|number| limits.admit_stranger(from(*number), Millis(at))).count()
        };
        let v4 = |network: u8, host: u32| IpAddr::from([10, 0, network, (host % 256) as u8]);
        let v6 = |site: u16, network: u16, host: u32| {
            IpAddr::from([0x2001, 0xdb8, site, network, 0, 0, (host >> 16) as u16, host as u16])
        };
        let one = STRANGER.burst as usize;
        assert_eq!(asks(10_000, &|_| v4(1, 1), 0), one);
        assert_eq!(asks(1, &|_| v4(1, 2), 0), 1, "its neighbour");
        assert_eq!(asks(10_000, &|_| v4(1, 1), 1000), STRANGER.per_second as usize);
        // What it was refused has taken nothing from its neighbours.
        assert_eq!(
            asks(10_000, &|number| v4(1, number), 1000),
            3 * one - 1 + 3 * STRANGER.per_second as usize
        );
        assert_eq!(asks(10_000, &|_| v4(2, 1), 1000), one, "another network");
        assert_eq!(asks(10_000, &|host| v6(1, 1, host), 0), 4 * one, "who has a network of IPv6");
        assert_eq!(asks(10_000, &|host| v6(1, host as u16, host), 0), 4 * one, "who has more of them");
        assert_eq!(asks(1, &|_| v6(2, 1, 1), 0), 1, "another site");
    }

    #[test]
    fn f105_strangers_do_not_fill_the_disk_with_their_refusals() {
        let limits = Limits::default();
        let written = |at| (0..10_000).filter(|_| limits.writes_stranger(Millis(at))).count();
        assert_eq!((written(0), written(1000), written(1000)), (WRITTEN.burst as usize, 1, 0));
    }

    #[test]
    fn f105_who_comes_from_everywhere_does_not_fill_the_memory() {
        let limits = Limits::default();
        for number in 0..2 * REMEMBERED_MAX as u32 {
            limits.admit_stranger(IpAddr::from(number.to_be_bytes()), Millis(u64::from(number)));
        }
        assert!(limits.0.lock().unwrap().len() <= REMEMBERED_MAX);
        // Nor is everybody remembered who is one too many.
        let limits = Limits::default();
        for number in 0..10_000_u32 {
            limits.admit_stranger(
                IpAddr::from(((0x2001_u128 << 112) | u128::from(number)).to_be_bytes()),
                Millis(0),
            );
        }
        assert!(limits.0.lock().unwrap().len() <= 4 * STRANGER.burst as usize + 2);
    }
}
