//! The benches, and where they were run.

use std::process::Command;

use anyhow::{Context, ensure};

/// Says what machine this is, then measures with the programs in `target/release`. `parts` are for `baton-bench`.
pub fn run(parts: &[&str]) -> anyhow::Result<()> {
    let kernel = Command::new("uname").args(["-srm"]).output().context("cannot run uname")?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{}, {cores} cores\n", String::from_utf8_lossy(&kernel.stdout).trim());
    let program = "target/release/baton-bench";
    let status = Command::new(program)
        .args(parts)
        .status()
        .with_context(|| format!("cannot run {program}: run `make build` first"))?;
    ensure!(status.success(), "{program} failed");
    Ok(())
}
