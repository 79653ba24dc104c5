//! The servers of one run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use super::operator::Operator;
use super::wait::until;
use crate::ports::free_address;
use crate::process::cpu_seconds;

/// Servers that end with this.
pub struct Servers {
    baton: PathBuf,
    /// Where they keep what they keep together, if they are several.
    state: Option<String>,
    places: Vec<(SocketAddr, PathBuf)>,
    processes: Vec<Child>,
}

impl Servers {
    /// So many, in folders beneath this one; with a state store of their own if there is one only.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(baton: &Path, beneath: &Path, count: usize, state: Option<String>) -> anyhow::Result<Self> {
        let places = (0..count).map(|number| (free_address(), beneath.join(format!("server-{number}"))));
        let mut servers =
            Self { baton: baton.to_owned(), state, places: places.collect(), processes: Vec::new() };
        servers.begin()?;
        Ok(servers)
    }

    /// Starts all of them, and waits until they answer.
    ///
    /// # Errors
    /// When one does not start.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        for (address, folder) in &self.places {
            let mut command = Command::new(&self.baton);
            command.args(["server", "--dev", "--listen", &address.to_string(), "--data"]).arg(folder);
            if let Some(state) = &self.state {
                command.args(["--state", state]);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null());
            self.processes.push(command.spawn().context("cannot start a server")?);
        }
        for (address, _) in &self.places {
            until("the server answers", || Ok(Operator::new(*address).sessions().is_ok()))?;
        }
        Ok(())
    }

    /// Ends all of them as a power cut does.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        for mut process in self.processes.drain(..) {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Where they listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.places.iter().map(|(address, _)| *address).collect()
    }

    /// An operator at the first of them.
    pub fn operator(&self) -> Operator {
        Operator::new(self.places[0].0)
    }

    /// How many members have a session with any of them.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn sessions(&self) -> anyhow::Result<usize> {
        self.places.iter().map(|(address, _)| Operator::new(*address).sessions()).sum()
    }

    /// The processor time that they have taken up together, in seconds.
    ///
    /// # Errors
    /// When one is gone.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|process| cpu_seconds(process.id())).sum()
    }

    /// The most memory that any of them has taken up, in MiB.
    ///
    /// # Errors
    /// When one is gone.
    pub fn peak_mib(&self) -> anyhow::Result<f64> {
        let peaks = self.processes.iter().map(|process| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        });
        peaks.collect::<anyhow::Result<Vec<_>>>().map(|peaks| peaks.into_iter().fold(0.0, f64::max))
    }

    /// Pushes the file in this folder, and returns the id of the release.
    ///
    /// # Errors
    /// When it fails.
    pub fn push(&self, folder: &Path) -> anyhow::Result<String> {
        let output = Command::new(&self.baton)
            .args(["push", "--output", "json"])
            .current_dir(folder)
            .env("BATON_SERVER", format!("http://{}", self.places[0].0))
            .output()?;
        ensure!(output.status.success(), "push: {}", String::from_utf8_lossy(&output.stderr));
        let pushed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(pushed["id"].as_str().context("the release has no id")?.to_owned())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // One that has ended by itself is only waited for.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
