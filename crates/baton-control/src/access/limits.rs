//! How often each caller may ask, so that nobody keeps the server from the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use baton_core::access::{Bucket, Rate};
use baton_core::ids::{MemberId, ServiceName, TokenHash};
use baton_core::units::Millis;

use super::Caller;
use crate::listen::Network;

/// What one caller may ask: a push with 16 connections to a server nearby takes a fifth of it.
const CALLER: Rate = Rate { per_second: 500, burst: 1000 };
/// What may be asked from one network without credentials that are known: enough for whoever looks whether the server lives, and
/// for a fleet that shows what was revoked; too little to guess anything.
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
    Network(Network),
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
            Caller::Holder(token) => self.take(Who::Token(token.hash), CALLER, now),
            Caller::Member(credential) | Caller::Late(credential) => {
                self.take(Who::Member(credential.service.clone(), credential.member.clone()), CALLER, now)
            }
        }
    }

    /// Whether somebody unknown may ask once more from the network of this address.
    pub(super) fn admit_stranger(&self, address: IpAddr, now: Millis) -> bool {
        self.take(Who::Network(address.into()), STRANGER, now)
    }

    /// Whether one more refusal of somebody unknown is written down.
    pub(super) fn writes_stranger(&self, now: Millis) -> bool {
        self.take(Who::Strangers, WRITTEN, now)
    }

    fn take(&self, who: Who, rate: Rate, now: Millis) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED_MAX && !buckets.contains_key(&who) {
            let rate = |who: &Who| match who {
                Who::Token(_) | Who::Member(..) => CALLER,
                Who::Network(_) => STRANGER,
                Who::Strangers => WRITTEN,
            };
            buckets.retain(|who, bucket| !bucket.is_full(rate(who), now));
            if buckets.len() >= REMEMBERED_MAX {
                return false;
            }
        }
        buckets.entry(who).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f105_one_that_asks_too_often_does_not_take_it_from_others() {
        let limits = Limits::default();
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let admitted = (0..10_000).filter(|_| limits.admit_stranger(address(1), Millis(0))).count();
        assert_eq!(admitted, STRANGER.burst as usize);
        assert!(limits.admit_stranger(address(2), Millis(0)));
        assert!(limits.admit_stranger(address(1), Millis(1000)));
        let address = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]);
        let admitted = (0..10_000).filter(|host| limits.admit_stranger(address(*host), Millis(0))).count();
        assert_eq!(admitted, STRANGER.burst as usize, "whoever has a network of IPv6 is one");
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
    }
}
