//! A process on a host of the chaotic network, which is killed, stopped and started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::net::Host;

/// How long anything may take that always comes: far longer than it does, on a machine that is busy.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it has come.
const GLANCE: Duration = Duration::from_millis(20);

/// Waits until a condition holds.
///
/// # Errors
/// If it does not in time.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > LIMIT {
            bail!("gave up waiting for {what}");
        }
        std::thread::park_timeout(GLANCE);
    }
    Ok(())
}

/// A process, and how it is started.
#[derive(Debug)]
pub struct Guest {
    host: Host,
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    folder: PathBuf,
    child: Option<Child>,
}

impl Guest {
    /// Starts a program there. What it writes goes to a file in `folder`, where it also works.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        host: Host,
        program: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut guest = Self {
            host,
            program: program.to_owned(),
            arguments: owned(arguments),
            variables: variables.collect(),
            folder: folder.to_owned(),
            child: None,
        };
        guest.start_again()?;
        Ok(guest)
    }

    /// Starts it as it was.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command: Command = self.host.command(&self.program);
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        // The bucket is served until its standard input ends.
        command.current_dir(&self.folder).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}", self.host))?);
        Ok(())
    }

    /// Where it writes.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.host))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// It does nothing from now on, and is still there.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// It goes on where it was.
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.host))?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Asks it to stop.
    ///
    /// # Errors
    /// If it does not run.
    pub fn ask_to_stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// If it does not.
    pub fn stopped(&mut self) -> anyhow::Result<()> {
        let host = self.host;
        until(&format!("{host} to stop"), || self.has_ended())?;
        self.child = None;
        Ok(())
    }
}
