//! What a PID 1 must do, as checks that any init can be held against: baton-boot, its peers, or one's own.
//!
//! Each check runs one program under one init, which is PID 1 in a PID and mount namespace of its own, and looks
//! at it from outside, as the engine of a container does. [`checks::CHECKS`] has all of them.

pub mod adapter;
pub mod check;
pub mod checks;
pub mod init;
pub mod known;
pub mod look;
pub mod run;
pub mod scores;

use std::io::Write;

pub use check::{Check, Outcome, Verdict};
pub use init::Init;
pub use run::{Bench, Tools};
pub use scores::{Scored, Scores};

/// Runs these checks against one init, and writes a line about each to `progress` as soon as it is known.
///
/// # Errors
/// What keeps the checks from being made; never what an init does wrong.
pub fn hold(
    init: &Init,
    tools: &Tools,
    checks: &[&'static Check],
    progress: &mut dyn Write,
) -> anyhow::Result<Scores> {
    let bench = Bench::new(init, tools);
    let mut results = Vec::new();
    for check in checks {
        let started = std::time::Instant::now();
        let outcome = check.against(&bench)?;
        let took = started.elapsed().as_secs_f64();
        writeln!(progress, "{}: {}: {} ({took:.1} s)", init.name(), check.name, outcome)?;
        results.push(Scored { check: check.name, outcome });
    }
    Ok(Scores { init: init.name().to_owned(), version: init.version(), results })
}
