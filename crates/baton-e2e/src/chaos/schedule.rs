//! What is broken when, and what is deployed when: all of it from one number, so that a run can be had again.

use std::ops::Range;

use baton_core::units::Millis;
use fastrand::Rng;

use super::fault::{Fault, Kind};
use super::ill::Ill;

/// A deploy begins so often, whether or not the one before has ended.
pub const DEPLOY_EVERY: Millis = Millis::from_secs(10);
/// One of so many is ill.
const ILL_EVERY: usize = 5;
/// How long nothing is broken between two faults of one lane, at the least and at the most, in ms: nothing is granted for a
/// lease of 10 s after most faults of control, and without a time in which rollouts get on there is little that can go wrong.
const CALM: Range<u64> = 8_000..30_000;

/// How large the fleet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// How many servers there are.
    pub servers: usize,
    /// How many members.
    pub members: usize,
}

/// Something that is broken, from when, counted from the beginning, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When it begins.
    pub at: Millis,
    /// How long it lasts.
    pub lasts: Millis,
    /// What it is.
    pub fault: Fault,
}

/// The whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Faults of control and its stores, in order; none begins before the one before it has ended.
    pub of_control: Vec<Planned>,
    /// Faults of members, likewise. They meet those of control as chance has it.
    pub of_members: Vec<Planned>,
    /// What each deploy brings, in order: nothing, or an illness.
    pub deploys: Vec<Option<Ill>>,
}

impl Schedule {
    /// The run of this number, over so long.
    pub fn draw(seed: u64, over: Millis, size: Size) -> Self {
        let mut rng = Rng::with_seed(seed);
        let of_control = lane(&mut rng.fork(), &Kind::OF_CONTROL, over, size);
        let of_members = lane(&mut rng.fork(), &Kind::OF_MEMBERS, over, size);
        let mut ills = Deck::of(&Ill::ALL);
        let count = usize::try_from(over.0 / DEPLOY_EVERY.0).unwrap_or(0);
        let mut ill = |number: usize| (number % ILL_EVERY == ILL_EVERY - 1).then(|| ills.draw(&mut rng));
        let deploys = (0..count).map(|number| ill(number).flatten()).collect();
        Self { of_control, of_members, deploys }
    }
}

/// Faults one after the other: each sort as often as the others, in any order.
fn lane(rng: &mut Rng, kinds: &[Kind], over: Millis, size: Size) -> Vec<Planned> {
    let mut deck = Deck::of(kinds);
    let mut planned = Vec::new();
    let mut at = Millis(rng.u64(..CALM.start));
    while let Some(kind) = deck.draw(rng) {
        let (least, most) = kind.lasts();
        let lasts = Millis(rng.u64(least.0..=most.0));
        if at + lasts > over {
            break;
        }
        planned.push(Planned { at, lasts, fault: fault(rng, kind, size) });
        at = at + lasts + Millis(rng.u64(CALM));
    }
    planned
}

fn fault(rng: &mut Rng, kind: Kind, size: Size) -> Fault {
    let mut members: Vec<usize> = (0..size.members).collect();
    rng.shuffle(&mut members);
    members.truncate(size.members.div_ceil(2));
    match kind {
        Kind::ServerKilled => Fault::ServerKilled(rng.usize(..size.servers)),
        Kind::ServerPaused => Fault::ServerPaused(rng.usize(..size.servers)),
        Kind::AllServersKilled => Fault::AllServersKilled,
        Kind::ServerSlow => Fault::ServerSlow(rng.usize(..size.servers)),
        Kind::PrimaryKilled => Fault::PrimaryKilled,
        Kind::PrimaryKilledAhead => Fault::PrimaryKilledAhead,
        Kind::PrimaryPaused => Fault::PrimaryPaused,
        Kind::PrimaryApart => Fault::PrimaryApart(rng.usize(..size.servers)),
        Kind::StoreGone => Fault::StoreGone,
        Kind::Apart => Fault::Apart(members),
        Kind::Deaf => Fault::Deaf(members),
        Kind::Mute => Fault::Mute(members),
        Kind::OneByOne => {
            let mut back = members.clone();
            rng.shuffle(&mut back);
            Fault::OneByOne { cut: members, back }
        }
        Kind::Lossy => Fault::Lossy(members),
        Kind::MemberKilled => Fault::MemberKilled(rng.usize(..size.members)),
    }
}

/// Things that are drawn until none is left, and then again.
struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    fn of(all: &[T]) -> Self {
        Self { all: all.to_vec(), left: Vec::new() }
    }

    /// Nothing only if there is nothing at all.
    fn draw(&mut self, rng: &mut Rng) -> Option<T> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            rng.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SIZE: Size = Size { servers: 3, members: 20 };
    const HALF_AN_HOUR: Millis = Millis::from_secs(1800);

    #[test]
    fn a_number_is_a_run() {
        let run = |seed| Schedule::draw(seed, HALF_AN_HOUR, SIZE);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn in_half_an_hour_everything_is_broken_several_times_and_mended_within_it() {
        for seed in 0..50 {
            let run = Schedule::draw(seed, HALF_AN_HOUR, SIZE);
            for (lane, kinds) in
                [(&run.of_control, &Kind::OF_CONTROL[..]), (&run.of_members, &Kind::OF_MEMBERS[..])]
            {
                let mut times = BTreeMap::<Kind, usize>::new();
                for planned in lane {
                    *times.entry(planned.fault.kind()).or_default() += 1;
                }
                assert!(kinds.iter().all(|kind| times[kind] >= 3), "{seed}: {times:?}");
                for pair in lane.windows(2) {
                    assert!(pair[0].at + pair[0].lasts < pair[1].at, "{seed}: {pair:?}");
                }
                let last = lane.last().unwrap();
                assert!(last.at + last.lasts <= HALF_AN_HOUR, "{seed}: {last:?}");
            }
        }
    }

    #[test]
    fn every_fifth_release_is_ill_and_each_illness_comes() {
        let run = Schedule::draw(1, HALF_AN_HOUR, SIZE);
        assert_eq!(run.deploys.len(), 180);
        for (number, ill) in run.deploys.iter().enumerate() {
            assert_eq!(ill.is_some(), number % 5 == 4, "{number}");
        }
        for ill in Ill::ALL {
            assert!(run.deploys.contains(&Some(ill)), "{ill:?}");
        }
    }

    #[test]
    fn half_of_the_members_are_cut_off_and_all_of_them_let_back() {
        let mut rng = Rng::with_seed(3);
        let Fault::OneByOne { mut cut, mut back } = fault(&mut rng, Kind::OneByOne, SIZE) else { panic!() };
        assert_eq!(cut.len(), 10);
        assert_ne!(cut, back);
        cut.sort_unstable();
        back.sort_unstable();
        assert_eq!(cut, back);
    }
}
