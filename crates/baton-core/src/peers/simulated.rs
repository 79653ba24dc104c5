//! Whole fleets that fetch a release at once, in virtual time: what the store has to bear.

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::format;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{Answer, Peer, Search, Step, Throttle, Wanted, named};
use crate::ids::{ChunkId, MemberId, ReleaseId};
use crate::units::{Bytes, Millis};

/// A release of 20 MiB, and one of 200 MiB, asked for by the MiB.
const SMALL: usize = 20;
const LARGE: usize = 200;
const ASK: usize = 1 << 20;
/// A request within a network.
const LATENCY: Millis = Millis(2);
/// 10 Gbit/s of the store, for all.
const STORE: Bytes = Bytes(1_250_000_000);
/// What a member gives others.
const UPLOAD: Bytes = Bytes(64 << 20);
const UPLOADS_MAX: usize = 4;
/// How long a peer that hangs holds somebody up.
const HANGS: Millis = Millis::from_secs(5);
/// Within this time everybody has heard of the deploy.
const HEARD: u64 = 300;

/// What is wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ill {
    Well,
    /// It takes connections, and says nothing.
    Hangs,
    /// It sends what nobody asked for.
    Lies,
}

struct Member {
    named: Vec<usize>,
    search: Search,
    wanted: Wanted,
    done: usize,
    heard: Millis,
    uploads: usize,
    throttle: Throttle,
    ill: Ill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    /// It looks for what to do next.
    Next,
    /// A peer has answered it, by its number.
    Answered(usize, u8),
    /// The store has.
    Stored,
}

#[derive(Debug)]
struct Outcome {
    store_requests: usize,
    /// The most in any second.
    store_peak: usize,
    /// When everybody had it.
    took: Millis,
}

impl Outcome {
    /// How many times the release left the store.
    fn releases(&self, asks: usize) -> f64 {
        self.store_requests as f64 / asks as f64
    }
}

fn key(ask: usize) -> ChunkId {
    ChunkId::of(&ask.to_le_bytes())
}

/// A fleet of so many that fetches so much, of which `ill` says what is wrong with whom; `peers` says whether anybody is named.
fn fleet(count: usize, asks: usize, peers: bool, ill: impl Fn(usize) -> Ill) -> Outcome {
    let names: Vec<MemberId> = (0..count).map(|n| format!("web-{n}").parse().unwrap()).collect();
    let listed: Vec<Peer<'_>> = names.iter().map(|member| Peer { member, holds: false }).collect();
    let release = ReleaseId::from_bytes([9; 32]);
    let member = |n: usize| {
        let named = if peers { named(release, &names[n], &listed) } else { Vec::new() };
        let heard = Millis(super::score([&n.to_le_bytes(), b"heard"]) % HEARD);
        Member {
            search: Search::new(named.len(), n as u64, heard),
            named,
            wanted: Wanted::new(key(0)),
            done: 0,
            heard,
            uploads: 0,
            throttle: Throttle::new(UPLOAD),
            ill: ill(n),
        }
    };
    let mut members: Vec<Member> = (0..count).map(member).collect();
    let mut queue: BinaryHeap<Reverse<(Millis, usize, Happens)>> =
        members.iter().enumerate().map(|(n, member)| Reverse((member.heard, n, Happens::Next))).collect();
    let mut store = Throttle::new(STORE);
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    let mut took = Millis::ZERO;
    while let Some(Reverse((now, n, happens))) = queue.pop() {
        let answered = match happens {
            Happens::Next => None,
            Happens::Stored => Some(Answer::Gave),
            Happens::Answered(number, code) => {
                let answer = [Answer::Gave, Answer::Later, Answer::Lacks, Answer::Failed][usize::from(code)];
                let Member { named, search, wanted, .. } = &mut members[n];
                search.told(wanted, number, answer, now);
                let peer = named[number];
                if answer == Answer::Gave {
                    members[peer].uploads -= 1;
                }
                Some(answer)
            }
        };
        let member = &mut members[n];
        if answered == Some(Answer::Gave) {
            (member.done, member.wanted) = (member.done + 1, Wanted::new(key(member.done + 1)));
        }
        if member.done == asks {
            took = took.max(now);
            continue;
        }
        let next = match member.search.step(&mut member.wanted, now) {
            Step::Wait(pause) => (now + pause, n, Happens::Next),
            Step::Store => {
                *seconds.entry(now.0 / 1000).or_default() += 1;
                (now + LATENCY + store.pass(ASK, now), n, Happens::Stored)
            }
            Step::Ask(number) => {
                let (peer, ask) = (member.named[number], member.done);
                let (at, code) = asked(&mut members[peer], ask, now);
                (at, n, Happens::Answered(number, code))
            }
        };
        queue.push(Reverse(next));
    }
    assert!(members.iter().all(|member| member.done == asks), "everybody has it");
    let (store_requests, store_peak) = (seconds.values().sum(), seconds.values().copied().max().unwrap_or(0));
    Outcome { store_requests, store_peak, took }
}

/// When a member answers who asks for this part, and what.
fn asked(peer: &mut Member, ask: usize, now: Millis) -> (Millis, u8) {
    match peer.ill {
        Ill::Hangs => (now + HANGS, 3),
        Ill::Lies => (now + LATENCY, 3),
        Ill::Well if peer.done > ask && peer.uploads < UPLOADS_MAX => {
            peer.uploads += 1;
            (now + LATENCY + peer.throttle.pass(ASK, now), 0)
        }
        Ill::Well if peer.heard <= now => (now + LATENCY, 1),
        Ill::Well => (now + LATENCY, 2),
    }
}

fn well(_: usize) -> Ill {
    Ill::Well
}

/// Runs a fleet and says how it went.
fn shown(what: &str, count: usize, asks: usize, peers: bool, ill: impl Fn(usize) -> Ill) -> Outcome {
    let outcome = fleet(count, asks, peers, ill);
    std::println!(
        "{count:5} members, {asks:3} MiB, {what}: {:.1} releases from the store, at most {} requests/s, {}",
        outcome.releases(asks),
        outcome.store_peak,
        outcome.took
    );
    outcome
}

#[test]
fn f77_the_store_sends_a_release_as_often_to_four_thousand_members_as_to_twenty() {
    for count in [1, 2, 20, 100, 1000, 4000] {
        let with = shown("peers", count, SMALL, true, well);
        assert_eq!(with.store_requests, count.min(super::FIRST) * SMALL);
    }
    let large = shown("peers", 1000, LARGE, true, well);
    assert_eq!(large.store_requests, super::FIRST * LARGE);
    assert_eq!(shown("alone", 4000, SMALL, false, well).store_requests, 4000 * SMALL);
}

#[test]
fn f77_where_peers_hang_and_lie_few_more_ask_the_store() {
    for (percent, most) in [(5, 100.0), (10, 400.0)] {
        let ill = |n: usize| match super::score([&n.to_le_bytes(), b"ill"]) % 200 {
            draw if draw < percent => Ill::Hangs,
            draw if draw < 2 * percent => Ill::Lies,
            _ => Ill::Well,
        };
        let some = shown(&std::format!("{percent} % ill"), 4000, SMALL, true, ill);
        assert!(some.releases(SMALL) < most, "{some:?}");
    }
}

#[test]
fn f77_where_no_peer_can_be_reached_everybody_gets_it_from_the_store() {
    for ill in [Ill::Hangs, Ill::Lies] {
        let nobody = shown(&std::format!("all {ill:?}"), 1000, SMALL, true, |_| ill);
        assert_eq!(nobody.store_requests, 1000 * SMALL);
    }
}
