//! Members that give each other what they have: who is named to whom, in which order one is asked, and when the store is.
//!
//! Everybody fetches a release at once. So that not everybody asks the store, the members of a service are put in an order that
//! only the release decides ([rendezvous hashing](https://en.wikipedia.org/wiki/Rendezvous_hashing)): the first few fetch from
//! the store, and each of the others is named some of those before it. Nobody waits for somebody who waits for it, and nobody
//! has to agree on anything.

mod search;
#[cfg(test)]
mod simulated;
mod throttle;

use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::ids::{MemberId, ReleaseId};

pub use search::{Answer, PATIENCE, PATIENCE_WITHOUT_HOPE, Search, Step, Wanted};
pub use throttle::Throttle;

/// How many members fetch a release that nobody has from the store: one more than needed, so that one may fail.
pub const FIRST: usize = 2;
/// How many members wait for each of those before them, so that each gives about so many times what it got. More would wait for
/// fewer for longer; fewer would be a longer chain.
pub const FAN: usize = 4;
/// Most peers that one is named: some may be busy, gone, or out of reach.
pub const NAMED_MAX: usize = 8;

/// A member that may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its name.
    pub member: &'a MemberId,
    /// It has the release, as far as it is known.
    pub holds: bool,
}

/// How well these things go together: the same for who asks the same, and as good as random. FNV-1a, mixed by the last steps of
/// SplitMix64 (both public domain): nobody gains anything by a name with a high score.
fn score<const PARTS: usize>(parts: [&[u8]; PARTS]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.iter().chain(&[0])) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Whom to name to a member that is about to fetch a release, best first: indices of `peers`. Nobody, where it shall ask the
/// store.
///
/// Those that have the release come first. Where they are too few, there follow those before the asker that will have it sooner.
pub fn named(release: ReleaseId, asker: &MemberId, peers: &[Peer<'_>]) -> Vec<usize> {
    let own = |index: &usize| {
        let other = peers[*index].member;
        Reverse(score([asker.as_str().as_bytes(), release.as_bytes(), other.as_str().as_bytes()]))
    };
    let holders = (0..peers.len()).filter(|index| peers[*index].holds && peers[*index].member != asker);
    let mut chosen = first(NAMED_MAX, holders.collect(), own);
    chosen.sort_by_cached_key(own);
    if chosen.len() < NAMED_MAX {
        let mut rest = before(release, asker, peers);
        rest.retain(|index| !chosen.contains(index));
        let mut rest = first(NAMED_MAX - chosen.len(), rest, own);
        rest.sort_by_cached_key(own);
        chosen.extend(rest);
    }
    chosen
}

/// Those that have a release sooner, if everybody starts now: all of the waves before the asker's. The first wave is of
/// [`FIRST`] members, and all up to a wave are [`FAN`] times those up to the one before.
fn before(release: ReleaseId, asker: &MemberId, peers: &[Peer<'_>]) -> Vec<usize> {
    let score = |member: &MemberId| Reverse(score([release.as_bytes(), member.as_str().as_bytes()]));
    let place = |index: &usize| (score(peers[*index].member), peers[*index].member);
    let own = (score(asker), asker);
    let sooner: Vec<usize> = (0..peers.len()).filter(|index| place(index) < own).collect();
    let (mut count, mut wave) = (0, FIRST);
    while wave <= sooner.len() {
        (count, wave) = (wave, wave.saturating_mul(FAN));
    }
    first(count, sooner, place)
}

/// The first so many of these by a key, in no order. A whole fleet asks at once: what is not needed is not sorted.
fn first<K: Ord>(count: usize, mut some: Vec<usize>, key: impl Fn(&usize) -> K) -> Vec<usize> {
    if count < some.len() {
        let mut keyed: Vec<(K, usize)> = some.into_iter().map(|index| (key(&index), index)).collect();
        keyed.select_nth_unstable(count);
        some = keyed.into_iter().take(count).map(|(_, index)| index).collect();
    }
    some
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::{BTreeMap, BTreeSet};
    use alloc::format;
    use proptest::prelude::*;

    const RELEASE: ReleaseId = ReleaseId::from_bytes([7; 32]);

    fn members(count: usize) -> Vec<MemberId> {
        (0..count).map(|n| format!("web-{n}").parse().unwrap()).collect()
    }

    fn peers<'a>(members: &'a [MemberId], holders: &[usize]) -> Vec<Peer<'a>> {
        let peer = |(index, member)| Peer { member, holds: holders.contains(&index) };
        members.iter().enumerate().map(peer).collect()
    }

    #[test]
    fn the_first_ones_ask_the_store_and_it_is_others_for_another_release() {
        let members = members(40);
        let peers = peers(&members, &[]);
        let first = |release| {
            let alone = |member: &&MemberId| named(release, member, &peers).is_empty();
            members.iter().filter(alone).collect::<Vec<_>>()
        };
        assert_eq!(first(RELEASE).len(), FIRST);
        let releases = (0..40).map(|n| ReleaseId::from_bytes([n; 32]));
        assert!(releases.map(first).collect::<BTreeSet<_>>().len() > 20);
        let newcomer = "web-new".parse().unwrap();
        assert!(named(RELEASE, &newcomer, &peers[..0]).is_empty());
        assert!(named(RELEASE, &members[0], &peers[..1]).is_empty(), "nobody is its own peer");
    }

    #[test]
    fn who_has_it_is_named_first() {
        let members = members(100);
        let peers = peers(&members, &[3, 50, 70]);
        for asker in &members {
            let named = named(RELEASE, asker, &peers);
            let holders: BTreeSet<usize> =
                [3, 50, 70].into_iter().filter(|n| members[*n] != *asker).collect();
            assert_eq!(
                named.iter().take(holders.len()).copied().collect::<BTreeSet<_>>(),
                holders,
                "{asker}"
            );
            assert!(named.len() <= NAMED_MAX);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn nobody_waits_for_whom_waits_for_it_and_everybody_is_asked_by_few(
            count in 1..300usize, release in any::<[u8; 32]>(),
        ) {
            let members = members(count);
            let peers = peers(&members, &[]);
            let release = ReleaseId::from_bytes(release);
            let named: Vec<Vec<usize>> = members.iter().map(|asker| named(release, asker, &peers)).collect();
            let alone = named.iter().filter(|named| named.is_empty()).count();
            prop_assert_eq!(alone, count.min(FIRST));
            // Whoever got it gives it on, until everybody has it: there is no circle.
            let mut has: BTreeSet<usize> = (0..count).filter(|n| named[*n].is_empty()).collect();
            let mut waves = 0;
            while has.len() < count {
                let before = has.clone();
                has.extend((0..count).filter(|n| named[*n].iter().any(|peer| before.contains(peer))));
                prop_assert!(has.len() > before.len());
                waves += 1;
            }
            prop_assert!(waves <= 5, "{} waves for {}", waves, count);
            let mut askers: BTreeMap<usize, usize> = BTreeMap::new();
            named.iter().flatten().for_each(|peer| *askers.entry(*peer).or_default() += 1);
            let fair = NAMED_MAX * FAN;
            prop_assert!(askers.values().all(|askers| *askers <= 4 * fair), "{:?}", askers.values().max());
        }

        #[test]
        fn one_more_or_less_changes_little(count in 20..120usize, gone in 0..20usize) {
            let all = members(count);
            let without: Vec<MemberId> =
                all.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, member)| member.clone()).collect();
            let name = |members: &[MemberId], asker: &MemberId| -> BTreeSet<MemberId> {
                let peers = peers(members, &[]);
                named(RELEASE, asker, &peers).into_iter().map(|index| members[index].clone()).collect()
            };
            let kept = without.iter().filter(|asker| {
                let (before, after) = (name(&all, asker), name(&without, asker));
                before.difference(&after).count() <= 1
            });
            prop_assert!(kept.count() * 10 >= without.len() * 8);
        }
    }
}
