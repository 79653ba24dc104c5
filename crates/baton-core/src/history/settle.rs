//! Which log of deploys goes on, where the store has another one than a server remembers.
//!
//! A store that loses what it has accepted (a failover, a flush, an old backup) has an older log, or, where others went on
//! from there, another one. Two logs are never mixed: one of them goes on, and what is only in the other one is told.

use super::History;
use crate::ids::Epoch;

/// What follows from two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// What this server remembers is written back.
    WriteBack,
    /// What the store has is taken over.
    TakeOver,
}

/// Judges the log that a server remembers, and the one that its store has.
pub fn settle(here: &History, stored: &History) -> Settled {
    let common = here.past().iter().zip(stored.past()).take_while(|(a, b)| a.deploy == b.deploy).count();
    let last = |log: &History| log.in_force().map_or(Epoch(0), |deploy| deploy.epoch);
    match (common == here.past().len(), common == stored.past().len()) {
        (_, true) => Settled::WriteBack,
        (true, false) => Settled::TakeOver,
        // Members obey the higher epoch. Where both are the same, everybody goes by what all servers can see.
        (false, false) if last(here) > last(stored) => Settled::WriteBack,
        (false, false) => Settled::TakeOver,
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;
    use crate::deploy::Policy;
    use crate::history::{Backing, Proposal, Wish};
    use crate::ids::{DeployId, ReleaseId};

    /// A log of deploys with these ids and epochs.
    fn log(deploys: &[(u8, u64)]) -> History {
        let mut log = History::new("web".parse().unwrap(), Vec::new());
        for &(id, epoch) in deploys {
            let release = ReleaseId::from_bytes([id; 32]);
            let proposal = Proposal {
                id: DeployId::from_bytes([id; 16]),
                parent: log.in_force().map(|deploy| deploy.id),
                wish: Wish::Rollout { release, policy: Policy::safe(), again: false },
                reason: String::new(),
                actor: "ada".into(),
                created: 0,
                backing: Backing::Nobody,
                blame: None,
            };
            let deploy = log.propose(proposal, Epoch(epoch - 1)).unwrap();
            assert_eq!(deploy.epoch, Epoch(epoch));
            log.add(deploy);
        }
        log
    }

    #[test]
    fn f64_f69_the_longer_log_goes_on_and_of_two_others_the_higher_epoch() {
        use Settled::{TakeOver, WriteBack};
        let (one, two) = ((1, 1), (2, 2));
        for (here, stored, settled) in [
            // The store is empty, old, as it should be, or ahead.
            (&[one, two][..], &[][..], WriteBack),
            (&[one, two], &[one], WriteBack),
            (&[one, two], &[one, two], WriteBack),
            (&[one], &[one, two], TakeOver),
            (&[], &[one], TakeOver),
            // Both have gone on.
            (&[one, two], &[one, (3, 2)], TakeOver),
            (&[one, two], &[one, (3, 3)], TakeOver),
            (&[one, two, (4, 4)], &[one, (3, 3)], WriteBack),
            (&[one], &[(5, 1)], TakeOver),
        ] {
            assert_eq!(settle(&log(here), &log(stored)), settled, "{here:?} {stored:?}");
        }
    }
}
