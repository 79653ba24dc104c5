//! Moments that programs tell: what happened in which process, and when.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::time::{ClockId, clock_gettime};

/// How long to wait for a moment: far longer than the slowest supervisor needs.
const LIMIT: Duration = Duration::from_secs(30);

/// The argument of a program that takes no notice of TERM and INT.
pub const DEAF: &str = "deaf";

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Milliseconds from one moment to a later one; negative where it is earlier.
pub fn ms_between(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

/// One moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The process that it happened in.
    pub pid: u32,
    /// When, as [`now`] tells it.
    pub at: u64,
    /// What.
    pub what: String,
}

/// Where programs tell moments: a named pipe.
#[derive(Debug)]
pub struct Moments {
    path: PathBuf,
    pipe: File,
    read: Vec<u8>,
}

impl Moments {
    /// A new one in this folder.
    ///
    /// # Errors
    /// If the pipe cannot be made.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("moments");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .with_context(|| format!("cannot make {}", path.display()))?;
        // Also for writing, so that it has no end when a program that wrote goes.
        let pipe = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { path, pipe, read: Vec::new() })
    }

    /// Where programs write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// If none comes.
    pub fn wait(&mut self) -> anyhow::Result<Moment> {
        let start = Instant::now();
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return parse(&String::from_utf8_lossy(&line));
            }
            let left = LIMIT.checked_sub(start.elapsed()).context("no program tells anything")?;
            let left = Timespec::try_from(left)?;
            poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&left))?;
            let mut chunk = [0; 4096];
            if start.elapsed() < LIMIT {
                let bytes = self.pipe.read(&mut chunk)?;
                self.read.extend_from_slice(&chunk[..bytes]);
            }
        }
    }

    /// Waits for the next one that is about this.
    ///
    /// # Errors
    /// If none comes.
    pub fn wait_for(&mut self, what: &str) -> anyhow::Result<Moment> {
        loop {
            let moment = self.wait()?;
            if moment.what == what {
                return Ok(moment);
            }
        }
    }
}

fn parse(line: &str) -> anyhow::Result<Moment> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [pid, at, what] => Ok(Moment { pid: pid.parse()?, at: at.parse()?, what: what.into() }),
        _ => bail!("not a moment: {line:?}"),
    }
}

/// Tells a moment of this process.
///
/// # Errors
/// If nobody listens there.
pub fn tell(path: &Path, at: u64, what: &str) -> anyhow::Result<()> {
    let mut pipe = OpenOptions::new().write(true).open(path)?;
    // One write of a few bytes: what several programs tell is not mixed.
    Ok(pipe.write_all(format!("{} {at} {what}\n", std::process::id()).as_bytes())?)
}

/// The program that supervisors run: tells that it has `started`, and when it got USR1; ends by TERM or INT, unless it is
/// deaf to them.
///
/// # Errors
/// If nobody listens.
pub fn program(path: &Path, started: u64, deaf: bool) -> anyhow::Result<()> {
    let signals: SigSet = [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block()?;
    tell(path, started, "started")?;
    loop {
        let signal = signals.wait()?;
        let at = now();
        if signal != Signal::SIGUSR1 {
            if deaf {
                continue;
            }
            return Ok(());
        }
        tell(path, at, "signal")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_in_order_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut moments = Moments::new(folder.path()).unwrap();
        for what in ["started", "signal"] {
            tell(moments.path(), 7, what).unwrap();
        }
        let pid = std::process::id();
        assert_eq!(moments.wait().unwrap(), Moment { pid, at: 7, what: "started".into() });
        assert_eq!(moments.wait_for("signal").unwrap().what, "signal");
        assert!(parse("nonsense").is_err() && ms_between(2_000_000, 1_000_000) < 0.0);
    }
}
