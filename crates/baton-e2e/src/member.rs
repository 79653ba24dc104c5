//! A bootloader on its own, with a program that answers, and what it says.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take: far longer than it does.
const LIMIT: Duration = Duration::from_secs(60);

/// A running bootloader. It ends with the value.
#[derive(Debug)]
pub struct Member {
    child: Child,
    said: Receiver<String>,
    /// What it said last, for when something else was waited for.
    heard: Vec<String>,
    reloads: u64,
}

/// How much of what it said is shown.
const HEARD_MAX: usize = 20;

impl Member {
    /// Starts one with the `baton.toml` of this folder, and waits until its program serves.
    ///
    /// # Errors
    /// If it does not serve.
    pub fn start(boot: &Path, folder: &Path, variables: &[(&str, &Path)]) -> anyhow::Result<Self> {
        let mut child = Command::new(boot)
            .current_dir(folder)
            .env("BATON_STATE_DIR", folder.join("state"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start baton-boot")?;
        let lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // When nobody listens any more it is still read, so that nobody is held up.
                let _ = say.send(line);
            }
        });
        let mut member = Self { child, said, heard: Vec::new(), reloads: 0 };
        member.wait_for("generation 1 (image) serves, ")?;
        Ok(member)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of the generation that was launched last, as long as none failed.
    pub fn generation(&self) -> u64 {
        self.reloads + 1
    }

    /// Waits until it says something.
    ///
    /// # Errors
    /// If it does not, or ends.
    pub fn wait_for(&mut self, text: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(start.elapsed());
            let Ok(line) = self.said.recv_timeout(left) else {
                bail!("baton-boot does not say {text:?}, but last\n{}", self.heard.join("\n"));
            };
            let found = line.contains(text);
            self.heard.push(line);
            if self.heard.len() > HEARD_MAX {
                self.heard.remove(0);
            }
            if found {
                return Ok(());
            }
        }
    }

    /// Tells it to reload, by HUP, and does not wait.
    ///
    /// # Errors
    /// If it is not there any more.
    pub fn order(&mut self) -> anyhow::Result<()> {
        self.reloads += 1;
        Ok(kill_process(Pid::from_child(&self.child), Signal::HUP)?)
    }

    /// Waits until the generation that was ordered last serves.
    ///
    /// # Errors
    /// If it does not.
    pub fn serves(&mut self) -> anyhow::Result<()> {
        self.wait_for(&format!("generation {} (image) serves, ", self.generation()))
    }

    /// Waits until the generation that was ordered last is proven.
    ///
    /// # Errors
    /// If it is refused.
    pub fn proven(&mut self) -> anyhow::Result<()> {
        self.wait_for(&format!("generation {} (image) is proven", self.generation()))
    }

    /// Stops it, and waits until it has.
    ///
    /// # Errors
    /// If it is not there any more.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// The settings of a member whose program is `baton-web`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program.
    pub web: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it gets its connections.
    pub handover: &'static str,
    /// How long a generation must stay healthy after the switch.
    pub bake: &'static str,
}

impl Settings {
    /// Writes them to a folder.
    ///
    /// # Errors
    /// If that cannot be written to.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let Self { web, address, handover, bake } = self;
        // What takes the open socket takes it as standard input; what binds is told by `$PORT`.
        let stdin = if *handover == "inherit" { "stdin = \"http\"\n" } else { "" };
        let word = if *handover == "inherit" { ", \"--stdin\"" } else { "" };
        let settings = format!(
            "service = \"web\"\n[run]\ncommand = [{web:?}{word}]\ndrain = \"10s\"\n{stdin}\
             [[run.listen]]\nname = \"http\"\naddress = \"{address}\"\nhandover = \"{handover}\"\n\
             [run.health]\nhttp = \"/health\"\n[rollout]\nbake = \"{bake}\"\n"
        );
        Ok(std::fs::write(folder.join("baton.toml"), settings)?)
    }
}
