//! Starts a program: a child, a few system calls, exec.
//!
//! The child shares our memory until it runs the program, as with `posix_spawn(3)`, and this thread waits for that.
//! Everything is laid out before. In the child nothing is allocated and only system calls are made, since other
//! threads go on, and may hold any lock.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::attributes::{self, Attributes, Limit};
use crate::descriptors;
use crate::intercept::filter::{self, Watch};
use crate::mount::{self, Mount, Mounting};

/// The first descriptor that a program finds its sockets at (`sd_listen_fds(3)`).
pub const LISTEN_FDS_START: RawFd = 3;

/// What to start, and with what.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program and its arguments. With a `/` in its name it is looked up beneath the working directory, else in
    /// `PATH` of its environment.
    pub command: &'a [String],
    /// The working directory.
    pub directory: &'a Path,
    /// Where the program finds it, if not there.
    pub mount: Option<&'a Mount>,
    /// The whole environment, without `LISTEN_PID` and `WATCHDOG_PID`, which only the child knows: the first is
    /// added when `sockets` is not empty, the other where there is a `WATCHDOG_USEC`.
    pub environment: &'a [(OsString, OsString)],
    /// Descriptors that the program finds at 3, 4, …
    pub sockets: &'a [BorrowedFd<'a>],
    /// Its standard output.
    pub stdout: BorrowedFd<'a>,
    /// Its standard error.
    pub stderr: BorrowedFd<'a>,
    /// Its standard input.
    pub stdin: Stdin<'a>,
    /// What else of its process is not as it is here.
    pub attributes: &'a Attributes,
}

/// Where a program's standard input comes from.
#[derive(Debug, Clone, Copy)]
pub enum Stdin<'a> {
    /// There is none.
    Null,
    /// This descriptor.
    From(BorrowedFd<'a>),
    /// Ours, which is a terminal: the program stays in our session, in a process group of its own.
    Terminal {
        /// The group becomes the terminal's foreground group, which is the one that reads and gets what is typed
        /// to interrupt.
        foreground: bool,
    },
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No such program.
    #[error("there is no program {program:?} in {place}")]
    NotFound {
        /// As it stands in the command.
        program: String,
        /// Where it was looked for.
        place: String,
    },
    /// A text has a NUL character, which no argument or variable can carry.
    #[error("{what} contains a NUL character")]
    Nul {
        /// Which text.
        what: String,
    },
    /// A system call failed.
    #[error("{step} failed for {program:?}")]
    Failed {
        /// Which one.
        step: &'static str,
        /// The program as found.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What the program binds cannot be watched here: a sandbox refuses it, or a supervisor above this one
    /// watches already (`EBUSY`). The program did not start; [`spawn`] starts it without.
    #[error("cannot watch what {program:?} binds: {step} failed")]
    CannotIntercept {
        /// Which system call.
        step: &'static str,
        /// The program as found.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The working directory cannot be mounted elsewhere.
    #[error("cannot mount the program's files at {at}: {step} failed. It takes the capability CAP_SYS_ADMIN, Linux 5.12 \
        and a folder there to mount on: give these, or leave run.mount out", at = at.display())]
    CannotMount {
        /// Where.
        at: PathBuf,
        /// Which system call.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Where the program of a command is: with a `/` in its name beneath `directory`, which it finds at `mount` where there
/// is one, else in `PATH` of the environment that it will get.
pub fn find_program(
    program: &str,
    directory: &Path,
    mount: Option<&Mount>,
    environment: &[(OsString, OsString)],
) -> Result<PathBuf, SpawnError> {
    let not_found = |place: String| SpawnError::NotFound { program: program.to_owned(), place };
    let here = |path: PathBuf| mount.map_or_else(|| path.clone(), |mount| mount.outside(directory, &path));
    if program.contains('/') {
        let path = here(directory.join(program));
        return if path.exists() { Ok(path) } else { Err(not_found(directory.display().to_string())) };
    }
    let path = environment.iter().rfind(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    let runnable =
        |found: &PathBuf| rustix::fs::access(found, rustix::fs::Access::EXEC_OK).is_ok() && found.is_file();
    std::env::split_paths(path)
        .map(|place| here(directory.join(place).join(program)))
        .find(runnable)
        .ok_or_else(|| not_found(format!("PATH ({})", path.to_string_lossy())))
}

/// Starts the program in a session of its own, or on our terminal in a process group of its own, and returns
/// its pid.
///
/// The caller reaps it. An error that happens in the child before the program runs is returned here, and that
/// child is reaped here.
pub fn spawn(what: &Spawn<'_>) -> Result<i32, SpawnError> {
    let program = program_of(what)?;
    start(Image::prepare(what, &program, None)?, &program)
}

/// Starts the program like [`spawn`], so that it and all its descendants wait in `bind` for an answer, and
/// returns the descriptor on which these calls arrive: for [`Interceptor::start`](crate::intercept::Interceptor),
/// at once. None of them gains privileges from an executable any more (`PR_SET_NO_NEW_PRIVS`), which the kernel
/// asks for.
///
/// # Errors
/// [`SpawnError::CannotIntercept`] where this system does not allow it; then nothing runs.
pub fn spawn_intercepted(what: &Spawn<'_>) -> Result<(i32, OwnedFd), SpawnError> {
    let program = program_of(what)?;
    let refused = |step, source| SpawnError::CannotIntercept { step, program: program.clone(), source };
    let (watch, handed) = Watch::prepare().map_err(|error| refused("socketpair", error))?;
    let pid = start(Image::prepare(what, &program, Some(watch))?, &program)?;
    match filter::take(handed) {
        Ok(notify) => Ok((pid, notify)),
        Err(error) => {
            // Without the descriptor every `bind` of the program would fail.
            let _ = rustix::process::Pid::from_raw(pid)
                .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
            reap(pid);
            Err(refused("recvmsg", error))
        }
    }
}

/// Where the child finds its program.
fn program_of(what: &Spawn<'_>) -> Result<PathBuf, SpawnError> {
    let program = what.command.first().map_or("", String::as_str);
    let found = find_program(program, what.directory, what.mount, what.environment)?;
    Ok(what.mount.map_or_else(|| found.clone(), |mount| mount.inside(what.directory, &found)))
}

fn start(mut image: Image, program: &Path) -> Result<i32, SpawnError> {
    let failed = |step, source| SpawnError::Failed { step, program: program.into(), source };
    let at = image.mounting.as_ref().map(Mounting::at).map(|at| OsStr::from_bytes(at.to_bytes()).into());
    let mut stack = Stack::new();
    // The child uses our memory, and we wait until it has become the program or has ended (`man 2 vfork`): a copy
    // of all page tables would cost more than everything else here, and as much again when pages are written to.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let what = (&raw mut image).cast();
    // SAFETY: the stack and the image outlive the child's use of them, as this thread waits for its end; the child
    // keeps to `Image::become_it`, which makes system calls and touches nothing but the image.
    let pid = without_signals(|| unsafe { libc::clone(become_program, stack.top(), flags, what) });
    if pid < 0 {
        return Err(failed("clone", io::Error::last_os_error()));
    }
    let Some((step, errno)) = image.failure else { return Ok(pid) };
    reap(pid);
    let source = io::Error::from_raw_os_error(errno);
    let step = STEPS.get(usize::from(step)).copied().unwrap_or("start");
    if let Some(at) = at.filter(|_| mount::STEPS.contains(&step)) {
        return Err(SpawnError::CannotMount { at, step, source });
    }
    if filter::STEPS.contains(&step) {
        return Err(SpawnError::CannotIntercept { step, program: program.into(), source });
    }
    Err(failed(step, source))
}

/// What the child does, in memory that it shares with us and on a stack of its own.
extern "C" fn become_program(image: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes its image, and waits until we are done with it.
    unsafe {
        let image = &mut *image.cast::<Image>();
        image.failure = Some(image.become_it());
        // Without the handlers of our exit, which are the parent's.
        libc::_exit(127)
    }
}

/// Runs it while no signal can be handled in this thread: a handler of ours must not run in the child, which has our
/// memory.
fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are initialised by the calls before they are used.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        let result = run();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        result
    }
}

/// Room for the few calls of the child.
#[repr(align(16))]
struct Stack([MaybeUninit<u8>; STACK_BYTES]);

/// Its deepest call, the one that sends a descriptor, needs less than a tenth.
const STACK_BYTES: usize = 32 * 1024;

impl Stack {
    fn new() -> Box<Self> {
        Box::new(Self([MaybeUninit::uninit(); STACK_BYTES]))
    }

    /// Where it begins: stacks grow downwards.
    fn top(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr_range().end.cast()
    }
}

fn reap(pid: i32) {
    let mut status = 0;
    // SAFETY: `pid` is our child, `status` is ours.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
}

/// The steps of the child that can fail, as they are named in errors.
const STEPS: [&str; 17] = [
    "setsid",
    "chdir",
    "dup2",
    "sigprocmask",
    "exec",
    filter::STEPS[0],
    filter::STEPS[1],
    filter::STEPS[2],
    attributes::STEPS[0],
    attributes::STEPS[1],
    attributes::STEPS[2],
    attributes::STEPS[3],
    attributes::STEPS[4],
    mount::STEPS[0],
    mount::STEPS[1],
    mount::STEPS[2],
    mount::STEPS[3],
];
/// Where the steps of the interception start among them.
const WATCH_STEPS: u8 = 5;
/// Where the steps of the attributes start.
const ATTRIBUTE_STEPS: u8 = 8;
/// Where those of the mount start.
const MOUNT_STEPS: u8 = 13;

/// The step that failed, as an index in [`STEPS`], and its errno.
type Failure = (u8, i32);

/// Everything that the child needs, in the form in which the kernel wants it.
struct Image {
    program: CString,
    directory: CString,
    _arguments: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    environment: Vec<Vec<u8>>,
    envp: Vec<*const libc::c_char>,
    /// Entries of `environment` whose digits only the child knows: index, and where the digits begin.
    own_pid: Vec<(usize, usize)>,
    /// From which descriptor to which, targets ascending from 0.
    descriptors: Vec<(RawFd, RawFd)>,
    watch: Option<Watch>,
    attributes: Attributes,
    /// How many descriptors it may have open, if not as many as we may.
    most_descriptors: Option<libc::rlimit>,
    mounting: Option<Mounting>,
    /// On the terminal, and whether in its foreground.
    terminal: Option<bool>,
    /// This process.
    parent: i32,
    _input: OwnedFd,
    /// What the child leaves when it could not become the program.
    failure: Option<Failure>,
}

const LISTEN_PID: &str = "LISTEN_PID=";
const WATCHDOG_PID: &str = "WATCHDOG_PID=";
/// A pid has at most 7 digits on Linux (`/proc/sys/kernel/pid_max`); one byte more ends the text.
const PID_ROOM: usize = 12;

impl Image {
    fn prepare(what: &Spawn<'_>, program: &Path, watch: Option<Watch>) -> Result<Self, SpawnError> {
        let text = |bytes: &[u8]| {
            let nul = |_| SpawnError::Nul { what: String::from_utf8_lossy(bytes).replace('\0', "\\0") };
            CString::new(bytes).map_err(nul)
        };
        let arguments =
            what.command.iter().map(|argument| text(argument.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let mut environment = Vec::new();
        for (name, value) in what.environment {
            let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
            environment.push(text(&entry)?.into_bytes_with_nul());
        }
        let watched = what.environment.iter().any(|(name, _)| name == "WATCHDOG_USEC");
        let mut own_pid = Vec::new();
        for (name, wanted) in [(LISTEN_PID, !what.sockets.is_empty()), (WATCHDOG_PID, watched)] {
            if wanted {
                own_pid.push((environment.len(), name.len()));
                let mut entry = name.as_bytes().to_vec();
                entry.resize(entry.len() + PID_ROOM, 0);
                environment.push(entry);
            }
        }
        let open_null = std::fs::File::open("/dev/null");
        let null: OwnedFd = open_null
            .map_err(|source| SpawnError::Failed { step: "open /dev/null", program: program.into(), source })?
            .into();
        let input = match what.stdin {
            Stdin::Null => null.as_raw_fd(),
            Stdin::From(input) => input.as_raw_fd(),
            Stdin::Terminal { .. } => 0,
        };
        let mut descriptors = vec![(input, 0), (what.stdout.as_raw_fd(), 1), (what.stderr.as_raw_fd(), 2)];
        descriptors.extend(what.sockets.iter().map(AsRawFd::as_raw_fd).zip(LISTEN_FDS_START..));
        let nul = || SpawnError::Nul { what: what.directory.display().to_string() };
        let mounting =
            what.mount.map(|mount| Mounting::prepare(mount, what.directory).ok_or_else(nul)).transpose()?;
        let directory = what.mount.map_or(what.directory, |mount| &mount.at);
        let limited = what.attributes.limits.iter().any(|(limit, _)| *limit == Limit::Files);
        let end = std::iter::once(std::ptr::null());
        let argv = arguments.iter().map(|argument| argument.as_ptr()).chain(end.clone()).collect();
        let envp = environment.iter().map(|entry| entry.as_ptr().cast()).chain(end).collect();
        Ok(Self {
            program: text(program.as_os_str().as_bytes())?,
            directory: text(directory.as_os_str().as_bytes())?,
            _arguments: arguments,
            argv,
            environment,
            envp,
            own_pid,
            descriptors,
            watch,
            attributes: what.attributes.clone(),
            mounting,
            most_descriptors: descriptors::given().filter(|_| !limited),
            terminal: match what.stdin {
                Stdin::Terminal { foreground } => Some(foreground),
                Stdin::Null | Stdin::From(_) => None,
            },
            parent: std::process::id().cast_signed(),
            _input: null,
            failure: None,
        })
    }

    /// Turns the child into the program; returns only if a step failed.
    ///
    /// # Safety
    /// Only in the child of [`start`], before anything else.
    unsafe fn become_it(&mut self) -> Failure {
        // SAFETY: plain system calls; every pointer was prepared before and is still alive.
        unsafe {
            let failed = |step| (step, *libc::__errno_location());
            if let Some(foreground) = self.terminal {
                libc::setpgid(0, 0);
                if foreground {
                    // Signals are still blocked, so that a process of the background may do this.
                    libc::tcsetpgrp(0, libc::getpid());
                }
            } else if libc::setsid() < 0 {
                return failed(0);
            }
            // Before descriptors move: its own may have the number of a target.
            if let Some(Err((step, errno))) = self.watch.as_ref().map(Watch::install) {
                return (WATCH_STEPS + step, errno.raw_os_error());
            }
            if !self.place_descriptors() {
                return failed(2);
            }
            // While it may: its user may be about to change.
            if let Some(Err(step)) = self.mounting.as_ref().map(|mounting| mounting.enter()) {
                return failed(MOUNT_STEPS + step);
            }
            // After descriptors were placed: fewer may be allowed than we have.
            if let Some(limit) = &self.most_descriptors
                && libc::setrlimit(libc::RLIMIT_NOFILE, limit) < 0
            {
                return failed(ATTRIBUTE_STEPS);
            }
            if let Err(step) = self.attributes.apply() {
                return failed(ATTRIBUTE_STEPS + step);
            }
            // A program whose supervisor was killed would keep its port from the next one. After the user was
            // changed, which clears it.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            // Killed before that, it has nobody told: nobody would ever end the program.
            if libc::getppid() != self.parent {
                libc::_exit(127);
            }
            if libc::chdir(self.directory.as_ptr()) < 0 {
                return failed(1);
            }
            if !reset_signals() {
                return failed(3);
            }
            for (index, digits) in &self.own_pid {
                if let Some(room) =
                    self.environment.get_mut(*index).and_then(|entry| entry.get_mut(*digits..))
                {
                    write_digits(room, libc::getpid());
                }
            }
            libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
            failed(4)
        }
    }

    unsafe fn place_descriptors(&mut self) -> bool {
        // SAFETY: as for `become_it`.
        unsafe {
            let end = self.descriptors.len() as RawFd;
            // First out of the way of every target, so that no copy lands on a descriptor still needed.
            for (from, _) in &mut self.descriptors {
                *from = libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, end);
                if *from < 0 {
                    return false;
                }
            }
            for (from, to) in &self.descriptors {
                if libc::dup2(*from, *to) < 0 {
                    return false;
                }
            }
            // Everything of ours is close-on-exec already; this is for what a library may have opened without.
            libc::syscall(libc::SYS_close_range, end, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            true
        }
    }
}

/// Gives the program the signal set-up of a fresh process.
unsafe fn reset_signals() -> bool {
    // SAFETY: the set is initialised before it is used; all calls are async-signal-safe.
    unsafe {
        // An ignored signal stays ignored over exec: Rust ignores SIGPIPE, and who knows what started us.
        for number in 1..=64 {
            libc::signal(number, libc::SIG_DFL);
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) == 0
    }
}

/// Writes a positive number in decimal, ended by a zero byte, without allocating.
fn write_digits(into: &mut [u8], number: i32) {
    let mut digits = [0u8; PID_ROOM];
    let (mut count, mut rest) = (0, number.unsigned_abs());
    while (rest > 0 || count == 0) && count < PID_ROOM {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    let ordered = digits[..count].iter().rev().chain(std::iter::once(&0));
    into.iter_mut().zip(ordered).for_each(|(place, digit)| *place = *digit);
}

/// Two connected descriptors, both close-on-exec: what is written to the second can be read from the first.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((read, write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn f2_a_program_whose_starter_was_killed_meanwhile_does_not_run() {
        let (_read, write) = pipe().unwrap();
        let command = ["true".to_owned()];
        let what = Spawn {
            command: &command,
            directory: Path::new("/"),
            mount: None,
            environment: &[("PATH".into(), "/usr/bin:/bin".into())],
            sockets: &[],
            stdout: write.as_fd(),
            stderr: write.as_fd(),
            stdin: Stdin::Null,
            attributes: &Attributes::default(),
        };
        let program = program_of(&what).unwrap();
        let ended = |image| {
            let pid = rustix::process::Pid::from_raw(start(image, &program).unwrap());
            let (_, status) =
                rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
            status.exit_status()
        };
        let image = || Image::prepare(&what, &program, None).unwrap();
        assert_eq!(ended(image()), Some(0));
        // Its parent is another one by now.
        assert_eq!(ended(Image { parent: image().parent + 1, ..image() }), Some(127));
    }

    #[test]
    fn a_pid_is_written_as_text() {
        for number in [1, 42, 4_194_304, i32::MAX] {
            let mut room = [b'x'; PID_ROOM];
            write_digits(&mut room, number);
            let end = room.iter().position(|byte| *byte == 0).unwrap();
            assert_eq!(std::str::from_utf8(&room[..end]).unwrap(), number.to_string());
        }
    }
}
