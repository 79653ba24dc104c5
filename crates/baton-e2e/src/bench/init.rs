//! What the bootloader costs as an init, beside tini.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::sample::Sample;

/// How often a program is started and waited for.
const STARTS: usize = 100;
/// How often memory is read of an idle init.
const MEMORY_READS: usize = 10;

/// One init and its figures.
#[derive(Debug)]
pub struct Init {
    name: &'static str,
    program: PathBuf,
    start_ms: Sample,
    memory_kib: Sample,
}

/// Measures `true` under each init in turns, and the memory of each that waits for a `sleep`.
pub fn compare(inits: &[(&'static str, PathBuf)]) -> anyhow::Result<Vec<Init>> {
    let new = |(name, program): &(&'static str, PathBuf)| Init {
        name,
        program: program.clone(),
        start_ms: Sample::default(),
        memory_kib: Sample::default(),
    };
    let mut inits: Vec<Init> = inits.iter().map(new).collect();
    for _ in 0..STARTS {
        for init in &mut inits {
            let start = Instant::now();
            let status = command(&init.program, &["true"])
                .status()
                .with_context(|| format!("cannot run {}", init.name))?;
            ensure!(status.success(), "{} did not pass the exit code on", init.name);
            init.start_ms.add(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    for init in &mut inits {
        for _ in 0..MEMORY_READS {
            init.memory_kib.add(idle_memory(&init.program)?);
        }
    }
    Ok(inits)
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--").args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Resident memory of an init whose child sleeps, in KiB, once it no longer grows.
fn idle_memory(program: &Path) -> anyhow::Result<f64> {
    let mut child = command(program, &["sleep", "30"]).spawn().context("cannot start an init")?;
    let settled = settled_memory(&child);
    child.kill()?;
    child.wait()?;
    settled
}

fn settled_memory(child: &Child) -> anyhow::Result<f64> {
    let read = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok::<f64, anyhow::Error>(line.trim().trim_end_matches(" kB").trim().parse()?)
    };
    let mut last = read()?;
    loop {
        std::thread::park_timeout(Duration::from_millis(100));
        let now = read()?;
        if (now - last).abs() < f64::EPSILON {
            return Ok(now);
        }
        last = now;
    }
}

/// The figures as lines of a table.
pub fn table(inits: &[Init]) -> String {
    let mut text =
        "| init | start, child and exit, ms | resident memory, KiB |\n| --- | --- | --- |\n".to_owned();
    for init in inits {
        text.push_str(&format!("| {} | {} | {} |\n", init.name, init.start_ms, init.memory_kib));
    }
    if let [ours, peer, ..] = inits {
        let start = ours.start_ms.median() / peer.start_ms.median();
        let memory = ours.memory_kib.median() / peer.memory_kib.median();
        text.push_str(&format!("| {} / {} | {start:.2} | {memory:.2} |\n", ours.name, peer.name));
    }
    text
}
