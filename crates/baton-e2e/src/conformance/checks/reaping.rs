//! Processes whose parent has ended.

use std::cell::Cell;

use crate::conformance::check::{Check, Outcome};
use crate::conformance::look;
use crate::conformance::run::{Bench, PATIENCE};

/// Broods of orphans and their size: together 10,000. Those of one brood end at the same moment.
const BROODS: usize = 20;
const BROOD_SIZE: usize = 500;

/// Orphans that end.
pub const ORPHANS: Check = Check {
    name: "orphans",
    proves: "of 10,000 orphans that end, 500 at a time, no zombie is left",
    matters: "zombies fill the table of processes until nothing can be started any more",
    quick: false,
    run: |bench| reaped(bench, "orphans", BROODS),
};

/// Zombies that become the init's.
pub const ZOMBIES: Check = Check {
    name: "zombies",
    proves: "children that had ended before they lost their parent are reaped as well",
    matters: "health checks in shells and crashing workers leave such ones behind",
    quick: true,
    run: |bench| reaped(bench, "zombies", 2),
};

fn reaped(bench: &Bench<'_>, behaviour: &str, broods: usize) -> anyhow::Result<Outcome> {
    let mut run = bench.nasty(&[behaviour, &broods.to_string(), &BROOD_SIZE.to_string()])?;
    for made in 1..=broods {
        run.wait_for("a brood of orphans was not made", |run| {
            (run.reported("orphaned") >= made).then_some(())
        })?;
    }
    let init = run.init()?.pid;
    let zombies = || look::family(init).map(|family| family.iter().filter(|process| process.zombie).count());
    let last = Cell::new(0);
    let gone = run.wait_for("zombies were left", |_| {
        last.set(zombies().ok()?);
        (last.get() == 0).then_some(())
    });
    let all = broods * BROOD_SIZE;
    let seen = format!("{} zombies were left after {} s", last.get(), PATIENCE.as_secs());
    Ok(Outcome::of(gone.is_ok(), format!("{} of {all}", all - last.get()), seen))
}
