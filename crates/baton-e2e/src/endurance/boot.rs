//! A bootloader on its own that is reloaded by HUP.

use std::time::Instant;

use super::{Look, Pace, Places, Round, busy_since, everything};
use crate::bench::sample::Sample;
use crate::load::Driven;
use crate::member::{Member, Settings};
use crate::ports::free_address;
use crate::process::{Footprint, Processors};

/// The ways to hand over.
pub const WAYS: [&str; 3] = ["auto", "inherit", "proxy"];
/// After how many of so many reloads to look at the bootloader: before any, soon after the start, and later.
pub fn looks_of(reloads: u64) -> [u64; 4] {
    [0, reloads.div_ceil(10), reloads / 2, reloads]
}

/// Reloads a program that is handed over in this way, again and again, and looks at the bootloader after so many.
///
/// # Errors
/// If a generation is refused. What was lost is told by the round.
pub fn round(
    places: &Places,
    way: &'static str,
    pace: Pace,
    reloads: u64,
    look_after: &[u64],
) -> anyhow::Result<Round> {
    let folder = tempfile::tempdir()?;
    let address = free_address();
    Settings { web: places.web.clone(), address, handover: way, bake: "50ms" }.write(folder.path())?;
    let mut member = Member::start(&places.boot, folder.path(), &[])?;
    member.proven()?;
    let target = address.to_string();
    let plan = everything(&target, pace)?;
    let clients = plan.clients();
    let load = Driven::start(plan)?;
    let then = Processors::now()?;
    let mut looks = Vec::new();
    let mut reload_ms = Sample::default();
    for reload in 0..=reloads {
        if reload > 0 {
            reload_ms.add(one(&mut member, &load, &target)?);
        }
        if look_after.contains(&reload) {
            looks.push(Look { after: reload, footprint: Footprint::settled(member.pid())? });
        }
    }
    let busy = busy_since(then)?;
    let report = load.stop()?;
    member.stop()?;
    Ok(Round { name: format!("baton-boot, `{way}`"), reloads, reload_ms, report, clients, busy, looks })
}

/// One reload; returns how many ms it took.
fn one(member: &mut Member, load: &Driven, target: &str) -> anyhow::Result<f64> {
    let start = Instant::now();
    load.say(&format!("open {target}"))?;
    load.say("handover begin")?;
    member.order()?;
    member.serves()?;
    // From now on nobody else answers whoever connects.
    load.say(&format!("committed {target} {}", member.generation()))?;
    member.proven()?;
    load.say("handover end")?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}
