//! What a run came to, as a page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use baton_core::units::Millis;
use baton_wire::api::DeployView;

use super::deploys::Wish;
use super::fault::Kind;
use super::ill::Ill;
use super::{Outcome, oracle};
use crate::load::Phase;

const HEAD: &str = "# Chaos

`make chaos` runs a small fleet in which everything is broken while it deploys, and writes this page. It takes half an hour
unless `MINUTES=2` says how long; `SEED=7` draws the same faults and deploys again. It must be root, and makes network namespaces, all of which end with it,
whatever ends it: nothing is changed on the machine, and nothing is left. It ends with exit code 1 if anything of what is said
below does not hold.

- **The fleet**: servers of control over a Redis of three nodes with a Sentinel (`copies=2`) and a bucket (moto, which
  answers as S3 does), and members: `baton-boot` with `baton-web`, an axum server. Each has a network namespace of its own, joined by a
  bridge.
- **Deploys**: a new release every 10 s, whether or not the one before has ended: one member, then half of them at a time, with a bake of
  2 s. Every fifth is ill, in one of seven ways. While the bucket is gone, a release that members have is deployed instead.
- **The load**: clients with a connection for each request, clients that keep theirs, HTTP/2, gRPC and WebSocket; 5 requests a second each,
  every tenth an upload, a slow answer, or one in parts. Each request has a number, and every answer must repeat it and say
  which release gives it.
- **Faults** come in two lanes, those of control and its stores, and those of members and the way to them, one after the other in each; so
  two meet most of the time. Members that are cut off from control are reached by their clients.

What must hold, judged by what programs say of their own launches, what members have on their disks, what any server has told at
any time, and the account of the load:

| | |
| --- | --- |
| no request is lost | each is answered once, by a release that may answer; but for those that were in flight when their program crashed by itself or its member was killed, and those that found nobody where a whole member was away |
| nothing is launched that must not be | each launch is of the release that the member has committed to, or one for which it has a slot in a deploy that is not older than the newest it has heard of |
| an ill release stays where it was tried | one member tries it, where it shows within the bake; it is never *switched* |
| an ill release is taken back | it is not the last word: where the next deploy does not come first, control takes it back; and no way back leads to an ill one |
| members obey no older deploy | the epoch that a member has written down never falls, and of two deploys with one epoch members have heard of one |
| all is well in the end | when nothing is broken any more, every member comes to run what is in force, and then the last release |
| nothing is left | no process runs when everything was asked to stop |
";

/// The page.
pub fn text(outcome: &Outcome) -> String {
    let mut text = HEAD.to_owned();
    // Writing to a String cannot fail.
    let _ = write!(text, "\n## The last run\n\n{}\n", summary(outcome));
    for part in [faults(outcome), deploys(outcome), requests(outcome), happened(outcome)] {
        text.push('\n');
        text.push_str(&part);
    }
    text
}

fn summary(outcome: &Outcome) -> String {
    let Outcome { seed, over, size, evidence, mended, returns, revived, .. } = outcome;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { ", programs built for debugging" } else { "" };
    let violations = evidence.violations();
    let verdict = match violations.len() {
        0 => "**All of it held.**".to_owned(),
        some => format!("**{some} violations**, of which the first: {}", violations[0]),
    };
    format!(
        "{verdict} {} servers, {} members, {over}, seed {seed}. Linux {}, {cores} cores{build}. After the last fault it took {} until \
         every member ran what was in force, and {} until every one ran a release that was pushed then. A member that was \
         killed served again {} after its start ({} of them, the slowest {}). Servers that were started while too few nodes of \
         Redis were there ended, and were started again {revived} times.",
        size.servers,
        size.members,
        kernel.trim(),
        seconds(mended[0]),
        seconds(mended[1] - mended[0]),
        seconds(middle(returns)),
        returns.len(),
        seconds(returns.iter().max().copied().unwrap_or_default()),
    )
}

fn faults(outcome: &Outcome) -> String {
    let mut text = "| what was broken | how often | shows |\n| --- | --- | --- |\n".to_owned();
    for kind in Kind::OF_CONTROL.into_iter().chain(Kind::OF_MEMBERS) {
        let count = outcome.faults.get(&kind).copied().unwrap_or(0);
        let _ = writeln!(text, "| {} | {count} | {} |", kind.words(), kind.rows());
    }
    text
}

/// How each deploy of these ended, and how long that took.
struct Ended {
    switched: Vec<Duration>,
    taken_back: Vec<Duration>,
    overtaken: usize,
}

impl Ended {
    fn of(outcome: &Outcome, ill: impl Fn(Option<Ill>) -> bool) -> Self {
        let notes = &outcome.notes;
        let mut ended = Self { switched: Vec::new(), taken_back: Vec::new(), overtaken: 0 };
        let meant = |deploy: &&DeployView| {
            deploy.kind == "rollout"
                && outcome.evidence.releases.get(&deploy.release).is_some_and(|of| ill(*of))
        };
        for deploy in notes.deploys.values().filter(meant) {
            let after = |at: u64| Duration::from_millis(at.saturating_sub(deploy.created_ms));
            let back = notes.deploys.values().find(|other| other.of.as_ref() == Some(&deploy.id));
            let switched = notes
                .events
                .values()
                .find(|event| event.kind == "switched" && event.deploy.as_ref() == Some(&deploy.id));
            match (switched, back) {
                (Some(event), _) => ended.switched.push(after(event.at_ms)),
                (None, Some(back)) => ended.taken_back.push(after(back.created_ms)),
                (None, None) => ended.overtaken += 1,
            }
        }
        ended
    }

    fn row(&self, name: &str, wanted: usize, refused: usize) -> String {
        let times = |times: &[Duration]| match times.iter().max() {
            Some(most) => format!("{} ({}, at most {})", times.len(), seconds(middle(times)), seconds(*most)),
            None => "0".to_owned(),
        };
        let Self { switched, taken_back, overtaken } = self;
        format!(
            "| {name} | {wanted} | {refused} | {} | {} | {overtaken} |\n",
            times(switched),
            times(taken_back)
        )
    }
}

fn deploys(outcome: &Outcome) -> String {
    let mut text = "| deploys | wanted | not accepted | switched (after, middle) | taken back (after, middle) | overtaken by the next one |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let mut row = |name: &str, ill: &dyn Fn(Option<Ill>) -> bool| {
        let wishes = || outcome.wishes.iter().filter(|(of, _)| ill(*of));
        let refused = wishes().filter(|(_, wish)| matches!(wish, Wish::Refused(_))).count();
        text += &Ended::of(outcome, ill).row(name, wishes().count(), refused);
    };
    row("of a good release", &|ill| ill.is_none());
    for one in Ill::ALL {
        row(&format!("of one that {}", one.words()), &|ill| ill == Some(one));
    }
    let old = outcome.wishes.iter().filter(|(_, wish)| *wish == Wish::AcceptedOld).count();
    let _ = writeln!(
        text,
        "\n{old} of the good ones were of a release that members had, since none could be pushed. Not accepted is what no server \
         took within 9 s. The first and the last deploy, before and after the faults, are among the switched ones only."
    );
    let mut why = BTreeMap::<String, usize>::new();
    for back in outcome.notes.deploys.values().filter(|deploy| deploy.of.is_some()) {
        let of = back.of.as_ref().and_then(|of| outcome.notes.deploys.get(of));
        if of.is_some_and(|of| outcome.evidence.releases.get(&of.release) == Some(&None)) {
            *why.entry(rule(&back.reason)).or_default() += 1;
        }
    }
    if !why.is_empty() {
        text += "\nGood releases that were taken back or halted, and why: ";
        let told: Vec<String> = why.iter().map(|(why, count)| format!("{count}× {why}")).collect();
        let _ = writeln!(text, "{}.", told.join("; "));
    }
    text
}

/// A reason without the names in it.
fn rule(reason: &str) -> String {
    let words: Vec<&str> =
        reason.split(' ').map(|word| if word.contains("web-") { "a member" } else { word }).collect();
    words.join(" ").replace(['(', ')', ':', '|'], "").chars().take(120).collect()
}

fn requests(outcome: &Outcome) -> String {
    let report = &outcome.evidence.report;
    let latency = report.latency(Phase::Between);
    let mut text =
        "| requests | answered | lost | in flight when their program crashed or was killed | found nobody \
                    | idle closes | p50, p99, longest, ms |\n| --- | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
    let ms = |us: u64| us as f64 / 1000.0;
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {:.1}, {:.1}, {:.0} |\n\n{} releases answered; {} programs fell ill of {} that were launched.",
        report.sent,
        report.answered,
        report.lost,
        report.died_with_program,
        report.found_nobody,
        report.idle_closes,
        ms(latency.p50_us),
        ms(latency.p99_us),
        ms(latency.max_us),
        report.releases.len(),
        outcome.notes.fallen,
        outcome.notes.launches.len(),
    );
    text
}

fn happened(outcome: &Outcome) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for event in outcome.notes.events.values() {
        *counts.entry(&event.kind).or_default() += 1;
    }
    let told: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} `{kind}`")).collect();
    let epochs = outcome.evidence.deploys.iter().map(|oracle::Deploy { epoch, .. }| *epoch).max();
    format!("Control told of {}; the last epoch was {}.\n", told.join(", "), epochs.unwrap_or(0))
}

fn middle(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn seconds(time: Duration) -> Millis {
    Millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_without_names() {
        let told = rule("the first member failed (web-3: the candidate ended: exit 3 after 3.1 s)");
        assert_eq!(told, "the first member failed a member the candidate ended exit 3 after 3.1 s");
    }
}
