//! Which peer is asked next for some chunks, how long that goes on, and when the store is asked.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::score;
use crate::ids::ChunkId;
use crate::units::Millis;

/// How long nothing may come from any peer while one of them has the release, or will soon. It is a part of what a release may
/// take to reach a member, once.
pub const PATIENCE: Millis = Millis::from_secs(30);
/// The same while none of them knows of it: time enough for all to hear of a deploy.
pub const PATIENCE_WITHOUT_HOPE: Millis = Millis::from_secs(2);
/// How much of it an answer gives back. Whoever gives a little from time to time does not hold anybody up for ever: where less
/// than an answer comes in this time, the store is asked in the end.
const EARNED: Millis = Millis::from_secs(1);
/// How many peers may fail until none is asked any more. Each may take as long as an answer may.
const FAILED_MAX: usize = 3;
/// The first pause after everybody was asked: about what a small release takes.
const PAUSE_MIN: Millis = Millis(20);
/// The longest pause: what waits is not far behind, and asking costs nobody anything.
const PAUSE_MAX: Millis = Millis(500);

/// What a peer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What was asked for.
    Gave,
    /// The same, and so slowly that it is asked after all others from now on.
    GaveSlowly,
    /// It is busy, or has not got it yet: it may be asked again.
    Later,
    /// It knows nothing of it.
    Lacks,
    /// Nothing, too late, or something wrong: it is not asked again.
    Failed,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask this peer, by its number, and tell what it answered.
    Ask(usize),
    /// Wait so long.
    Wait(Millis),
    /// Ask the store.
    Store,
}

/// How a peer did; the better ones are asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Conduct {
    Well,
    Slow,
    Failed,
}

/// The peers for one fetch of one release, and how they did.
#[derive(Debug, Clone)]
pub struct Search {
    peers: Vec<Conduct>,
    /// Who asks is told apart by it: not everybody loses patience in the same moment.
    seed: u64,
    /// Since when nothing came that was worth the wait: what comes moves it on by [`EARNED`].
    idle_since: Millis,
    given_up: bool,
}

/// Chunks that are looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    key: ChunkId,
    order: Vec<usize>,
    asked: usize,
    /// In this round somebody has said that it comes.
    hope: bool,
    rounds: u32,
}

impl Wanted {
    /// Nobody was asked yet. `key` is the first of the chunks: what is asked for together is asked of the same peer first.
    pub const fn new(key: ChunkId) -> Self {
        Self { key, order: Vec::new(), asked: 0, hope: false, rounds: 0 }
    }
}

impl Search {
    /// With so many peers, from now on.
    pub fn new(peers: usize, seed: u64, now: Millis) -> Self {
        Self { peers: alloc::vec![Conduct::Well; peers], seed, idle_since: now, given_up: false }
    }

    /// What to do for these chunks.
    pub fn step(&mut self, wanted: &mut Wanted, now: Millis) -> Step {
        self.given_up |= self.failures() >= FAILED_MAX.min(self.peers.len());
        self.given_up |= self.has_waited(PATIENCE, wanted.key, now);
        if self.given_up {
            return Step::Store;
        }
        if wanted.rounds == 0 && wanted.asked == 0 {
            wanted.order = self.order(wanted.key);
        }
        while let Some(peer) = wanted.order.get(wanted.asked) {
            wanted.asked += 1;
            if self.peers[*peer] != Conduct::Failed {
                return Step::Ask(*peer);
            }
        }
        if !wanted.hope && self.has_waited(PATIENCE_WITHOUT_HOPE, wanted.key, now) {
            self.given_up = true;
            return Step::Store;
        }
        let pause = (PAUSE_MIN.0 << wanted.rounds.min(16)).min(PAUSE_MAX.0);
        let pause = pause / 2 + self.random(wanted.key, wanted.rounds) % pause;
        (wanted.asked, wanted.hope, wanted.rounds) = (0, false, wanted.rounds + 1);
        Step::Wait(Millis(pause))
    }

    /// Takes in what a peer answered.
    pub fn told(&mut self, wanted: &mut Wanted, peer: usize, answer: Answer, now: Millis) {
        match answer {
            Answer::Gave => self.came(now),
            Answer::GaveSlowly => {
                self.came(now);
                self.note(peer, Conduct::Slow);
            }
            Answer::Later => wanted.hope = true,
            Answer::Lacks => {}
            Answer::Failed => self.note(peer, Conduct::Failed),
        }
    }

    fn came(&mut self, now: Millis) {
        self.idle_since = (self.idle_since + EARNED).min(now);
    }

    /// Several may be asking it at once: what is known of it gets no better.
    fn note(&mut self, peer: usize, conduct: Conduct) {
        if let Some(known) = self.peers.get_mut(peer) {
            *known = conduct.max(*known);
        }
    }

    /// Whether so much time, up to twice of it, has passed for nothing.
    fn has_waited(&self, patience: Millis, key: ChunkId, now: Millis) -> bool {
        let spread = self.random(key, u32::MAX) % (patience.0 + 1);
        now.since(self.idle_since) >= patience + Millis(spread)
    }

    /// How many peers have failed.
    pub fn failures(&self) -> usize {
        self.peers.iter().filter(|conduct| **conduct == Conduct::Failed).count()
    }

    /// The peers in the order in which these chunks are asked for: another one for others, so that all have to do.
    fn order(&self, key: ChunkId) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.peers.len()).collect();
        let place =
            |peer: &usize| (self.peers[*peer], Reverse(score([key.as_bytes(), &self.mark(*peer as u64)])));
        order.sort_by_cached_key(place);
        order
    }

    fn random(&self, key: ChunkId, round: u32) -> u64 {
        score([key.as_bytes(), &self.mark(u64::from(round) << 32)])
    }

    fn mark(&self, what: u64) -> [u8; 16] {
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&self.seed.to_be_bytes());
        mark[8..].copy_from_slice(&what.to_be_bytes());
        mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn key(n: u8) -> ChunkId {
        ChunkId::of(&[n])
    }

    /// What is done with peers that answer like this, for ever: how often each was asked, and when the store was.
    fn ends(answers: &[Answer], takes: Millis) -> (Vec<usize>, Millis, bool) {
        let (mut now, mut asked) = (Millis::ZERO, alloc::vec![0; answers.len()]);
        let mut search = Search::new(answers.len(), 1, now);
        let mut wanted = Wanted::new(key(1));
        loop {
            match search.step(&mut wanted, now) {
                Step::Store => return (asked, now, false),
                Step::Wait(pause) => now = now + pause,
                Step::Ask(peer) => {
                    (asked[peer], now) = (asked[peer] + 1, now + takes);
                    search.told(&mut wanted, peer, answers[peer], now);
                    if matches!(answers[peer], Answer::Gave | Answer::GaveSlowly) {
                        return (asked, now, true);
                    }
                }
            }
        }
    }

    #[test]
    fn f77_the_store_is_asked_after_a_bounded_time_whatever_peers_do() {
        use Answer::{Failed, Gave, Lacks, Later};
        let most = |patience: Millis| Millis(2 * patience.0 + PAUSE_MAX.0 * 2);
        let (asked, at, _) = ends(&[], Millis(1));
        assert_eq!((asked, at), (Vec::new(), Millis::ZERO));
        let (asked, at, _) = ends(&[Failed; 8], Millis(5000));
        assert_eq!((asked.iter().sum::<usize>(), at), (3, Millis(15_000)), "three take as long as they may");
        let (asked, at, _) = ends(&[Failed], Millis(5000));
        assert_eq!((asked, at), (alloc::vec![1], Millis(5000)));
        for (answer, patience) in [(Lacks, PATIENCE_WITHOUT_HOPE), (Later, PATIENCE)] {
            let (asked, at, _) = ends(&[answer; 4], Millis(1));
            assert!(at >= patience && at < most(patience), "{answer:?}: {at:?}");
            assert!(asked.iter().all(|times| *times > 3 && *times < 250), "{answer:?}: {asked:?}");
        }
        let (_, at, gave) = ends(&[Failed, Later, Lacks, Gave], Millis(1));
        assert!(gave && at <= Millis(4));
    }

    #[test]
    fn who_has_lost_patience_asks_the_store_for_everything() {
        let mut search = Search::new(2, 1, Millis::ZERO);
        let mut first = Wanted::new(key(1));
        let mut now = Millis::ZERO;
        while search.step(&mut first, now) != Step::Store {
            now = now + Millis(100);
        }
        assert_eq!(search.step(&mut Wanted::new(key(2)), now), Step::Store);
    }

    #[test]
    fn what_comes_renews_the_patience_a_little() {
        let mut search = Search::new(1, 1, Millis::ZERO);
        let mut now = Millis::ZERO;
        // Three answers in a second are worth the wait, whatever it takes in all.
        for n in 0..200 {
            for _ in 0..3 {
                let mut wanted = Wanted::new(key(n));
                assert_eq!(search.step(&mut wanted, now), Step::Ask(0), "{n}");
                search.told(&mut wanted, 0, Answer::Gave, now);
            }
            now = now + Millis::from_secs(1);
        }
        // One in ten seconds is not.
        let mut answers = 0;
        while search.step(&mut Wanted::new(key(1)), now) == Step::Ask(0) {
            now = now + Millis::from_secs(10);
            search.told(&mut Wanted::new(key(1)), 0, Answer::Gave, now);
            answers += 1;
        }
        assert!((3..8).contains(&answers), "{answers}");
    }

    #[test]
    fn who_is_slow_is_asked_after_the_others() {
        let mut search = Search::new(4, 1, Millis::ZERO);
        let slow = match search.step(&mut Wanted::new(key(1)), Millis::ZERO) {
            Step::Ask(peer) => peer,
            other => panic!("{other:?}"),
        };
        search.told(&mut Wanted::new(key(1)), slow, Answer::GaveSlowly, Millis(1));
        for n in 0..20 {
            let mut wanted = Wanted::new(key(n));
            let mut asked = Vec::new();
            while let Step::Ask(peer) = search.step(&mut wanted, Millis(1)) {
                asked.push(peer);
            }
            assert_eq!((asked.len(), asked.last()), (4, Some(&slow)));
        }
    }

    proptest! {
        #[test]
        fn everybody_is_asked_before_anybody_is_asked_again(peers in 4..9usize, seed: u64) {
            let mut search = Search::new(peers, seed, Millis::ZERO);
            let mut wanted = Wanted::new(key(3));
            for _ in 0..3 {
                let mut round = BTreeSet::new();
                while let Step::Ask(peer) = search.step(&mut wanted, Millis(1)) {
                    prop_assert!(round.insert(peer));
                    search.told(&mut wanted, peer, Answer::Later, Millis(1));
                }
                prop_assert_eq!(round.len(), peers);
            }
        }

        #[test]
        fn different_chunks_are_asked_of_different_peers_first(seed: u64) {
            let mut search = Search::new(4, seed, Millis::ZERO);
            let mut firsts = [0; 4];
            for n in 0..200 {
                if let Step::Ask(peer) = search.step(&mut Wanted::new(key(n)), Millis::ZERO) {
                    firsts[peer] += 1;
                }
            }
            prop_assert!(firsts.iter().all(|times| *times > 15), "{:?}", firsts);
        }
    }
}
