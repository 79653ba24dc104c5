//! Baton: a server, and one member that runs a program which does nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::cost::{Cost, run};
use super::server::Server;
use super::tree::Tree;
use super::{Places, Way};
use crate::ports::free_address;
use crate::process::cpu_with_children;

/// What it is called.
pub const NAME: &str = "Baton";
/// How long a member may take for anything.
const LIMIT: Duration = Duration::from_secs(120);
/// A member that has computed for less than this in this time has nothing to do but to look after its program: it puts its disk in
/// order two seconds after a release was committed.
const IDLE: Duration = Duration::from_secs(3);
const IDLE_CPU: Duration = Duration::from_millis(30);

/// Baton, with one member.
pub struct Baton {
    program: PathBuf,
    boot: PathBuf,
    folder: PathBuf,
    url: String,
    server: Server,
    member: Option<Member>,
    /// What was pushed last.
    release: String,
    memory_kib: u64,
}

/// A running bootloader, and what it says.
struct Member {
    child: Child,
    said: Receiver<String>,
}

impl Baton {
    /// Starts the server.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(places: &Places, folder: &Path) -> anyhow::Result<Self> {
        let address = free_address();
        let mut command = Command::new(&places.baton);
        command
            .args(["server", "--dev", "--listen", &address.to_string(), "--data"])
            .arg(folder.join("control"));
        Ok(Self {
            program: places.baton.clone(),
            boot: places.boot.clone(),
            folder: folder.to_owned(),
            url: format!("http://{address}"),
            server: Server::start(&mut command, address)?,
            member: None,
            release: String::new(),
            memory_kib: 0,
        })
    }

    /// The most memory that the bootloader had in any fetch, in KiB.
    pub fn memory_kib(&self) -> u64 {
        self.memory_kib
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("BATON_SERVER", &self.url).env("XDG_CACHE_HOME", self.folder.join("cache"));
        command
    }

    fn deploy(&self) -> anyhow::Result<()> {
        // Nobody watches: what an operator is shown is not brought to a member.
        let how = ["--service", "web", "--policy", "fast", "--bake", "1ms", "--detach"];
        run(self.command().args(["deploy", &self.release]).args(how)).map(drop)
    }
}

impl Way for Baton {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push(&mut self, tree: &Tree) -> anyhow::Result<Option<Cost>> {
        let mut told = String::new();
        let mut command = self.command();
        command.current_dir(tree.dir()).args(["push", "--output", "json"]);
        let cost = Cost::of(&[self.server.pid()], || {
            told = run(&mut command)?;
            Ok(())
        })?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        self.release = told["id"].as_str().with_context(|| format!("no id in {told}"))?.to_owned();
        Ok(Some(cost))
    }

    /// The time is the bootloader's own, from control's wish until the release is durable and can be launched; bytes
    /// and processor are those of all until then, from the operator's command on.
    fn fetch(&mut self) -> anyhow::Result<Cost> {
        let fresh = self.member.is_none();
        let member = match self.member.take() {
            Some(member) => member,
            None => Member::start(&self.boot, &self.url, &self.folder.join("state"))?,
        };
        let servers = [self.server.pid(), member.child.id()];
        let mut took = Duration::ZERO;
        let cost = Cost::of(&servers, || {
            if !fresh || !self.is_deployed()? {
                self.deploy()?;
            }
            took = member.on_disk(&self.release)?;
            Ok(())
        })?;
        self.memory_kib = self.memory_kib.max(member.memory_kib()?);
        self.member = Some(member);
        Ok(Cost { took, ..cost })
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        self.member = None;
        Ok(fs::remove_dir_all(self.folder.join("state"))?)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.member.as_ref().map_or(Ok(()), Member::settle)
    }
}

impl Baton {
    /// Whether what was pushed last is what every member shall run.
    fn is_deployed(&self) -> anyhow::Result<bool> {
        let status = run(self.command().args(["status", "web", "--output", "json"])).unwrap_or_default();
        Ok(status.contains(&format!("\"{}\"", self.release)))
    }
}

impl Member {
    fn start(boot: &Path, url: &str, state: &Path) -> anyhow::Result<Self> {
        let variables = [("BATON_SERVER", url), ("BATON_SERVICE", "web"), ("BATON_MEMBER", "web-1")];
        let mut command = Command::new(boot);
        command.envs(variables).env("BATON_STATE_DIR", state).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start baton-boot")?;
        let lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
        let (say, said) = mpsc::channel();
        // Whoever does not listen any more has heard enough.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
        Ok(Self { child, said })
    }

    /// Waits until a release is on its disk, and tells how long that took by its own account.
    fn on_disk(&self, release: &str) -> anyhow::Result<Duration> {
        let begins = format!("release {} is on disk after ", &release[..12]);
        let mut heard = Vec::new();
        loop {
            let said = self.said.recv_timeout(LIMIT);
            let line =
                said.with_context(|| format!("{release} is not on disk; the member said {heard:#?}"))?;
            heard.push(line.clone());
            let Some((_, rest)) = line.split_once(&begins) else { continue };
            let (ms, _) = rest.split_once(" ms").context("no time")?;
            return Ok(Duration::from_secs_f64(ms.parse::<f64>()? / 1000.0));
        }
    }

    fn memory_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn settle(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let known = cpu_with_children(self.child.id())?;
            std::thread::park_timeout(IDLE);
            if cpu_with_children(self.child.id())? - known < IDLE_CPU {
                return Ok(());
            }
            ensure!(start.elapsed() < LIMIT, "the member does not come to rest");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
