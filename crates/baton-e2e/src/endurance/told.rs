//! Rounds as tables.

use super::Round;
use crate::load::{Habit, Kind, Loss, Phase};

/// What was lost, and how long answers took.
pub fn losses(rounds: &[Round]) -> String {
    let mut text = "| reloaded by | reloads | one takes, ms | requests | lost | died | idle closes \
                    | p50 between, during, ms | p99 between, during, ms | processors busy |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for round in rounds {
        let report = &round.report;
        let [between, during] = [Phase::Between, Phase::During].map(|phase| report.latency(phase));
        let ms = |us: u64| us as f64 / 1000.0;
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {:.2}, {:.2} | {:.2}, {:.2} | {:.0} % |\n",
            round.name,
            round.reloads,
            round.reload_ms,
            report.sent,
            lost(round),
            report.died_with_program,
            report.idle_closes,
            ms(between.p50_us),
            ms(during.p50_us),
            ms(between.p99_us),
            ms(during.p99_us),
            round.busy * 100.0,
        ));
    }
    text
}

/// How many were lost, and in which ways.
fn lost(round: &Round) -> String {
    let counts = Loss::ALL.map(|loss| (loss, round.report.count(loss)));
    let ways = counts.iter().filter(|(_, count)| *count > 0);
    let ways: Vec<String> = ways.map(|(loss, count)| format!("{count} {}", words(*loss))).collect();
    match ways.is_empty() {
        true => "0".to_owned(),
        false => format!("**{}**: {}", round.report.lost, ways.join(", ")),
    }
}

fn words(loss: Loss) -> &'static str {
    match loss {
        Loss::Refused => "refused",
        Loss::ResetBeforeFirstByte => "cut before the answer",
        Loss::ResetAfterFirstByte => "cut within the answer",
        Loss::TimedOut => "timed out",
        Loss::WrongRelease => "answered by the wrong release",
        Loss::Duplicated => "answered twice",
        Loss::Mismatched => "answered wrongly",
    }
}

/// Who asked for what: requests that were answered, and in brackets connections and idle closes.
pub fn requests(rounds: &[Round]) -> String {
    let habits = [
        (Habit::New, "new connections"),
        (Habit::Keep, "kept"),
        (Habit::Http2, "HTTP/2"),
        (Habit::Grpc, "gRPC"),
        (Habit::WebSocket, "WebSocket"),
    ];
    let kinds = [(Kind::Upload, "uploads"), (Kind::Slow, "slow"), (Kind::Stream, "in parts")];
    let names = habits.iter().map(|(_, name)| *name).chain(kinds.iter().map(|(_, name)| *name));
    let mut text =
        format!("| answered (connections, idle closes) | {} |\n", names.collect::<Vec<_>>().join(" | "));
    text.push_str(&"| --- ".repeat(habits.len() + kinds.len() + 1));
    text.push_str("|\n");
    for round in rounds {
        let of = |habit| round.report.habits.get(&habit).cloned().unwrap_or_default();
        let by_habit = habits.iter().map(|(habit, _)| {
            let requests = of(*habit);
            let answered: u64 = requests.answered.values().sum();
            format!("{answered} ({}, {})", requests.connections, requests.idle_closes)
        });
        let by_kind = kinds.iter().map(|(kind, _)| {
            let all = round.report.habits.values().filter_map(|requests| requests.answered.get(kind));
            all.sum::<u64>().to_string()
        });
        let cells: Vec<String> = by_habit.chain(by_kind).collect();
        text.push_str(&format!("| {} | {} |\n", round.name, cells.join(" | ")));
    }
    text
}

/// What the supervisor took up.
pub fn looks(rounds: &[Round]) -> String {
    let mut text =
        "| supervisor | after reloads | descriptors | PSS, KiB | RSS, KiB | of it anonymous, KiB |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for round in rounds {
        for look in &round.looks {
            let of = look.footprint;
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} |\n",
                round.name, look.after, of.descriptors, of.pss_kib, of.rss_kib, of.anonymous_kib
            ));
        }
    }
    text
}
