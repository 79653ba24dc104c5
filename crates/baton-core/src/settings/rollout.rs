//! `[rollout]`: how releases are rolled out.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::value;
use crate::costs::Cost;
use crate::deploy::{MOST_UNHEALTHY, Phase, PhaseSize, Policy};
use crate::limits::{Connections, InvalidLimits, Limits};
use crate::metric::{FAILURES_MAX, Measure, MetricGate};
use crate::target::{Amount, Label};
use crate::units::{Millis, Share};

const GATES: [(&str, Cost); 2] = [(Cost::Startup.code(), Cost::Startup), (Cost::Memory.code(), Cost::Memory)];

/// Most members that a number can mean: above every fleet.
const MEMBERS_MAX: u32 = 10_000_000;

/// Most connections that a bake can need: more would be no bake but a load test.
const BAKE_CONNECTIONS_MAX: u32 = 1_000_000;

type MakePolicy = fn() -> Policy;

const POLICIES: [(&str, MakePolicy); 3] =
    [("safe", Policy::safe), ("fast", Policy::fast), ("careful", Policy::careful)];

/// Reads what the table says over `policy`. A policy that is named there stands for its phases.
pub(super) fn read(table: &mut Table<'_, '_>, mut policy: Policy, overlap: bool) -> Policy {
    if let Some(named) = table.read("policy", value::one_of(&POLICIES)) {
        policy.phases = named().phases;
    }
    table.set("target", &mut policy.target.amount, amount);
    if let Some(label) = table.read("label", label) {
        policy.target.label = Some(label);
    }
    table.set("max_unhealthy", &mut policy.max_unhealthy, unhealthy);
    table.set("failure_limit", &mut policy.failure_limit, value::share);
    table.set("auto_rollback", &mut policy.auto_rollback, value::boolean);
    table.set("lock_after_rollback", &mut policy.lock_after_rollback, value::boolean);
    if let Some(mut gates) = table.any_list("gates", value::one_of(&GATES)) {
        gates.sort();
        gates.dedup();
        policy.gates = gates;
    }
    policy.limits = limits(table, policy.limits);
    let is_measured = table.has("metric");
    // Asked for in any case, so that it is among what there is.
    if let Some(gate) = table.table("metric", |table| metric(table, is_measured)) {
        policy.metric = Some(gate);
    }
    if policy.limits.singleton && overlap {
        table.wrong(
            "singleton",
            "is true, and two generations run side by side",
            "set run.overlap = false, so that the old one is stopped first",
        );
    }
    if let Some(sizes) = table.list("phases", phase_size) {
        policy.phases = with_bakes_of(&policy.phases, &sizes);
    }
    table.set("bake_connections", &mut policy.bake_connections, value::whole(0..=BAKE_CONNECTIONS_MAX));
    if let Some(bake) = table.read("bake", value::duration) {
        policy.phases.iter_mut().for_each(|phase| phase.bake = bake);
    }
    policy
}

/// Reads the limits that are numbers.
fn limits(table: &mut Table<'_, '_>, mut limits: Limits) -> Limits {
    table.set("singleton", &mut limits.singleton, value::boolean);
    let read = |table: &mut Table<'_, '_>, key| table.read(key, value::whole(1..=MEMBERS_MAX));
    limits.never_more_than = read(table, "never_more_than").or(limits.never_more_than);
    limits.min_available = read(table, "min_available").or(limits.min_available);
    let outside = limits.connections;
    let budget = read(table, "max_connections_budget").or(outside.map(|outside| outside.budget));
    let each = read(table, "connections_each").or(outside.map(|outside| outside.each));
    limits.connections = budget.zip(each).map(|(budget, each)| Connections { budget, each });
    if table.has("max_connections_budget") && !table.has("connections_each") && each.is_none() {
        table.missing("connections_each", "say how many connections a generation takes, such as 20");
    }
    if table.has("connections_each") && !table.has("max_connections_budget") && budget.is_none() {
        table.missing("max_connections_budget", "say how many connections there are for the whole fleet");
    }
    match limits.check() {
        Err(error @ InvalidLimits::NeverMoreThan(_)) => {
            table.wrong("never_more_than", "leaves nobody a turn", error.to_string());
        }
        Err(error @ (InvalidLimits::Budget { .. } | InvalidLimits::NoConnections)) => {
            table.wrong("max_connections_budget", "leaves nobody a turn", error.to_string());
        }
        Ok(()) => {}
    }
    limits
}

/// Reads what must stay within bounds.
fn metric(table: &mut Table<'_, '_>, is_there: bool) -> Option<MetricGate> {
    const FORM: &str = "write a query of Prometheus, such as \"sum(rate(errors_total[1m]))\"";
    let query = table.read("query", |value| value::string(value, FORM).map(ToString::to_string));
    if is_there && !table.has("query") {
        table.missing("query", FORM);
    }
    let (min, max) = (table.read("min", measure), table.read("max", measure));
    let (mut interval, mut failures) = (MetricGate::INTERVAL, MetricGate::FAILURES);
    table.set("interval", &mut interval, value::duration);
    table.set("failures", &mut failures, value::whole(1..=FAILURES_MAX));
    let gate = MetricGate { query: query?, min, max, interval, failures };
    match gate.check() {
        Ok(()) => Some(gate),
        Err(error) => {
            table.wrong_here("lets everything through, or nothing", error.to_string());
            None
        }
    }
}

/// A number, whole or not.
fn measure(value: &DeValue<'_>) -> Result<Measure, Wrong> {
    const FORM: &str = "write a number, such as 0.01";
    let text = match value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            return Err(Wrong::new("is no number", FORM));
        }
    };
    text.replace('_', "").parse().map_err(|_| Wrong::new(format!("is {text:?}"), FORM))
}

/// How many members: a share, or a number.
fn amount(value: &DeValue<'_>) -> Result<Amount, Wrong> {
    if value.is_integer() {
        return value::whole(1..=MEMBERS_MAX)(value).map(Amount::Members);
    }
    value::some_share(value).map(Amount::Share)
}

/// A label of members.
fn label(value: &DeValue<'_>) -> Result<Label, Wrong> {
    const FORM: &str = "write a label of members, such as \"canary\" or \"zone=eu-1\"";
    let text = value::string(value, FORM)?;
    text.parse().map_err(|_| Wrong::new(format!("is {text:?}"), FORM))
}

/// The greatest share of a fleet that may be unproven at once.
fn unhealthy(value: &DeValue<'_>) -> Result<Share, Wrong> {
    match value::some_share(value)? {
        share if share > MOST_UNHEALTHY => {
            let form = format!(
                "write {MOST_UNHEALTHY} at the most: a release is not tried on most of the fleet at once"
            );
            Err(Wrong::new(format!("is {share}"), form))
        }
        share => Ok(share),
    }
}

/// Phases of these sizes; each keeps the bake of the phase that it replaces, further ones that of the last.
fn with_bakes_of(old: &[Phase], sizes: &[PhaseSize]) -> Vec<Phase> {
    let last = old.last().map_or(Millis::ZERO, |phase| phase.bake);
    let bakes = old.iter().map(|phase| phase.bake).chain(core::iter::repeat(last));
    sizes.iter().zip(bakes).map(|(size, bake)| Phase { size: *size, bake }).collect()
}

fn phase_size(value: &DeValue<'_>) -> Result<PhaseSize, Wrong> {
    const FORM: &str = "write \"1\" for one member, or percent, such as \"5%\"";
    match value::string(value, FORM)? {
        "1" => Ok(PhaseSize::One),
        text if text.ends_with('%') => value::some_share(value).map(PhaseSize::Share),
        text => Err(Wrong::new(format!("is {text:?}"), FORM)),
    }
}
