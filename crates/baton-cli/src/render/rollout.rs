//! A rollout under way, and how it ended.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_core::bake::TRAFFIC_PATIENCE;
use baton_core::units::{Micros, Millis};
use baton_wire::api::{CostsView, DeployName, DeployView, FailureView, Preview, ServiceStatus};

use super::{bar, bytes, count, id};
use crate::course::Stage;
use crate::escape::{escape, lines};
use crate::table::fit;
use crate::ui::{Colour, Paint};

/// How wide the bar is at most.
const BAR_CELLS: usize = 30;
/// What a phase's line needs beside the bar in a fleet of 100,000.
const BESIDE_BAR: usize = 50;
/// How many of the members in order a preview names.
const ORDER_SHOWN: usize = 10;

/// One line that tells how far a phase is.
pub fn phase_line(status: &ServiceStatus, elapsed: Duration, width: usize, paint: Paint) -> String {
    let bar = bar::bar(&status.counts, BAR_CELLS.min(width.saturating_sub(BESIDE_BAR)), paint);
    let (proven, total) = (status.counts.proven, bar::total(&status.counts));
    format!("{}  [{bar}]  {proven} of {total} proven  {}\n", phase(status), time(elapsed))
}

/// `phase 2/3`, or what is going on instead.
fn phase(status: &ServiceStatus) -> String {
    let kind = status.deploy.as_ref().map_or("", |deploy| deploy.kind.as_str());
    match kind {
        "rollout" if status.phases > 0 => format!("phase {}/{}", status.phase, status.phases),
        "rollback" => "roll back".to_owned(),
        _ => escape(&status.state),
    }
}

/// Everything about a rollout that is redrawn as it goes on.
pub fn block(status: &ServiceStatus, elapsed: Duration, width: usize, paint: Paint) -> String {
    let mut text = phase_line(status, elapsed, width, paint);
    text.push_str(&bar::legend(&status.counts, width, paint));
    for waits in waits(status) {
        text.push_str(&fit(&waits, width));
        text.push('\n');
    }
    if let Some(costs) = costs_more(&status.costs) {
        text.push_str(&paint.colour(Colour::Yellow, &fit(&costs, width)));
        text.push('\n');
    }
    if let Some(failure) = &status.failure {
        text.push_str(&paint.colour(Colour::Red, &fit(&failure_line(failure), width)));
        text.push('\n');
    }
    text
}

/// One line that tells everything, for where nothing can be redrawn.
pub fn change_line(status: &ServiceStatus) -> String {
    let mut text = format!("{}: {}", phase(status), bar::in_words(&status.counts));
    let waits: Vec<String> = waits(status).collect();
    let failure = status.failure.as_ref().filter(|failure| !waits.iter().any(|waits| tells(waits, failure)));
    for why in failure.map(failure_line).into_iter().chain(waits) {
        text.push_str(&format!("; {why}"));
    }
    text
}

/// From how many characters on something that was told is not told in full again.
const LONG_CHARS: usize = 100;
/// How much of it is.
const SHORT_CHARS: usize = 60;

/// What was told in full: a failure may be as long as what a store has to say, and stands on every line from then on.
#[derive(Debug, Default)]
pub struct Told(BTreeSet<String>);

impl Told {
    /// A line, in which what was told in full before is short.
    pub fn cut(&self, line: &str) -> String {
        self.0.iter().fold(line.to_owned(), |line, told| {
            let short: String = told.chars().take(SHORT_CHARS).collect();
            line.replace(told, &format!("{short}…"))
        })
    }

    /// The line of this status was shown.
    pub fn note(&mut self, status: &ServiceStatus) {
        let failure = status.failure.as_ref().and_then(|failure| failure.detail.lines().next());
        let lags = status.laggards.iter().map(|one| one.why.as_str());
        let told = failure.into_iter().chain(status.waits.as_deref()).chain(lags).map(escape);
        self.0.extend(told.filter(|told| told.chars().count() > LONG_CHARS));
    }
}

/// Whether this tells already who failed and how: a failure may be as long as what a store has to say.
fn tells(waits: &str, failure: &FailureView) -> bool {
    let member = failure.member.as_ref().map(|member| escape(member)).unwrap_or_default();
    let how = escape(failure.detail.lines().next().unwrap_or_default());
    !how.is_empty() && waits.contains(&how) && waits.contains(&member)
}

/// Why nobody new may try, and who keeps the deploy from its end. Where that is one member for one reason, it is said once.
fn waits(status: &ServiceStatus) -> impl Iterator<Item = String> {
    let next = status.waits.as_ref().map(|waits| format!("waits: {}", escape(waits)));
    let only = status.laggards.first().filter(|_| status.laggards_count == 1);
    let is_said = only.is_some_and(|one| status.waits == Some(format!("{}: {}", one.member, one.why)));
    let end = laggards(status).filter(|_| !is_said);
    next.into_iter().chain(end)
}

/// That a release costs much more than the one before it, on one line.
fn costs_more(costs: &CostsView) -> Option<String> {
    let slower = costs.startup_ms.zip(costs.startup_before_ms).filter(|_| costs.slower);
    let slower =
        slower.map(|(now, was)| format!("it takes {} to start, and {} before", Millis(now), Millis(was)));
    let larger = costs.memory_bytes.zip(costs.memory_before_bytes).filter(|_| costs.larger);
    let larger =
        larger.map(|(now, was)| format!("it uses {} of memory, and {} before", bytes(now), bytes(was)));
    let said: Vec<String> = slower.into_iter().chain(larger).collect();
    (!said.is_empty()).then(|| format!("costs more: {}", said.join("; ")))
}

/// What a release costs, as far as it is known.
pub fn costs(costs: &CostsView) -> Option<String> {
    let startup = costs.startup_ms.map(|startup| format!("starts in {}", Millis(startup)));
    let handover = costs.handover_us.map(|handover| format!("takes over in {}", Micros(handover)));
    let memory = costs.memory_bytes.map(|memory| format!("uses {}", bytes(memory)));
    let fetched = Some(costs.fetched_bytes).filter(|fetched| *fetched > 0);
    let fetched = fetched.map(|fetched| format!("{} fetched by all", bytes(fetched)));
    let said: Vec<String> = startup.into_iter().chain(handover).chain(memory).chain(fetched).collect();
    match (said.is_empty(), costs_more(costs)) {
        (true, more) => more,
        (false, None) => Some(said.join(", ")),
        (false, Some(more)) => Some(format!("{}; {more}", said.join(", "))),
    }
}

/// How many laggards a line names.
const LAGGARDS_NAMED: usize = 3;

/// Who keeps the deploy from its end, on one line.
pub fn laggards(status: &ServiceStatus) -> Option<String> {
    let first = status.laggards.first()?;
    if status.laggards_count == 1 {
        return Some(format!("waits for {}: {}", escape(&first.member), escape(&first.why)));
    }
    let named = status.laggards.iter().take(LAGGARDS_NAMED);
    let named = named.map(|one| format!("{} ({})", escape(&one.member), escape(&one.code)));
    let named = named.collect::<Vec<_>>().join(", ");
    Some(match (status.laggards_count as usize).saturating_sub(LAGGARDS_NAMED) {
        0 => format!("waits for {named}"),
        others => format!("waits for {named} and {others} others"),
    })
}

/// Who failed first and how, on one line.
fn failure_line(failure: &FailureView) -> String {
    let first = failure.detail.lines().next().unwrap_or_default();
    let on = failure.member.as_ref().map(|member| format!(" on {}", escape(member))).unwrap_or_default();
    format!("failed{on} ({}): {}", escape(&failure.code), escape(first))
}

/// Who failed first and how, with the last lines of output.
pub fn failure(failure: &FailureView) -> String {
    let mut text = failure_line(failure);
    text.push('\n');
    for line in lines(&failure.detail).skip(1) {
        text.push_str(&format!("  | {line}\n"));
    }
    text
}

/// What was accepted.
pub fn accepted(deploy: &DeployView) -> String {
    let what = match deploy.kind.as_str() {
        "halt" => "halts at",
        "rollback" => "goes back to",
        _ => "goes to",
    };
    let (service, kept) = (escape(&deploy.service), escape(&deploy.accepted));
    let (release, epoch) = (id(&deploy.release), deploy.epoch);
    let replaces = replaces(deploy);
    format!(
        "{service} {what} release {release}: deploy {} (epoch {epoch}, {kept})\n{replaces}",
        id(&deploy.id)
    )
}

/// What was in force before, on a line of its own, where that is known.
pub fn replaces(deploy: &DeployView) -> String {
    let before = deploy.replaces.as_ref();
    before.map_or_else(String::new, |before| format!("it takes the place of {}\n", named(before)))
}

/// A deploy, on part of a line.
pub fn named(deploy: &DeployName) -> String {
    let DeployName { id: deploy, epoch, kind, release, actor } = deploy;
    let what = match kind.as_str() {
        "halt" => "halt at",
        "rollback" => "rollback to",
        _ => "rollout of",
    };
    format!("deploy {} (epoch {epoch}, {what} release {} by {})", id(deploy), id(release), escape(actor))
}

/// How it ended, and how long that took, where anybody has seen it.
pub fn summary(
    deploy: &DeployView,
    stage: Stage,
    status: &ServiceStatus,
    cause: Option<&FailureView>,
    took: Option<Duration>,
) -> String {
    let (service, release) = (escape(&deploy.service), id(&deploy.release));
    let after = took.map_or_else(String::new, |took| format!(" after {}", time(took)));
    let within = took.map_or_else(String::new, |took| format!(" in {}", time(took)));
    let now = status.deploy.as_ref();
    let (proven, total) = (status.counts.proven, bar::total(&status.counts));
    let mut text = match stage {
        Stage::Switched if now.is_some_and(|now| now.epoch > deploy.epoch) => {
            format!("{service} ran release {release}: it was switched before another deploy took over\n")
        }
        Stage::Switched => {
            format!("{service} runs release {release} on {proven} of {total} members: switched{within}\n")
        }
        Stage::Drained => format!(
            "{service} runs release {release} on {proven} of {total} members: switched and drained{within}\n"
        ),
        Stage::Incomplete => format!(
            "release {release} is proven on {proven} of {total} members; the others refuse it or cannot get it\n\
             they try again every minute: see `baton members --service {service}`\n"
        ),
        Stage::Halted => format!(
            "halted{after}: release {release} stays on {proven} of {total} members\n\
             go on with `baton resume`, or take it back with `baton rollback`\n"
        ),
        Stage::RolledBack => format!(
            "rolled back{after}: {service} runs release {} on {proven} of {total} members\n",
            now.map_or_else(String::new, |now| id(&now.release))
        ),
        Stage::RollbackStuck => format!(
            "release {release} was being rolled back, and that stopped{after}\n\
             members keep what serves: see `baton members --service {service}`\n"
        ),
        Stage::Superseded => format!(
            "another deploy took over{after} (deploy {}): see `baton deploys --service {service}`\n",
            now.map_or_else(String::new, |now| id(&now.id))
        ),
        Stage::Rolling | Stage::RollingBack => {
            format!(
                "not done{after}; it goes on: see `baton status {service} --watch`, or wait on with \
                 `baton wait --service {service}`\n"
            )
        }
    };
    if let (Stage::Switched | Stage::Drained | Stage::Incomplete, true) = (stage, status.counts.refused > 0) {
        text.push_str(&format!("refused by {}\n", count(status.counts.refused.into(), "member")));
    }
    if let Some(costs) = costs_more(&status.costs) {
        text.push_str(&format!("{costs}\n"));
    }
    let open = !matches!(stage, Stage::Drained | Stage::Superseded);
    if let Some(laggards) = laggards(status).filter(|_| open) {
        text.push_str(&format!("{laggards}\n"));
    }
    match (cause, now) {
        (Some(cause), _) => text.push_str(&failure(cause)),
        // Who halted it or took it back says why; the failure may have come and gone between two looks.
        (None, Some(now)) if now.id != deploy.id && !now.reason.is_empty() => {
            text.push_str(&format!("because: {}\n", escape(&now.reason)));
        }
        (None, _) => {}
    }
    text
}

/// What a deploy would do.
pub fn preview(preview: &Preview, width: usize) -> String {
    let mut text = format!("release {} would go to {}:\n", id(&preview.release), whom(preview));
    text.push_str(&phases(preview));
    let waits = preview.bake_connections > 0;
    if waits {
        let connections = count(preview.bake_connections.into(), "connection");
        let most = TRAFFIC_PATIENCE;
        text.push_str(&format!("  each also waits for {connections}, {most} longer at the most\n"));
    }
    if let Some((expected, startup)) = preview.expected_ms.zip(preview.startup_ms) {
        let (expected, startup) = (Millis(expected), Millis(startup));
        let come = if waits { ", and connections come in time" } else { "" };
        text.push_str(&format!("about {expected}, if it starts as what runs now, in {startup}{come}\n"));
    }
    let named = preview.order.iter().take(ORDER_SHOWN).map(|member| escape(member));
    let mut order = named.collect::<Vec<_>>().join(", ");
    if preview.order.len() > ORDER_SHOWN {
        order.push_str(&format!(" and {} others", preview.order.len() - ORDER_SHOWN));
    }
    if !order.is_empty() {
        text.push_str(&fit(&format!("in this order: {order}"), width));
        text.push('\n');
    }
    if preview.protected {
        text.push_str(
            "the service is protected: it begins once a second person has let it (`baton pending`)\n",
        );
    }
    text
}

/// How many members would get it, and of how many where that is not all.
fn whom(preview: &Preview) -> String {
    let (gets, members) = (preview.order.len(), preview.members.into());
    // A halt has no phases, and nobody gets anything.
    if preview.phases.is_empty() || gets as u64 >= members {
        return count(members, "member");
    }
    match gets {
        0 => format!("none of {}", count(members, "member")),
        gets => format!("{gets} of {}", count(members, "member")),
    }
}

/// The phases that are reached before everybody has it who shall.
fn phases(preview: &Preview) -> String {
    let (mut text, mut left) = (String::new(), preview.order.len());
    for (index, phase) in preview.phases.iter().enumerate() {
        // Where nobody can get it yet, all are told.
        let slots =
            if preview.order.is_empty() { phase.slots as usize } else { left.min(phase.slots as usize) };
        left = left.saturating_sub(slots);
        let ends = index + 1 == preview.phases.len() || (left == 0 && !preview.order.is_empty());
        let (bake, last) = (Millis(phase.bake_ms), if ends { ", to the end" } else { "" });
        text.push_str(&format!("  phase {}: {slots} at once, each healthy for {bake}{last}\n", index + 1));
        if ends {
            break;
        }
    }
    text
}

fn time(elapsed: Duration) -> Millis {
    Millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::sample;
    use baton_wire::api::LaggardView;

    fn failed() -> FailureView {
        FailureView {
            member: Some("web-3".to_owned()),
            code: "startup".to_owned(),
            rule: None,
            detail: "not ready within 3 s\nTraceback:\n\tboom\x1b[2J\n".to_owned(),
        }
    }

    const ELAPSED: Duration = Duration::from_millis(12_340);

    #[test]
    fn a_rollout_under_way_is_a_few_lines_of_80_columns() {
        let mut status = sample::status("rolling-out");
        status.failure = Some(failed());
        let text = block(&status, ELAPSED, 80, Paint::Without);
        assert_eq!(
            text,
            "phase 2/3  [#########++~===========.....??]  82 of 240 proven  12.3 s\n\
             # 82 proven  + 12 proving  ~ 3 trying  = 100 staged  . 41 behind  ? 2 silent\n\
             waits: 15 of 15 slots are taken by web-1, web-2, web-3 and 12 others\n\
             failed on web-3 (startup): not ready within 3 s\n"
        );
        assert!(text.lines().all(|line| line.width() <= 80));
    }

    #[test]
    fn what_a_release_costs_is_told_and_that_it_is_much_more() {
        let mut view = CostsView::default();
        assert_eq!(costs(&view), None);
        (view.startup_ms, view.startup_before_ms) = (Some(8000), Some(5000));
        (view.memory_bytes, view.memory_before_bytes) = (Some(300_000_000), Some(290_000_000));
        assert_eq!(costs(&view).unwrap(), "starts in 8 s, uses 300.0 MB");
        view.handover_us = Some(1260);
        assert_eq!(costs(&view).unwrap(), "starts in 8 s, takes over in 1.2 ms, uses 300.0 MB");
        view.handover_us = None;
        view.slower = true;
        let more = "costs more: it takes 8 s to start, and 5 s before";
        assert_eq!(costs(&view).unwrap(), format!("starts in 8 s, uses 300.0 MB; {more}"));
        let status = ServiceStatus { costs: view, ..sample::status("switched") };
        assert!(block(&status, ELAPSED, 80, Paint::Without).contains(more));
        let told = summary(&sample::deploy(), Stage::Switched, &status, None, Some(ELAPSED));
        assert!(told.ends_with(&format!("{more}\n")), "{told}");
    }

    #[test]
    fn p13_laggards_are_named() {
        let mut status = sample::status("switched");
        let one = |member: &str| LaggardView {
            member: member.to_owned(),
            code: "drains".to_owned(),
            why: "an old generation is left there".to_owned(),
        };
        assert_eq!(laggards(&status), None);
        (status.laggards, status.laggards_count) = (vec![one("web-\x07")], 1);
        assert_eq!(laggards(&status).unwrap(), "waits for web-\\x07: an old generation is left there");
        (status.laggards, status.laggards_count) = (["a", "b", "c", "d"].map(one).to_vec(), 30);
        let line = "waits for a (drains), b (drains), c (drains) and 27 others";
        assert_eq!(laggards(&status).unwrap(), line);
        assert!(change_line(&status).ends_with(line));
        let end = |stage| summary(&sample::deploy(), stage, &status, None, Some(ELAPSED));
        assert!(end(Stage::Switched).ends_with(&format!("switched in 12.3 s\n{line}\n")));
        assert!(!end(Stage::Drained).contains("waits for"));
    }

    #[test]
    fn a_change_is_one_line() {
        assert_eq!(
            change_line(&sample::status("rolling-out")),
            "phase 2/3: 82 proven, 12 proving, 3 trying, 100 staged, 41 behind, 2 silent; \
             waits: 15 of 15 slots are taken by web-1, web-2, web-3 and 12 others"
        );
    }

    #[test]
    fn one_member_that_all_wait_for_is_told_once() {
        let mut status = sample::status("rolling-out");
        status.waits = Some("hello-1: it is on trial (granted)".to_owned());
        status.laggards = vec![LaggardView {
            member: "hello-1".to_owned(),
            code: "on-trial".to_owned(),
            why: "it is on trial (granted)".to_owned(),
        }];
        status.laggards_count = 1;
        let line = change_line(&status);
        assert!(line.ends_with("2 silent; waits: hello-1: it is on trial (granted)"), "{line}");
        assert_eq!(block(&status, ELAPSED, 80, Paint::Without).matches("hello-1").count(), 1);
        // What keeps it from its end is another thing than what keeps others from a try.
        status.waits = Some("1 of 1 slots is taken by hello-1".to_owned());
        let line = change_line(&status);
        assert!(line.ends_with("; waits for hello-1: it is on trial (granted)"), "{line}");
    }

    #[test]
    fn a_failure_that_all_wait_for_is_told_once() {
        let mut status = sample::status("rolling-out");
        status.failure = Some(failed());
        status.waits = Some("web-3: not ready within 3 s; it tries again every minute".to_owned());
        let line = change_line(&status);
        assert!(
            line.ends_with("; waits: web-3: not ready within 3 s; it tries again every minute"),
            "{line}"
        );
        assert!(!line.contains("failed on"), "{line}");
        // Another one's, or another one of the same.
        for waits in ["web-4: not ready within 3 s", "web-3: it ended", "web-4: it ended"] {
            status.waits = Some(waits.to_owned());
            let line = change_line(&status);
            assert!(
                line.ends_with(&format!("; failed on web-3 (startup): not ready within 3 s; waits: {waits}"))
            );
        }
    }

    #[test]
    fn a_long_failure_is_told_in_full_once_and_short_from_then_on() {
        let long = format!("cannot read chunk \x1b{}", "0".repeat(300));
        let shown = escape(&long);
        let mut status = sample::status("rolling-out");
        status.waits = None;
        status.failure = Some(FailureView { detail: format!("{long}\nmore"), ..failed() });
        let mut told = Told::default();
        let mut show = |status: &ServiceStatus| {
            let line = told.cut(&change_line(status));
            told.note(status);
            line
        };
        assert!(show(&status).contains(&shown), "the first time");
        status.counts.refused += 1;
        let line = show(&status);
        assert!(
            !line.contains(&shown) && line.contains("failed on web-3 (startup): cannot read chunk"),
            "{line}"
        );
        // In other words, which are new.
        status.waits = Some(format!("web-4: {long}; it tries again every minute"));
        let line = show(&status);
        assert!(!line.contains(&shown) && line.ends_with("…; it tries again every minute"), "{line}");
        let other = format!("web-5: {}", "1".repeat(200));
        status.waits = Some(other.clone());
        assert!(show(&status).contains(&other));
        status.counts.refused += 1;
        let line = show(&status);
        assert!(!line.contains(&other) && line.contains("waits: web-5: 111"), "{line}");
        // What fits on a line stays as it is.
        status.waits = Some("web-6: it ended".to_owned());
        assert_eq!((show(&status), show(&status)), (show(&status), show(&status)));
        assert!(show(&status).ends_with("waits: web-6: it ended"));
    }

    #[test]
    fn what_was_accepted_is_named_and_whose_place_it_takes() {
        let mut deploy = sample::deploy();
        let first = "web goes to release 9f3a2b7c1d5e: deploy 7c1d5e9f3a2b (epoch 5, durable)\n";
        assert_eq!(accepted(&deploy), first);
        for (kind, what) in [("rollout", "rollout of"), ("rollback", "rollback to"), ("halt", "halt at")] {
            deploy.replaces = Some(DeployName {
                id: "1a".repeat(16),
                epoch: 4,
                kind: kind.to_owned(),
                release: "2b".repeat(32),
                actor: "bob\x1b".to_owned(),
            });
            let place = format!(
                "it takes the place of deploy 1a1a1a1a1a1a (epoch 4, {what} release 2b2b2b2b2b2b by bob\\x1b)\n"
            );
            assert_eq!(accepted(&deploy), format!("{first}{place}"));
        }
    }

    #[test]
    fn p44_the_last_lines_of_output_are_shown_and_harmless() {
        assert_eq!(
            failure(&failed()),
            "failed on web-3 (startup): not ready within 3 s\n  | Traceback:\n  |     boom\\x1b[2J\n"
        );
    }

    #[test]
    fn every_end_says_what_happened_and_what_to_do() {
        let deploy = sample::deploy();
        let mut status = sample::status("switched");
        let end = |stage, status: &ServiceStatus| summary(&deploy, stage, status, None, Some(ELAPSED));
        assert_eq!(
            end(Stage::Switched, &status),
            "web runs release 9f3a2b7c1d5e on 82 of 240 members: switched in 12.3 s\n"
        );
        if let Some(now) = &mut status.deploy {
            now.id = "aa".repeat(16);
            now.release = "bb".repeat(32);
            now.reason = "the first member failed (web-3: \x07)".to_owned();
        }
        let because = "because: the first member failed (web-3: \\x07)\n";
        for (stage, needle) in [
            (Stage::RolledBack, "rolled back after 12.3 s: web runs release bbbbbbbbbbbb on"),
            (Stage::Halted, "`baton resume`"),
            (Stage::RollbackStuck, "`baton members --service web`"),
            (Stage::Superseded, "(deploy aaaaaaaaaaaa)"),
        ] {
            let text = end(stage, &status);
            assert!(text.contains(needle) && text.ends_with(because), "{text}");
        }
    }

    #[test]
    fn a_preview_tells_phases_and_order() {
        let slots = [1, 12, 60];
        let phases = slots.map(|slots| baton_wire::api::PreviewPhase { slots, bake_ms: 5000 }).to_vec();
        let order = (0..240).map(|n| format!("web-{n}")).collect();
        let mut looked = Preview {
            release: sample::release(),
            members: 240,
            phases,
            order,
            startup_ms: Some(1200),
            bake_connections: 0,
            expected_ms: Some(37_200),
            deploy: None,
            protected: false,
        };
        let text = preview(&looked, 80);
        assert_eq!(
            text,
            "release 9f3a2b7c1d5e would go to 240 members:\n  \
               phase 1: 1 at once, each healthy for 5 s\n  \
               phase 2: 12 at once, each healthy for 5 s\n  \
               phase 3: 60 at once, each healthy for 5 s, to the end\n\
             about 37.2 s, if it starts as what runs now, in 1.2 s\n\
             in this order: web-0, web-1, web-2, web-3, web-4, web-5, web-6, web-7, web-8, w…\n"
        );
        looked.bake_connections = 20;
        let text = preview(&looked, 80);
        let waits = "to the end\n  each also waits for 20 connections, 5 min longer at the most\n\
                     about 37.2 s, if it starts as what runs now, in 1.2 s, and connections come in time\n";
        assert!(text.contains(waits), "{text}");
    }

    #[test]
    fn a_preview_tells_how_many_get_it_and_only_the_phases_that_are_reached() {
        let preview_of = |members, gets, protected| {
            let phase = |(slots, bake_ms)| baton_wire::api::PreviewPhase { slots, bake_ms };
            let looked = Preview {
                release: sample::release(),
                members,
                phases: [(1, 10_000), (2, 5000)].map(phase).to_vec(),
                order: (0..gets).map(|n| format!("web-{n}")).collect(),
                startup_ms: None,
                bake_connections: 0,
                expected_ms: None,
                deploy: None,
                protected,
            };
            preview(&looked, 80)
        };
        let head = "release 9f3a2b7c1d5e would go to";
        let (one, end) = ("phase 1: 1 at once, each healthy for 10 s", ", to the end");
        for (members, gets, expected) in [
            (4, 1, format!("{head} 1 of 4 members:\n  {one}{end}\nin this order: web-0\n")),
            (
                4,
                2,
                format!(
                    "{head} 2 of 4 members:\n  {one}\n  phase 2: 1 at once, each healthy for 5 s{end}\n\
                     in this order: web-0, web-1\n"
                ),
            ),
            (
                4,
                0,
                format!(
                    "{head} none of 4 members:\n  {one}\n  phase 2: 2 at once, each healthy for 5 s{end}\n"
                ),
            ),
            (1, 1, format!("{head} 1 member:\n  {one}{end}\nin this order: web-0\n")),
        ] {
            assert_eq!(preview_of(members, gets, false), expected);
            let protected = preview_of(members, gets, true);
            assert!(protected.starts_with(&expected) && protected.contains("second person"), "{protected}");
        }
    }
}
