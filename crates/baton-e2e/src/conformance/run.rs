//! One program under one init, in a namespace of its own, watched from outside.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use baton_core::signal::Signal;
use baton_sys::process::{self, Process};

use super::init::Init;
use super::look;

/// How long to wait for what should happen at once, or within the 2 s of a stop limit of 1 s and its second
/// of grace: ten times that, since machines are shared and noisy.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often to look whether something has happened.
const GLANCE: Duration = Duration::from_millis(1);
/// How much of what an init wrote is shown when something else was expected of it.
const SAID_BYTES_MAX: usize = 300;
/// How much of a program's output is kept: more than any check writes.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Stands for the folder of a run in the words of commands.
pub const FOLDER: &str = "{folder}";

/// Something that was to be seen in time was not.
#[derive(Debug, thiserror::Error)]
#[error("{what}{said}")]
pub struct NotSeen {
    what: String,
    said: String,
}

/// The programs that checks need.
#[derive(Debug)]
pub struct Tools {
    /// `baton-nasty`.
    pub nasty: PathBuf,
    namespace: Vec<&'static str>,
}

impl Tools {
    /// Finds out how a namespace can be made here: as root, or as a user who may make user namespaces.
    ///
    /// # Errors
    /// If it cannot.
    pub fn new(nasty: PathBuf) -> anyhow::Result<Self> {
        // No signal may be ignored because of whoever started us, and nothing may survive us.
        let mut namespace =
            vec!["--default-signal", "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
        if !rustix::process::geteuid().is_root() {
            namespace.extend(["--user", "--map-root-user"]);
        }
        let tried = Command::new("env").args(&namespace).args(["--", "true"]).output();
        let tried = tried.context("there is no env")?;
        let said = String::from_utf8_lossy(&tried.stderr);
        anyhow::ensure!(
            tried.status.success(),
            "cannot make a PID namespace: {}; be root, or allow user namespaces",
            said.trim()
        );
        Ok(Self { nasty, namespace })
    }
}

/// What a program is started with, where that is not the usual.
#[derive(Debug, Default)]
pub struct Setting {
    /// When the init shall kill a program that does not stop; its default if nothing is said.
    pub stop_limit: Option<Duration>,
    /// Variables beside the usual.
    pub variables: Vec<(OsString, OsString)>,
    /// A command that becomes PID 1 and then the init; [`FOLDER`] in it is the run's folder.
    pub before: Vec<&'static str>,
    /// Where input comes from and output goes.
    pub streams: Streams,
}

/// Where input comes from and output goes.
#[derive(Debug, Default)]
pub enum Streams {
    /// No input; output is kept.
    #[default]
    Kept,
    /// This input; output is kept.
    Fed(Vec<u8>),
    /// No input; nobody reads the output.
    Unread,
    /// A terminal.
    Terminal(OwnedFd),
}

/// An init that is held against a check.
#[derive(Debug)]
pub struct Bench<'a> {
    init: &'a Init,
    tools: &'a Tools,
}

impl<'a> Bench<'a> {
    /// A bench for this init.
    pub fn new(init: &'a Init, tools: &'a Tools) -> Self {
        Self { init, tools }
    }

    /// Whom it is for.
    pub fn init(&self) -> &'a Init {
        self.init
    }

    /// Starts a program under the init.
    pub fn run(&self, program: &[&str]) -> anyhow::Result<Run> {
        self.run_with(program, Setting::default())
    }

    /// Starts a nasty program under the init.
    pub fn nasty(&self, behaviour: &[&str]) -> anyhow::Result<Run> {
        self.nasty_with(behaviour, Setting::default())
    }

    /// Starts a nasty program under the init, in a certain setting.
    pub fn nasty_with(&self, behaviour: &[&str], setting: Setting) -> anyhow::Result<Run> {
        let nasty = self.tools.nasty.to_str().context("the path of baton-nasty is not a text")?;
        let program: Vec<&str> = [nasty, "{folder}/report"].iter().chain(behaviour).copied().collect();
        self.run_with(&program, setting)
    }

    /// Starts a program under the init, in a certain setting; [`FOLDER`] in its words is the run's folder.
    pub fn run_with(&self, program: &[&str], setting: Setting) -> anyhow::Result<Run> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let place =
            folder.path().to_str().context("the folder for temporary files is not a text")?.to_owned();
        let program: Vec<String> = program.iter().map(|word| word.replace(FOLDER, &place)).collect();
        let before = setting.before.iter().map(|word| word.replace(FOLDER, &place));
        let mut command = Command::new("env");
        command
            .args(&self.tools.namespace)
            .arg("--")
            .args(before)
            .args(self.init.command(folder.path(), &program, setting.stop_limit)?)
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            // Every namespace has a PID 1: those of runs at the same time must not share a state.
            .env("BATON_STATE_DIR", folder.path().join("state"))
            .envs(setting.variables);
        Run::start(command, setting.streams, folder)
    }
}

/// A running init. It and everything in its namespace is killed with the value.
pub struct Run {
    unshare: Child,
    folder: tempfile::TempDir,
    stdout: Option<mpsc::Receiver<Vec<u8>>>,
    stderr: Option<mpsc::Receiver<Vec<u8>>>,
    started: Instant,
}

impl Run {
    fn start(mut command: Command, streams: Streams, folder: tempfile::TempDir) -> anyhow::Result<Self> {
        match &streams {
            Streams::Kept | Streams::Unread => command.stdin(Stdio::null()),
            Streams::Fed(_) => command.stdin(Stdio::piped()),
            Streams::Terminal(terminal) => command.stdin(terminal.try_clone()?),
        };
        match &streams {
            Streams::Terminal(terminal) => {
                command.stdout(terminal.try_clone()?).stderr(terminal.try_clone()?);
            }
            Streams::Kept | Streams::Fed(_) | Streams::Unread => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let started = Instant::now();
        let mut unshare = command.spawn().context("cannot start env")?;
        let (mut stdout, mut stderr) =
            (unshare.stdout.take().map(collect), unshare.stderr.take().map(collect));
        if let Streams::Unread = streams {
            (stdout, stderr) = (None, None);
        }
        if let (Streams::Fed(bytes), Some(mut stdin)) = (streams, unshare.stdin.take()) {
            // It may be more than the pipe holds, and an init that does not pass it on never reads it.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        Ok(Self { unshare, folder, stdout, stderr, started })
    }

    /// Where the program and its init were started; `report` is in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The lines that the nasty program has reported.
    pub fn report(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("report")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How often the nasty program has reported this line.
    pub fn reported(&self, line: &str) -> usize {
        self.report().iter().filter(|reported| *reported == line).count()
    }

    /// Waits until the nasty program has reported a line.
    ///
    /// # Errors
    /// [`NotSeen`] if it does not.
    pub fn wait_for_line(&mut self, line: &str) -> anyhow::Result<()> {
        self.wait_for(&format!("the program did not say {line:?}"), |run| {
            (run.reported(line) > 0).then_some(())
        })
    }

    /// Waits until there is a value.
    ///
    /// # Errors
    /// [`NotSeen`] with these words if there is none, or the init ends without.
    pub fn wait_for<T>(&mut self, or: &str, mut look: impl FnMut(&Self) -> Option<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            // In this order: what came just before the end counts.
            let ended = self.unshare.try_wait()?;
            if let Some(value) = look(self) {
                return Ok(value);
            }
            if ended.is_some() || start.elapsed() > PATIENCE {
                return Err(self.not_seen(or, ended).into());
            }
            std::thread::park_timeout(GLANCE);
        }
    }

    fn not_seen(&mut self, what: &str, ended: Option<ExitStatus>) -> NotSeen {
        let mut said = ended.map(|status| format!(", the init ended with {status}")).unwrap_or_default();
        let _ = self.kill();
        let text = self.stderr();
        if !text.is_empty() {
            let text =
                String::from_utf8_lossy(&text[text.len().saturating_sub(SAID_BYTES_MAX)..]).into_owned();
            said.push_str(&format!(", saying {:?}", text.trim()));
        }
        NotSeen { what: what.to_owned(), said }
    }

    /// The init itself.
    ///
    /// # Errors
    /// [`NotSeen`] if there is none.
    pub fn init(&mut self) -> anyhow::Result<Process> {
        self.wait_for("no init was there", Self::find_init)
    }

    fn find_init(&self) -> Option<Process> {
        let unshare = i32::try_from(self.unshare.id()).ok()?;
        process::all().ok()?.into_iter().find(|process| process.parent == unshare)
    }

    /// The process in the namespace that runs a program with this name.
    ///
    /// # Errors
    /// [`NotSeen`] if there is none.
    pub fn program(&mut self, name: &str) -> anyhow::Result<Process> {
        let init = self.init()?.pid;
        self.wait_for(&format!("the program {name} was not started"), |_| {
            let found = look::family(init).ok()?.into_iter();
            found.filter(|process| process.pid != init).find(|process| look::name(process.pid) == name)
        })
    }

    /// The descriptors that the init was given, which it may give to the program.
    ///
    /// # Errors
    /// If nothing is there any more.
    pub fn descriptors(&self) -> std::io::Result<Vec<(i32, String)>> {
        look::descriptors(self.unshare.id().try_into().unwrap_or_default())
    }

    /// Sends the init a signal. One that has ended gets none.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        let init = self.init()?;
        Ok(process::signal(init, signal)?)
    }

    /// Waits for the init's end and returns how it ended.
    ///
    /// # Errors
    /// [`NotSeen`] if it does not end.
    pub fn end(&mut self) -> anyhow::Result<ExitStatus> {
        self.end_within(PATIENCE)
    }

    /// Waits so long for the init's end and returns how it ended.
    ///
    /// # Errors
    /// [`NotSeen`] if it does not end.
    pub fn end_within(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.unshare.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                let what = format!("the init did not end within {} s", limit.as_secs());
                return Err(self.not_seen(&what, None).into());
            }
            std::thread::park_timeout(GLANCE);
        }
    }

    /// Whether the init has ended.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.unshare.try_wait()?.is_some())
    }

    /// Sends TERM, waits for the init's end, and returns how it ended.
    ///
    /// # Errors
    /// [`NotSeen`] if it does not end.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.end()
    }

    /// Everything that was written to standard output, once all who could write have ended.
    pub fn stdout(&mut self) -> Vec<u8> {
        self.stdout.take().and_then(|collected| collected.recv().ok()).unwrap_or_default()
    }

    /// The same of standard error.
    pub fn stderr(&mut self) -> Vec<u8> {
        self.stderr.take().and_then(|collected| collected.recv().ok()).unwrap_or_default()
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        if self.unshare.try_wait()?.is_none() {
            // Itself, as a PID 1 that has changed its user no longer dies with its parent.
            if let Some(init) = self.find_init() {
                process::signal(init, Signal::KILL)?;
            }
            self.unshare.kill()?;
            self.unshare.wait()?;
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Reads a stream to its end, on a thread.
fn collect(stream: impl Into<OwnedFd>) -> mpsc::Receiver<Vec<u8>> {
    let (done, collected) = mpsc::channel();
    let stream = File::from(stream.into());
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        done.send(bytes)
    });
    collected
}
