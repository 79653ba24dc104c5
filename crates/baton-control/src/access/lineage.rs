//! Which credential of each member is the newest: one that was stolen is not renewed for ever beside the member's own.
//!
//! A server knows those that it has given and those that were shown to it, since it was started. That is enough to notice that two
//! have one, and costs the store nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_core::access::Credential;
use baton_core::ids::{MemberId, ServiceName};

/// After this long nobody can renew what was the newest.
const FORGOTTEN_AFTER_MS: u64 = Credential::TTL_MS + Credential::RENEWABLE_MS;

type Whose = (ServiceName, MemberId);

/// The newest credential of each member.
#[derive(Debug, Default)]
pub(super) struct Lineage(Mutex<Newest>);

#[derive(Debug, Default)]
struct Newest {
    given: BTreeMap<Whose, Given>,
    cleared_at: u64,
}

/// The newest one of a member.
#[derive(Debug, Clone, Copy)]
struct Given {
    issued: u64,
    /// Somebody has it: the answer with which it was given was not lost.
    is_shown: bool,
}

/// Another credential of this member was renewed meanwhile: two have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reused;

impl Lineage {
    /// A member got this one by a token: it is the newest, whatever was before.
    pub(super) fn begin(&self, whose: Whose, issued: u64) {
        self.lock().note(whose, Given { issued, is_shown: false });
    }

    /// Somebody has this one.
    pub(super) fn shown(&self, shown: &Credential) {
        let mut newest = self.lock();
        let whose = whose(shown);
        match newest.given.get_mut(&whose) {
            Some(given) if shown.issued < given.issued => {}
            Some(given) if shown.issued == given.issued => given.is_shown = true,
            // Another server has given it.
            Some(_) | None => newest.note(whose, Given { issued: shown.issued, is_shown: true }),
        }
    }

    /// As of when the next one is given to who shows this one, where that would be `now`. Who has heard no answer gets the same again.
    pub(super) fn next(&self, shown: &Credential, now: u64) -> Result<u64, Reused> {
        let mut newest = self.lock();
        let whose = whose(shown);
        match newest.given.get(&whose) {
            Some(given) if shown.issued < given.issued && given.is_shown => Err(Reused),
            Some(given) if shown.issued < given.issued => Ok(given.issued),
            Some(_) | None => {
                // The clock of who gave the last one may be ahead.
                let issued = now.max(shown.issued.saturating_add(1));
                newest.note(whose, Given { issued, is_shown: false });
                Ok(issued)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whose(credential: &Credential) -> Whose {
    (credential.service.clone(), credential.member.clone())
}

impl Newest {
    fn note(&mut self, whose: Whose, given: Given) {
        if given.issued.saturating_sub(self.cleared_at) > Credential::TTL_MS {
            self.cleared_at = given.issued;
            self.given.retain(|_, known| given.issued.saturating_sub(known.issued) < FORGOTTEN_AFTER_MS);
        }
        self.given.insert(whose, given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;

    fn given(issued: u64) -> Credential {
        Credential { service: "web".parse().unwrap(), member: "web-1".parse().unwrap(), issued }
    }

    #[test]
    fn p39_of_two_who_have_one_credential_the_second_to_renew_it_gets_nothing() {
        let lineage = Lineage::default();
        let first = given(HOUR);
        let second = given(lineage.next(&first, 9 * HOUR).unwrap());
        // Whoever of the two was first: the other one is noticed as soon as that one uses what it got.
        lineage.shown(&second);
        assert_eq!(lineage.next(&first, 9 * HOUR), Err(Reused));
        let third = given(lineage.next(&second, 17 * HOUR).unwrap());
        lineage.shown(&first);
        lineage.shown(&third);
        assert_eq!(lineage.next(&second, 17 * HOUR), Err(Reused));
        assert_eq!(lineage.next(&first, 17 * HOUR), Err(Reused));
        assert_eq!(lineage.next(&third, 25 * HOUR), Ok(25 * HOUR));
        let other = Credential { member: "web-2".parse().unwrap(), ..first };
        assert_eq!(lineage.next(&other, 25 * HOUR), Ok(25 * HOUR), "another member is another matter");
    }

    #[test]
    fn who_has_heard_no_answer_gets_the_same_again_however_late() {
        let lineage = Lineage::default();
        for hours in [9, 10, 100] {
            assert_eq!(lineage.next(&given(HOUR), hours * HOUR), Ok(9 * HOUR));
        }
    }

    #[test]
    fn a_token_begins_anew_and_what_another_server_gave_is_learnt() {
        let lineage = Lineage::default();
        lineage.next(&given(HOUR), 9 * HOUR).unwrap();
        // Another server gave this one, by a clock that is ahead.
        let elsewhere = given(17 * HOUR);
        lineage.shown(&elsewhere);
        assert_eq!(lineage.next(&given(9 * HOUR), 17 * HOUR), Err(Reused));
        assert_eq!(lineage.next(&elsewhere, 17 * HOUR), Ok(17 * HOUR + 1));
        lineage.begin(whose(&elsewhere), 20 * HOUR);
        lineage.shown(&given(20 * HOUR));
        assert_eq!(
            lineage.next(&given(17 * HOUR + 1), 25 * HOUR),
            Err(Reused),
            "who has it by a token counts"
        );
        assert_eq!(lineage.next(&given(20 * HOUR), 28 * HOUR), Ok(28 * HOUR));
    }

    #[test]
    fn who_cannot_come_back_is_forgotten() {
        let lineage = Lineage::default();
        for number in 0..100 {
            let member = format!("web-{number}").parse().unwrap();
            lineage.begin(("web".parse().unwrap(), member), HOUR);
        }
        lineage.begin(("web".parse().unwrap(), "new".parse().unwrap()), HOUR + FORGOTTEN_AFTER_MS);
        assert_eq!(lineage.lock().given.len(), 1);
    }
}
