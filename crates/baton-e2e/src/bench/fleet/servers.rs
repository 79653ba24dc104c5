//! The servers of one run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use super::light::{SERVICE, name};
use super::operator::Operator;
use super::wait::until;
use super::way::Way;
use crate::ports::free_address;
use crate::process::cpu_seconds;

/// Servers that end with this.
pub struct Servers {
    baton: PathBuf,
    /// How an admin speaks to them.
    way: Way,
    /// Where they keep what they keep together, if they are several.
    state: Option<String>,
    places: Vec<(SocketAddr, PathBuf)>,
    processes: Vec<Child>,
}

impl Servers {
    /// So many, in folders beneath this one, that ask nobody who they are; with a state store of their own if there is one only.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(baton: &Path, beneath: &Path, count: usize, state: Option<String>) -> anyhow::Result<Self> {
        let places = (0..count).map(|number| (free_address(), beneath.join(format!("server-{number}"))));
        let (baton, way, places) = (baton.to_owned(), Way::Open, places.collect());
        let mut servers = Self { baton, way, state, places, processes: Vec::new() };
        servers.begin()?;
        Ok(servers)
    }

    /// One in this folder, that asks everybody who they are, over TLS.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_closed(baton: &Path, folder: PathBuf) -> anyhow::Result<Self> {
        let address = free_address();
        let child = serve(baton, address, &folder).spawn().context("cannot start a server")?;
        let (authority, token) = (folder.join("ca.pem"), folder.join("admin.token"));
        until("the server has made a token", || Ok(token.exists() && authority.exists()))?;
        let way = Way::closed(&authority, &std::fs::read_to_string(token)?)?;
        let places = vec![(address, folder)];
        let servers = Self { baton: baton.to_owned(), way, state: None, places, processes: vec![child] };
        servers.wait()?;
        Ok(servers)
    }

    /// Starts all of them, and waits until they answer.
    ///
    /// # Errors
    /// When one does not start.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        for (address, folder) in &self.places {
            let mut command = serve(&self.baton, *address, folder);
            if matches!(self.way, Way::Open) {
                command.arg("--dev");
            }
            if let Some(state) = &self.state {
                command.args(["--state", state]);
            }
            self.processes.push(command.spawn().context("cannot start a server")?);
        }
        self.wait()
    }

    fn wait(&self) -> anyhow::Result<()> {
        for (address, _) in &self.places {
            until("the server answers", || Ok(self.operator_at(*address).sessions().is_ok()))?;
        }
        Ok(())
    }

    /// How each of so many members speaks to them.
    ///
    /// # Errors
    /// When they are not let in.
    pub fn admit(&self, members: usize) -> anyhow::Result<Vec<Way>> {
        if matches!(self.way, Way::Open) {
            return Ok(vec![Way::Open; members]);
        }
        let mut command = self.command();
        let output = command.args(["token", "join", "--service", SERVICE, "--reusable"]).output()?;
        ensure!(output.status.success(), "token join: {}", String::from_utf8_lossy(&output.stderr));
        let token = String::from_utf8(output.stdout)?;
        let mut joining = Operator::new(self.places[0].0, self.way.showing(token.trim())?);
        let mut join = |number| {
            let member = name(number);
            let mut credential = None;
            // Nobody may ask as often as thousands do at once.
            until("a member has a credential", || {
                credential = joining.join(&member).ok();
                Ok(credential.is_some())
            })?;
            self.way.showing(&credential.context("no credential")?)
        };
        (0..members).map(&mut join).collect()
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
        self.operator_at(self.places[0].0)
    }

    /// An operator at one of them.
    pub fn operator_at(&self, address: SocketAddr) -> Operator {
        Operator::new(address, self.way.clone())
    }

    /// A program that asks the first of them.
    fn command(&self) -> Command {
        let (address, folder) = &self.places[0];
        let mut command = Command::new(&self.baton);
        if matches!(self.way, Way::Open) {
            command.env("BATON_SERVER", format!("http://{address}"));
        } else {
            command.env("BATON_SERVER", format!("https://{address}"));
            command.env("BATON_TOKEN_FILE", folder.join("admin.token"));
            command.env("BATON_CA", folder.join("ca.pem"));
        }
        command
    }

    /// How many members have a session with any of them.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn sessions(&self) -> anyhow::Result<usize> {
        self.places.iter().map(|(address, _)| self.operator_at(*address).sessions()).sum()
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
        let output = self.command().args(["push", "--output", "json"]).current_dir(folder).output()?;
        ensure!(output.status.success(), "push: {}", String::from_utf8_lossy(&output.stderr));
        let pushed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(pushed["id"].as_str().context("the release has no id")?.to_owned())
    }
}

fn serve(baton: &Path, address: SocketAddr, folder: &Path) -> Command {
    let mut command = Command::new(baton);
    command.args(["server", "--listen", &address.to_string(), "--data"]).arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
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
