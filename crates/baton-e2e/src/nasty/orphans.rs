//! Orphans by the thousand.

use std::io::{Read, pipe};
use std::process::Stdio;

use anyhow::{Context, ensure};

use super::report::Report;
use super::{another, catch_all, wait_for_term};

/// Makes broods one after the other, lets each one's orphans end all at once, reports each, and waits for TERM.
pub fn make(report: &Report, brood: &str, broods: u32, size: u32) -> anyhow::Result<()> {
    let signals = catch_all()?;
    report.say("up")?;
    for _ in 0..broods {
        let (gate, key) = pipe()?;
        let status = another(report, &[brood, &size.to_string()])?.stdin(gate).status()?;
        ensure!(status.success(), "a brood failed: {status}");
        // Whoever waits at the gate ends now.
        drop(key);
        report.say("orphaned")?;
    }
    wait_for_term(&signals)
}

/// Starts children that wait at the gate, standard input, and ends: they are orphans from then on.
pub fn leave(report: &Report, size: u32) -> anyhow::Result<()> {
    for _ in 0..size {
        let orphan = another(report, &["orphan"])?.stdin(Stdio::inherit()).stdout(Stdio::null()).spawn();
        orphan.context("cannot start an orphan")?;
    }
    Ok(())
}

/// Starts children that end at once, waits until all have without taking their exit status, and ends.
pub fn leave_dead(report: &Report, size: u32) -> anyhow::Result<()> {
    let (mut end, held) = pipe()?;
    for _ in 0..size {
        let child = another(report, &["exit", "0"])?.stdout(held.try_clone()?).spawn();
        child.context("cannot start a child")?;
    }
    drop(held);
    // The pipe ends when the last of those who hold it has.
    end.read_to_end(&mut Vec::new())?;
    Ok(())
}
