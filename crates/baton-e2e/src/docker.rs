//! A Docker engine, for what is tried in a container.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long an engine may take to start, on the busiest machine.
const STARTED_IN: Duration = Duration::from_secs(60);
/// How much of what it wrote is told when it does not start.
const LINES_TOLD: usize = 5;
/// What is to be done then.
const OWN_NEEDS: &str = "no Docker engine could be started here: it must be root, may mount, and has iptables; where a machine \
                         does not allow that, name a running engine by DOCKER_HOST";

/// A Docker engine: the one that `DOCKER_HOST` names, or one of its own, which ends with the value.
#[derive(Debug)]
pub struct Engine {
    host: String,
    own: Option<Child>,
    folder: TempDir,
}

impl Engine {
    /// The engine that `DOCKER_HOST` names; else one of its own, once it answers.
    ///
    /// # Errors
    /// When there is none, with what would help.
    pub fn start() -> anyhow::Result<Self> {
        match std::env::var("DOCKER_HOST") {
            Ok(host) => Self::named(&host),
            Err(_) => Self::own(&[]),
        }
    }

    /// The engine at this address.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn named(host: &str) -> anyhow::Result<Self> {
        let engine = Self { host: host.to_owned(), own: None, folder: tempfile::tempdir()? };
        let answer = engine.docker(&["info"]);
        answer.with_context(|| {
            format!("DOCKER_HOST names the engine at {host}, which does not answer: start it, or unset the variable")
        })?;
        Ok(engine)
    }

    /// One of its own, with these options beside those that keep it apart from any other.
    ///
    /// # Errors
    /// When it ends, or does not answer.
    pub fn own(options: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for an engine")?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let host = format!("unix://{}", at("socket"));
        let mut command = Command::new("dockerd");
        command.args(["--host", &host, "--data-root", &at("data"), "--exec-root", &at("exec")]);
        command.args(["--pidfile", &at("pid")]).args(options).stdout(Stdio::null());
        command.stderr(File::create(folder.path().join("log"))?);
        let child = command.spawn().context("cannot start dockerd: install Debian's docker.io")?;
        let mut engine = Self { host, own: Some(child), folder };
        engine.answers().with_context(|| {
            let log = std::fs::read_to_string(engine.folder.path().join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(LINES_TOLD).collect();
            format!("{OWN_NEEDS}. Its last lines:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })?;
        Ok(engine)
    }

    /// Waits until its own engine answers.
    fn answers(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.docker(&["info"]).is_err() {
            let ended = self.own.as_mut().and_then(|own| own.try_wait().transpose()).transpose()?;
            if let Some(status) = ended {
                bail!("dockerd has ended: {status}");
            }
            ensure!(start.elapsed() < STARTED_IN, "dockerd does not answer within {STARTED_IN:?}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The process of an engine of one's own.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.own
            .as_ref()
            .map(Child::id)
            .context("DOCKER_HOST names an engine: what it costs is not known; unset it")
    }

    /// A command that talks to this engine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", &self.host);
        command
    }

    /// Runs `docker` to its end, and returns all that it wrote.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command("docker").args(arguments).output().context("cannot run docker")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if !output.status.success() {
            bail!("docker {}: {text}", arguments.join(" "));
        }
        Ok(text)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut own) = self.own.take() {
            let _ = kill_process(Pid::from_child(&own), Signal::TERM);
            let _ = own.wait();
        }
    }
}
