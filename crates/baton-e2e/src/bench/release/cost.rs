//! What something cost: time, processor and bytes over the loopback.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::process::cpu_with_children;

/// What something cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// From its beginning to its end.
    pub took: Duration,
    /// Of all processors, in the programs that did it and the servers that they asked.
    pub cpu: Duration,
    /// Over the loopback, with everything that protocols add.
    pub bytes: u64,
}

impl Cost {
    /// What work costs, with that of these processes, which go on.
    ///
    /// # Errors
    /// When the work fails.
    pub fn of(servers: &[u32], work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let (cpu, bytes, start) = (cpu_so_far(servers)?, bytes_so_far()?, Instant::now());
        work()?;
        let took = start.elapsed();
        Ok(Self { took, cpu: cpu_so_far(servers)?.saturating_sub(cpu), bytes: bytes_so_far()? - bytes })
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it fails, with what it said.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cpu_so_far(servers: &[u32]) -> anyhow::Result<Duration> {
    let ours = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = ours.user_time().num_microseconds() + ours.system_time().num_microseconds();
    let mut cpu = Duration::from_micros(u64::try_from(micros)?);
    for pid in servers {
        cpu += cpu_with_children(*pid)?;
    }
    Ok(cpu)
}

fn bytes_so_far() -> anyhow::Result<u64> {
    Ok(fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes")?.trim().parse()?)
}
