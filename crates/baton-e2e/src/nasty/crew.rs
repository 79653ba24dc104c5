//! A main process with workers that need time to finish.

use std::io::{self, Read, Write};
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::report::Report;
use super::{another, catch_all, next, wait_for_term};

/// What kind of worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A child of the main process, in its session.
    Plain,
    /// One that has left: it has a session of its own, and its parent has ended.
    Escaped,
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        match word {
            "plain" => Ok(Self::Plain),
            "escaped" => Ok(Self::Escaped),
            _ => bail!("{word:?} is no kind of worker"),
        }
    }
}

/// When the main process ends, without a look at its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As soon as they work.
    AtOnce,
    /// When it is asked to.
    AtTerm,
}

impl FromStr for When {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        match word {
            "at-once" => Ok(Self::AtOnce),
            "at-term" => Ok(Self::AtTerm),
            _ => bail!("{word:?} is no moment to end at"),
        }
    }
}

/// What a worker does at TERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Finishes, which takes this long.
    Time(Duration),
    /// Nothing.
    Forever,
}

impl FromStr for Needs {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        match word {
            "forever" => Ok(Self::Forever),
            milliseconds => Ok(Self::Time(Duration::from_millis(super::parse(milliseconds)?))),
        }
    }
}

/// The main process: starts the workers, and returns when it is to end.
pub fn lead(report: &Report, count: u32, kind: Kind, needs: &str, when: When) -> anyhow::Result<()> {
    let signals = catch_all()?;
    let mut workers = (0..count).map(|_| start(report, kind, needs)).collect::<anyhow::Result<Vec<_>>>()?;
    workers.iter_mut().try_for_each(wait_until_it_works)?;
    report.say("up")?;
    match when {
        When::AtOnce => Ok(()),
        When::AtTerm => wait_for_term(&signals),
    }
}

fn start(report: &Report, kind: Kind, needs: &str) -> anyhow::Result<Child> {
    let words = match kind {
        Kind::Plain => ["worker", needs],
        Kind::Escaped => ["fork-away", needs],
    };
    another(report, &words)?.stdout(Stdio::piped()).spawn().context("cannot start a worker")
}

/// A worker says so with one byte on the pipe that it was started with.
fn wait_until_it_works(worker: &mut Child) -> anyhow::Result<()> {
    let pipe = worker.stdout.as_mut().context("a worker without a pipe")?;
    pipe.read_exact(&mut [0]).context("a worker did not start")
}

/// The process between the main one and an escaped worker: makes a session and ends before the worker does.
pub fn fork_away(report: &Report, needs: &str) -> anyhow::Result<()> {
    rustix::process::setsid()?;
    another(report, &["worker", needs])?.spawn().context("cannot start a worker")?;
    Ok(())
}

/// A worker: waits for TERM, and then for as long as it needs.
pub fn work(report: &Report, needs: Needs) -> anyhow::Result<()> {
    let signals = catch_all()?;
    io::stdout().write_all(b"w")?;
    io::stdout().flush()?;
    match needs {
        Needs::Time(time) => {
            wait_for_term(&signals)?;
            let asked = Instant::now();
            while asked.elapsed() < time {
                std::thread::park_timeout(time.saturating_sub(asked.elapsed()));
            }
            report.say("finished")
        }
        Needs::Forever => loop {
            next(&signals)?;
        },
    }
}
