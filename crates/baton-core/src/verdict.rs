//! Whether a rollout goes on, stops, goes back, or is done.

use alloc::string::{String, ToString};
use core::fmt;

use crate::costs::{COMPARED_MIN, Cost, Costs, MORE_BY_PERCENT};
use crate::counts::{Counts, Failure};
use crate::deploy::{Deploy, Kind};
use crate::fleet::Leavers;
use crate::ids::MemberId;
use crate::rollout::Rollout;
use crate::units::Share;

/// What follows from the progress of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Nothing to change.
    Continue,
    /// Propose a halt that hands back, and raise an alarm.
    Halt(HaltReason),
    /// Propose a rollback.
    RollBack(HaltReason),
    /// Only members are left that refuse the release or cannot get it. Who waits is told so; the members
    /// go on trying, and their success ends it well. [`Rollout::refused`] says who they are.
    Incomplete,
    /// *Switched*: enough members have proven the digest that they run, and nobody is on trial. To be noted
    /// with [`crate::fleet::Fleet::note_switched`].
    Done {
        /// Whether no old generation is left either.
        drained: bool,
    },
}

/// Why a rollout stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaltReason {
    /// The rule that stops it.
    pub rule: Rule,
    /// The first member that failed.
    pub member: MemberId,
    /// How it failed.
    pub failure: String,
}

/// A rule that stops a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The very first member failed.
    FirstMember,
    /// Every slot is held by a member that failed.
    WindowFailed {
        /// How many slots there are.
        slots: u32,
    },
    /// More members failed than chance explains.
    FailureLimit {
        /// How many failed.
        failed: u32,
        /// Of how many that tried.
        tries: u32,
        /// The failure rate that is at least the case.
        at_least: Share,
        /// The greatest rate that is allowed.
        limit: Share,
    },
    /// It costs most members remarkably more than the release before it.
    TooCostly {
        /// What of.
        cost: Cost,
        /// On how many members.
        more: u32,
        /// Of how many that know.
        of: u32,
    },
}

impl Rule {
    /// A stable word for records, the API and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::FirstMember => "first-member-failed",
            Self::WindowFailed { .. } => "window-failed",
            Self::FailureLimit { .. } => "failure-limit",
            Self::TooCostly { cost: Cost::Startup, .. } => "starts-slower",
            Self::TooCostly { cost: Cost::Memory, .. } => "uses-more-memory",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstMember => f.write_str("the first member failed"),
            // A limit may have closed it meanwhile.
            Self::WindowFailed { slots: 0 | 1 } => f.write_str("the member in the only slot failed"),
            Self::WindowFailed { slots } => write!(f, "the members in all {slots} slots failed"),
            Self::TooCostly { cost, more, of } => write!(
                f,
                "its {cost} is at least {MORE_BY_PERCENT} % more than that of the release before it, on {more} of {of} members"
            ),
            Self::FailureLimit { failed, tries, at_least, limit } => write!(
                f,
                "{failed} of {tries} members failed, which is a rate of at least {at_least} where {limit} is allowed"
            ),
        }
    }
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}: {})", self.rule, self.member, self.failure)
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Silent => f.write_str("it fell silent while it tried the release"),
            Self::Gone => f.write_str("it vanished with the release"),
            Self::Stopped => f.write_str(
                "its platform stopped it while it tried the release, as it did with more such members than others",
            ),
            Self::Costly(Cost::Startup, Costs { startup: Some(now), startup_before: Some(was), .. }) => {
                write!(f, "it took {now} to start, and {was} before")
            }
            Self::Costly(Cost::Memory, Costs { memory: Some(now), memory_before: Some(was), .. }) => {
                write!(f, "it used {now} of memory, and {was} before")
            }
            Self::Costly(cost, _) => write!(f, "the {cost} is too much"),
            Self::Relapsed => f.write_str("it crashed or lost its health after it had proven the release"),
        }
    }
}

/// Fewer failures than this are chance.
const FAILURES_MIN: u32 = 3;

/// Decides. While too little is known to give slots, nothing is decided either; and once a deploy has reached
/// its target, what fails later is not its failure. Nor is it done where members are known to run something else by now.
pub fn verdict(rollout: &Rollout<'_>) -> Verdict {
    let counts = rollout.counts();
    if rollout.is_outranked() {
        return Verdict::Continue;
    }
    // A gate may close with the very last proof.
    let too_costly = matches!(rollout.broken(), Some(Rule::TooCostly { .. }));
    if rollout.switched() || (!rollout.is_held() && !too_costly && is_switched(rollout)) {
        return Verdict::Done { drained: counts.silent == 0 && counts.drained == counts.live };
    }
    if rollout.is_held() {
        return Verdict::Continue;
    }
    match rollout.broken().and_then(|rule| Some((rule, rollout.first_failure(rule)?))) {
        Some((rule, (member, failure))) => {
            let reason = HaltReason { rule, member: member.clone(), failure: failure.to_string() };
            let deploy = rollout.deploy();
            // A rollback that fails too must not wander on through the past: it stops, and people look.
            let back =
                deploy.kind == Kind::Rollout && deploy.policy.auto_rollback && deploy.fallback.is_some();
            if back { Verdict::RollBack(reason) } else { Verdict::Halt(reason) }
        }
        None if only_refused_are_left(rollout) => Verdict::Incomplete,
        None => Verdict::Continue,
    }
}

/// Silent members are there until they are gone, so at a target of everything they must come back or go.
fn is_switched(rollout: &Rollout<'_>) -> bool {
    let counts = rollout.counts();
    let target = rollout.deploy().policy.target.of(counts.meant);
    counts.meant > 0 && counts.unsettled == 0 && counts.proven_meant >= target
}

/// The rule by which a rollout with so many slots has failed, if it has.
pub(crate) fn broken_rule(deploy: &Deploy, counts: &Counts, leavers: &Leavers, slots: u32) -> Option<Rule> {
    failure_rule(deploy, counts, leavers, slots).or_else(|| cost_rule(deploy, counts))
}

/// The gate that a release does not pass: it costs remarkably more, on enough members to say so.
fn cost_rule(deploy: &Deploy, counts: &Counts) -> Option<Rule> {
    if deploy.policy.gates.is_empty() || deploy.kind != Kind::Rollout {
        return None;
    }
    let enough = COMPARED_MIN.min(deploy.policy.target.of(counts.meant));
    deploy.policy.gates.iter().copied().find_map(|cost| {
        let (more, of) = counts.more(cost).filter(|(_, of)| *of >= enough)?;
        Some(Rule::TooCostly { cost, more, of })
    })
}

fn failure_rule(deploy: &Deploy, counts: &Counts, leavers: &Leavers, slots: u32) -> Option<Rule> {
    if counts.failed > 0 && deploy.kind == Kind::Rollout && counts.tries == 1 {
        return Some(Rule::FirstMember);
    }
    if counts.failed > 0 && counts.failed_open >= slots.max(1) {
        return Some(Rule::WindowFailed { slots });
    }
    let (failed, tries) = (counts.failed + leavers.suspect(), counts.tries + leavers.suspect());
    let (at_least, limit) = (lower_bound(failed, tries), deploy.policy.failure_limit);
    (failed >= FAILURES_MIN && at_least > limit).then_some(Rule::FailureLimit {
        failed,
        tries,
        at_least,
        limit,
    })
}

fn only_refused_are_left(rollout: &Rollout<'_>) -> bool {
    let counts = rollout.counts();
    let untouched = counts.meant.saturating_sub(counts.proven_meant + counts.refused + counts.unstageable);
    counts.refused + counts.unstageable > 0
        && counts.silent == 0
        && counts.unsettled == 0
        && (rollout.wanted() == 0 || untouched == 0)
}

/// The failure rate that is at least the case when `failed` of `tries` failed: the lower end of Wilson's score
/// interval at z = 1.96 (95 %), rounded down.
///
/// Failures show earlier than successes, which take a whole bake. So they are measured against all who
/// tried, not against those who came to an end, or the first seconds of a good release would look bad.
///
/// With everything in units of 1e-8: `(2k + z² − sqrt(z⁴ + 4z²·k·(n−k)/n)) / 2(n + z²)`, all in integers.
fn lower_bound(failed: u32, tries: u32) -> Share {
    const ONE: u128 = 100_000_000;
    const Z2: u128 = 384_160_000;
    let (k, n) = (u128::from(failed.min(tries)), u128::from(tries));
    if n == 0 {
        return Share::NONE;
    }
    let square = Z2 * Z2 + 4 * Z2 * ONE * k * (n - k) / n;
    let root = square.isqrt() + 1;
    let above = (2 * k * ONE + Z2).saturating_sub(root);
    let ppm = above * 1_000_000 / (2 * (n * ONE + Z2));
    u32::try_from(ppm).ok().and_then(Share::from_ppm).unwrap_or(Share::ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_bound_is_wilsons() {
        // Computed with floating point: (failed, tries, parts per million).
        for (failed, tries, ppm) in [
            (0, 1, 0),
            (1, 1, 206_543),
            (3, 3, 438_493),
            (3, 10, 107_789),
            (1, 100, 1_767),
            (12, 212, 32_672),
            (40, 4000, 7_352),
            (4000, 4000, 999_040),
        ] {
            let bound = lower_bound(failed, tries).ppm();
            assert!(bound.abs_diff(ppm) <= 1, "{failed} of {tries}: {bound}, not {ppm}");
        }
    }

    #[test]
    fn the_lower_bound_never_exceeds_the_rate_and_any_numbers_are_safe() {
        for tries in [0, 1, 2, 3, 10, 4000, u32::MAX] {
            for failed in [0, 1, 2, 3, 9, 4000, u32::MAX] {
                let (k, n) = (u64::from(failed.min(tries)), u64::from(tries));
                let bound = u64::from(lower_bound(failed, tries).ppm());
                assert!(bound * n <= k * 1_000_000, "{failed} of {tries}");
            }
        }
    }
}
