//! How long a deploy takes to *switched*, beyond what its programs need to start.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::sample::Sample;
use crate::process::Footprint;

/// How many members there are.
const MEMBERS: usize = 8;
/// How many deploys are measured.
const DEPLOYS: usize = 10;
/// Half of the members at a time: two waves.
const WAVES: f64 = 2.0;
const LIMIT: Duration = Duration::from_secs(60);

/// The processes of one run; they end with it.
struct Fleet {
    processes: Vec<Child>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let ask = rustix::process::Pid::from_child(process);
            let _ = rustix::process::kill_process(ask, rustix::process::Signal::TERM);
        }
        for process in &mut self.processes {
            let _ = process.wait();
        }
    }
}

/// Deploys of a release to members on this machine.
#[derive(Debug)]
pub struct Deploys {
    /// How long they took, in ms.
    pub sample: Sample,
    /// What the bootloader of a member takes up at the end.
    pub member: Footprint,
}

/// Deploys a release again and again.
///
/// # Errors
/// If a deploy fails.
pub fn measure(baton: &Path, boot: &Path, folder: &Path, beneath: &Path) -> anyhow::Result<Deploys> {
    let control = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let server = format!("http://{control}");
    let mut fleet = Fleet { processes: Vec::new() };
    let quiet = |command: &mut Command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start")
    };
    fleet.processes.push(quiet(
        Command::new(baton)
            .args(["server", "--dev", "--listen", &control.to_string(), "--data"])
            .arg(beneath.join("control")),
    )?);
    for number in 0..MEMBERS {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        fleet.processes.push(quiet(
            Command::new(boot)
                .env("BATON_SERVER", &server)
                .env("BATON_SERVICE", "web")
                .env("BATON_MEMBER", format!("web-{number}"))
                .env("BATON_LISTEN", format!("http={address}"))
                .env("BATON_STATE_DIR", beneath.join(format!("web-{number}"))),
        )?);
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(baton);
        command.args(arguments).current_dir(folder).env("BATON_SERVER", &server);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot run baton")
    };
    let start = Instant::now();
    while !members_are_there(baton, &server)? {
        ensure!(start.elapsed() < LIMIT, "the members do not report");
    }
    let options = ["deploy", "--policy", "fast", "--max-unhealthy", "50%", "--bake", "0ms"];
    ensure!(run(&options)?.success(), "the first deploy failed");
    let mut sample = Sample::default();
    for number in 0..DEPLOYS {
        std::fs::write(folder.join("VERSION"), number.to_string())?;
        let start = Instant::now();
        ensure!(run(&options)?.success(), "deploy {number} failed");
        sample.add(start.elapsed().as_secs_f64() * 1000.0);
    }
    let member = fleet.processes.last().context("there is no member")?;
    Ok(Deploys { sample, member: Footprint::settled(member.id())? })
}

fn members_are_there(baton: &Path, server: &str) -> anyhow::Result<bool> {
    let output = Command::new(baton)
        .args(["members", "--service", "web", "--output", "json"])
        .env("BATON_SERVER", server)
        .output()
        .context("cannot run baton")?;
    let members: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(members.len() == MEMBERS)
}

/// The figures as lines of a table; `alone_ms` is what one program needs to start and answer.
pub fn table(deploys: &Deploys, alone_ms: f64) -> String {
    let deploys = &deploys.sample;
    format!(
        "| what | ms |\n| --- | --- |\n| `baton deploy` to *switched*, {MEMBERS} members, two waves, bake 0 | {deploys} |\n\
         | two starts of the program alone, one after the other | {:.2} |\n| beyond the program's own start | {:.2} |\n",
        WAVES * alone_ms,
        deploys.median() - WAVES * alone_ms
    )
}
