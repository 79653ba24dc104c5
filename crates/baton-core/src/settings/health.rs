//! `[run.health]`: how the program is judged.

use alloc::format;
use alloc::vec::Vec;

use super::table::Table;
use super::{suggest, value};
use crate::run::{HealthCheck, Listen, Probe, Ready, RunSettings};
use crate::units::Millis;

/// More probes in a row than this is taken for a mistake.
const IN_A_ROW_MAX: u32 = 1000;

/// Reads what the table says over `run.health` and `run.startup_timeout`.
///
/// A flavor without listeners has nothing to probe, so it does not take over the probe of its base.
pub(super) fn read(table: &mut Table<'_, '_>, run: &mut RunSettings) {
    table.set("startup_timeout", &mut run.startup_timeout, value::some_time);
    let inherited = run.health.take().filter(|_| !run.listen.is_empty());
    let probe = read_probe(table);
    let listener = table.read("listener", value::listener);
    let has_probe = probe.is_some() || inherited.is_some();
    let mut check = inherited.unwrap_or_else(|| defaults(&run.listen));
    check.probe = probe.unwrap_or(check.probe);
    table.set("interval", &mut check.interval, value::some_time);
    table.set("timeout", &mut check.timeout, value::some_time);
    table.set("failures", &mut check.failures, value::whole(1..=IN_A_ROW_MAX));
    table.set("successes", &mut check.successes, value::whole(1..=IN_A_ROW_MAX));
    check.listener = listener.unwrap_or(check.listener);

    // A program that reports by itself may need a longer start without being probed.
    let only_startup = run.ready == Ready::Notify && !table.has_other_than("startup_timeout");
    if has_probe {
        if report_listener(table, &check.listener, &run.listen) {
            // So that each flavor does not report it again.
            check.listener = defaults(&run.listen).listener;
        }
        run.health = Some(check);
    } else if table.is_present() && !only_startup && !table.has("http") && !table.has("tcp") {
        table.wrong_here("asks nothing", "write http = \"/health\" or tcp = true in it");
    }
}

fn defaults(listen: &[Listen]) -> HealthCheck {
    HealthCheck {
        probe: Probe::Tcp,
        listener: listen.first().map(|listener| listener.name.clone()).unwrap_or_default(),
        interval: Millis::from_secs(2),
        timeout: Millis::from_secs(1),
        failures: 3,
        successes: 1,
    }
}

fn read_probe(table: &mut Table<'_, '_>) -> Option<Probe> {
    let http = table.read("http", value::http_path).map(|path| Probe::Http { path });
    let tcp = table.read("tcp", value::boolean);
    if tcp == Some(false) {
        table.wrong("tcp", "is false", "leave it out, or write tcp = true");
    }
    if table.has("http") && table.has("tcp") {
        table.wrong_here("asks two questions", "keep one of http and tcp");
    }
    http.or(tcp.map(|_| Probe::Tcp))
}

/// Whether the listener that is asked is not there, and reported.
fn report_listener(table: &mut Table<'_, '_>, name: &str, listen: &[Listen]) -> bool {
    let names: Vec<&str> = listen.iter().map(|listener| listener.name.as_str()).collect();
    if names.is_empty() {
        table.wrong_here("has nothing to ask", "add [[run.listen]], or leave run.health out");
        return true;
    }
    if names.contains(&name) {
        return false;
    }
    let all = || format!("the listeners are {}", names.join(", "));
    let fix = suggest::nearest(name, names.iter().copied())
        .map_or_else(all, |near| format!("did you mean {near:?}?"));
    if table.has("listener") {
        table.wrong("listener", format!("is {name:?}, which is no listener"), fix);
    } else {
        table.missing("listener", format!("there is no {name:?} here to ask: {fix}"));
    }
    true
}
