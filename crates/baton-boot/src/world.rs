//! Does what the supervisor asks for.
//!
//! What takes long is only started here; its end comes back as an event.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use baton_core::exit::Exit;
use baton_core::ids::GenerationId;
use baton_core::run::{self, Probe, Process, oom_score_adj};
use baton_core::signal::Signal;
use baton_core::supervisor::{Command, Event, Plan, Scope, Slot, State, Supervisor};
use baton_core::units::Millis;
use baton_core::words::Words;
use baton_sys::attributes::{Attributes, Limit, User, UserError};
use baton_sys::spawn::{Spawn, SpawnError, Stdin};
use baton_sys::{process, socket};
use rustix::fs::{Gid, Uid};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::admin::{self, Outside};
use crate::config::Config;
use crate::environment::{Given, GivenListener, environment};
use crate::evidence;
use crate::forwarding;
use crate::interception::{Interception, Passed};
use crate::listeners::{ListenError, Listeners};
use crate::log;
use crate::memory::Memory;
use crate::notify::NotifySocket;
use crate::output::{Ends, LastLines, Outlet};
use crate::place::{Place, PlaceError};
use crate::probe::{self, Check, Question, Surroundings};
use crate::rescue::{self, Stray};
use crate::runs::{Run, Runs};
use crate::tree::{self, Root};

/// Why a generation could not be launched.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("it could not be told apart from what serves: {0}")]
    NotSelected(String),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cannot open {what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// When to try again to start a thread. Without one, what lands on a slot waits; with it, nothing is lost.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// How many of its last lines are told again beside what a hung program was doing.
const LAST_LINES_SAID: usize = 5;

/// Everything around the supervisor.
pub struct World {
    config: Config,
    place: Place,
    listeners: Listeners,
    interception: Interception,
    runs: Runs,
    memory: Memory,
    outlet: Outlet,
    events: mpsc::UnboundedSender<Event>,
    notices: mpsc::Sender<Event>,
    strays: mpsc::UnboundedSender<Stray>,
}

impl World {
    /// A world without any process; what happens in it goes to `events`, what programs say to `notices`.
    pub fn new(
        config: Config,
        place: Place,
        events: mpsc::UnboundedSender<Event>,
        notices: mpsc::Sender<Event>,
        outlet: Outlet,
    ) -> Self {
        let (strays, found) = mpsc::unbounded_channel();
        tokio::spawn(forward_all(found));
        Self {
            listeners: Listeners::new(&config),
            interception: Interception::default(),
            config,
            place,
            runs: Runs::default(),
            memory: Memory::watch(),
            outlet,
            events,
            notices,
            strays,
        }
    }

    /// Does one thing. The exit code and what is to be committed are the caller's business.
    pub fn perform(&mut self, command: Command) {
        match command {
            Command::Spare(count) => self.listeners.spares = count,
            Command::Select { serving, private } => {
                if !self.listeners.select(serving, private) {
                    self.tell(Event::NotSelected);
                }
            }
            Command::Spawn { generation, plan, slot } => self.spawn(generation, &plan, slot),
            Command::Probe { generation, private } => self.probe(generation, private),
            Command::Examine(generation) => self.examine(generation),
            Command::Kill { generation, signal, scope } => self.kill(generation, signal, scope),
            Command::Rescue(slot) => self.rescue(slot),
            Command::Close => self.listeners.close(),
            Command::Forget(generation) => {
                if let Some(slot) = self.runs.forget(generation) {
                    self.listeners.forget(slot);
                }
                self.place.forget(generation);
            }
            Command::Say(fact) => log::say(&fact),
            Command::Commit { .. } | Command::Exit(_) => {}
        }
    }

    /// Takes the exit status of every child that has ended.
    pub fn reap(&mut self) {
        self.runs.reap(&self.memory).into_iter().for_each(|event| self.tell(event));
    }

    /// Lets a program at our terminal go on, after we were stopped with it; `false` where there is none.
    pub fn resume(&self) -> bool {
        self.runs.resume()
    }

    /// Takes note of who serves: it has the terminal, and the kernel is to end it last, should memory run out.
    pub fn weigh(&mut self, machine: &Supervisor) {
        let serving = machine.generations().iter().find(|generation| generation.state == State::Serving);
        self.runs.hand_terminal(serving.map(|generation| generation.id));
        for generation in machine.generations() {
            let serving = generation.state == State::Serving;
            if serving {
                self.interception.serves(&generation.plan);
            }
            let score = oom_score_adj(&generation.plan.settings.process, serving);
            self.runs.weigh(generation.id, score);
        }
    }

    fn spawn(&mut self, id: GenerationId, plan: &Arc<Plan>, slot: Slot) {
        let mut run = Run::new(plan.clone(), slot);
        let inherits = plan.settings.process.stdin == run::Stdin::Inherit;
        let terminal = if inherits { self.runs.terminal() } else { None };
        run.on_terminal = terminal.is_some();
        let lines = run.lines.clone();
        self.runs.insert(id, run);
        match self.launch(id, plan, slot, terminal, &lines) {
            Ok((root, notices)) => {
                if let Some(run) = self.runs.get_mut(id) {
                    run.root = Some(root);
                    run.notices = Some(notices);
                }
                self.tell(Event::Started(id));
            }
            Err(error) => {
                let not_found = matches!(error, LaunchError::Spawn(SpawnError::NotFound { .. }));
                let why = log::chain(&error);
                self.tell(Event::FailedToStart(id, Exit::FailedToStart { why, not_found }));
            }
        }
    }

    fn launch(
        &mut self,
        id: GenerationId,
        plan: &Arc<Plan>,
        slot: Slot,
        terminal: Option<bool>,
        lines: &LastLines,
    ) -> Result<(Root, JoinHandle<()>), LaunchError> {
        if let Some(fault) = self.listeners.fault() {
            return Err(LaunchError::NotSelected(fault.to_owned()));
        }
        let relay = self.interception.must_relay(plan);
        self.listeners.prepare(plan, slot, relay)?;
        let attributes = attributes(&plan.settings.process)?;
        let place = self.place.prepare(id, plan.release, attributes.user.as_ref())?;
        let opened = |what| move |source| LaunchError::Io { what, source };
        let notify = NotifySocket::open(place.scratch.as_deref()).map_err(opened("a notify socket"))?;
        let passed = self.passed(slot);
        let listeners = self.listeners.of(slot).into_iter().map(|(listen, listener)| GivenListener {
            name: &listen.name,
            port: listener.port(slot),
            passed: listener.socket(slot).is_some(),
        });
        let given = Given {
            generation: id,
            scratch: place.scratch.as_deref(),
            notify: &notify.address(),
            listeners: &listeners.collect::<Vec<_>>(),
            user: attributes.user.as_ref(),
        };
        let environment = environment(&self.config, plan, given);
        if let Some(run) = self.runs.get_mut(id) {
            let directory = place.directory.clone();
            run.surroundings = Some(Surroundings {
                directory,
                environment: environment.clone(),
                attributes: attributes.clone(),
            });
        }
        let command: Vec<String> = plan.settings.command.iter().map(|word| given.fill(word)).collect();
        // Before the program starts: once it runs, nothing may fail.
        let Ends { stdout, stderr } = self
            .outlet
            .open(id, &plan.release.to_string(), &plan.settings.output, lines)
            .map_err(opened("its output"))?;
        if let Some(user) =
            attributes.user.as_ref().filter(|_| plan.settings.output.format != run::Format::Inherit)
        {
            // A program may open /dev/stdout anew, as whoever it runs as.
            for pipe in [&stdout, &stderr] {
                rustix::fs::fchown(pipe, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))
                    .map_err(|error| opened("its output")(error.into()))?;
            }
        }
        let sockets: Vec<BorrowedFd<'_>> = passed.iter().map(|passed| passed.socket.as_fd()).collect();
        let pid = self.interception.start(
            id,
            plan,
            &passed,
            &Spawn {
                command: &command,
                directory: &place.directory,
                environment: &environment,
                sockets: &sockets,
                stdout: stdout.as_fd(),
                stderr: stderr.as_fd(),
                stdin: stdin(&plan.settings.process.stdin, terminal, &passed),
                attributes: &attributes,
            },
        )?;
        let inodes = passed.iter().filter_map(|passed| socket::inode(&passed.socket).ok()).collect();
        let root = Root { generation: id, pid, started: process::started(pid), sockets: inodes };
        let notices = tokio::spawn(notify.listen(root.clone(), self.notices.clone()));
        Ok((root, notices))
    }

    /// The sockets that a program in this slot is given.
    fn passed(&self, slot: Slot) -> Vec<Passed> {
        let passed = self.listeners.of(slot).into_iter().filter_map(|(listen, listener)| {
            Some(Passed { listen: listen.clone(), socket: listener.socket(slot)? })
        });
        passed.collect()
    }

    fn probe(&mut self, id: GenerationId, private: bool) {
        let events = self.events.clone();
        match self.question(id, private) {
            Ok((question, timeout)) => drop(tokio::spawn(async move {
                let found = probe::ask(question, timeout).await;
                let _ = events.send(Event::Probed(id, found));
            })),
            // Every probe has an end, or none would follow.
            Err(why) => self.tell(Event::Probed(id, Err(Words::new(&why)))),
        }
    }

    fn question(&mut self, id: GenerationId, private: bool) -> Result<(Question, Millis), String> {
        let run = self.runs.get(id).ok_or("it does not run")?;
        let check = run.plan.check().cloned().ok_or("there is nothing to ask")?;
        if let Probe::Exec { command } = &check.probe {
            let surroundings = run.surroundings.clone().ok_or("it does not run")?;
            let started = Check::start(command, &surroundings, |pid| self.runs.exit_of(pid))?;
            return Ok((Question::Run(started), check.timeout));
        }
        let (name, slot) = (check.listener.unwrap_or_default(), run.slot);
        let way = self.listeners.named(slot, &name).and_then(|listener| listener.way(slot, private));
        let way = way.ok_or_else(|| format!("there is no way to listener {name:?}"))?;
        Ok((Question::Connect { probe: check.probe, way }, check.timeout))
    }

    /// Looks at what a generation's main process does, and at what it wrote last.
    fn examine(&self, id: GenerationId) {
        let root = self.runs.get(id).and_then(|run| run.root.as_ref());
        let Some(pid) = root.map(|root| root.pid) else { return };
        let (last, events) = (self.last_lines(id), self.events.clone());
        tokio::spawn(async move {
            let found = evidence::gather(pid).await;
            let last = last.iter().rev().take(LAST_LINES_SAID).rev().map(|line| format!("wrote: {line}"));
            for line in found.iter().cloned().chain(last) {
                log::say(format_args!("generation {id}: {line}"));
            }
            let _ = events.send(Event::Examined(id, found.join("\n")));
        });
    }

    fn kill(&mut self, id: GenerationId, signal: Signal, scope: Scope) {
        let Some(run) = self.runs.get(id) else { return };
        let stops = scope == Scope::Main && signal == run.plan.settings.stop_signal;
        // The other half is the program's own.
        let limit = Duration::from_millis(run.plan.settings.drain.0 / 2);
        match if stops { self.listeners.settled(run.slot, limit) } else { None } {
            // Its program may close a socket at which a connection still waits that was forwarded to it.
            Some(settled) => self.runs.signal_after(settled, id, signal),
            None => self.runs.signal(id, signal, scope),
        }
        if scope != Scope::Main {
            self.runs.emptied().into_iter().for_each(|event| self.tell(event));
        }
    }

    fn rescue(&mut self, slot: Slot) {
        let (owner, strays, events) = (self.runs.owner(slot), self.strays.clone(), self.events.clone());
        // What is relayed to a program that has ended would wait for it: the rescue accepts instead.
        drop(self.listeners.settled(slot, Duration::ZERO));
        let watched = self.listeners.queues(slot);
        tokio::spawn(async move {
            let quiet = || {
                let events = events.clone();
                move || drop(events.send(Event::Quiet(slot)))
            };
            while let Err(error) = rescue::watch(&watched, owner.as_ref(), &strays, quiet()) {
                log::say(format_args!("cannot watch slot {} yet: {error}", slot.0));
                tokio::time::sleep(WATCH_AGAIN).await;
            }
        });
    }

    fn tell(&self, event: Event) {
        // The receiver lives as long as the loop that calls us.
        let _ = self.events.send(event);
    }

    /// How everything stands, for the admin socket.
    pub fn status(&self, now: Millis, machine: &Supervisor) -> serde_json::Value {
        admin::status(now, machine, &self.listeners, self.memory.usage(), |id| Outside {
            pid: self.runs.get(id).and_then(|run| run.root.as_ref()).map(|root| root.pid),
        })
    }

    /// What was written last, by all generations, for the admin socket.
    pub fn logs(&self, lines: u32) -> serde_json::Value {
        let (lines, _) = self.outlet.ring().tail(lines as usize);
        admin::logs(&lines)
    }

    /// The last lines that a generation wrote.
    pub fn last_lines(&self, id: GenerationId) -> Vec<String> {
        self.runs.last_lines(id)
    }

    /// Ends what is left of this run within the limit: answers on their way, processes that no generation owns,
    /// and files that only it needed.
    pub async fn leave(&mut self, limit: Duration) {
        tokio::join!(forwarding::over(limit), tree::end_strays(limit));
        self.place.leave();
    }
}

/// The attributes that the settings ask for.
fn attributes(process: &Process) -> Result<Attributes, UserError> {
    let user = match (&process.user, &process.group) {
        (None, None) => None,
        (None, Some(group)) => {
            Some(User::find(&rustix::process::geteuid().as_raw().to_string(), Some(group))?)
        }
        (Some(user), group) => Some(User::find(user, group.as_deref())?),
    };
    let user = user.filter(|user| !user.is_us());
    let limits = [(Limit::Files, process.nofile), (Limit::Processes, process.nproc)];
    Ok(Attributes {
        user,
        umask: process.umask.map(u32::from),
        nice: process.nice.map(i32::from),
        limits: limits.into_iter().filter_map(|(limit, value)| Some((limit, value?))).collect(),
    })
}

/// Where the settings want the standard input from.
fn stdin<'a>(wanted: &run::Stdin, terminal: Option<bool>, passed: &'a [Passed]) -> Stdin<'a> {
    if let Some(foreground) = terminal {
        return Stdin::Terminal { foreground };
    }
    match wanted {
        run::Stdin::Null => Stdin::Null,
        // A standard descriptor is never closed: one that was missing at the start is /dev/null since.
        run::Stdin::Inherit => Stdin::From(rustix::stdio::stdin()),
        run::Stdin::Listener(name) => {
            let passed = passed.iter().find(|passed| passed.listen.name == *name);
            passed.map_or(Stdin::Null, |passed| Stdin::From(passed.socket.as_fd()))
        }
    }
}

async fn forward_all(mut found: mpsc::UnboundedReceiver<Stray>) {
    while let Some(stray) = found.recv().await {
        tokio::spawn(rescue::forward(stray));
    }
}
