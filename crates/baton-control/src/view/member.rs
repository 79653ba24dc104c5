//! How a member stands.

use baton_core::fleet::{Fleet, Member, Presence};
use baton_core::ids::{MemberId, ReleaseId};
use baton_core::report::{self, Report, Standing};
use baton_core::rollout::Rollout;
use baton_core::turn::{Turn, Why};
use baton_core::units::Millis;
use baton_wire::api::{Fetching, MemberStatus};

use crate::board::Posted;

/// All members of a service, in the order of their names.
pub(crate) fn all(posted: &Posted, now: Millis) -> Vec<MemberStatus> {
    let fleet = posted.service.fleet();
    let rollout = Rollout::of(fleet, now);
    fleet.members().map(|(id, member)| one(posted, rollout.as_ref(), id, member, now)).collect()
}

fn one(
    posted: &Posted,
    rollout: Option<&Rollout<'_>>,
    id: &MemberId,
    member: &Member,
    now: Millis,
) -> MemberStatus {
    let why = rollout.and_then(|rollout| match rollout.turn(id) {
        Turn::Go | Turn::Wait(Why::AlreadyThere) => None,
        Turn::Wait(why) => Some(why),
    });
    let proven = rollout.is_some_and(|rollout| rollout.turn(id) == Turn::Wait(Why::AlreadyThere));
    let report = member.report();
    let release = |of: fn(&Report) -> Option<ReleaseId>| report.and_then(of).map(|id| id.to_string());
    let hello = posted.hellos.get(id);
    MemberStatus {
        member: id.to_string(),
        presence: presence(member, now).to_owned(),
        heard_ago_ms: now.since(member.heard_at()).0,
        running: release(|report| report.running),
        committed: release(|report| report.committed.map(|(release, _)| release)),
        standby: release(|report| report.standby),
        healthy: report.is_some_and(|report| report.healthy),
        standing: if proven {
            "proven"
        } else {
            standing(posted.service.fleet(), member).map_or("behind", Standing::word)
        }
        .to_owned(),
        fetching: report.and_then(|report| report.fetching).map(fetching),
        why: why.as_ref().map(ToString::to_string),
        why_code: why.map(|why| why.code().to_owned()),
        refusal: standing(posted.service.fleet(), member).and_then(refusal),
        drained: report.is_some_and(|report| report.drained),
        labels: report
            .map_or_else(Vec::new, |report| report.labels.iter().map(ToString::to_string).collect()),
        listens: hello.map(|hello| hello.listens.clone()).unwrap_or_default(),
        version: hello.map(|hello| hello.version.clone()).unwrap_or_default(),
        newer: hello.is_some_and(|hello| is_newer(&hello.version, env!("CARGO_PKG_VERSION"))),
    }
}

/// Whether a version is later than another one. One that is not of three numbers, as of no release, is not compared.
fn is_newer(version: &str, than: &str) -> bool {
    let numbers = |text: &str| {
        let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
        let numbers = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(numbers)
    };
    numbers(version).zip(numbers(than)).is_some_and(|(version, than)| version > than)
}

/// How much of a release has come.
pub(super) fn fetching(fetching: report::Fetching) -> Fetching {
    Fetching { fetched_bytes: fetching.fetched.0, total_bytes: fetching.total.0 }
}

/// The words of all presences.
pub(crate) const PRESENCES: [&str; 4] = ["live", "unheard", "silent", "gone"];

/// The word of a presence.
pub(crate) fn presence(member: &Member, now: Millis) -> &'static str {
    match member.presence(now) {
        // It has a lease to be heard in.
        Presence::Live if member.report().is_none() => "unheard",
        Presence::Live => "live",
        Presence::Silent { .. } => "silent",
        Presence::Gone => "gone",
    }
}

/// How far a member is with the deploy in force; none when it has not heard of it.
pub(crate) fn standing<'a>(fleet: &Fleet, member: &'a Member) -> Option<&'a Standing> {
    let deploy = &fleet.in_force()?.deploy;
    let report = member.report()?;
    report.seen.is_some_and(|seen| seen.deploy == deploy.id).then_some(&report.standing)
}

fn refusal(standing: &Standing) -> Option<String> {
    match standing {
        Standing::Refused(refusal) => Some(refusal.text()),
        Standing::Behind
        | Standing::Staged
        | Standing::Granted
        | Standing::Trying
        | Standing::Proving
        | Standing::Proven => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p35_a_version_is_newer_by_its_numbers() {
        for (version, than, newer) in [
            ("0.1.0", "0.1.0", false),
            ("0.1.1", "0.1.0", true),
            ("0.10.0", "0.9.9", true),
            ("1.0.0", "0.99.99", true),
            ("0.9.9", "1.0.0", false),
            ("", "0.1.0", false),
            ("0.2", "0.1.0", false),
            ("0.2.0-dev", "0.1.0", false),
            ("0.2.0.1", "0.1.0", false),
        ] {
            assert_eq!(is_newer(version, than), newer, "{version} beside {than}");
        }
    }
}
