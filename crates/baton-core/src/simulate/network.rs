//! The simulated network, which delays messages, and loses, doubles and reorders them where it is bad.

use super::prng::Prng;
use crate::units::{Millis, Share};

/// The longest that a message takes on a bad network.
pub(super) const DELAY_MAX: Millis = Millis::from_secs(2);
/// The longest that one takes mostly.
const QUICK_MAX: Millis = Millis(50);

/// How messages get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Each once, within a twentieth of a second.
    Good,
    /// One in a hundred not at all, one in fifty twice, and one in a hundred so late that others overtake it.
    Bad,
}

impl Network {
    const fn lost(self) -> Share {
        match self {
            Self::Good => Share::NONE,
            Self::Bad => Share::from_percent(1),
        }
    }

    const fn doubled(self) -> Share {
        match self {
            Self::Good => Share::NONE,
            Self::Bad => Share::from_percent(2),
        }
    }

    const fn late(self) -> Share {
        match self {
            Self::Good => Share::NONE,
            Self::Bad => Share::from_percent(1),
        }
    }

    /// How long one message takes.
    pub(super) fn delay(self, prng: &mut Prng) -> Millis {
        if prng.chance(self.late()) {
            prng.between(QUICK_MAX, DELAY_MAX)
        } else {
            prng.between(Millis(1), QUICK_MAX)
        }
    }

    /// Whether a message is lost.
    pub(super) const fn loses(self, prng: &mut Prng) -> bool {
        prng.chance(self.lost())
    }

    /// After which time each copy of a message arrives: none, one, or two.
    pub(super) fn deliveries(self, prng: &mut Prng) -> [Option<Millis>; 2] {
        let second = prng.chance(self.doubled()).then(|| self.delay(prng));
        let first = (!self.loses(prng)).then(|| self.delay(prng));
        [second, first]
    }
}
