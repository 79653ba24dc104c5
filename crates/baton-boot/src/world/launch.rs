//! Starting a generation: everything that a program is given, and the program.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use baton_core::exit::Exit;
use baton_core::ids::GenerationId;
use baton_core::run::{self, Listen, Process, SizeLimit, oom_score_adj};
use baton_core::supervisor::{Event, Plan, Slot};
use baton_sys::attributes::{self, Attributes, Limit, User, UserError};
use baton_sys::mount::Mount;
use baton_sys::priority;
use baton_sys::spawn::{Spawn, SpawnError, Stdin};
use baton_sys::{process, socket};
use rustix::fs::{Gid, Uid};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::World;
use crate::environment::{Given, GivenListener, environment};
use crate::interception::Passed;
use crate::listeners::{Launching, ListenError};
use crate::log;
use crate::notify::{Ended, NotifySocket};
use crate::output::{Ends, LastLines};
use crate::place::PlaceError;
use crate::probe::Surroundings;
use crate::progress;
use crate::runs::{Lowered, Run, Told};
use crate::tree::{Main, Root};

/// The number of a copy, where there are several, from 0.
const WORKER: &str = "BATON_WORKER";

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

impl LaunchError {
    fn into_exit(self) -> Exit {
        let not_found = matches!(self, Self::Spawn(SpawnError::NotFound { .. }));
        Exit::FailedToStart { why: log::chain(&self), not_found }
    }
}

/// A launch that was asked for.
#[derive(Clone, Copy)]
struct Launch<'a> {
    id: GenerationId,
    plan: &'a Arc<Plan>,
    slot: Slot,
    /// Which of its copies.
    copy: u32,
    /// Our terminal is its own, in the foreground or not.
    terminal: Option<bool>,
}

/// What runs of a generation that was launched.
struct Launched {
    root: Root,
    told: Told,
    notices: JoinHandle<()>,
    after_said: mpsc::UnboundedSender<Ended>,
    beacon: Option<JoinHandle<()>>,
    surroundings: Surroundings,
    lowered: Option<Lowered>,
}

impl World {
    pub(super) fn spawn(&mut self, id: GenerationId, plan: &Arc<Plan>, slot: Slot) {
        let mut run = Run::new(plan.clone(), slot);
        let inherits = plan.settings.process.stdin == run::Stdin::Inherit;
        let terminal = if inherits { self.runs.terminal() } else { None };
        run.on_terminal = terminal.is_some();
        // Nobody serves before it is judged.
        run.weight = Some(oom_score_adj(&plan.settings.process, false));
        self.bypasses.end(slot, None);
        match self.launch(Launch { id, plan, slot, copy: 0, terminal }, &run.lines) {
            Ok(launched) => {
                self.watching.add(launched.root.clone(), plan.settings.recycle.is_some());
                run.notices = Some(launched.notices);
                run.after_said = Some(launched.after_said);
                run.beacon = launched.beacon;
                run.told = launched.told;
                run.lowered = launched.lowered;
                run.surroundings = Some(launched.surroundings);
                run.root = Some(Root { mains: Vec::new(), ..launched.root.clone() });
                launched.root.mains.iter().for_each(|main| run.add_copy(0, *main));
                self.runs.insert(id, run);
                self.tell(Event::Started(id));
                self.bypass_vacant(slot);
                (1..plan.settings.workers).for_each(|copy| self.spawn_copy(id, copy));
            }
            Err(error) => {
                self.runs.insert(id, run);
                self.tell(Event::FailedToStart(id, error.into_exit()));
            }
        }
    }

    /// Starts one of the other copies, or one that has ended, again: just as the first one was.
    pub(super) fn spawn_copy(&mut self, id: GenerationId, copy: u32) {
        let Some(run) = self.runs.get(id) else { return };
        let (plan, slot, lines) = (run.plan.clone(), run.slot, run.lines.clone());
        let Some(mut surroundings) = run.surroundings.clone() else { return };
        let launch = Launch { id, plan: &plan, slot, copy, terminal: None };
        let (command, environment) = self.tell_copy(launch, &run.told, surroundings.attributes.user.as_ref());
        surroundings.environment = environment;
        // As the others have it by now.
        surroundings.attributes.oom_score_adj = run.weight;
        self.bypasses.end(slot, Some(copy));
        let user = surroundings.attributes.user.as_ref();
        let ready = self.listeners.take_back(slot, copy).map_err(LaunchError::from);
        let ends = ready.and_then(|()| self.open_output(id, &plan, user, &lines));
        match ends.and_then(|ends| self.start(launch, &command, &surroundings, &ends)) {
            Ok(root) => {
                if let Some(run) = self.runs.get_mut(id) {
                    run.add_sockets(&root.sockets);
                    root.mains.iter().for_each(|main| run.add_copy(copy, *main));
                }
            }
            Err(error) => {
                let exit = error.into_exit();
                self.tell(Event::CopyExited { generation: id, copy, exit, empty: false });
            }
        }
    }

    /// `lines`: gets what it writes.
    fn launch(&mut self, launch: Launch<'_>, lines: &LastLines) -> Result<Launched, LaunchError> {
        let Launch { id, plan, slot, .. } = launch;
        if let Some(fault) = self.listeners.fault() {
            return Err(LaunchError::NotSelected(fault.to_owned()));
        }
        let relay = self.interception.must_relay(plan);
        let mut attributes = attributes(&plan.settings.process)?;
        let lowered = self.lowered(&attributes);
        attributes.nice = lowered.map(|lowered| lowered.nice).or(attributes.nice);
        let user = attributes.user.as_ref();
        let (place, notify) = self.place.prepare(id, plan.release, user, NotifySocket::open)?;
        let notify = notify.map_err(cannot_open("a notify socket"))?;
        let scratch = place.scratch.as_deref();
        self.listeners.prepare(Launching { plan, slot, relay, user, scratch })?;
        let told = Told { scratch: place.scratch.clone(), notify: notify.address() };
        let (command, environment) = self.tell_copy(launch, &told, user);
        let mount = plan.settings.process.mount.as_ref();
        let mount = mount.map(|at| Mount { at: at.into(), writable: place.scratch.clone() });
        let surroundings = Surroundings { directory: place.directory, mount, environment, attributes };
        let ends = self.open_output(id, plan, surroundings.attributes.user.as_ref(), lines)?;
        let root = self.start(launch, &command, &surroundings, &ends)?;
        let (after_said, after) = mpsc::unbounded_channel();
        let hears = notify.listen(root.clone(), plan.settings.workers, self.notices.clone(), after);
        let notices = tokio::spawn(hears);
        let beacon = plan.settings.progress.as_ref().map(|progress| {
            let folder = place.scratch.as_deref().unwrap_or(&surroundings.directory);
            tokio::spawn(progress::watch(
                id,
                folder.join(&progress.file),
                progress.within,
                self.events.clone(),
            ))
        });
        Ok(Launched { root, told, notices, after_said, beacon, surroundings, lowered })
    }

    /// How a candidate stands back behind what serves while it is judged, where it can get back what it gives up.
    fn lowered(&self, attributes: &Attributes) -> Option<Lowered> {
        if !self.runs.any_serves() || !priority::may_raise() {
            return None;
        }
        let then = attributes.nice.unwrap_or_else(priority::own);
        Some(Lowered { nice: run::nice_on_trial(then), then })
    }

    /// Opens where it writes to, before it starts: once it runs, nothing may fail.
    fn open_output(
        &mut self,
        id: GenerationId,
        plan: &Plan,
        user: Option<&User>,
        lines: &LastLines,
    ) -> Result<Ends, LaunchError> {
        let failed = cannot_open("its output");
        let ends = self.outlet.open(id, &plan.release.to_string(), &plan.settings.output, lines);
        let ends = ends.map_err(&failed)?;
        if let Some(user) = user.filter(|_| plan.settings.output.format != run::Format::Inherit) {
            // A program may open /dev/stdout anew, as whoever it runs as.
            for pipe in [&ends.stdout, &ends.stderr] {
                let owned =
                    rustix::fs::fchown(pipe, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
                owned.map_err(|error| failed(error.into()))?;
            }
        }
        Ok(ends)
    }

    /// Starts its main process.
    fn start(
        &mut self,
        launch: Launch<'_>,
        command: &[String],
        surroundings: &Surroundings,
        ends: &Ends,
    ) -> Result<Root, LaunchError> {
        let Launch { id, plan, slot, copy, terminal } = launch;
        let passed = self.passed(slot, copy);
        let sockets: Vec<BorrowedFd<'_>> = passed.iter().map(|passed| passed.socket.as_fd()).collect();
        let what = Spawn {
            command,
            directory: &surroundings.directory,
            mount: surroundings.mount.as_ref(),
            environment: &surroundings.environment,
            sockets: &sockets,
            stdout: ends.stdout.as_fd(),
            stderr: ends.stderr.as_fd(),
            stdin: stdin(&plan.settings.process.stdin, terminal, &passed),
            attributes: &surroundings.attributes,
        };
        let pid = self.interception.start(id, plan, &passed, &self.moved(slot, copy), &what)?;
        let inodes = passed.iter().filter_map(|passed| socket::inode(&passed.socket).ok()).collect();
        let main = Main { pid, started: process::started(pid) };
        let mut environment = surroundings.environment.iter();
        let notify = environment.find(|(name, _)| name == "NOTIFY_SOCKET").map(|(_, value)| value.clone());
        let notify = notify.unwrap_or_default();
        let user = surroundings.attributes.user.as_ref();
        let user = user.map_or_else(|| rustix::process::getuid().as_raw(), |user| user.uid);
        Ok(Root { generation: id, mains: vec![main], former: Vec::new(), sockets: inodes, notify, user })
    }

    /// The command and the environment of one copy of a program, whose listeners are there.
    fn tell_copy(
        &self,
        launch: Launch<'_>,
        told: &Told,
        user: Option<&User>,
    ) -> (Vec<String>, Vec<(OsString, OsString)>) {
        let Launch { id, plan, slot, copy, .. } = launch;
        let listeners = self.given_listeners(slot, copy);
        let scratch = told.scratch.as_deref();
        let given = Given { generation: id, scratch, notify: &told.notify, listeners: &listeners, user };
        let mut environment = environment(&self.config, plan, given);
        if plan.settings.workers > 1 {
            environment.retain(|(name, _)| name != WORKER);
            environment.push((WORKER.into(), copy.to_string().into()));
        }
        (plan.settings.command.iter().map(|word| given.fill(word)).collect(), environment)
    }

    /// What a copy of the program in this slot is told of its listeners.
    fn given_listeners(&self, slot: Slot, copy: u32) -> Vec<GivenListener<'_>> {
        let given = self.listeners.of(slot).into_iter().map(|(listen, listener)| GivenListener {
            name: &listen.name,
            bind: listener.to_bind(slot, copy),
            passed: listener.socket(slot, 0).is_some(),
        });
        given.collect()
    }

    /// Where a copy of the program in this slot is forwarded to, at the listeners of which it may have a socket in `auto`.
    fn moved(&self, slot: Slot, copy: u32) -> Vec<(Listen, SocketAddr)> {
        let of_slot = self.listeners.of(slot).into_iter();
        let moved = of_slot.filter(|(_, listener)| listener.socket(slot, copy).is_none());
        moved
            .filter_map(|(listen, listener)| Some((listen.clone(), listener.to_bind(slot, copy).tcp()?)))
            .collect()
    }

    /// The sockets that a copy of the program in this slot is given.
    fn passed(&self, slot: Slot, copy: u32) -> Vec<Passed> {
        let passed = self.listeners.of(slot).into_iter().filter_map(|(listen, listener)| {
            Some(Passed { listen: listen.clone(), socket: listener.socket(slot, copy)? })
        });
        passed.collect()
    }
}

fn cannot_open(what: &'static str) -> impl Fn(io::Error) -> LaunchError {
    move |source| LaunchError::Io { what, source }
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
    let size = |limit: SizeLimit| match limit {
        SizeLimit::Unlimited => attributes::UNLIMITED,
        SizeLimit::Bytes(bytes) => bytes.0,
    };
    let limits = [
        (Limit::Files, process.nofile),
        (Limit::Processes, process.nproc),
        (Limit::CoreDump, process.core.map(size)),
        (Limit::LockedMemory, process.memlock.map(size)),
        (Limit::Stack, process.stack.map(size)),
    ];
    Ok(Attributes {
        user,
        umask: process.umask.map(u32::from),
        nice: process.nice.map(i32::from),
        oom_score_adj: Some(oom_score_adj(process, false)),
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
