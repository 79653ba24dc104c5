//! The command of a step, which ends with us.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use baton_core::build::Step;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::BuildError;
use super::aside::Aside;
use crate::interrupt::Interrupt;

/// How long processes that were killed may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(5);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// Runs a command with its outputs moved away, and gives them back to be settled. When it fails, and on Ctrl-C, all of its
/// processes are ended and the outputs are as they were.
pub fn run(step: &Step, dir: &Path, aside: Aside, interrupt: &Interrupt) -> Result<Aside, BuildError> {
    let (program, arguments) = step.run.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    let start = |source| BuildError::Start { step: step.name.clone(), program: program.to_owned(), source };
    // Results of ours are the only thing on standard output.
    let out = || Ok::<_, io::Error>(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(out().map_err(start)?)
        .process_group(0)
        .spawn()
        .map_err(start)?;
    let group = Pid::from_child(&child);
    let outputs = Arc::new(Mutex::new(Some(aside)));
    let theirs = Arc::clone(&outputs);
    let leaving = interrupt.before_leaving(move || {
        let held = theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
        end(group);
        drop(held);
    });
    let status = child.wait();
    drop(leaving);
    let Some(aside) = outputs.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        // Ctrl-C has them, and ends this program in a moment.
        loop {
            thread::park();
        }
    };
    let status = status.map_err(start)?;
    if status.success() {
        return Ok(aside);
    }
    end(group);
    Err(BuildError::Ended { step: step.name.clone(), how: how(status) })
}

/// Ends all processes of a group, and waits until they are gone.
fn end(group: Pid) {
    let start = Instant::now();
    let _ = kill_process_group(group, Signal::KILL);
    while test_kill_process_group(group).is_ok() && start.elapsed() < GONE_MAX {
        thread::park_timeout(LOOK);
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
