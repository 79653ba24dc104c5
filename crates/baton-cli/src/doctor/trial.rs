//! A program under a bootloader: started, looked at, reloaded under load, stopped, and started elsewhere.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use baton_core::doctor::{Given, Reaction, Reload, ReloadEnd, Seen, Start};
use baton_core::run::{Address, Listen, RunSettings};
use baton_core::settings::Settings;
use baton_core::units::Millis;
use baton_sys::process::Process;
use baton_sys::{listening, unix};

use super::http::Connection;
use super::load::Load;
use super::member::{Member, Spec};
use super::start::start;
use super::stop::{Asked, millis, stop};
use super::told::Told;
use super::{DoctorError, bare, look, wait_for};

/// What everything may take beyond what the settings allow: the machine may be busy.
const MORE: Duration = Duration::from_secs(10);
/// How many times as long as its first one the second start of a program may take.
const SLOWER: u32 = 3;
/// How long a listener may take to accept a connection, when the program is healthy.
const ACCEPTS: Duration = Duration::from_secs(1);
/// How long an answer may take that shows whether HTTP is spoken.
const SPEAKS: Duration = Duration::from_secs(2);

/// What is tried out, and how.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The bootloader's binary.
    pub boot: &'a Path,
    /// Where the program is started.
    pub directory: &'a Path,
    /// The settings file.
    pub file: &'a Path,
    /// What it says.
    pub settings: &'a Settings,
    /// A path that is answered quickly.
    pub path: &'a str,
    /// A path whose answer takes some seconds, if one is known.
    pub slow: Option<&'a str>,
    /// Reload it, and start it elsewhere too: not only start and stop it.
    pub thoroughly: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Examined {
    /// What was seen.
    pub seen: Seen,
    /// What the program wrote last, where it did not start.
    pub last_lines: Vec<String>,
}

impl Subject<'_> {
    /// How long it takes at the most: what the settings allow, as often as it is used.
    pub fn at_most(&self) -> Millis {
        let (run, bake) = (&self.settings.run, self.bake());
        // The first may be tried again with another way to listen, and so may the candidate of the reload.
        let starts = if self.thoroughly { 5 } else { 2 };
        let reload = if self.thoroughly { bake.0 + run.drain.0 } else { 0 };
        Millis(starts * run.startup_timeout.0 + reload + run.drain.0 + millis(MORE).0)
    }

    /// How long a reload bakes: a bootloader on its own takes that of the last phase.
    pub fn bake(&self) -> Millis {
        self.settings.policy.phases.last().map_or(Millis::ZERO, |phase| phase.bake)
    }
}

/// Tries a program out.
///
/// # Errors
/// It cannot be tried: somebody listens where it should, or the bootloader does not do its part.
pub fn examine(subject: &Subject<'_>) -> Result<Examined, DoctorError> {
    let run = &subject.settings.run;
    let folder = tempfile::Builder::new().prefix("baton-doctor-").tempdir();
    let folder = folder.map_err(DoctorError::io("make a temporary folder"))?;
    // Whoever is at a path, the bootloader names.
    for address in run.listen.iter().filter_map(|listen| listen.address.tcp()) {
        check_free(address)?;
    }
    let spec = Spec {
        boot: subject.boot,
        directory: subject.directory,
        settings: subject.file,
        folder: folder.path().join("first"),
        listen: Vec::new(),
    };
    let mut member = Member::start(&spec)?;
    let mut seen = start(&mut member, run, Duration::from_millis(2 * run.startup_timeout.0) + MORE)?;
    let started = match &mut seen.start {
        Start::Healthy(after) => Duration::from_millis(after.0),
        Start::Failed { why, left_behind } => {
            let last_lines = member.last_lines();
            drop(member);
            if why.starts_with("exit 0 ") {
                *left_behind = bare::left_behind(run, subject.directory, folder.path())?;
            }
            return Ok(Examined { seen, last_lines });
        }
    };
    look_at(&mut member, run, &mut seen)?;
    let asked = asked(subject);
    if subject.thoroughly {
        seen.reload = Some(reload(&mut member, subject, asked.as_ref())?);
    }
    seen.stop = Some(stop(&mut member, asked.as_ref(), run.drain)?);
    drop(member);
    if subject.thoroughly && run.listen.iter().any(|listen| listen.handover.passes_socket()) {
        let spec = Spec { folder: folder.path().join("second"), ..spec };
        seen.follows_port = Some(elsewhere(&spec, run, SLOWER * started + MORE)?);
    }
    Ok(Examined { seen, last_lines: Vec::new() })
}

fn check_free(address: SocketAddr) -> Result<(), DoctorError> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(DoctorError::InUse(address)),
        Err(error) => Err(DoctorError::io(format!("listen on {address}"))(error)),
    }
}

/// Looks at a program that serves.
fn look_at(member: &mut Member, run: &RunSettings, seen: &mut Seen) -> Result<(), DoctorError> {
    let below = look::below(member.pid());
    if let Some(main) = member.program() {
        seen.processes = look::describe(&below, main);
        seen.reaction = look::reaction(main, run.stop_signal);
        let ends = |one: &&Process| look::reaction(one.pid, run.stop_signal) == Some(Reaction::Ends);
        let others: Vec<Process> = below.iter().filter(|one| one.pid != main).filter(ends).copied().collect();
        seen.dropping = look::names(&others);
    }
    seen.listening = look::places(&below);
    let given = std::mem::take(&mut seen.given);
    for listen in &run.listen {
        let told = given.iter().rev().find(|(name, _)| *name == listen.name).map(|(_, given)| given.clone());
        let given = match told {
            Some(given) => given,
            None if !listen.handover.passes_socket() => Given::Proxied,
            None if accepts(listen)? => Given::Took,
            None => Given::Nobody,
        };
        seen.given.push((listen.name.clone(), given));
    }
    Ok(())
}

/// Whether somebody takes a connection out of the queue of this listener.
fn accepts(listen: &Listen) -> Result<bool, DoctorError> {
    let failed = || DoctorError::io("look at the accept queue");
    let taken = match &listen.address {
        Address::Tcp(address) => {
            let Ok(_client) = Connection::open(*address, ACCEPTS) else { return Ok(false) };
            wait_for(ACCEPTS, || {
                let waiting = listening::waiting_at(address.port()).map_err(failed())?;
                Ok((waiting == 0).then_some(()))
            })?
        }
        Address::Unix(path) => {
            let Ok(_client) = UnixStream::connect(path.as_str()) else { return Ok(false) };
            // The first generation has the second slot: clients wait at the first one until it serves.
            let private = path.beside("1");
            wait_for(ACCEPTS, || {
                let waiting = unix::waiting_at(Path::new(private.as_str())).map_err(failed())?;
                Ok((waiting == 0).then_some(()))
            })?
        }
    };
    Ok(taken.is_some())
}

/// Where and what clients ask for, if the program answers HTTP at the listener by which it is judged. Not the path of
/// its health check: many answer that one with a failure while they stop, as they should.
fn asked<'a>(subject: &Subject<'a>) -> Option<Asked<'a>> {
    let run = &subject.settings.run;
    let wanted = run.health.as_ref().and_then(|health| health.listener.as_deref());
    let listen = run.listen.iter().find(|listen| wanted.is_none_or(|name| name == listen.name))?;
    let address = listen.address.tcp()?;
    let mut connection = Connection::open(address, SPEAKS).ok()?;
    connection.get(subject.path).ok()?;
    connection.answer(SPEAKS).ok()?;
    Some(Asked { address, path: subject.path, slow: subject.slow, silent: subject.thoroughly })
}

/// A reload while clients ask, until the generation before is gone.
fn reload(
    member: &mut Member,
    subject: &Subject<'_>,
    asked: Option<&Asked<'_>>,
) -> Result<Reload, DoctorError> {
    let run = &subject.settings.run;
    let load = asked.and_then(|asked| Load::start(asked.address, asked.path));
    let limit = 2 * run.startup_timeout.0 + subject.bake().0;
    let end = member.reload(Duration::from_millis(limit) + MORE);
    if matches!(end, Ok(Ok(()))) && run.keep_warm.is_none() {
        let limit = Duration::from_millis(run.drain.0) + MORE;
        wait_for(limit, || Ok(member.news()?.contains(&Told::Gone(1)).then_some(())))?;
    }
    let traffic = load.map(Load::finish);
    let end = match end? {
        Ok(()) => ReloadEnd::Proven,
        Err(why) => ReloadEnd::Refused(why),
    };
    Ok(Reload { end, traffic })
}

/// Starts the program once more, where `$PORT` says and not where it listened before.
fn elsewhere(spec: &Spec<'_>, run: &RunSettings, limit: Duration) -> Result<Result<(), String>, DoctorError> {
    let mut listen = Vec::new();
    let mut held = Vec::new();
    for one in &run.listen {
        // A path does not change with $PORT.
        let Some(address) = one.address.tcp() else { continue };
        let free = TcpListener::bind(SocketAddr::new(address.ip(), 0));
        let free = free.map_err(DoctorError::io("find a free port"))?;
        listen.push((one.name.clone(), free.local_addr().map_err(DoctorError::io("find a free port"))?));
        // Until all are found, so that none is found twice.
        held.push(free);
    }
    drop(held);
    let mut member = Member::start(&Spec { listen, ..spec.clone() })?;
    Ok(match start(&mut member, run, limit)?.start {
        Start::Healthy(_) => Ok(()),
        Start::Failed { why, .. } => Err(why),
    })
}
