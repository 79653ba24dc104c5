//! `[run.health]`: how the program is judged.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::table::Table;
use super::{probe, suggest, value};
use crate::run::{HealthCheck, Listen, Probe, Ready, RunSettings};
use crate::units::Millis;

/// More probes in a row than this is taken for a mistake.
const IN_A_ROW_MAX: u32 = 1000;

/// Reads what the table says over `run.health` and `run.startup_timeout`.
///
/// A flavor without listeners has nothing to connect to, so it does not take over such a probe of its base.
pub(super) fn read(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    table.set("startup_timeout", &mut run.startup_timeout, value::some_time);
    let possible = |check: &HealthCheck| !run.listen.is_empty() || !check.probe.connects();
    let inherited = run.health.take().filter(possible);
    let question = probe::read(table, inherited.as_ref().map(|check| check.probe.clone()));
    let listener = table.read("listener", value::listener);
    let mut check = inherited.unwrap_or_else(|| defaults(&run.listen));
    let asks = question.is_some();
    check.probe = question.unwrap_or(check.probe);
    table.set("interval", &mut check.interval, value::some_time);
    table.set("timeout", &mut check.timeout, value::some_time);
    table.set("failures", &mut check.failures, value::whole(1..=IN_A_ROW_MAX));
    table.set("successes", &mut check.successes, value::whole(1..=IN_A_ROW_MAX));

    // A program that reports by itself may need a longer start without being probed.
    let only_startup = run.ready == Ready::Notify && !table.has_other_than("startup_timeout");
    if asks {
        check.listener = read_listener(table, &check, listener, &run.listen);
        run.health = Some(check);
    } else if table.is_present() && !only_startup && !probe::is_asked(table) {
        let fix =
            if run.listen.is_empty() { "exec = [\"./check\"]" } else { "http = \"/health\" or tcp = true" };
        table.wrong_here("asks nothing", format!("write {fix} in it"));
    }
}

fn defaults(listen: &[Listen]) -> HealthCheck {
    HealthCheck {
        probe: Probe::Tcp,
        listener: listen.first().map(|listener| listener.name.clone()),
        interval: Millis::from_secs(2),
        timeout: Millis::from_secs(1),
        failures: 3,
        successes: 1,
    }
}

/// The listener that is asked. One that is not there is reported, and replaced by one that is, so that each
/// flavor does not report it again.
fn read_listener(
    table: &mut Table<'_, '_>,
    check: &HealthCheck,
    named: Option<String>,
    listen: &[Listen],
) -> Option<String> {
    if !check.probe.connects() {
        if table.has("listener") {
            table.wrong("listener", "is for probes that connect", "leave it out beside exec");
        }
        return None;
    }
    let first = defaults(listen).listener;
    // A question that did not connect may have been inherited together with no listener.
    let name = named.or_else(|| check.listener.clone()).or_else(|| first.clone()).unwrap_or_default();
    let wrong = report_listener(table, &name, listen);
    if wrong { first } else { Some(name) }
}

/// Whether the listener that is asked is not there, and reported.
fn report_listener(table: &mut Table<'_, '_>, name: &str, listen: &[Listen]) -> bool {
    let names: Vec<&str> = listen.iter().map(|listener| listener.name.as_str()).collect();
    if names.is_empty() {
        table.wrong_here(
            "has nothing to ask",
            "add [[run.listen]], or ask with exec, or leave run.health out",
        );
        return true;
    }
    if names.contains(&name) {
        return false;
    }
    // Names that are wrong themselves are told of where they stand.
    let good: BTreeSet<String> =
        names.iter().filter(|name| !name.is_empty()).map(|name| format!("{name:?}")).collect();
    let all = || match good.len() {
        0 => "give the listener a name".to_owned(),
        _ => format!("write {}", Vec::from_iter(good).join(" or ")),
    };
    let fix = suggest::nearest(name, names.iter().copied())
        .map_or_else(all, |near| format!("did you mean {near:?}?"));
    if table.has("listener") {
        table.wrong("listener", format!("is {name:?}, which is no listener"), fix);
    } else {
        table.missing("listener", format!("there is no {name:?} here to ask: {fix}"));
    }
    true
}
