//! What `baton dev` and `baton demo` start on this machine: control, from this program, and where it and others listen.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use baton_engine::local::for_itself;
use baton_sys::parent::end_with_parent;
use rustix::process::{Pid, Signal, kill_process};

/// How many of control's last lines are told when it has ended.
const LAST_LINES: usize = 5;

/// Why something does not run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A program is not beside this one.
    #[error("there is no {}: build it with `make build`, or put it beside this program", .0.display())]
    Missing(PathBuf),
    /// Control has ended by itself.
    #[error("control has ended; it said last: {0}")]
    Ended(String),
    /// A member does not start.
    #[error(transparent)]
    Member(#[from] baton_engine::local::LocalError),
    /// Members do not get in touch with control.
    #[error("the members did not report to control within {0} s: their lines above say why")]
    Unreported(u64),
    /// The system refused something.
    #[error("cannot {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LocalError {
    /// What was attempted, for the error that is to come.
    pub fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Control as a process of this machine, open to everybody on it. It ends with the value, or with the thread that started it.
#[derive(Debug)]
pub struct LocalControl {
    child: Child,
    log: PathBuf,
}

impl LocalControl {
    /// Starts it. What it keeps and what it says goes into `folder`, to what was there before.
    ///
    /// # Errors
    /// The log cannot be written, or the process cannot be started.
    pub fn start(address: SocketAddr, folder: &Path) -> Result<Self, LocalError> {
        let this = std::env::current_exe().map_err(LocalError::io("find this program"))?;
        let path = folder.join("control.log");
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(LocalError::io("open a log"))?;
        let copy = log.try_clone().map_err(LocalError::io("open a log"))?;
        let child = end_with_parent(&mut command(&this, address, folder, log, copy)).spawn();
        Ok(Self { child: child.map_err(LocalError::io("start control"))?, log: path })
    }

    /// Fails once it has ended by itself.
    ///
    /// # Errors
    /// That it has, with what it said.
    pub fn check(&mut self) -> Result<(), LocalError> {
        match self.child.try_wait().map_err(LocalError::io("wait for control"))? {
            None => Ok(()),
            Some(_) => Err(LocalError::Ended(last_lines(&fs::read_to_string(&self.log).unwrap_or_default()))),
        }
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> Result<(), LocalError> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(LocalError::io("kill control"))
    }
}

impl Drop for LocalControl {
    fn drop(&mut self) {
        // One that was waited for has no pid any more.
        if matches!(self.child.try_wait(), Ok(None)) {
            // Nobody is left who could be told of a failure.
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn command(this: &Path, address: SocketAddr, folder: &Path, stdout: File, stderr: File) -> Command {
    let mut command = Command::new(this);
    for_itself(&mut command)
        .args(["server", "--dev", "--listen", &address.to_string(), "--data"])
        .arg(folder.join("control"))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // Ctrl-C is for this program, which stops members first.
        .process_group(0);
    command
}

/// A program that lies beside this one.
///
/// # Errors
/// There is none.
pub fn beside(name: &str) -> Result<PathBuf, LocalError> {
    let this = std::env::current_exe().map_err(LocalError::io("find this program"))?;
    let path = this.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(LocalError::Missing(path)) }
}

/// A port of this machine where nobody listens now.
///
/// # Errors
/// There is none.
pub fn free_address() -> Result<SocketAddr, LocalError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|free| free.local_addr())
        .map_err(LocalError::io("find a free port"))
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.split_at(lines.len().saturating_sub(LAST_LINES)).1 {
        [] => "nothing".to_owned(),
        last => last.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_told_on_one() {
        assert_eq!(last_lines("a\n\nb\nc\nd\ne\nf\n"), "b; c; d; e; f");
        assert_eq!(last_lines("\n"), "nothing");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = beside("baton-of-nobody").unwrap_err();
        assert!(error.to_string().contains("baton-of-nobody: build it"), "{error}");
    }
}
