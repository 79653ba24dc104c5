//! What follows from the memory that a program uses.

use crate::units::{Bytes, Share};

/// From when on a generation is replaced for its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recycle {
    /// When it uses more than this share of what the member may use.
    Share(Share),
    /// When it uses more than this.
    Bytes(Bytes),
}

impl Recycle {
    /// The threshold, where the member may use so much.
    pub fn threshold(self, limit: Bytes) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => {
                let part = u128::from(limit.0) * u128::from(share.ppm()) / u128::from(Share::ALL.ppm());
                Bytes(u64::try_from(part).unwrap_or(u64::MAX))
            }
        }
    }
}

/// From which share of what may be used on memory is about to run out: what is left is soon gone, and the kernel ends
/// somebody then.
const SCARCE: Share = Share::from_percent(95);

/// Whether memory is about to run out.
pub fn runs_out(used: Bytes, limit: Bytes) -> bool {
    used >= Recycle::Share(SCARCE).threshold(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_size_or_a_share_of_the_limit() {
        let limit = Bytes(1000);
        for (recycle, expected) in [
            (Recycle::Bytes(Bytes(5000)), 5000),
            (Recycle::Share(Share::from_percent(80)), 800),
            (Recycle::Share(Share::from_percent(100)), 1000),
        ] {
            assert_eq!(recycle.threshold(limit), Bytes(expected));
        }
        let scarce = [0, 949, 950, 2000].map(|used| runs_out(Bytes(used), limit));
        assert_eq!(scarce, [false, false, true, true]);
        let most = Recycle::Share(Share::from_percent(50)).threshold(Bytes(u64::MAX));
        assert_eq!(most, Bytes(u64::MAX / 2));
    }
}
