//! Everything about the code that can be checked without running it.

use std::process::Command;

use anyhow::{Context, bail};

/// The commands, in the order of how fast they fail.
const STEPS: [&[&str]; 4] = [
    &["cargo", "fmt", "--all", "--check"],
    &["cargo", "test", "--quiet", "--locked", "--package", "xtask"],
    &[
        "cargo",
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--features",
        "baton-e2e/guides,baton-e2e/deployments",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ],
    &["cargo", "doc", "--quiet", "--workspace", "--no-deps", "--locked"],
];

/// Runs every check; stops at the first that fails.
pub fn run() -> anyhow::Result<()> {
    for step in STEPS {
        run_step(step, &[])?;
    }
    // Not every machine has it, and it cannot be had offline.
    if Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|found| found.status.success()) {
        run_step(&["cargo", "deny", "check", "licenses", "bans", "sources"], &[])?;
    }
    Ok(())
}

fn run_step(step: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    println!("{}", step.join(" "));
    let (program, arguments) = step.split_first().context("an empty step")?;
    let status = Command::new(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{} failed", step.join(" "));
    }
    Ok(())
}
