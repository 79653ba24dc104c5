//! How long a handover takes inside one member, beside starting the program alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::sample::Sample;

/// How many pairs are measured.
const PAIRS: usize = 30;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Start of the program until its first answer, alone and by a handover.
#[derive(Debug, Default)]
pub struct Handover {
    alone_ms: Sample,
    handover_ms: Sample,
    beyond_ms: Sample,
}

/// Measures both in turns. `folder` has a `baton.toml` and its program, which listens at `http`.
pub fn measure(boot: &Path, folder: &Path, program: &[&str]) -> anyhow::Result<Handover> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut member = Command::new(boot)
        .current_dir(folder)
        .env("BATON_LISTEN", format!("http={address}"))
        .env("BATON_STATE_DIR", folder.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start baton-boot")?;
    let measured = measure_pairs(&member, address, folder, program);
    stop(&mut member)?;
    measured
}

fn measure_pairs(
    member: &Child,
    address: SocketAddr,
    folder: &Path,
    program: &[&str],
) -> anyhow::Result<Handover> {
    let mut figures = Handover::default();
    let mut serving = wait_for_other(address, None)?;
    for _ in 0..PAIRS {
        let alone = start_alone(folder, program)?;
        let start = Instant::now();
        kill_process(Pid::from_child(member), Signal::HUP)?;
        serving = wait_for_other(address, Some(serving))?;
        let handover = start.elapsed().as_secs_f64() * 1000.0;
        figures.alone_ms.add(alone);
        figures.handover_ms.add(handover);
        figures.beyond_ms.add(handover - alone);
    }
    Ok(figures)
}

/// Starts the program on a socket of its own and returns the time to its first answer.
fn start_alone(folder: &Path, program: &[&str]) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let start = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"", "sh"])
        .args(program)
        .current_dir(folder)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the program")?;
    let answered = wait_for_other(address, None).map(|_| start.elapsed().as_secs_f64() * 1000.0);
    stop(&mut child)?;
    answered
}

/// Asks without a pause until a process other than this one answers, and returns its pid.
fn wait_for_other(address: SocketAddr, than: Option<u64>) -> anyhow::Result<u64> {
    let start = Instant::now();
    loop {
        if let Some(pid) = ask(address).filter(|pid| Some(*pid) != than) {
            return Ok(pid);
        }
        ensure!(start.elapsed() < LIMIT, "nobody else answers at {address}");
    }
}

fn ask(address: SocketAddr) -> Option<u64> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str::<serde_json::Value>(body).ok()?["pid"].as_u64()
}

fn stop(child: &mut Child) -> anyhow::Result<()> {
    kill_process(Pid::from_child(child), Signal::TERM)?;
    child.wait()?;
    Ok(())
}

impl Handover {
    /// How long the program needs alone, in ms.
    pub fn alone_ms(&self) -> f64 {
        self.alone_ms.median()
    }

    /// The figures as lines of a table.
    pub fn table(&self) -> String {
        format!(
            "| what | ms |\n| --- | --- |\n| program alone, start to first answer | {} |\n\
             | handover, order to first answer of the new generation | {} |\n\
             | handover beyond the program's own start, pairs | {} |\n| ratio of the medians | {:.2} |\n",
            self.alone_ms,
            self.handover_ms,
            self.beyond_ms,
            self.handover_ms.median() / self.alone_ms.median()
        )
    }
}
