//! How services stand.

use baton_core::units::{Millis, Share};
use baton_wire::api::{DeployView, LimitsView, ServiceStatus};

use super::{bar, count, id, lists, rollout};
use crate::escape::escape;
use crate::moment::ago;
use crate::table::{fit, table};
use crate::ui::Paint;

/// How wide the bar is at most.
const BAR_CELLS: usize = 60;

/// All services, one a line.
pub fn overview(services: &[ServiceStatus], now_ms: u64, width: usize) -> String {
    if services.is_empty() {
        return "no services yet: start a member, or deploy\n".to_owned();
    }
    let row = |status: &ServiceStatus| {
        let deploy = status.deploy.as_ref();
        [
            escape(&status.service),
            escape(&status.state),
            deploy.map_or_else(|| "-".to_owned(), |deploy| id(&deploy.release)),
            format!("{}/{}", status.counts.proven, bar::total(&status.counts)),
            deploy.map_or_else(|| "-".to_owned(), |deploy| ago(deploy.created_ms, now_ms)),
            status.waits.as_deref().map_or_else(String::new, escape),
        ]
    };
    let rows: Vec<_> = services.iter().map(row).collect();
    table(["SERVICE", "STATE", "RELEASE", "PROVEN", "DEPLOYED", "WAITS"], &rows, width)
}

/// One service in detail.
pub fn detail(status: &ServiceStatus, now_ms: u64, width: usize, paint: Paint) -> String {
    let mut lines = vec![("service", format!("{}: {}", escape(&status.service), escape(&status.state)))];
    if let Some(deploy) = &status.deploy {
        let why =
            if deploy.reason.is_empty() { String::new() } else { format!(": {}", escape(&deploy.reason)) };
        let when = ago(deploy.created_ms, now_ms);
        lines.push(("release", id(&deploy.release)));
        lines.push((
            "deploy",
            format!(
                "{} ({}, epoch {}) by {}, {when}{why}",
                id(&deploy.id),
                escape(&deploy.kind),
                deploy.epoch,
                escape(&deploy.actor)
            ),
        ));
        lines.push(("policy", policy(deploy)));
        lines.extend(limits(&deploy.policy.limits).map(|limits| ("limits", limits)));
        lines.push(("progress", progress(status)));
    }
    if let Some(lock) = &status.lock {
        let (who, when) = (escape(&lock.actor), ago(lock.since_ms, now_ms));
        let with = lock.service.iter().map(|base| format!("with {}, ", escape(base))).collect::<String>();
        lines.push(("locked", format!("{with}by {who}, {when}: {}", escape(&lock.reason))));
    }
    if let Some(costs) = rollout::costs(&status.costs) {
        lines.push(("costs", costs));
    }
    if let Some(why) = &status.needs_person {
        lines.push(("needs you", escape(why)));
    }
    if let Some(trouble) = &status.trouble {
        lines.push(("stands still", escape(trouble)));
    }
    if let Some(waits) = &status.waits {
        lines.push(("waits", escape(waits)));
    }
    if let Some(laggards) = rollout::laggards(status) {
        lines.push(("end", laggards));
    }
    if let Some(committed) = &status.committed {
        lines.push(("new members", format!("start release {}", id(committed))));
    }
    let counts = &status.counts;
    lines.push((
        "members",
        format!("{} live, {} silent, {} drained", counts.live, counts.silent, counts.drained),
    ));
    if let Some(fetching) = &status.fetching {
        lines.push(("fetching", lists::fetched(fetching)));
    }
    let mut text = String::new();
    for (name, value) in lines {
        text.push_str(&fit(&format!("{name:<12} {value}"), width));
        text.push('\n');
    }
    if bar::total(counts) > 0 {
        let cells = BAR_CELLS.min(width.saturating_sub(2));
        text.push_str(&format!("[{}]\n", bar::bar(counts, cells, paint)));
        text.push_str(&bar::legend(counts, width, paint));
    }
    if let Some(failure) = &status.failure {
        for line in rollout::failure(failure).lines() {
            text.push_str(&fit(line, width));
            text.push('\n');
        }
    }
    text
}

/// A rollback goes to all at once as far as `max_unhealthy` lets it, without phases and bakes.
fn policy(DeployView { policy, kind, .. }: &DeployView) -> String {
    let share = |ppm| Share::from_ppm(ppm).map_or_else(|| "?".to_owned(), |share| share.to_string());
    let bakes = policy.phases.iter().map(|phase| {
        let size = phase.size_ppm.map_or_else(|| "1 member".to_owned(), share);
        format!("{size} for {}", Millis(phase.bake_ms))
    });
    let bakes = bakes.collect::<Vec<_>>().join(", ");
    let how = if kind == "rollback" { String::new() } else { format!(": {bakes}") };
    let target = match policy.target_members {
        Some(members) => count(members.into(), "member"),
        None => share(policy.target_ppm),
    };
    let label =
        policy.target_label.as_deref().map_or_else(String::new, |label| format!(" of {}", escape(label)));
    format!("to {target}{label}, at most {} unproven{how}", share(policy.max_unhealthy_ppm))
}

/// The limits that are numbers, where there are any.
fn limits(limits: &LimitsView) -> Option<String> {
    let connections = limits.max_connections_budget.zip(limits.connections_each);
    let said = [
        limits.singleton.then(|| "singleton".to_owned()),
        limits.never_more_than.map(|most| format!("never more than {most}")),
        connections.map(|(budget, each)| format!("{budget} connections, {each} each")),
        limits.min_available.map(|least| format!("at least {least} available")),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn progress(status: &ServiceStatus) -> String {
    format!("phase {} of {}, {}", status.phase, status.phases, count(status.slots.into(), "slot"))
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::sample;
    use baton_wire::api::{Fetching, LockView};

    const NOW: u64 = 1_795_209_567_000 + 300_000;

    #[test]
    fn services_are_a_table_of_80_columns() {
        assert_eq!(
            overview(&[sample::status("rolling-out")], NOW, 80),
            "SERVICE  STATE        RELEASE       PROVEN  DEPLOYED  WAITS\n\
             web      rolling-out  9f3a2b7c1d5e  82/240  5m ago    15 of 15 slots are taken …\n"
        );
        assert!(overview(&[], NOW, 80).contains("no services"));
    }

    #[test]
    fn a_service_is_told_in_full() {
        let mut status = sample::status("rolling-out");
        status.committed = Some("bb".repeat(32));
        if let Some(deploy) = &mut status.deploy {
            deploy.policy.limits.never_more_than = Some(300);
            deploy.policy.limits.min_available = Some(200);
        }
        let (reason, actor) = ("freeze\n".to_owned(), "kim".to_owned());
        status.lock = Some(LockView { reason, actor, since_ms: NOW - 60_000, service: None });
        status.fetching = Some(Fetching { fetched_bytes: 1_234_567, total_bytes: 82_000_000 });
        let text = detail(&status, NOW, 80, Paint::Without);
        assert_eq!(
            text,
            "service      web: rolling-out\n\
             release      9f3a2b7c1d5e\n\
             deploy       7c1d5e9f3a2b (rollout, epoch 5) by kim@laptop, 5m ago\n\
             policy       to 100 %, at most 25 % unproven: 1 member for 10 s, 5 % for 5 s, 2…\n\
             limits       never more than 300, at least 200 available\n\
             progress     phase 2 of 3, 15 slots\n\
             locked       by kim, 1m ago: freeze\\n\n\
             waits        15 of 15 slots are taken by web-1, web-2, web-3 and 12 others\n\
             new members  start release bbbbbbbbbbbb\n\
             members      238 live, 2 silent, 200 drained\n\
             fetching     1.2 MB of 82.0 MB\n\
             [###################++++~========================..........??]\n\
             # 82 proven  + 12 proving  ~ 3 trying  = 100 staged  . 41 behind  ? 2 silent\n"
        );
        assert!(text.lines().all(|line| line.width() <= 80));
        if let Some(lock) = &mut status.lock {
            lock.service = Some("web".to_owned());
        }
        assert!(detail(&status, NOW, 80, Paint::Without).contains("locked       with web, by kim"));
    }

    #[test]
    fn a_rollback_names_no_phases() {
        let mut deploy = sample::deploy();
        deploy.kind = "rollback".to_owned();
        assert_eq!(policy(&deploy), "to 100 %, at most 25 % unproven");
    }

    #[test]
    fn a_service_without_a_deploy_is_told_too() {
        let mut status = sample::status("idle");
        status.deploy = None;
        status.waits = None;
        let text = detail(&status, NOW, 80, Paint::Without);
        assert!(text.starts_with("service      web: idle\nmembers "), "{text}");
    }
}
