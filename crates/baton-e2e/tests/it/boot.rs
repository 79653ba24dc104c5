//! A bootloader as a real process, in a folder of its own.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

pub use baton_e2e::ports::free_address;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{wait_for, wait_or_tell};

/// A binary of this workspace: they all lie beside each other.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found = test.ancestors().nth(2).unwrap().join(name);
    assert!(found.is_file(), "there is no {}: run `cargo build --workspace` first", found.display());
    found
}

/// How often the examples are asked how they are.
const EVERY_SECOND: &str = "interval        = \"1s\"";
/// How long they may take to answer.
const PATIENT: &str = "timeout         = \"20s\"";

/// A folder with an example in it, or empty.
pub struct Folder {
    directory: tempfile::TempDir,
}

impl Folder {
    pub fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// A folder with an example in it. On a busy machine its program has time to answer its probes.
    pub fn with_example(name: &str) -> Self {
        let folder = Self::copy_of(&Path::new("../../examples").join(name));
        if folder.read("baton.toml").contains(EVERY_SECOND) {
            folder.change("baton.toml", EVERY_SECOND, &format!("{EVERY_SECOND}\n{PATIENT}"));
        }
        folder
    }

    /// The example's program hangs when it has not answered for so long.
    pub fn hangs_after(&self, timeout: &str) {
        self.change("baton.toml", PATIENT, &format!("timeout = \"{timeout}\""));
    }

    /// A folder with the program of a guide in it.
    #[cfg(feature = "guides")]
    pub fn with_app(name: &str) -> Self {
        Self::copy_of(&Path::new("apps").join(name))
    }

    fn copy_of(path: &Path) -> Self {
        let folder = Self::empty();
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        folder
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    /// Replaces a text in a file.
    pub fn change(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path().join(file)).unwrap();
        assert!(text.contains(from), "{file} does not contain {from:?}");
        self.write(file, &text.replace(from, to));
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).unwrap_or_default()
    }
}

/// An empty file for the words of a bootloader. One that another one still writes to gets both, and neither over the
/// other's.
fn log_file(path: &Path) -> File {
    File::create(path).unwrap();
    File::options().append(true).open(path).unwrap()
}

/// A running bootloader. It is killed with the value.
pub struct Boot {
    child: Child,
    log: PathBuf,
}

impl Boot {
    /// Starts one in this folder, with these arguments and variables.
    pub fn start(folder: &Folder, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let output = File::create(folder.path().join("output")).unwrap();
        Self::start_into(output.into(), folder, arguments, variables)
    }

    /// Starts one from a file of its own.
    pub fn start_copy(copy: &Path, folder: &Folder, variables: &[(&str, &str)]) -> Self {
        fs::copy(binary("baton-boot"), copy).unwrap();
        let log = folder.path().join("log");
        let mut command = command_of(copy, folder, &[]);
        command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(log_file(&log));
        Self { child: command.spawn().unwrap(), log }
    }

    /// Starts one whose standard output goes somewhere else.
    pub fn start_into(
        output: Stdio,
        folder: &Folder,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let log = folder.path().join("log");
        let mut command = command(folder, arguments);
        command.envs(variables.iter().copied()).stdout(output).stderr(log_file(&log));
        Self { child: command.spawn().unwrap(), log }
    }

    /// Starts one by a command that becomes it, or has it as its child.
    pub fn start_under(before: &[&str], folder: &Folder, arguments: &[&str]) -> Self {
        let (log, boot) = (folder.path().join("log"), binary("baton-boot"));
        let (program, rest) = before.split_first().unwrap();
        let arguments = [rest, &[boot.to_str().unwrap()], arguments].concat();
        let mut command = command_of(Path::new(program), folder, &arguments);
        let output = File::create(folder.path().join("output")).unwrap();
        command.stdout(output).stderr(log_file(&log));
        Self { child: command.spawn().unwrap(), log }
    }

    /// Starts one whose standard output and error go to the same place.
    pub fn start_both_into(output: OwnedFd, folder: &Folder) -> Self {
        let mut command = command(folder, &[]);
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Self { child: command.spawn().unwrap(), log: folder.path().join("log") }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until this many lines of the log contain a text.
    pub fn wait_for(&self, text: &str, times: usize) {
        wait_or_tell(
            || format!("{times} × {text:?} in\n{}", self.log()),
            || (self.log().lines().filter(|line| line.contains(text)).count() >= times).then_some(()),
        );
    }

    /// How it says that it stands.
    pub fn status(&self) -> serde_json::Value {
        let mut command = Command::new(binary("baton-boot"));
        let asked = command.args(["status", "--json", &self.pid().to_string()]).output().unwrap();
        assert!(asked.status.success(), "{asked:?}");
        serde_json::from_slice(&asked.stdout).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn exit(mut self) -> ExitStatus {
        wait_for("the bootloader to exit", || self.child.try_wait().unwrap())
    }

    pub fn stop(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exit()
    }
}

fn command(folder: &Folder, arguments: &[&str]) -> Command {
    command_of(&binary("baton-boot"), folder, arguments)
}

fn command_of(program: &Path, folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("BATON_STATE_DIR", folder.path().join("state"))
        .stdin(Stdio::null());
    command
}

impl Drop for Boot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the bootloader said:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
