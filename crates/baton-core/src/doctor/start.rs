//! Whether a program starts, and how long that takes.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::finding::{Finding, Topic};
use super::kind::kind_of;
use super::seen::{Place, Seen, Start};
use crate::run::{Handover, RunSettings};
use crate::units::Millis;

/// Of its limit a start may take this part: machines are slower when many members start at once.
const ROOM: u64 = 3;

pub(super) fn findings(run: &RunSettings, seen: &Seen) -> Vec<Finding> {
    vec![match &seen.start {
        Start::Healthy(after) => healthy(run, *after),
        Start::Failed { why, left_behind } if !left_behind.is_empty() => {
            let foreground = kind_of(&seen.processes).foreground;
            Finding::bad(
                Topic::Start,
                format!("{why}, and left {} behind", left_behind.join(", ")),
                "it makes itself a daemon: its main process ends, which is its end for whoever supervises it",
            )
            .set(foreground)
        }
        Start::Failed { why, .. } => failed(run, seen, why),
    }]
}

fn healthy(run: &RunSettings, after: Millis) -> Finding {
    let seen = format!("healthy {after} after its launch");
    let limit = run.startup_timeout;
    if after.0.saturating_mul(ROOM) <= limit.0 {
        return Finding::fine(Topic::Start, seen, format!("well within run.health.startup_timeout, {limit}"));
    }
    Finding::note(
        Topic::Start,
        seen,
        format!("run.health.startup_timeout is {limit}: a machine that is busy may need longer"),
    )
    .set(format!("startup_timeout = {:?} under [run.health]", startup_timeout(after)))
}

/// A limit for a start that took so long here: whole half minutes, and room for a slower machine.
pub(super) fn startup_timeout(after: Millis) -> String {
    const STEP_MS: u64 = 30_000;
    let steps = after.0.saturating_mul(ROOM).div_ceil(STEP_MS).max(2);
    format!("{}s", steps.saturating_mul(STEP_MS) / 1000)
}

fn failed(run: &RunSettings, seen: &Seen, why: &str) -> Finding {
    let finding = Finding::bad(Topic::Start, why, "it serves nobody: such a release would be refused");
    if why.starts_with("could not start") {
        return finding.set("run.command: the program, as it is found in this directory or in PATH");
    }
    if why.starts_with("exit ") || why.starts_with("killed by ") {
        return finding.set("look at what it wrote last; it must not end by itself");
    }
    match elsewhere(run, seen) {
        Some((name, address)) => finding.set(format!(
            "address = \"{address}\" of listener {name:?} under [[run.listen]], or let the program bind $PORT"
        )),
        None if run.listen.is_empty() => {
            finding.set("let it send READY=1 to $NOTIFY_SOCKET, or leave out run.ready = \"notify\"")
        }
        None => {
            finding.set("a path that answers 200 as http under [run.health], or a longer startup_timeout")
        }
    }
}

/// Where the program listens instead of the only listener that binds.
fn elsewhere<'a>(run: &'a RunSettings, seen: &Seen) -> Option<(&'a str, SocketAddr)> {
    let [listen] = run.listen.as_slice() else { return None };
    if matches!(listen.handover, Handover::Proxy(_)) {
        return None;
    }
    let mut places = seen.listening.iter().filter_map(|place| match place {
        Place::Tcp(address) if Some(address.port()) != listen.address.port() => Some(*address),
        Place::Tcp(_) | Place::Unix(_) => None,
    });
    Some((&listen.name, places.next()?))
}
