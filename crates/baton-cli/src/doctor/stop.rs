//! A stop with a request under way and a connection kept: what becomes of both, and when the program ends.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use baton_core::doctor::{Idle, Request, Running, Stop};
use baton_core::exit::Exit;
use baton_core::signal::Signal;
use baton_core::units::Millis;

use super::http::{Broken, Connection};
use super::look;
use super::member::Member;
use super::told::Told;
use super::{DoctorError, wait_for};

/// How long anything may take that a healthy program does at once.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a request must have been without an answer to count as one that is under way.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// How long after the stop signal the kept connection is used again: a program that closes it does so at once, and
/// one that waits for a last request does so for a second, as a rule.
const LAST_REQUEST: Duration = Duration::from_millis(200);
/// How long after that the running request goes on: a program that cuts does so at once, too.
const GOES_ON: Duration = Duration::from_millis(300);
/// What a bootloader needs beyond `run.drain` at the most.
const MORE: Duration = Duration::from_secs(5);
/// How long a connection that has never sent anything is left open: longer than servers wait for a first request
/// once they are to end, which is 5 s as a rule.
const SILENT: Duration = Duration::from_secs(8);
/// A body in two halves.
const HALF: [u8; 32] = [b'.'; 32];

/// What to ask for at the stop, if the program answers HTTP.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Where.
    pub address: SocketAddr,
    /// A path that is answered quickly.
    pub path: &'a str,
    /// A path that takes its time, if one is known.
    pub slow: Option<&'a str>,
    /// Hold a connection open that never sends anything.
    pub silent: bool,
}

/// Stops a member that serves, and tells what was seen.
pub fn stop(member: &mut Member, asked: Option<&Asked<'_>>, drain: Millis) -> Result<Stop, DoctorError> {
    let clients = asked.map(Clients::prepare);
    let main = member.program();
    member.news()?;
    let start = Instant::now();
    member.terminate();
    wait_for(LIMIT, || Ok(member.news()?.contains(&Told::Stopping).then_some(())))?
        .ok_or_else(|| member.does_not("stop"))?;
    // What holds its connections is another thread, so that the processes are watched meanwhile.
    let limit = Duration::from_millis(drain.0);
    let asking = clients.map(|clients| std::thread::spawn(move || clients.finish(limit)));
    let mut left = Left::default();
    let pid = member.pid();
    let ended = wait_for(limit + MORE, || {
        left.look(pid, main);
        member.ended()
    })?;
    let after = millis(start.elapsed());
    let status = ended.ok_or_else(|| member.does_not("end"))?;
    let Became { running, idle, held_by_silent } =
        asking.and_then(|asking| asking.join().ok()).unwrap_or_default();
    Ok(Stop { code: code_of(status), after, running, idle, held_by_silent, left: left.told() })
}

pub fn code_of(status: std::process::ExitStatus) -> u8 {
    let by_signal =
        || status.signal().and_then(Signal::from_number).map(|signal| Exit::Signal(signal).code());
    status.code().and_then(|code| u8::try_from(code).ok()).or_else(by_signal).unwrap_or(u8::MAX)
}

pub fn millis(time: Duration) -> Millis {
    Millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The processes that are left when the main process has ended.
#[derive(Debug, Default)]
struct Left {
    names: Vec<String>,
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Left {
    fn look(&mut self, boot: i32, main: Option<i32>) {
        let below = look::below(boot);
        if below.is_empty() || main.is_none_or(|main| below.iter().any(|process| process.pid == main)) {
            return;
        }
        let now = Instant::now();
        self.since.get_or_insert(now);
        self.last = Some(now);
        let names = look::names(&below);
        if !names.is_empty() && self.names.is_empty() {
            self.names = names;
        }
    }

    fn told(self) -> (Vec<String>, Millis) {
        let time = self.since.zip(self.last).map_or(Duration::ZERO, |(since, last)| last - since);
        (self.names, millis(time))
    }
}

/// What became of the connections.
#[derive(Default)]
struct Became {
    running: Option<(Request, Running)>,
    idle: Option<Idle>,
    held_by_silent: Option<Millis>,
}

/// Three clients: one with a request under way, one that keeps its connection, and one that never says anything.
struct Clients {
    path: String,
    running: Option<(Request, Connection)>,
    /// It was answered already.
    early: bool,
    kept: Option<Connection>,
    /// The program does not keep connections.
    closes: bool,
    silent: Option<Connection>,
}

impl Clients {
    fn prepare(asked: &Asked<'_>) -> Self {
        let mut closes = false;
        let kept = Connection::open(asked.address, LIMIT).ok().and_then(|mut connection| {
            connection.get(asked.path).ok()?;
            let answer = connection.answer(LIMIT).ok()?;
            closes = answer.closes;
            (!answer.closes).then_some(connection)
        });
        let mut running = Connection::open(asked.address, LIMIT).ok().and_then(|mut connection| {
            let request = match asked.slow {
                Some(path) => {
                    connection.get(path).ok()?;
                    Request::Slow(path.to_owned())
                }
                None => {
                    connection.post(asked.path, 2 * HALF.len()).and_then(|()| connection.send(&HALF)).ok()?;
                    Request::HalfSent(asked.path.to_owned())
                }
            };
            Some((request, connection))
        });
        // The last one: a program that does one thing at a time would wait for it before all else.
        let silent = asked.silent.then(|| Connection::open(asked.address, LIMIT).ok()).flatten();
        let early = running.as_mut().is_some_and(|(_, connection)| !connection.is_quiet_for(UNDER_WAY));
        Self { path: asked.path.to_owned(), running, early, kept, closes, silent }
    }

    /// Lets time pass, unless something becomes of the running request before; whether nothing did.
    fn rest(&mut self, time: Duration) -> bool {
        match &mut self.running {
            Some((_, connection)) if !self.early => connection.is_quiet_for(time),
            Some(_) | None => {
                std::thread::park_timeout(time);
                false
            }
        }
    }

    /// After the stop signal: looks what is closed, and goes on with what is not.
    fn finish(mut self, drain: Duration) -> Became {
        self.rest(LAST_REQUEST);
        let idle = match self.kept.take() {
            Some(kept) => Some(last_request(kept, &self.path, drain.min(LIMIT))),
            None => self.closes.then_some(Idle::NotKept),
        };
        let quiet = self.rest(GOES_ON);
        let early = self.early;
        let running = self.running.map(|(request, connection)| {
            let became =
                if early { Running::AnsweredBefore } else { go_on(&request, connection, quiet, drain) };
            (request, became)
        });
        let held = self.silent.is_some_and(|mut silent| silent.is_quiet_for(SILENT));
        Became { running, idle, held_by_silent: held.then(|| millis(SILENT)) }
    }
}

fn last_request(mut kept: Connection, path: &str, limit: Duration) -> Idle {
    if kept.has_ended() {
        return Idle::Closed;
    }
    let answered = kept.get(path).map_err(|_| Broken::Before).and_then(|()| kept.answer(limit));
    match answered {
        Ok(answer) => Idle::LastRequest { told: answer.closes },
        Err(_) => Idle::NotAnswered,
    }
}

fn go_on(request: &Request, mut connection: Connection, quiet: bool, drain: Duration) -> Running {
    if quiet && matches!(request, Request::HalfSent(_)) && connection.send(&HALF).is_err() {
        return Running::Cut;
    }
    match connection.answer(drain) {
        Ok(answer) => Running::Finished(answer.status),
        Err(Broken::Late) => Running::Unanswered,
        Err(Broken::Before | Broken::Within | Broken::NotHttp) => Running::Cut,
    }
}
