//! Tables of members, deploys and releases, and lines of events.

use baton_core::units::Millis;
use baton_wire::api::{DeployView, EventView, Fetching, MemberStatus, ReleaseView, TagView};

use super::{bytes, id, or_dash};
use crate::escape::escape;
use crate::moment::{ago, stamp};
use crate::table::{fit, table};

/// The members of a service.
pub fn members(members: &[MemberStatus], width: usize) -> String {
    if members.is_empty() {
        return "no members yet: start one with baton-boot\n".to_owned();
    }
    let row = |member: &MemberStatus| {
        let heard = match member.presence.as_str() {
            "live" => "live".to_owned(),
            other => format!("{} for {}", escape(other), Millis(member.heard_ago_ms)),
        };
        let health = if member.running.is_none() {
            "-"
        } else if member.healthy {
            "healthy"
        } else {
            "unhealthy"
        };
        [
            escape(&member.member),
            heard,
            escape(&member.standing),
            member.running.as_deref().map_or_else(|| "-".to_owned(), id),
            health.to_owned(),
            why(member),
        ]
    };
    let rows: Vec<_> = members.iter().map(row).collect();
    table(["MEMBER", "HEARD", "STANDING", "RUNNING", "HEALTH", "WHY"], &rows, width) + &newer(members)
}

/// Who runs a bootloader that control does not know yet.
fn newer(members: &[MemberStatus]) -> String {
    let newer: Vec<_> = members.iter().filter(|member| member.newer).collect();
    let Some(first) = newer.first() else { return String::new() };
    let (member, version, many) = (escape(&first.member), escape(&first.version), newer.len());
    format!(
        "\n{many} of them run a bootloader newer than control, such as {member} ({version}): nothing is promised for that, \
         update control first\n"
    )
}

/// How it failed, what is on its way to it, or what it waits for.
fn why(member: &MemberStatus) -> String {
    let fetching = member.fetching.as_ref().map(|fetching| format!("got {}", fetched(fetching)));
    let refusal = member.refusal.as_deref().map(first_line);
    refusal.or(fetching).or_else(|| member.why.as_deref().map(first_line)).unwrap_or_default()
}

/// How much of a release has come.
pub(super) fn fetched(fetching: &Fetching) -> String {
    format!("{} of {}", bytes(fetching.fetched_bytes), bytes(fetching.total_bytes))
}

/// The deploys of a service.
pub fn deploys(deploys: &[DeployView], now_ms: u64, width: usize) -> String {
    if deploys.is_empty() {
        return "no deploys yet: `baton deploy` makes one\n".to_owned();
    }
    let row = |deploy: &DeployView| {
        let costs = deploy.costs.as_ref();
        let (startup, memory) =
            (costs.and_then(|costs| costs.startup_ms), costs.and_then(|costs| costs.memory_bytes));
        [
            deploy.epoch.to_string(),
            id(&deploy.id),
            escape(&deploy.kind),
            id(&deploy.release),
            end(deploy, deploys).to_owned(),
            startup.map_or_else(|| "-".to_owned(), |time| Millis(time).to_string()),
            memory.map_or_else(|| "-".to_owned(), bytes),
            ago(deploy.created_ms, now_ms),
            escape(&deploy.actor),
            escape(&deploy.reason),
        ]
    };
    let rows: Vec<_> = deploys.iter().map(row).collect();
    let head = ["EPOCH", "DEPLOY", "KIND", "RELEASE", "END", "STARTS IN", "MEMORY", "WHEN", "BY", "WHY"];
    table(head, &rows, width)
}

/// The tags of a service.
pub fn tags(tags: &[TagView], now_ms: u64, width: usize) -> String {
    if tags.is_empty() {
        return "no tags yet: `baton releases tag TAG RELEASE` makes one\n".to_owned();
    }
    let row =
        |tag: &TagView| [escape(&tag.tag), id(&tag.release), ago(tag.since_ms, now_ms), escape(&tag.actor)];
    let rows: Vec<_> = tags.iter().map(row).collect();
    table(["TAG", "RELEASE", "WHEN", "BY"], &rows, width)
}

/// How a deploy ended, as far as the others tell.
fn end(deploy: &DeployView, all: &[DeployView]) -> &'static str {
    let about =
        |kind: &str| all.iter().any(|other| other.kind == kind && other.of.as_ref() == Some(&deploy.id));
    if deploy.switched {
        "switched"
    } else if deploy.kind == "halt" {
        "-"
    } else if about("rollback") {
        "taken back"
    } else if about("halt") {
        "halted"
    } else if all.iter().any(|other| other.epoch > deploy.epoch) {
        "superseded"
    } else {
        "under way"
    }
}

/// Releases.
pub fn releases(releases: &[ReleaseView], now_ms: u64, width: usize) -> String {
    if releases.is_empty() {
        return "no releases yet: `baton push` makes one\n".to_owned();
    }
    let row = |release: &ReleaseView| {
        [
            id(&release.id),
            escape(&release.service),
            release.files.to_string(),
            bytes(release.bytes),
            made(release, now_ms),
            or_dash(release.commit.as_deref()),
        ]
    };
    let rows: Vec<_> = releases.iter().map(row).collect();
    table(["RELEASE", "SERVICE", "FILES", "SIZE", "MADE", "COMMIT"], &rows, width)
}

/// When a release was made: by its newest file or its commit, and one without either does not know.
fn made(release: &ReleaseView, now_ms: u64) -> String {
    match release.created_ms {
        0 => "-".to_owned(),
        created => ago(created, now_ms),
    }
}

/// One event on one line.
pub fn event(event: &EventView, width: usize) -> String {
    let who = match &event.member {
        Some(member) => format!("{}/{}", escape(&event.service), escape(member)),
        None => escape(&event.service),
    };
    let line = format!("{}  {:<14} {who}  {}", stamp(event.at_ms), escape(&event.kind), escape(&event.text));
    format!("{}\n", fit(&line, width))
}

fn first_line(text: &str) -> String {
    escape(text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use baton_wire::api::CostsView;
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::sample;

    const NOW: u64 = 1_795_209_567_000 + 300_000;

    fn member(name: &str) -> MemberStatus {
        MemberStatus {
            member: name.to_owned(),
            presence: "live".to_owned(),
            heard_ago_ms: 12_000,
            running: Some(sample::release()),
            committed: None,
            standby: None,
            healthy: true,
            standing: "proven".to_owned(),
            fetching: None,
            why: Some("it runs the release, proven".to_owned()),
            why_code: Some("already-there".to_owned()),
            refusal: None,
            drained: true,
            labels: Vec::new(),
            listens: Vec::new(),
            version: "0.1.0".to_owned(),
            newer: false,
        }
    }

    #[test]
    fn p35_who_runs_a_bootloader_newer_than_control_is_told() {
        let newer = MemberStatus { version: "9.1.0".to_owned(), newer: true, ..member("web-2") };
        let text = members(&[member("web-1"), newer], 80);
        assert!(
            text.contains("\n\n1 of them run a bootloader newer than control, such as web-2 (9.1.0)"),
            "{text}"
        );
        assert!(!members(&[member("web-1")], 80).contains("newer"));
    }

    #[test]
    fn members_are_a_table_of_80_columns() {
        let mut refused = member("web-2");
        refused.standing = "refused".to_owned();
        refused.refusal = Some("the candidate was not ready in time\nTraceback\x1b[2J".to_owned());
        let mut silent = member("web-3");
        silent.presence = "silent".to_owned();
        silent.running = None;
        silent.why = None;
        let mut fetches = member("web-4");
        fetches.standing = "behind".to_owned();
        fetches.fetching = Some(Fetching { fetched_bytes: 3_100_000, total_bytes: 8_300_000 });
        let text = members(&[member("web-1"), refused, silent, fetches], 80);
        assert_eq!(
            text,
            "MEMBER  HEARD            STANDING  RUNNING       HEALTH   WHY\n\
             web-1   live             proven    9f3a2b7c1d5e  healthy  it runs the release, …\n\
             web-2   live             refused   9f3a2b7c1d5e  healthy  the candidate was not…\n\
             web-3   silent for 12 s  proven    -             -\n\
             web-4   live             behind    9f3a2b7c1d5e  healthy  got 3.1 MB of 8.3 MB\n"
        );
        assert!(text.lines().all(|line| line.width() <= 80));
        assert!(members(&[], 80).contains("baton-boot"));
    }

    #[test]
    fn how_a_deploy_ended_is_told_by_those_after_it() {
        let deploy = |epoch: u64, kind: &str, of: Option<u64>, switched| DeployView {
            id: epoch.to_string(),
            epoch,
            kind: kind.to_owned(),
            of: of.map(|of| of.to_string()),
            switched,
            ..sample::deploy()
        };
        let all = [
            deploy(7, "rollout", None, false),
            deploy(6, "halt", Some(5), false),
            deploy(5, "rollout", None, false),
            deploy(4, "rollback", Some(3), true),
            deploy(3, "rollout", None, false),
            deploy(2, "rollout", None, false),
            deploy(1, "rollout", None, true),
        ];
        let ends = all.iter().map(|one| end(one, &all)).collect::<Vec<_>>();
        let expected = ["under way", "-", "halted", "switched", "taken back", "superseded", "switched"];
        assert_eq!(ends, expected);
    }

    #[test]
    fn deploys_are_a_table() {
        let mut deploy = sample::deploy();
        deploy.reason = "fix\nlogin".to_owned();
        let costs =
            CostsView { startup_ms: Some(1500), memory_bytes: Some(52_000_000), ..CostsView::default() };
        let before = DeployView { epoch: 4, switched: true, costs: Some(costs), ..sample::deploy() };
        assert_eq!(
            deploys(&[deploy, before], NOW, usize::MAX),
            "EPOCH  DEPLOY        KIND     RELEASE       END        STARTS IN  MEMORY   WHEN    BY          WHY\n\
             5      7c1d5e9f3a2b  rollout  9f3a2b7c1d5e  under way  -          -        5m ago  kim@laptop  fix\\nlogin\n\
             4      7c1d5e9f3a2b  rollout  9f3a2b7c1d5e  switched   1.5 s      52.0 MB  5m ago  kim@laptop\n"
        );
    }

    #[test]
    fn releases_are_a_table() {
        let release = ReleaseView {
            id: sample::release(),
            service: "web".to_owned(),
            files: 12,
            bytes: 3_400_000,
            commit: None,
            created_ms: NOW - 7_200_000,
        };
        assert_eq!(
            releases(&[release], NOW, 80),
            "RELEASE       SERVICE  FILES  SIZE    MADE    COMMIT\n\
             9f3a2b7c1d5e  web      12     3.4 MB  2h ago  -\n"
        );
    }

    #[test]
    fn p44_an_event_is_one_harmless_line() {
        let happened = EventView {
            sequence: 7,
            at_ms: NOW,
            service: "web".to_owned(),
            kind: "refused".to_owned(),
            member: Some("web-2".to_owned()),
            deploy: None,
            text: "the candidate ended\n2026-11-20T21:24:27Z  switched       web  all is well".to_owned(),
        };
        assert_eq!(
            event(&happened, usize::MAX),
            "2026-11-20T21:24:27Z  refused        web/web-2  the candidate ended\\n2026-11-20T21:24:27Z  \
             switched       web  all is well\n"
        );
    }
}
