//! Chance for the simulator, from a seed: SplitMix64, by Sebastiano Vigna (public domain).

use crate::units::{Millis, Share};

/// A stream of numbers that its seed determines.
#[derive(Debug, Clone)]
pub(super) struct Prng(u64);

impl Prng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub(super) const fn below(&mut self, n: u64) -> u64 {
        ((self.next() as u128 * n as u128) >> 64) as u64
    }

    /// A duration of at least `least` and less than `most`.
    pub(super) fn between(&mut self, least: Millis, most: Millis) -> Millis {
        least + Millis(self.below((most - least).0))
    }

    /// Whether something happens that happens this often.
    pub(super) const fn chance(&mut self, share: Share) -> bool {
        self.below(1_000_000) < share.ppm() as u64
    }
}
