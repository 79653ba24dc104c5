//! Which credential of each member is the newest: one that was stolen is not renewed for ever beside the member's own.
//!
//! A server knows those that it has given and those that were shown to it for the next one, since it was started. That is enough
//! to notice that two ask in turns, and costs the store nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use baton_core::access::Credential;
use baton_core::ids::{MemberId, ServiceName};

/// For so long the credential before the newest one gets that again: the answer may have been lost, and the way to control with it.
/// Well below the time between two renewals.
const LOST_ANSWER_MS: u64 = 60 * 60 * 1000;
/// After this long nobody can renew what was the newest.
const FORGOTTEN_AFTER_MS: u64 = Credential::TTL_MS + Credential::RENEWABLE_MS;

type Whose = (ServiceName, MemberId);

/// When the newest credential of each member was given.
#[derive(Debug, Default)]
pub(super) struct Lineage(Mutex<Newest>);

#[derive(Debug, Default)]
struct Newest {
    issued: BTreeMap<Whose, u64>,
    cleared_at: u64,
}

/// Another credential of this member was renewed meanwhile: two have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reused;

impl Lineage {
    /// A member got this one by a token: it is the newest, whatever was before.
    pub(super) fn begin(&self, whose: Whose, issued: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(whose, issued);
    }

    /// As of when the next one is given to who shows this one, where that would be `now`.
    pub(super) fn next(&self, shown: &Credential, now: u64) -> Result<u64, Reused> {
        let whose = (shown.service.clone(), shown.member.clone());
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match newest.issued.get(&whose) {
            Some(issued) if shown.issued < *issued && now.saturating_sub(*issued) > LOST_ANSWER_MS => {
                Err(Reused)
            }
            Some(issued) if shown.issued < *issued => Ok(*issued),
            // The clock of who gave the last one may be ahead.
            Some(_) | None => Ok(newest.note(whose, now.max(shown.issued.saturating_add(1)))),
        }
    }
}

impl Newest {
    fn note(&mut self, whose: Whose, issued: u64) -> u64 {
        if issued.saturating_sub(self.cleared_at) > Credential::TTL_MS {
            self.cleared_at = issued;
            self.issued.retain(|_, known| issued.saturating_sub(*known) < FORGOTTEN_AFTER_MS);
        }
        self.issued.insert(whose, issued);
        issued
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
    fn p39_of_two_who_renew_one_credential_the_second_gets_nothing() {
        let lineage = Lineage::default();
        let (first, eight) = (given(HOUR), 9 * HOUR);
        let second = given(lineage.next(&first, eight).unwrap());
        // Whoever of the two was first: the other one is noticed, and does not go on beside it.
        assert_eq!(lineage.next(&first, eight + 2 * HOUR), Err(Reused));
        let third = given(lineage.next(&second, 17 * HOUR).unwrap());
        assert_eq!(lineage.next(&second, 19 * HOUR), Err(Reused));
        assert_eq!(lineage.next(&first, 19 * HOUR), Err(Reused));
        assert_eq!(lineage.next(&third, 25 * HOUR), Ok(25 * HOUR));
        let other = Credential { member: "web-2".parse().unwrap(), ..first };
        assert_eq!(lineage.next(&other, 25 * HOUR), Ok(25 * HOUR), "another member is another matter");
    }

    #[test]
    fn who_has_heard_no_answer_gets_the_same_again_for_a_while() {
        let lineage = Lineage::default();
        let now = 9 * HOUR;
        assert_eq!(lineage.next(&given(HOUR), now), Ok(now));
        for later in [1, LOST_ANSWER_MS] {
            assert_eq!(lineage.next(&given(HOUR), now + later), Ok(now));
        }
        assert_eq!(lineage.next(&given(HOUR), now + LOST_ANSWER_MS + 1), Err(Reused));
    }

    #[test]
    fn a_token_begins_anew_and_what_another_server_gave_is_learnt() {
        let lineage = Lineage::default();
        lineage.next(&given(HOUR), 9 * HOUR).unwrap();
        // Another server gave this one, by a clock that is ahead.
        let elsewhere = given(17 * HOUR);
        assert_eq!(lineage.next(&elsewhere, 17 * HOUR), Ok(17 * HOUR + 1));
        assert_eq!(lineage.next(&given(9 * HOUR), 19 * HOUR), Err(Reused));
        lineage.begin(("web".parse().unwrap(), "web-1".parse().unwrap()), 20 * HOUR);
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
        assert_eq!(lineage.0.lock().unwrap().issued.len(), 1);
    }
}
