//! How everything stands, as the admin socket tells it.

use std::os::unix::ffi::OsStrExt;

use baton_core::ids::GenerationId;
use baton_core::output::ring::Line;
use baton_core::supervisor::{Generation, State, Supervisor, TrialState};
use baton_core::units::Millis;
use baton_core::words::Words;
use baton_sys::memory::{Pressure, Usage};
use serde_json::{Value, json};

use crate::listeners::Listeners;
use crate::place::CutOff;
use crate::watching::{Found, Other};

/// What only the rim knows of a generation.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// The main process of each copy.
    pub pids: Vec<i32>,
    /// What its processes take up.
    pub found: Option<Found>,
    /// Variables of the bootloader that it did not inherit, by their names.
    pub withheld: Vec<String>,
    /// Why what it binds is not answered any more, if that is so.
    pub unanswered: Option<String>,
}

/// What only the rim knows of the member.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// The memory account that it is charged to.
    pub memory: Option<Usage>,
    /// What the bootloader itself takes up.
    pub own: Option<Found>,
    /// Processes that belong to no generation.
    pub others: Vec<Other>,
    /// Where the settings of what the image brought are.
    pub settings: Option<String>,
    /// The run before this one, if it ended without a word.
    pub cut_off: Option<CutOff>,
}

/// The document: times in milliseconds, ages instead of dates, sizes in bytes.
pub fn status(
    now: Millis,
    machine: &Supervisor,
    listeners: &Listeners,
    around: &Around,
    outside: impl Fn(GenerationId) -> Outside,
) -> Value {
    let generations: Vec<Value> = machine
        .generations()
        .iter()
        .map(|generation| one(now, generation, &outside(generation.id)))
        .collect();
    let listeners: Vec<Value> = listeners
        .all()
        .map(|listener| {
            let listen = listener.listen();
            json!({
                "name": listen.name,
                "address": listen.address.to_string(),
                "handover": listen.handover.word(),
                "forwarded": listeners.forwarded(listener),
                "strangers": listeners.strangers(listener),
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "replaced_on_disk": is_replaced(),
        "settings": around.settings,
        "pid": std::process::id(),
        "age_ms": now.0,
        "stopping": machine.is_stopping(),
        "restarts": machine.restarts(),
        "generations": generations,
        "others": around.others.iter().map(|other| json!({ "pid": other.pid, "name": other.name })).collect::<Vec<Value>>(),
        "itself": around.own.map(taken_up),
        "memory": around.memory.map(|memory| json!({
            "used_bytes": memory.used,
            "peak_bytes": memory.peak,
            "limit_bytes": memory.limit,
            "kills": memory.kills,
            "group_kills": memory.group_kills,
            "killed_together": memory.together,
            "pressure": memory.pressure.map(pressure),
        })),
        "listeners": listeners,
        "cut_off": around.cut_off.as_ref().map(|run| json!({
            "alive": run.alive().to_string(),
            "ran": run.ran.as_str(),
            "killed_together": run.together,
        })),
        "trial": machine.status().trial.map(|(_, trial)| standing(&trial)),
    })
}

/// Whether the file that this process runs is not the one on disk any more: somebody brought another version.
fn is_replaced() -> bool {
    // How the kernel shows it (`man 5 proc`).
    std::fs::read_link("/proc/self/exe")
        .is_ok_and(|path| path.as_os_str().as_bytes().ends_with(b" (deleted)"))
}

fn one(now: Millis, generation: &Generation, outside: &Outside) -> Value {
    json!({
        "generation": generation.id.0,
        "release": generation.plan.release.to_string(),
        "state": state(generation.state),
        "healthy": generation.healthy_since.is_some(),
        "pid": outside.pids.first(),
        "pids": outside.pids,
        "age_ms": generation.age(now).0,
        "uses": outside.found.map(taken_up),
        "withheld": outside.withheld,
        "unanswered": outside.unanswered,
        "started_in_ms": generation.started_in.map(|took| took.0),
        "handed_over_in_us": generation.handed_over_in.map(|took| took.0),
        "status": generation.said.as_ref().map(Words::as_str),
        "last_failure": generation.last_failure.as_ref().map(Words::as_str),
    })
}

fn taken_up(found: Found) -> Value {
    json!({
        "processes": found.processes,
        "memory_bytes": found.memory,
        "memory_peak_bytes": found.memory_peak,
        "descriptors": found.descriptors,
        "cpu_ms": u64::try_from(found.cpu.as_millis()).unwrap_or(u64::MAX),
        "cpu_percent": found.cpu_percent,
    })
}

/// In percent of the time.
fn pressure(pressure: Pressure) -> Value {
    let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
    json!({
        "some_10s": percent(pressure.some_10s),
        "some_60s": percent(pressure.some_60s),
        "full_10s": percent(pressure.full_10s),
        "full_60s": percent(pressure.full_60s),
    })
}

/// The word for a state, as the glossary has it.
pub fn state(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Starting => "starting",
        State::Probing => "probing",
        State::Serving => "serving",
        State::Standby => "standby",
        State::Quiescing => "quiescing",
        State::Draining => "draining",
        State::Gone => "gone",
    }
}

/// How a trial stands: `state`, and for one that was refused `cause` and `detail`.
pub fn standing(trial: &TrialState) -> Value {
    match trial {
        TrialState::Trying => json!({ "state": "trying" }),
        TrialState::Proving => json!({ "state": "proving" }),
        TrialState::Proven => json!({ "state": "proven" }),
        TrialState::Dropped => json!({ "state": "dropped" }),
        TrialState::Refused { cause, detail, .. } => {
            json!({ "state": "refused", "cause": cause.to_string(), "detail": detail })
        }
    }
}

/// Lines of output. What is no text is shown as well as it can be.
pub fn logs(lines: &[Line]) -> Value {
    let line = |line: &Line| {
        json!({
            "time": line.time.to_string(),
            "generation": line.generation.0,
            "stream": line.stream.name(),
            "line": String::from_utf8_lossy(&line.bytes),
        })
    };
    json!({ "lines": lines.iter().map(line).collect::<Vec<Value>>() })
}
