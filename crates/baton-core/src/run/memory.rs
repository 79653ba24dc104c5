//! What follows from the memory that a program uses.

use core::fmt;

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

/// The memory of a member, when somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What is in use, and can be dropped by nobody.
    pub used: Bytes,
    /// How much of that is what the generations have grown by since each of them was proven.
    pub grown: Bytes,
    /// More than this the member may not use.
    pub limit: Bytes,
}

/// How much memory a candidate will use until it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Its settings say so.
    Said(Bytes),
    /// Its release was proven here before, and used so much at the most until then.
    Learnt(Bytes),
    /// Of itself nothing is known; so much at the most used the generation that serves in its first minute, of what the image
    /// brought as well.
    LikeServing(Bytes),
}

/// There is no room for a candidate beside what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    needs: Needs,
    used: Bytes,
    limit: Bytes,
}

impl Room {
    /// Whether a candidate fits in.
    ///
    /// What was learnt counts beside what runs as that was when it was proven: a program that leaks must not keep out
    /// what would replace it. Who says what it needs means the memory as it is.
    ///
    /// # Errors
    /// If it does not.
    pub fn fits(self, needs: Needs) -> Result<(), NoRoom> {
        let Self { used, grown, limit } = self;
        let (used, more) = match needs {
            Needs::Said(bytes) => (used, bytes),
            Needs::Learnt(bytes) | Needs::LikeServing(bytes) => {
                (Bytes(used.0.saturating_sub(grown.0)), bytes)
            }
        };
        if used.0.saturating_add(more.0) <= limit.0 { Ok(()) } else { Err(NoRoom { needs, used, limit }) }
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needs, used, limit } = self;
        match needs {
            Needs::Said(bytes) => write!(f, "it needs {bytes} (run.memory.needs)")?,
            Needs::Learnt(bytes) => write!(f, "it used up to {bytes} here until it was proven")?,
            Needs::LikeServing(bytes) => write!(f, "what serves used up to {bytes} in its first minute")?,
        }
        write!(f, ", and {used} of the {limit} that this member may use are in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Needs::{Learnt, LikeServing, Said};

    #[test]
    fn what_is_said_counts_beside_all_that_is_used_and_what_was_learnt_beside_what_did_not_leak() {
        for (used, grown, needs, fits) in [
            (60, 0, Said(Bytes(40)), true),
            (60, 0, Said(Bytes(41)), false),
            (60, 30, Said(Bytes(41)), false),
            (60, 0, Learnt(Bytes(40)), true),
            (60, 0, Learnt(Bytes(41)), false),
            (95, 40, Learnt(Bytes(45)), true),
            (95, 40, Learnt(Bytes(46)), false),
            // Measured at different moments, more may have grown than is used.
            (95, 40, LikeServing(Bytes(45)), true),
            (95, 40, LikeServing(Bytes(46)), false),
            (10, 90, Learnt(Bytes(100)), true),
            (10, 90, Learnt(Bytes(101)), false),
            (u64::MAX, 0, Said(Bytes(u64::MAX)), false),
        ] {
            let room = Room { used: Bytes(used), grown: Bytes(grown), limit: Bytes(100) };
            assert_eq!(room.fits(needs).is_ok(), fits, "{room:?} {needs:?}");
        }
        let mib = |mib: u64| Bytes::from_kib(mib << 10);
        let room = Room { used: mib(150), grown: mib(50), limit: mib(200) };
        let words = |needs| std::format!("{}", room.fits(needs).unwrap_err());
        assert_eq!(
            words(Said(mib(60))),
            "it needs 60 MiB (run.memory.needs), and 150 MiB of the 200 MiB that this member may use are in use"
        );
        assert_eq!(
            words(Learnt(mib(120))),
            "it used up to 120 MiB here until it was proven, and 100 MiB of the 200 MiB that this member may use are \
             in use"
        );
        assert_eq!(
            words(LikeServing(mib(120))),
            "what serves used up to 120 MiB in its first minute, and 100 MiB of the 200 MiB that this member may use are \
             in use"
        );
    }

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
