//! A Docker engine, for what is tried in a container.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long an engine may take to start, on the busiest machine.
const STARTED_IN: Duration = Duration::from_secs(60);

/// A Docker engine: the one that `DOCKER_HOST` names, or one of its own, which ends with the value.
#[derive(Debug)]
pub struct Engine {
    host: String,
    own: Option<Child>,
    _folder: TempDir,
}

impl Engine {
    /// Starts an engine, unless one is named, and waits until it answers.
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for an engine")?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (own, host) = match std::env::var("DOCKER_HOST") {
            Ok(host) => (None, host),
            Err(_) => {
                let host = format!("unix://{}", at("socket"));
                let mut command = Command::new("dockerd");
                command.args(["--host", &host, "--data-root", &at("data"), "--exec-root", &at("exec")]);
                command.args(["--pidfile", &at("pid")]).stdout(Stdio::null());
                command.stderr(File::create(folder.path().join("log"))?);
                (Some(command.spawn().context("cannot start dockerd")?), host)
            }
        };
        let engine = Self { host, own, _folder: folder };
        let start = Instant::now();
        while !engine.command("docker").arg("info").output()?.status.success() {
            ensure!(start.elapsed() < STARTED_IN, "the Docker engine at {} does not answer", engine.host);
            std::thread::park_timeout(Duration::from_millis(100));
        }
        Ok(engine)
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
