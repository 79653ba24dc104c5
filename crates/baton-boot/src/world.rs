//! Does what the supervisor asks for.
//!
//! What takes long is only started here; its end comes back as an event.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use baton_core::exit::Exit;
use baton_core::health::Outcome;
use baton_core::ids::GenerationId;
use baton_core::run::Listen;
use baton_core::signal::Signal;
use baton_core::supervisor::{Command, Event, Fact, Plan, Scope, Slot};
use baton_sys::process;
use baton_sys::selector::HELD_PORTS;
use baton_sys::spawn::{self, Spawn, SpawnError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::group::{Group, GroupError};
use crate::log;
use crate::notify::NotifySocket;
use crate::output::{self, LastLines, Stream};
use crate::place::{Place, PlaceError};
use crate::probe::{self, Question};
use crate::rescue::{self, Stray, Watched};
use crate::tree::{self, Root};

/// Why a generation could not be launched.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("this release listens on {wanted}, and this member on {have}; start a new member for it")]
    OtherListeners { wanted: String, have: String },
    #[error("BATON_LISTEN names a listener {0:?}, and this release has none of that name")]
    UnknownListener(String),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cannot open {what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// One generation's processes and what was opened for them.
#[derive(Debug)]
struct Run {
    root: Option<Root>,
    /// The main process has been reaped: its pid may be somebody else's.
    reaped: bool,
    /// No process is left.
    empty: bool,
    plan: Arc<Plan>,
    slot: Slot,
    lines: LastLines,
    notices: Option<JoinHandle<()>>,
}

/// Everything around the supervisor.
pub struct World {
    config: Config,
    place: Place,
    groups: Vec<Group>,
    /// The groups were opened; a worker has none.
    opened: bool,
    runs: BTreeMap<GenerationId, Run>,
    events: mpsc::UnboundedSender<Event>,
    strays: mpsc::UnboundedSender<Stray>,
    /// How many sockets there must be behind those that the selector names.
    spares: usize,
    /// What generations that are gone wrote at last, the newest at the end.
    last_words: VecDeque<(GenerationId, LastLines)>,
}

/// Of how many generations that are gone the last lines are kept: their failure is reported when they are.
const LAST_WORDS: usize = 4;

impl World {
    /// A world without any process; what happens in it goes to `events`.
    pub fn new(config: Config, place: Place, events: mpsc::UnboundedSender<Event>) -> Self {
        let (strays, found) = mpsc::unbounded_channel();
        tokio::spawn(forward_all(found));
        Self {
            config,
            place,
            groups: Vec::new(),
            opened: false,
            runs: BTreeMap::new(),
            events,
            strays,
            spares: 1,
            last_words: VecDeque::new(),
        }
    }

    /// Does one thing. What is to be said is said; the exit code is the caller's business.
    pub fn perform(&mut self, command: Command) {
        match command {
            Command::Spare(count) => self.spares = count,
            Command::Select { serving, private } => self.select(serving, private),
            Command::Spawn { generation, plan, slot } => self.spawn(generation, &plan, slot),
            Command::Probe { generation, private } => self.probe(generation, private),
            Command::Kill { generation, signal, scope } => self.kill(generation, signal, scope),
            Command::Rescue(slot) => self.rescue(slot),
            Command::Close => self.groups.clear(),
            Command::Forget(generation) => self.forget(generation),
            Command::Say(fact) => self.say(&fact),
            Command::Commit { .. } | Command::Exit(_) => {}
        }
    }

    /// Takes the exit status of every child that has ended.
    pub fn reap(&mut self) {
        loop {
            match process::reap() {
                Ok(Some((pid, exit))) => self.ended(pid, exit),
                Ok(None) => break,
                Err(error) => return log::say(format_args!("cannot reap: {error}")),
            }
        }
        self.find_emptied();
    }

    fn ended(&mut self, pid: i32, exit: Exit) {
        let run =
            self.runs.iter_mut().find(|(_, run)| !run.reaped && run.root.is_some_and(|root| root.pid == pid));
        if let Some((id, run)) = run {
            run.reaped = true;
            run.empty = is_empty(run);
            if run.empty {
                // Nobody writes any more: its last words are on their way, and belong to what is told now.
                run.lines.wait_for_end();
            }
            let ended = Event::Exited { generation: *id, exit, empty: run.empty };
            self.tell(ended);
        }
    }

    /// Tells which generations have lost their last process since.
    fn find_emptied(&mut self) {
        let emptied: Vec<GenerationId> = self
            .runs
            .iter_mut()
            .filter_map(|(id, run)| {
                let now_empty = run.reaped && !run.empty && is_empty(run);
                run.empty |= now_empty;
                now_empty.then_some(*id)
            })
            .collect();
        emptied.into_iter().for_each(|id| self.tell(Event::Emptied(id)));
    }

    fn select(&mut self, serving: Slot, private: Slot) {
        for group in &mut self.groups {
            // The selector stays as it was: whoever serves goes on serving.
            // The selector stays as it was: whoever serves goes on serving.
            if let Err(error) = group.select(serving, private, self.spares) {
                log::say(log::chain(&error));
            }
        }
    }

    fn spawn(&mut self, id: GenerationId, plan: &Arc<Plan>, slot: Slot) {
        let lines = LastLines::default();
        let run = Run {
            root: None,
            reaped: false,
            empty: false,
            plan: plan.clone(),
            slot,
            lines: lines.clone(),
            notices: None,
        };
        self.runs.insert(id, run);
        match self.launch(id, plan, slot, &lines) {
            Ok((root, notices)) => {
                if let Some(run) = self.runs.get_mut(&id) {
                    run.root = Some(root);
                    run.notices = Some(notices);
                }
                self.tell(Event::Started(id));
            }
            Err(error) => {
                let not_found = matches!(error, LaunchError::Spawn(SpawnError::NotFound { .. }));
                self.tell(Event::FailedToStart(
                    id,
                    Exit::FailedToStart { why: log::chain(&error), not_found },
                ));
            }
        }
    }

    fn launch(
        &mut self,
        id: GenerationId,
        plan: &Plan,
        slot: Slot,
        lines: &LastLines,
    ) -> Result<(Root, JoinHandle<()>), LaunchError> {
        self.open_groups(plan, slot)?;
        let place = self.place.prepare(id, plan.release)?;
        let opened = |what| move |source| LaunchError::Io { what, source };
        let notify = NotifySocket::open(&format!("baton/{:016x}/{id}", fastrand::u64(..)))
            .map_err(opened("a notify socket"))?;
        let (out, out_write) = spawn::pipe().map_err(opened("a pipe"))?;
        let (err, err_write) = spawn::pipe().map_err(opened("a pipe"))?;
        let sockets: Vec<Arc<OwnedFd>> = self.groups.iter().filter_map(|group| group.socket(slot)).collect();
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
        // Before the program starts: once it runs, nothing may fail.
        output::pass_on(out, Stream::Stdout, lines).map_err(opened("a thread"))?;
        output::pass_on(err, Stream::Stderr, lines).map_err(opened("a thread"))?;
        let pid = spawn::spawn(&Spawn {
            command: &plan.settings.command,
            directory: &place.directory,
            environment: &self.environment(id, plan, &place.scratch, &notify.address()),
            sockets: &sockets,
            stdout: out_write.as_fd(),
            stderr: err_write.as_fd(),
        })?;
        let root = Root { generation: id, pid, started: process::started(pid) };
        Ok((root, tokio::spawn(listen_to(notify, root, self.events.clone()))))
    }

    /// Opens the listeners at the first launch; later ones must have the same.
    fn open_groups(&mut self, plan: &Plan, slot: Slot) -> Result<(), LaunchError> {
        let known = |name: &str| plan.settings.listen.iter().any(|listen| listen.name == name);
        if let Some((name, _)) = self.config.listen.iter().find(|(name, _)| !known(name)) {
            return Err(LaunchError::UnknownListener(name.clone()));
        }
        let wanted: Vec<Listen> = plan.settings.listen.iter().map(|listen| self.here(listen)).collect();
        if !self.opened {
            let groups: Result<Vec<Group>, GroupError> = wanted.into_iter().map(Group::open).collect();
            self.groups = groups?;
            self.opened = true;
            for group in &mut self.groups {
                // Until somebody is healthy, connections wait at the first slot, which no program has.
                group.select(Slot(0), slot, self.spares)?;
            }
        } else if !self.groups.iter().map(Group::listen).eq(wanted.iter()) {
            let names = |listens: &mut dyn Iterator<Item = &Listen>| {
                let all: Vec<String> =
                    listens.map(|listen| format!("{}={}", listen.name, listen.address)).collect();
                if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
            };
            let have = names(&mut self.groups.iter().map(Group::listen));
            return Err(LaunchError::OtherListeners { wanted: names(&mut wanted.iter()), have });
        }
        for group in &mut self.groups {
            group.prepare(slot)?;
        }
        Ok(())
    }

    /// A listener as this member has it.
    fn here(&self, listen: &Listen) -> Listen {
        let moved = self.config.listen.iter().find(|(name, _)| *name == listen.name);
        Listen { address: moved.map_or(listen.address, |(_, address)| *address), ..listen.clone() }
    }

    fn environment(
        &self,
        id: GenerationId,
        plan: &Plan,
        scratch: &std::path::Path,
        notify: &str,
    ) -> Vec<(OsString, OsString)> {
        let mut environment = self.config.environment.clone();
        let mut set = |name: &str, value: OsString| {
            environment.retain(|(known, _)| known != name);
            environment.push((name.into(), value));
        };
        for (name, value) in &plan.settings.env {
            set(name, value.into());
        }
        set("BATON_RELEASE", plan.release.id().map_or("image".to_owned(), |id| id.to_string()).into());
        if let Some(control) = &self.config.control {
            set("BATON_MEMBER", control.member.to_string().into());
            set("BATON_SERVICE", control.service.to_string().into());
        }
        set("BATON_GENERATION", id.to_string().into());
        set("BATON_SCRATCH", scratch.into());
        set("NOTIFY_SOCKET", notify.into());
        if let Some(first) = self.groups.first() {
            set("PORT", first.listen().address.port().to_string().into());
            let names: Vec<&str> = self.groups.iter().map(|group| group.listen().name.as_str()).collect();
            set("LISTEN_FDS", names.len().to_string().into());
            set("LISTEN_FDNAMES", names.join(":").into());
        }
        environment
    }

    fn probe(&mut self, id: GenerationId, private: bool) {
        let events = self.events.clone();
        match self.question(id, private) {
            Some(question) => drop(tokio::spawn(async move {
                let outcome = probe::ask(question).await;
                let _ = events.send(Event::Probed(id, outcome));
            })),
            // Every probe has an end, or none would follow.
            None => self.tell(Event::Probed(id, Outcome::Failure)),
        }
    }

    fn question(&mut self, id: GenerationId, private: bool) -> Option<Question> {
        let run = self.runs.get(&id)?;
        let (check, slot) = (run.plan.check().cloned()?, run.slot);
        let group = self.groups.iter_mut().find(|group| group.listen().name == check.listener)?;
        let from =
            if private { (0..HELD_PORTS).map(|_| group.private_address()).collect() } else { Vec::new() };
        let (to, socket) = (group.reached_at(), group.socket(slot)?);
        Some(Question { probe: check.probe, to, from, socket, timeout: check.timeout })
    }

    fn kill(&mut self, id: GenerationId, signal: Signal, scope: Scope) {
        let Some(Run { root: Some(root), reaped, .. }) = self.runs.get(&id) else { return };
        let sent = match scope {
            Scope::Main if *reaped => Ok(()),
            Scope::Main => process::signal_child(root.pid, signal),
            Scope::Tree => signal_tree(*root, signal),
        };
        if let Err(error) = sent {
            log::say(format_args!("cannot send {signal} to generation {id}: {error}"));
        }
        if scope == Scope::Tree {
            self.find_emptied();
        }
    }

    fn rescue(&mut self, slot: Slot) {
        let owner = self.runs.values().rfind(|run| run.slot == slot && !run.empty).and_then(|run| run.root);
        let watched = self
            .groups
            .iter()
            .filter_map(|group| group.socket(slot).map(|socket| Watched { socket, to: group.reached_at() }));
        let events = self.events.clone();
        let quiet = move || {
            let _ = events.send(Event::Quiet(slot));
        };
        if let Err(error) = rescue::watch(watched.collect(), owner, self.strays.clone(), quiet) {
            log::say(format_args!("cannot watch slot {}: {error}", slot.0));
        }
    }

    fn forget(&mut self, id: GenerationId) {
        if let Some(run) = self.runs.remove(&id) {
            run.notices.inspect(JoinHandle::abort);
            self.last_words.push_back((id, run.lines));
            let surplus = self.last_words.len().saturating_sub(LAST_WORDS);
            self.last_words.drain(..surplus);
        }
        self.place.forget(id);
    }

    fn say(&self, fact: &Fact) {
        log::say(fact);
    }

    fn tell(&self, event: Event) {
        // The receiver lives as long as the loop that calls us.
        let _ = self.events.send(event);
    }

    /// The last lines that a generation wrote.
    pub fn last_lines(&self, id: GenerationId) -> Vec<String> {
        let living = self.runs.get(&id).map(|run| &run.lines);
        let gone = || self.last_words.iter().find(|(gone, _)| *gone == id).map(|(_, lines)| lines);
        living.or_else(gone).map(LastLines::get).unwrap_or_default()
    }

    /// Removes what only this run needed.
    pub fn leave(&mut self) {
        self.place.leave();
    }
}

fn is_empty(run: &Run) -> bool {
    let Some(root) = run.root else { return true };
    // Where processes cannot be listed, the limit of the stop decides.
    tree::of(root).is_ok_and(|left| left.iter().all(|process| run.reaped && process.pid == root.pid))
}

fn signal_tree(root: Root, signal: Signal) -> io::Result<()> {
    let members = tree::of(root)?;
    // All of them, even if one cannot be signalled; the first reason is told.
    let results: Vec<io::Result<()>> =
        members.into_iter().map(|member| process::signal(member, signal)).collect();
    results.into_iter().collect()
}

/// Takes what a generation says of itself. Only its own processes are believed.
async fn listen_to(socket: NotifySocket, root: Root, events: mpsc::UnboundedSender<Event>) {
    while let Ok((sender, notices)) = socket.next().await {
        let own = sender == root.pid
            || tree::of(root).is_ok_and(|members| members.iter().any(|member| member.pid == sender));
        for _ in notices.iter().filter(|_| own) {
            let _ = events.send(Event::Ready(root.generation));
        }
    }
}

async fn forward_all(mut found: mpsc::UnboundedReceiver<Stray>) {
    while let Some(stray) = found.recv().await {
        tokio::spawn(rescue::forward(stray));
    }
}
