//! A bootloader of its own for the program that is tried out, and what it says.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use baton_sys::parent::end_with_parent;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::told::{self, Told, told};
use super::{DoctorError, GLANCE, wait_for};

/// How many of the last lines of output are shown where something is not as it should be.
const LAST_LINES: usize = 10;
/// What is longer is no line of the bootloader's, and is not read by anybody.
const LINE_MAX: usize = 64 * 1024;
/// How many times a bootloader is asked to end, once every [`URGE`], before it is killed: the second time it asks
/// every process, the third time it kills them.
const URGED_MAX: u32 = 100;
const URGE: Duration = Duration::from_millis(100);
/// What whoever started this process told it, and nobody else.
const NOT_INHERITED: [&str; 5] =
    ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC"];

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec<'a> {
    /// The bootloader's binary.
    pub boot: &'a Path,
    /// Where the program is started.
    pub directory: &'a Path,
    /// Its settings.
    pub settings: &'a Path,
    /// A folder for what it writes; nobody else's.
    pub folder: PathBuf,
    /// Where it listens, instead of where the settings say.
    pub listen: Vec<(String, SocketAddr)>,
}

/// A bootloader that runs the program. It ends with the value, and with it all that it has started.
#[derive(Debug)]
pub struct Member {
    child: Child,
    boot: PathBuf,
    output: File,
    line: Vec<u8>,
    /// What it said and nobody has asked for yet.
    told: VecDeque<Told>,
    /// The last lines, each with whether it is the program's.
    last: VecDeque<(bool, String)>,
}

impl Member {
    /// Starts it, in a process group of its own so that Ctrl-C in the terminal does not reach it.
    pub fn start(spec: &Spec<'_>) -> Result<Self, DoctorError> {
        std::fs::create_dir_all(&spec.folder).map_err(DoctorError::io("make a folder"))?;
        let path = spec.folder.join("output");
        let written = File::create(&path).map_err(DoctorError::io("write to a folder"))?;
        let output = File::open(&path).map_err(DoctorError::io("read its output"))?;
        let copy = written.try_clone().map_err(DoctorError::io("share a file"))?;
        let mut command = Command::new(spec.boot);
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_string_lossy().starts_with("BATON_")) {
            command.env_remove(name);
        }
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        if !spec.listen.is_empty() {
            let one = |(name, address): &(String, SocketAddr)| format!("{name}={address}");
            command.env("BATON_LISTEN", spec.listen.iter().map(one).collect::<Vec<_>>().join(","));
        }
        command
            .arg("--settings")
            .arg(spec.settings)
            .current_dir(spec.directory)
            .env("BATON_STATE_DIR", spec.folder.join("state"))
            .stdin(Stdio::null())
            .stdout(written)
            .stderr(copy)
            .process_group(0);
        let child = end_with_parent(&mut command).spawn();
        let child = child.map_err(DoctorError::io(format!("start {}", spec.boot.display())))?;
        let boot = spec.boot.to_owned();
        Ok(Self { child, boot, output, line: Vec::new(), told: VecDeque::new(), last: VecDeque::new() })
    }

    /// The bootloader's pid.
    pub fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    /// What it has said since it was asked for the last time.
    pub fn news(&mut self) -> Result<Vec<Told>, DoctorError> {
        let mut bytes = Vec::new();
        // From where it was read to last; whoever writes has a position of its own.
        self.output.read_to_end(&mut bytes).map_err(DoctorError::io("read its output"))?;
        for byte in bytes {
            match byte {
                b'\n' => self.take_line(),
                byte if self.line.len() < LINE_MAX => self.line.push(byte),
                _ => {}
            }
        }
        Ok(self.told.drain(..).collect())
    }

    fn take_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        self.told.extend(told(&line));
        match told::own(&line) {
            Some(own) => self.last.push_back((false, own)),
            None => self.last.push_back((true, line)),
        }
        if self.last.len() > LAST_LINES {
            self.last.pop_front();
        }
    }

    /// What the program wrote last.
    pub fn last_lines(&self) -> Vec<String> {
        self.last.iter().filter(|(programs, _)| *programs).map(|(_, line)| line.clone()).collect()
    }

    /// An error that says what it does not do.
    pub fn does_not(&self, what: &str) -> DoctorError {
        let said: Vec<&str> = self.last.iter().map(|(_, line)| line.as_str()).collect();
        DoctorError::Boot { what: what.to_owned(), said: said.join(" | ") }
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, DoctorError> {
        self.child.try_wait().map_err(DoctorError::io("wait for baton-boot"))
    }

    /// The main process of the generation that was launched last.
    pub fn program(&self) -> Option<i32> {
        let answer = Command::new(&self.boot)
            .args(["status", "--json", &self.child.id().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let status: Value = serde_json::from_slice(&answer.stdout).ok()?;
        let pid = status["generations"].as_array()?.last()?["pid"].as_i64()?;
        i32::try_from(pid).ok()
    }

    /// Lets it reload, and waits for the end of that: `Ok` when the new generation is kept, else why it is not.
    pub fn reload(&mut self, limit: Duration) -> Result<Result<(), String>, DoctorError> {
        let mut asking = Command::new(&self.boot)
            .args(["reload", "--json", &self.child.id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(DoctorError::io("ask for a reload"))?;
        let ended = wait_for(limit, || asking.try_wait().map_err(DoctorError::io("wait for a reload")));
        if !matches!(ended, Ok(Some(_))) {
            let _ = asking.kill();
        }
        let answer = asking.wait_with_output().map_err(DoctorError::io("wait for a reload"))?;
        if ended?.is_none() {
            return Ok(Err(format!("it took more than {} s", limit.as_secs())));
        }
        let end: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        Ok(match (end["state"].as_str(), end["detail"].as_str()) {
            (Some("proven"), _) => Ok(()),
            (_, Some(why)) => Err(why.to_owned()),
            (Some(state), None) => Err(state.to_owned()),
            (None, None) => return Err(self.does_not("answer")),
        })
    }

    /// Asks it to stop the program and to end.
    pub fn terminate(&self) {
        // The child has not been reaped, so that nobody else has its pid; one that has ended is no error.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        for _ in 0..URGED_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            self.terminate();
            let mut waited = Duration::ZERO;
            while waited < URGE && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::park_timeout(GLANCE);
                waited += GLANCE;
            }
        }
        // Nobody is left who could be told of a failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
