//! Members as processes of this machine: for development, demonstrations and tests.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use baton_core::ids::{MemberId, ServiceName};
use baton_sys::parent::end_with_parent;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long a member that is dropped may take to stop its program before it is killed: longer than most
/// programs drain, short enough for a person who waits for the prompt.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What the starter was given for itself and a member must not take for its own.
const NOT_INHERITED: [&str; 4] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET"];

/// One member to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The bootloader's binary.
    pub boot: PathBuf,
    /// Address of control: `http://127.0.0.1:7400`.
    pub server: String,
    /// The service that it is a member of.
    pub service: ServiceName,
    /// Its name, unique within the service.
    pub member: MemberId,
    /// The directory where it keeps its releases and what it has committed; its own, kept over restarts. Its whole path; made
    /// if it is not there.
    pub state_dir: PathBuf,
    /// Where it listens instead of where the release says: the name of the listen setting, and the address.
    pub listen: Vec<(String, SocketAddr)>,
    /// Variables over those of this process.
    pub env: Vec<(String, String)>,
    /// The file to which its output and its program's are appended.
    pub output: PathBuf,
}

/// What went wrong with a member's process.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The output file cannot be opened.
    #[error("cannot write the output of member {member} to {}", path.display())]
    Output {
        /// The member.
        member: MemberId,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state directory cannot be made.
    #[error("cannot make the state directory {} of member {member}", path.display())]
    StateDir {
        /// The member.
        member: MemberId,
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bootloader cannot be started.
    #[error("cannot start member {member} with {}: build baton-boot, or say where it is", boot.display())]
    Start {
        /// The member.
        member: MemberId,
        /// The binary that was to be started.
        boot: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process cannot be signalled or waited for.
    #[error("cannot {what} member {member}")]
    Process {
        /// What was attempted.
        what: &'static str,
        /// The member.
        member: MemberId,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A member that was started here.
///
/// It ends with this value: dropping it terminates the member, and kills it if it takes longer than 10 seconds.
/// It is also told to end when the thread that started it ends, be it because the process was killed.
#[derive(Debug)]
pub struct LocalMember {
    member: MemberId,
    child: Child,
}

impl LocalMember {
    /// Starts the bootloader, in a process group of its own so that Ctrl-C in the terminal reaches only the
    /// starter. Call it from a thread that lives as long as the member shall.
    ///
    /// # Errors
    /// The output file cannot be opened, or the binary cannot be started.
    pub fn start(spec: &Spec) -> Result<Self, LocalError> {
        let output =
            |source| LocalError::Output { member: spec.member.clone(), path: spec.output.clone(), source };
        fs::create_dir_all(&spec.state_dir).map_err(|source| LocalError::StateDir {
            member: spec.member.clone(),
            path: spec.state_dir.clone(),
            source,
        })?;
        let file = OpenOptions::new().create(true).append(true).open(&spec.output).map_err(output)?;
        let copy = file.try_clone().map_err(output)?;
        let child = end_with_parent(&mut command(spec, file, copy)).spawn();
        let start =
            |source| LocalError::Start { member: spec.member.clone(), boot: spec.boot.clone(), source };
        Ok(Self { member: spec.member.clone(), child: child.map_err(start)? })
    }

    /// Its name.
    pub const fn member(&self) -> &MemberId {
        &self.member
    }

    /// The process id of its bootloader.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop its program in peace and to end (SIGTERM). One that has ended is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn terminate(&mut self) -> Result<(), LocalError> {
        self.signal("terminate", Signal::TERM)
    }

    /// Ends its bootloader at once (SIGKILL), as a crash would. One that has ended is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<(), LocalError> {
        self.signal("kill", Signal::KILL)
    }

    /// Waits until its bootloader has ended, at most for `limit`; nothing when it has not.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>, LocalError> {
        self.wait_for_exit(limit).map_err(|source| self.error("wait for", source))
    }

    fn wait_for_exit(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // The child has not been reaped, so its pid cannot have been given to another process.
            let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn signal(&mut self, what: &'static str, signal: Signal) -> Result<(), LocalError> {
        let ended = self.child.try_wait().map_err(|source| self.error(what, source))?;
        if ended.is_some() {
            return Ok(());
        }
        // As above: not reaped, so this is the child.
        kill_process(Pid::from_child(&self.child), signal).map_err(|errno| self.error(what, errno.into()))
    }

    fn error(&self, what: &'static str, source: io::Error) -> LocalError {
        LocalError::Process { what, member: self.member.clone(), source }
    }
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        let ended = self.terminate().and_then(|()| self.wait(STOP_LIMIT));
        if !matches!(ended, Ok(Some(_))) {
            // Nobody is left who could be told of a failure.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn command(spec: &Spec, stdout: File, stderr: File) -> Command {
    let mut command = Command::new(&spec.boot);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    for_itself(&mut command)
        .env("BATON_SERVER", &spec.server)
        .env("BATON_SERVICE", spec.service.as_str())
        .env("BATON_MEMBER", spec.member.as_str())
        .env("BATON_STATE_DIR", &spec.state_dir)
        .env("BATON_LISTEN", listen_text(&spec.listen))
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        // Where no settings lie: it runs what control says, not what its starter happens to stand in.
        .current_dir(&spec.state_dir)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0);
    command
}

/// Takes the settings of Baton away that the starter was given for itself: which server it asks with which token, and where a
/// server of its own would keep its state.
pub fn for_itself(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"BATON_") {
            command.env_remove(name);
        }
    }
    command
}

/// `http=127.0.0.1:9001,admin=127.0.0.1:9002`, as `BATON_LISTEN` has it.
fn listen_text(listen: &[(String, SocketAddr)]) -> String {
    let one = |(name, address): &(String, SocketAddr)| format!("{name}={address}");
    listen.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_member_listens_is_one_text() {
        let http = ("http".to_owned(), "127.0.0.1:9001".parse().unwrap());
        let admin = ("admin".to_owned(), "[::1]:9002".parse().unwrap());
        assert_eq!(listen_text(&[]), "");
        assert_eq!(listen_text(std::slice::from_ref(&http)), "http=127.0.0.1:9001");
        assert_eq!(listen_text(&[http, admin]), "http=127.0.0.1:9001,admin=[::1]:9002");
    }
}
