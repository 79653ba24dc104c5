//! A program by itself, without Baton: where it listens, whether it says that it is ready, whether it becomes a daemon.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_core::doctor::{Place, Process};
use baton_core::exit::Exit;
use baton_core::placeholder::{self, Placeholder};
use baton_core::run::RunSettings;
use baton_core::signal::Signal;
use baton_core::units::Millis;
use baton_sys::parent::end_with_parent;
use baton_sys::process::{become_subreaper, signal};
use baton_sys::spawn::find_program;
use rustix::process::Pid;

use super::http::Connection;
use super::stop::{code_of, millis};
use super::{DoctorError, GLANCE, look, wait_for};

/// How long a program may take to become a daemon, when it ended at once before.
const DAEMON_LIMIT: Duration = Duration::from_secs(10);
/// How long nothing new must come: programs open one socket after the other.
const SETTLED: Duration = Duration::from_millis(300);
/// How long a program may take to end when it is asked, before it is killed, and to be gone then.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long an answer may take while it is found out which path tells how the program is.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Where programs say how they are, the most usual first; the first page is better than nothing.
const HEALTH_PATHS: [&str; 7] = ["/health", "/healthz", "/up", "/ready", "/readyz", "/ping", "/"];
/// A path that nobody serves: what answers it with success answers everything so, and says nothing by that.
const NO_PATH: &str = "/baton-init-looks-for-a-page-that-is-not-there";
/// How many lines of output are shown.
const LAST_LINES: usize = 10;
/// More than any message of `sd_notify(3)` has.
const NOTICE_MAX: usize = 4096;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    /// Where it is started.
    pub directory: &'a Path,
    /// `$PORT`, if it shall have one.
    pub port: Option<u16>,
    /// How long it may take to listen.
    pub wait: Duration,
}

/// What a program that was run by itself does.
#[derive(Debug)]
pub struct Bare {
    /// How it ended by itself, if it did.
    pub ended: Option<String>,
    /// Its processes that were left when its main process had ended.
    pub left_behind: Vec<String>,
    /// Its processes.
    pub processes: Vec<Process>,
    /// Where it listens, and which path of it answers with success.
    pub listening: Vec<(Place, Option<(String, u16)>)>,
    /// How long after its start it listened or was ready.
    pub after: Option<Millis>,
    /// It said that it is ready.
    pub notifies: bool,
    /// What it wrote last.
    pub last_lines: Vec<String>,
}

/// Runs a program until it listens or says that it is ready, looks at it, and ends it and all that it has started.
///
/// # Errors
/// It cannot be started.
pub fn run_bare(order: &Order<'_>) -> Result<Bare, DoctorError> {
    let folder = tempfile::Builder::new().prefix("baton-init-").tempdir();
    let folder = folder.map_err(DoctorError::io("make a temporary folder"))?;
    let port = order.port.map(|port| (OsString::from("PORT"), port.to_string().into()));
    let mut program =
        Program::start(order.command, order.directory, folder.path(), port.into_iter().collect())?;
    let mut settled: Option<(Vec<Place>, Instant)> = None;
    let mut after = None;
    wait_for(order.wait, || {
        program.hear();
        if program.ended()?.is_some() {
            return Ok(Some(()));
        }
        let places = look::places(&look::below(own_pid()));
        if places.is_empty() && !program.notifies {
            return Ok(None);
        }
        after.get_or_insert(millis(program.started.elapsed()));
        let known = settled.take().filter(|(known, _)| *known == places);
        let (places, since) = known.unwrap_or_else(|| (places, Instant::now()));
        let done = since.elapsed() > SETTLED;
        settled = Some((places, since));
        Ok(done.then_some(()))
    })?;
    let ended = program.ended()?;
    if ended.is_some() {
        // What was just forked becomes what it will be.
        wait_for(SETTLED, || Ok(None::<()>))?;
    }
    let below = look::below(own_pid());
    let places = if ended.is_some() { Vec::new() } else { look::places(&below) };
    Ok(Bare {
        left_behind: if ended.is_some() { look::names(&below) } else { Vec::new() },
        ended,
        processes: look::describe(&below, program.pid()),
        listening: places.into_iter().map(|place| (place.clone(), success(&place))).collect(),
        after,
        notifies: program.notifies,
        last_lines: program.last_lines(),
    })
}

/// The processes that a program leaves behind when its main process ends: those of a daemon.
///
/// # Errors
/// It cannot be started.
pub fn left_behind(run: &RunSettings, directory: &Path, folder: &Path) -> Result<Vec<String>, DoctorError> {
    let port = |name: &str| {
        run.listen.iter().find(|listen| listen.name == name).and_then(|listen| listen.address.port())
    };
    let fill = |word: &String| {
        placeholder::expand(word, |placeholder| match placeholder {
            Placeholder::Port(name) => {
                Ok::<_, std::convert::Infallible>(port(name).unwrap_or_default().to_string())
            }
            Placeholder::Path(name) => Ok(folder.join(format!("{name}.sock")).to_string_lossy().into_owned()),
            // Nothing is passed: a daemon closes it anyway.
            Placeholder::Fd(_) => Ok("0".to_owned()),
        })
        .unwrap_or_else(|never| match never {})
    };
    let command: Vec<String> = run.command.iter().map(fill).collect();
    let first = run.listen.iter().find_map(|listen| listen.address.port());
    let first = first.map(|port| ("PORT".into(), port.to_string().into()));
    let own = run.env.iter().map(|(name, value)| (name.into(), value.into()));
    let mut program = Program::start(&command, directory, folder, own.chain(first).collect())?;
    wait_for(DAEMON_LIMIT, || program.ended())?;
    // What was just forked becomes what it will be.
    wait_for(SETTLED, || Ok(None::<()>))?;
    Ok(look::names(&look::below(own_pid())))
}

/// The path that answers with success and says something by it.
fn success(place: &Place) -> Option<(String, u16)> {
    let Place::Tcp(address) = place else { return None };
    let says_anything = is_success(status(*address, NO_PATH)?);
    let paths = HEALTH_PATHS.iter().filter(|path| !says_anything || **path == "/");
    paths
        .filter_map(|path| Some(((*path).to_owned(), status(*address, path)?)))
        .find(|(_, status)| is_success(*status))
}

/// As `run.health.status` has it when nothing is said.
fn is_success(status: u16) -> bool {
    (200..400).contains(&status)
}

fn status(address: SocketAddr, path: &str) -> Option<u16> {
    let mut connection = Connection::open(address, ANSWER_LIMIT).ok()?;
    connection.get(path).ok()?;
    Some(connection.answer(ANSWER_LIMIT).ok()?.status)
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// A running program. It and all that it has started end with the value.
struct Program {
    child: Child,
    started: Instant,
    output: std::path::PathBuf,
    notices: UnixDatagram,
    notifies: bool,
}

impl Program {
    fn start(
        command: &[String],
        directory: &Path,
        folder: &Path,
        variables: Vec<(OsString, OsString)>,
    ) -> Result<Self, DoctorError> {
        // Whatever it leaves behind becomes a child of this process, and is found by that.
        become_subreaper().map_err(DoctorError::io("watch over processes"))?;
        let name = command.first().map_or("", String::as_str);
        let environment: Vec<_> = std::env::vars_os().collect();
        let file = find_program(name, directory, None, &environment)
            .map_err(|error| DoctorError::io(format!("start {name:?}"))(std::io::Error::other(error)))?;
        let socket = folder.join("notify");
        let notices = UnixDatagram::bind(&socket).map_err(DoctorError::io("open a notify socket"))?;
        notices.set_nonblocking(true).map_err(DoctorError::io("open a notify socket"))?;
        let output = folder.join("output");
        let written = File::create(&output).map_err(DoctorError::io("write to a folder"))?;
        let copy = written.try_clone().map_err(DoctorError::io("share a file"))?;
        let mut program = Command::new(file);
        program
            .args(&command[1..])
            .current_dir(directory)
            .env_remove("LISTEN_FDS")
            .env("NOTIFY_SOCKET", &socket)
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(written)
            .stderr(copy)
            .process_group(0);
        let started = Instant::now();
        let child =
            end_with_parent(&mut program).spawn().map_err(DoctorError::io(format!("start {name:?}")))?;
        Ok(Self { child, started, output, notices, notifies: false })
    }

    fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    /// Takes in what it has said of itself.
    fn hear(&mut self) {
        let mut message = [0; NOTICE_MAX];
        while let Ok(length) = self.notices.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]);
            self.notifies |= text.lines().any(|line| line == "READY=1");
        }
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Result<Option<String>, DoctorError> {
        let ended = self.child.try_wait().map_err(DoctorError::io("wait for the program"))?;
        Ok(ended.map(|status| Exit::Code(code_of(status)).sentence(millis(self.started.elapsed()))))
    }

    fn last_lines(&self) -> Vec<String> {
        let bytes = std::fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).map(|line| (*line).to_owned()).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        for asked in [Signal::TERM, Signal::KILL] {
            let until = Instant::now() + END_LIMIT;
            for process in look::below(own_pid()) {
                // One that has ended meanwhile is as good; one that may not be signalled cannot be ended.
                let _ = signal(process, asked);
            }
            while Instant::now() < until {
                // A zombie is none of those below, but this one is to be buried here.
                let _ = self.child.try_wait();
                let below = look::below(own_pid());
                if below.is_empty() {
                    return;
                }
                if asked == Signal::KILL {
                    below.into_iter().for_each(|process| drop(signal(process, Signal::KILL)));
                }
                std::thread::park_timeout(GLANCE);
            }
        }
    }
}
