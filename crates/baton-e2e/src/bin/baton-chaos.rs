//! `baton-chaos`: a small fleet in which everything breaks while it deploys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use baton_core::units::Millis;
use baton_e2e::bench::program;
use baton_e2e::chaos::schedule::Size;
use baton_e2e::chaos::{Places, run};
use baton_e2e::sandbox;
use clap::Parser;

/// Where everything is written: in memory.
const FOLDER: &str = "/run/chaos";

/// Breaks servers, stores, networks and members of a small fleet, while a release is deployed every ten seconds and every
/// fifth of them is ill. Ends with 1 if a request was lost, or anything ran that must not.
#[derive(Debug, Parser)]
#[command(name = "baton-chaos")]
struct Args {
    /// How long things are broken, in minutes
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Draw the faults of this number; any if nothing is said
    #[arg(long)]
    seed: Option<u64>,
    /// How many members there are
    #[arg(long, default_value_t = 20)]
    members: usize,
    /// Write what the run came to, to this file
    #[arg(long)]
    record: Option<PathBuf>,
    /// In its own namespaces already: not to be said by people
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !args.inside {
        return Err(sandbox::enter(&["nsenter", "ip", "iptables", "tc", "redis-server", "redis-cli"]));
    }
    sandbox::begin()?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = Places {
        baton: program("baton")?,
        boot: program("baton-boot")?,
        web: program("baton-web")?,
        python: here.join("../../target/moto/python/bin/python"),
        moto_script: here.join("../baton-store/tests/moto/serve.py"),
    };
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("seed {seed}");
    let size = Size { servers: 3, members: args.members };
    let ran = run(&places, Path::new(FOLDER), seed, Millis::from_secs(args.minutes * 60), size);
    keep_logs(&here.join("../../target/chaos"))?;
    let outcome = ran?;
    let record = outcome.record();
    println!("{record}");
    if let Some(path) = &args.record {
        std::fs::write(path, record).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let violations = outcome.evidence.violations();
    for violation in &violations {
        println!("VIOLATION: {violation}");
    }
    Ok(ExitCode::from(u8::from(!violations.is_empty())))
}

/// What everybody wrote goes with the namespaces; a copy is for who looks for a cause.
fn keep_logs(to: &Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in std::fs::read_dir(FOLDER)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let log = path.join("log");
        let name = to.join(name);
        if log.is_file() {
            std::fs::copy(&log, name.with_extension("log"))?;
        } else if path.is_file() {
            std::fs::copy(&path, name)?;
        }
    }
    Ok(())
}
