//! `[rollout]`: how releases are rolled out.

use alloc::format;
use alloc::vec::Vec;

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::value;
use crate::deploy::{Phase, PhaseSize, Policy};
use crate::units::{Millis, Share};

type MakePolicy = fn() -> Policy;

const POLICIES: [(&str, MakePolicy); 3] =
    [("safe", Policy::safe), ("fast", Policy::fast), ("careful", Policy::careful)];

/// Reads what the table says over `policy`. A policy that is named there stands for its phases.
pub(super) fn read(table: &mut Table<'_, '_>, mut policy: Policy) -> Policy {
    if let Some(named) = table.read("policy", value::one_of(&POLICIES)) {
        policy.phases = named().phases;
    }
    table.set("target", &mut policy.target, value::some_share);
    table.set("max_unhealthy", &mut policy.max_unhealthy, part);
    table.set("failure_limit", &mut policy.failure_limit, value::share);
    table.set("auto_rollback", &mut policy.auto_rollback, value::boolean);
    if let Some(sizes) = table.list("phases", phase_size) {
        policy.phases = with_bakes_of(&policy.phases, &sizes);
    }
    if let Some(bake) = table.read("bake", value::duration) {
        policy.phases.iter_mut().for_each(|phase| phase.bake = bake);
    }
    policy
}

/// A share that is something, and not all.
fn part(value: &DeValue<'_>) -> Result<Share, Wrong> {
    match value::some_share(value)? {
        Share::ALL => {
            Err(Wrong::new("is everybody", "write less than 100%: a release is not tried everywhere at once"))
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
