//! The question of `run.health.exec`: a command that looks for itself.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;

use baton_core::exit::Exit;
use baton_sys::attributes::Attributes;
use baton_sys::mount::Mount;
use baton_sys::process;
use baton_sys::spawn::{self, Spawn, Stdin};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use super::{Finding, told};

/// How much of the end of its output is kept: the line that says what is wrong.
const OUTPUT_BYTES_KEPT: usize = 1024;
/// What a generation is given for itself and for nobody else, and variables that go with it.
const NOT_INHERITED: [&str; 3] = ["LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_"];

/// Where a generation's program runs, and with what.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Its working directory.
    pub directory: PathBuf,
    /// Where it finds that, if not there.
    pub mount: Option<Mount>,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Who it runs as, and within which limits.
    pub attributes: Attributes,
}

/// A command that runs. It is killed with the value, and everything that it started in its process group.
#[derive(Debug)]
pub struct Check {
    program: String,
    pid: i32,
    exit: oneshot::Receiver<Exit>,
    output: Receiver,
}

impl Check {
    /// Starts it. `reaped` is asked for the exit status of the child with this pid.
    pub fn start(
        command: &[String],
        surroundings: &Surroundings,
        reaped: impl FnOnce(i32) -> oneshot::Receiver<Exit>,
    ) -> Result<Self, String> {
        let program = command.first().cloned().unwrap_or_default();
        let failed = |error: &(dyn std::error::Error + 'static)| format!("{program}: {}", told(error));
        let inherited = surroundings.environment.iter().filter(|(name, _)| {
            let name = name.to_string_lossy();
            !NOT_INHERITED.iter().any(|prefix| name.starts_with(prefix))
        });
        let environment: Vec<_> = inherited.cloned().collect();
        let (read, write) = spawn::pipe().map_err(|error| failed(&error))?;
        rustix::io::ioctl_fionbio(&read, true).map_err(|error| failed(&error))?;
        let output = Receiver::from_owned_fd(read).map_err(|error| failed(&error))?;
        let pid = spawn::spawn(&Spawn {
            command,
            directory: &surroundings.directory,
            mount: surroundings.mount.as_ref(),
            environment: &environment,
            sockets: &[],
            stdout: write.as_fd(),
            stderr: write.as_fd(),
            stdin: Stdin::Null,
            attributes: &surroundings.attributes,
        })
        .map_err(|error| failed(&error))?;
        Ok(Self { exit: reaped(pid), program, pid, output })
    }

    /// The program, as the settings have it.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Waits for its end, and tells what it found.
    pub async fn ended(mut self) -> Finding {
        let mut kept = Vec::new();
        let mut buffer = [0; OUTPUT_BYTES_KEPT];
        let mut open = true;
        let exit = loop {
            tokio::select! {
                biased;
                exit = &mut self.exit => break exit,
                read = self.output.read(&mut buffer), if open => match read {
                    Ok(0) | Err(_) => open = false,
                    Ok(read) => keep(&mut kept, &buffer[..read]),
                },
            }
        };
        // What it wrote last, of which the runtime may not have heard yet; whatever it left behind may hold the pipe open.
        while let Ok(read @ 1..) = rustix::io::read(&self.output, &mut buffer) {
            keep(&mut kept, &buffer[..read]);
        }
        match exit {
            Ok(exit) => judge(&self.program, &exit, &kept),
            Err(_) => Err(format!("{}: nobody knows how it ended", self.program)),
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        // Nobody has been told of its end: it was not reaped, and its pid is still its own.
        if matches!(self.exit.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            // One that has ended meanwhile is as good.
            let _ = process::kill_group(self.pid);
        }
    }
}

fn keep(kept: &mut Vec<u8>, read: &[u8]) {
    kept.extend_from_slice(read);
    let surplus = kept.len().saturating_sub(OUTPUT_BYTES_KEPT);
    kept.drain(..surplus);
}

/// What is wrong, with the last line that it wrote.
fn judge(program: &str, exit: &Exit, output: &[u8]) -> Finding {
    let end = match exit {
        Exit::Code(0) => return Ok(()),
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal(signal) => format!("killed by {signal}"),
        Exit::OutOfMemory { .. } => "killed by the kernel for memory".to_owned(),
        Exit::FailedToStart { why, .. } => why.clone(),
    };
    let output = String::from_utf8_lossy(output);
    let last = output.lines().rev().map(str::trim).find(|line| !line.is_empty());
    Err(format!("{program}: {end}{}", last.map(|line| format!(": {line}")).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::signal::Signal;

    #[test]
    fn what_a_command_found_is_its_exit_and_its_last_line() {
        for (exit, output, wrong) in [
            (Exit::Code(0), "all well", None),
            (Exit::Code(1), "", Some("./check: exit 1")),
            (Exit::Code(3), "one\nno database\n\n", Some("./check: exit 3: no database")),
            (Exit::Signal(Signal::TERM), "\n", Some("./check: killed by SIGTERM")),
        ] {
            assert_eq!(judge("./check", &exit, output.as_bytes()).err().as_deref(), wrong, "{exit:?}");
        }
    }

    #[test]
    fn the_end_of_the_output_is_kept() {
        let mut kept = Vec::new();
        (0..100).for_each(|n| keep(&mut kept, format!("line {n}\n").repeat(20).as_bytes()));
        assert!(kept.len() <= OUTPUT_BYTES_KEPT && kept.ends_with(b"line 99\n"));
    }
}
