//! Why Baton itself has stopped a deploy: what outlives that deploy, since its members forget it when they go back.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};

use crate::fleet::Presence;
use crate::ids::MemberId;
use crate::metric::Outside;
use crate::rollout::Rollout;
use crate::verdict::{HaltReason, Rule};

/// The failure that has stopped a deploy. It is kept with the halt or the way back that it led to, so that every server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The first member that failed; none where it is the release as a whole.
    pub member: Option<MemberId>,
    /// How it failed, for machines.
    pub code: String,
    /// The rule that was broken, for machines.
    pub rule: String,
    /// How it failed, for people: the cause, and the last lines of output.
    pub detail: String,
}

impl Blame {
    /// How members fare.
    pub fn of(rollout: &Rollout<'_>, reason: &HaltReason) -> Self {
        let refusal = rollout.refused().find(|(member, _)| **member == reason.member);
        let (code, detail) = match refusal {
            Some((_, refusal)) => (refusal.cause.code(), refusal.text()),
            None => {
                let member = rollout.fleet().member(&reason.member);
                let code = match (reason.rule, member.map(|member| member.presence(rollout.now()))) {
                    (Rule::TooCostly { .. }, _) => reason.rule.code(),
                    (_, Some(Presence::Live)) => "relapsed",
                    (_, Some(Presence::Silent { .. })) => "silent",
                    (_, Some(Presence::Gone) | None) => "gone",
                };
                (code, reason.failure.clone())
            }
        };
        let (code, rule) = (code.to_owned(), reason.rule.code().to_owned());
        Self { member: Some(reason.member.clone()), code, rule, detail }
    }

    /// What was measured.
    pub fn of_metric(outside: &Outside) -> Self {
        let code = outside.code();
        Self { member: None, code: code.to_owned(), rule: code.to_owned(), detail: outside.to_string() }
    }
}
