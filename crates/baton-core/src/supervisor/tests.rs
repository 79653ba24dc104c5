//! Stories of the whole machine, in a world where processes are entries in a map.

mod alive;
mod any_life;
mod copies;
mod crash;
mod memory;
mod restore;
mod split;
mod stop;
mod traffic;
mod warm;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use super::*;
use crate::bake::{Bake, TRAFFIC_PATIENCE};
use crate::notice::Notice;
use crate::report::Cause;
use crate::run::{
    Address, BACKLOG_DEFAULT, Handover, HealthCheck, Listen, MODE_DEFAULT, Needs, Probe, Room, RunSettings,
    SocketOptions,
};
use crate::units::{Bytes, Micros, Share};

/// A process as the world sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Process {
    slot: Slot,
    main_alive: bool,
    /// It has several copies.
    several: bool,
    /// Which copies of it run, a bit for each.
    copies: u32,
    /// It has children that outlive it.
    leaves_children: bool,
    healthy_once: bool,
    /// It is a worker: nothing can be asked.
    worker: bool,
    /// It must be alone.
    alone: bool,
}

/// The world around one supervisor: does what it is told and checks that it may be told so.
struct World {
    machine: Supervisor,
    now: Millis,
    processes: BTreeMap<GenerationId, Process>,
    probes: BTreeSet<GenerationId>,
    rescues: BTreeSet<Slot>,
    selected: (Slot, Slot),
    /// How those that everybody reaches divide the connections.
    split: Option<Split>,
    said: Vec<Fact>,
    committed: Vec<Running>,
    examined: Vec<GenerationId>,
    quiesced: Vec<GenerationId>,
    followed: Vec<(i32, Option<Signal>)>,
    asked: Vec<GenerationId>,
    /// How long each may accept what was forwarded to it before it is asked.
    limits: BTreeMap<GenerationId, Millis>,
    /// Which copy was asked last.
    asked_copy: u32,
    /// Copies whose connections others got, in order.
    bypassed: Vec<(GenerationId, u32)>,
    exit: Option<u8>,
    stopping: bool,
    /// Every spawn fails.
    cannot_spawn: bool,
    /// How many kills will overlook a process.
    overlooked: u32,
    /// Where every program listens that does not answer.
    elsewhere: Option<Words>,
    /// How much memory there is.
    room: Option<Room>,
    /// How much every release has used here until it was proven.
    learnt: Option<Bytes>,
    /// Whose connections are counted, and how many are enough.
    counted: BTreeMap<GenerationId, u64>,
}

fn settings() -> RunSettings {
    let mut settings = RunSettings::for_command(["server".into()].to_vec());
    settings.listen.push(Listen {
        name: "http".into(),
        address: Address::Tcp(([127, 0, 0, 1], 80).into()),
        mode: MODE_DEFAULT,
        handover: Handover::Inherit,
        backlog: BACKLOG_DEFAULT,
        options: SocketOptions::default(),
        per_worker: false,
    });
    settings.health = Some(HealthCheck {
        probe: Probe::Tcp,
        listener: Some("http".into()),
        interval: Millis::from_secs(2),
        timeout: Millis::from_secs(1),
        failures: 2,
        successes: 1,
    });
    settings
}

/// How long the world takes to give the new connections to a generation.
fn handover(generation: GenerationId) -> Micros {
    Micros(u64::from(generation.0) * 100)
}

fn release(number: u8) -> Running {
    Running::Release(ReleaseId::from_bytes([number; 32]))
}

fn launch(number: u8, bake: u64) -> Launch {
    let id = crate::ids::DeployId::from_bytes([number; 16]);
    let ticket = Ticket::Deploy { id, epoch: crate::ids::Epoch(number.into()) };
    Launch { plan: Arc::new(Plan::new(release(number), settings())), ticket, bake: Millis(bake).into() }
}

/// The same, which needs so many connections as well.
fn launch_in_traffic(number: u8, bake: u64, connections: u32) -> Launch {
    Launch { bake: Bake { time: Millis(bake), connections }, ..launch(number, bake) }
}

/// What works on a queue: healthy at `READY=1`, and asked to take no new work before it is asked to stop.
fn worker() -> RunSettings {
    let mut settings = RunSettings::for_command(["worker".into()].to_vec());
    settings.ready = Ready::Notify;
    settings.quiesce_signal = Some(Signal::USR1);
    settings.quiesce = Some(Millis::from_secs(2 * 3600));
    settings
}

/// What must never run twice.
fn singleton() -> RunSettings {
    RunSettings { overlap: false, quiesce_signal: None, ..worker() }
}

fn launch_of(settings: RunSettings, number: u8, bake: u64) -> Launch {
    Launch { plan: Arc::new(Plan::new(release(number), settings)), ..launch(number, bake) }
}

fn reload(number: u8, bake: u64) -> Launch {
    Launch { ticket: Ticket::Reload, ..launch(number, bake) }
}

impl World {
    fn new() -> Self {
        Self {
            machine: Supervisor::new(),
            now: Millis(1),
            processes: BTreeMap::new(),
            probes: BTreeSet::new(),
            rescues: BTreeSet::new(),
            selected: (Slot(0), Slot(0)),
            split: None,
            said: Vec::new(),
            committed: Vec::new(),
            examined: Vec::new(),
            quiesced: Vec::new(),
            followed: Vec::new(),
            asked: Vec::new(),
            limits: BTreeMap::new(),
            asked_copy: 0,
            bypassed: Vec::new(),
            exit: None,
            stopping: false,
            cannot_spawn: false,
            overlooked: 0,
            elsewhere: None,
            room: None,
            learnt: None,
            counted: BTreeMap::new(),
        }
    }

    /// A member whose first release serves and is proven.
    fn serving(number: u8) -> Self {
        let mut world = Self::new();
        world.order(Order::Try(launch(number, 0)));
        world.answer(GenerationId(1), Outcome::Success);
        assert_eq!(world.machine.status().serving, Some(release(number)));
        world
    }

    fn step(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for command in self.machine.step(self.now, event) {
                events.extend(self.perform(command));
            }
            self.check();
        }
    }

    fn perform(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Spawn { generation, slot, .. } if self.cannot_spawn => {
                let _ = slot;
                let exit = Exit::FailedToStart { why: "no".into(), not_found: true };
                return Some(Event::FailedToStart(generation, exit));
            }
            Command::Spawn { generation, slot, plan } => {
                let settings = &plan.settings;
                let alone = !settings.overlap || self.processes.values().any(|p| p.alone);
                assert!(
                    !alone || self.processes.is_empty(),
                    "{generation} is not alone: {:?}",
                    self.processes
                );
                assert!(self.processes.values().all(|p| p.slot != slot), "two programs hold slot {slot:?}");
                assert!(!self.rescues.contains(&slot), "{slot:?} is still being rescued");
                let process = Process {
                    slot,
                    main_alive: true,
                    several: settings.workers > 1,
                    copies: (1 << settings.workers) - 1,
                    leaves_children: false,
                    healthy_once: false,
                    worker: settings.listen.is_empty(),
                    alone: !settings.overlap,
                };
                self.processes.insert(generation, process);
                return Some(Event::Started(generation));
            }
            Command::Bypass { generation, copy } => self.bypassed.push((generation, copy)),
            Command::SpawnCopy { generation, copy } => {
                let process = self.processes.get_mut(&generation).expect("it has others");
                assert_eq!(process.copies & (1 << copy), 0, "copy {copy} of {generation} runs already");
                process.copies |= 1 << copy;
            }
            Command::Select(Selection { serving, private, split }) => {
                let owner = self.processes.values().find(|p| p.slot == serving);
                let moved = serving != self.selected.0;
                assert!(
                    !moved || owner.is_some_and(|p| p.healthy_once || p.worker),
                    "everybody sent to an unproven program"
                );
                let other =
                    |slot| self.processes.values().any(|p| p.slot == slot && p.healthy_once && p.main_alive);
                assert!(split.is_none_or(|split| split.rest != serving && other(split.rest)), "{split:?}");
                (self.selected, self.split) = ((serving, private), split);
            }
            Command::CountAccepted { generation, enough } => {
                assert!(self.counted.insert(generation, enough).is_none(), "counted twice");
            }
            Command::StopCounting(generation) => {
                assert!(self.counted.remove(&generation).is_some(), "nothing is counted");
            }
            Command::TimeHandover(generation) => {
                assert_eq!(self.processes[&generation].slot, self.selected.0, "it has not taken over");
                return Some(Event::HandedOver(generation, handover(generation)));
            }
            Command::Probe { generation, copy, private } => {
                self.asked_copy = copy;
                let process = self.processes[&generation];
                assert_eq!(private, process.slot != self.selected.0 || self.split.is_some());
                assert_eq!(process.slot, if private { self.selected.1 } else { self.selected.0 });
                assert!(self.probes.insert(generation), "two probes at once");
            }
            Command::Kill { generation, signal: Signal::KILL, scope: Scope::Tree } => {
                let overlooks = self.overlooked > 0;
                self.overlooked = self.overlooked.saturating_sub(1);
                self.processes.get_mut(&generation)?.leaves_children |= overlooks;
                return self.end(generation, Exit::Signal(Signal::KILL), !overlooks);
            }
            Command::Hurry { generation, limit } => drop(self.limits.insert(generation, limit)),
            Command::Stop { generation, limit, .. } => {
                self.asked.push(generation);
                self.limits.insert(generation, limit);
                let serves = self.processes.get(&generation).is_some_and(|p| p.slot == self.selected.0);
                let gave_up = self
                    .said
                    .iter()
                    .any(|fact| matches!(fact, Fact::Restarting(id, ..) if *id == generation));
                let judged = self
                    .machine
                    .generations()
                    .iter()
                    .any(|g| g.id == generation && g.healthy_since.is_none());
                // A worker gets no connections: the serving slot says nothing about it.
                let worker = self.processes.get(&generation).is_some_and(|p| p.worker);
                let yields = self.machine.generations().iter().any(|g| g.state == State::Waiting);
                let may = self.stopping || gave_up || judged || worker || yields;
                assert!(!serves || may, "{generation} was stopped while it served");
                let rest =
                    self.split.and_then(|split| self.processes.iter().find(|(_, p)| p.slot == split.rest));
                assert!(
                    self.stopping || rest.is_none_or(|(id, _)| *id != generation),
                    "{generation} was stopped while clients were sent to it"
                );
            }
            Command::Rescue(slot) => {
                assert_ne!(slot, self.selected.0, "the serving slot needs no rescue");
                assert_ne!(Some(slot), self.split.map(|split| split.rest), "clients are sent there");
                self.rescues.insert(slot);
            }
            Command::Measure { generation, .. } => {
                let (room, learnt) = (self.room, self.learnt);
                let known = learnt.map(Needs::Learnt);
                return Some(Event::Measured { generation, room, known });
            }
            Command::Commit { plan, .. } => self.committed.push(plan.release),
            Command::Say(fact) => {
                assert!(!matches!(fact, Fact::Fault(..)), "{fact}");
                self.stopping |= fact == Fact::Stopping;
                self.said.push(fact);
            }
            Command::Exit(code) => self.exit = Some(code),
            Command::Examine(id) => {
                self.examined.push(id);
                let found = self.processes.contains_key(&id).then(|| Event::Examined(id, "it sleeps".into()));
                return found;
            }
            Command::Kill { generation, signal: Signal::USR1, scope: Scope::Main } => {
                self.quiesced.push(generation);
            }
            Command::Locate(id) => {
                return self.elsewhere.clone().map(|hint| Event::ListensElsewhere(id, hint));
            }
            Command::Forget(generation) => drop(self.counted.remove(&generation)),
            Command::Follow { pid, ask, .. } => self.followed.push((pid, ask)),
            Command::Spare(_) | Command::Kill { .. } | Command::Close => {}
        }
        None
    }

    /// Ends a program's main process, or all of it.
    fn end(&mut self, id: GenerationId, exit: Exit, all: bool) -> Option<Event> {
        let process = self.processes.get_mut(&id)?;
        let empty = all || !process.leaves_children;
        let was_alive = std::mem::replace(&mut process.main_alive, false);
        if empty {
            self.processes.remove(&id);
        }
        match was_alive {
            true => Some(Event::Exited { generation: id, exit, empty }),
            false => empty.then_some(Event::Emptied(id)),
        }
    }

    fn check(&self) {
        let serving = self.machine.generations().iter().filter(|g| g.state == State::Serving).count();
        assert!(serving <= 1, "{serving} generations serve");
        let judged = self.machine.generations().iter().filter(|g| g.is_judged()).count();
        assert!(judged <= 2, "{judged} generations on trial");
        let due = self.machine.deadline().filter(|_| self.exit.is_none());
        assert!(due.is_none_or(|at| at > self.now), "{due:?} was due at {:?}", self.now);
    }

    fn order(&mut self, order: Order) {
        self.step(Event::Order(order));
    }

    fn answer(&mut self, id: GenerationId, outcome: Outcome) {
        if self.probes.remove(&id) {
            if let (Some(process), Outcome::Success) = (self.processes.get_mut(&id), outcome) {
                process.healthy_once = true;
            }
            let found = match outcome {
                Outcome::Success => Ok(()),
                Outcome::Failure => Err("GET / answered 503".into()),
            };
            self.step(Event::Probed(id, found));
        }
    }

    fn say(&mut self, id: u32, notice: Notice) {
        self.step(Event::Said(GenerationId(id), notice));
    }

    fn name(&mut self, id: u32, pid: i32) {
        self.step(Event::Named { generation: GenerationId(id), pid, started: 1 });
    }

    /// The state of a generation that is not gone.
    fn state(&self, id: u32) -> Option<State> {
        self.machine.generations().iter().find(|g| g.id == GenerationId(id)).map(|g| g.state)
    }

    /// A member with one worker, ready and proven.
    fn working(settings: RunSettings) -> Self {
        let mut world = Self::new();
        world.order(Order::Try(launch_of(settings, 1, 0)));
        world.say(1, Notice::Ready);
        assert_eq!(world.machine.status().serving, Some(release(1)));
        world
    }

    fn ends(&mut self, id: u32, exit: Exit) {
        let event = self.end(GenerationId(id), exit, true);
        event.into_iter().for_each(|event| self.step(event));
    }

    fn crash(&mut self, id: u32, code: u8) {
        let event = self.end(GenerationId(id), Exit::Code(code), false);
        event.into_iter().for_each(|event| self.step(event));
    }

    /// Lets time pass from deadline to deadline. Probes of generations in `answers` succeed, others fail.
    fn pass(&mut self, time: Millis, answers: &[u32]) {
        let end = self.now + time;
        while self.exit.is_none() {
            for id in self.probes.clone() {
                let outcome = if answers.contains(&id.0) { Outcome::Success } else { Outcome::Failure };
                self.answer(id, outcome);
            }
            match self.machine.deadline().filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => break,
            }
            self.step(Event::Woken);
        }
        self.now = end;
    }

    fn standing(&self) -> TrialState {
        self.machine.status().trial.unwrap().1
    }
}

const SECOND: Millis = Millis::from_secs(1);

#[test]
fn p2_nobody_reaches_a_candidate_before_it_is_healthy_and_the_old_one_stands_by() {
    let mut world = World::serving(1);
    let served_from = world.selected.0;
    world.order(Order::Try(launch(2, 5000)));
    world.pass(SECOND, &[1]);
    assert_eq!(world.selected.0, served_from);
    assert_eq!(world.standing(), TrialState::Trying);
    world.pass(SECOND, &[1, 2]);
    assert_ne!(world.selected.0, served_from);
    let status = world.machine.status();
    assert_eq!((status.serving, status.standby), (Some(release(2)), Some(release(1))));
    assert_eq!(world.committed, [release(1)]);
    world.pass(Millis(5000), &[2]);
    assert_eq!(world.committed, [release(1), release(2)]);
    assert_eq!(world.machine.status().standby, None);
}

#[test]
fn a_candidate_that_never_gets_healthy_is_tried_twice_and_refused() {
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 5000)));
    world.pass(Millis::from_secs(61), &[1]);
    assert_eq!(world.standing(), TrialState::Trying, "the second try");
    world.pass(Millis::from_secs(61), &[1]);
    let TrialState::Refused { cause, detail, .. } = world.standing() else { panic!() };
    assert_eq!((cause, detail.as_str()), (Cause::Startup, "not healthy within 1 min: GET / answered 503"));
    assert_eq!(world.machine.status().serving, Some(release(1)));
}

#[test]
fn p9_a_crash_or_lost_health_within_the_bake_hands_back_at_once() {
    for crash in [true, false] {
        let mut world = World::serving(1);
        world.order(Order::Try(launch(2, 10_000)));
        world.answer(GenerationId(2), Outcome::Success);
        if crash {
            world.crash(2, 3);
        } else {
            world.pass(Millis(5000), &[1]);
        }
        let status = world.machine.status();
        assert_eq!((status.serving, status.standby), (Some(release(1)), None), "crash {crash}");
        assert!(matches!(world.standing(), TrialState::Refused { .. }));
        assert_eq!(world.committed, [release(1)]);
        assert_eq!(world.machine.generations().iter().filter(|g| g.state == State::Serving).count(), 1);
    }
}

#[test]
fn p1_what_served_until_now_is_asked_to_stop_when_its_last_clients_have_said_what_they_want() {
    const A_LITTLE_LATER: Millis = Millis(250);
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 10_000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.order(Order::HandBack);
    assert_eq!((world.state(2), world.asked.len()), (Some(State::Draining), 0));
    world.pass(A_LITTLE_LATER, &[1]);
    assert_eq!(world.asked, [GenerationId(2)]);
    // Without a bake nobody stands by before it is asked.
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 0)));
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!((world.state(1), world.asked.len()), (Some(State::Draining), 0));
    world.pass(A_LITTLE_LATER, &[2]);
    assert_eq!(world.asked, [GenerationId(1)]);
    // One that stood by for long enough is asked at once, and so is one that is ill.
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 5000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.pass(Millis(5000), &[2]);
    assert_eq!(world.asked, [GenerationId(1)]);
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 60_000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.pass(Millis(5000), &[1]);
    assert_eq!((world.machine.status().serving, world.asked), (Some(release(1)), [GenerationId(2)].to_vec()));
}

#[test]
fn p3_the_time_to_finish_begins_when_it_is_asked_and_a_stop_of_the_container_asks_at_once() {
    let short = |number, bake| launch_of(RunSettings { drain: Millis(100), ..settings() }, number, bake);
    let mut world = World::new();
    world.order(Order::Try(short(1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    world.order(Order::Try(short(2, 0)));
    world.answer(GenerationId(2), Outcome::Success);
    world.pass(Millis(349), &[2]);
    assert_eq!(
        (world.asked.as_slice(), world.state(1)),
        ([GenerationId(1)].as_slice(), Some(State::Draining))
    );
    world.pass(Millis(1), &[2]);
    assert_eq!(world.state(1), None, "killed at the end of its drain, not before it was asked");
    world.order(Order::Try(short(3, 0)));
    world.answer(GenerationId(3), Outcome::Success);
    world.order(Order::Stop);
    assert_eq!(world.asked, [1, 2, 3].map(GenerationId));
}

#[test]
fn p4_what_ends_before_it_is_asked_to_leaves_its_queue_to_be_rescued() {
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 0)));
    world.answer(GenerationId(2), Outcome::Success);
    let slot = world.processes[&GenerationId(1)].slot;
    assert!(!world.rescues.contains(&slot));
    world.crash(1, 0);
    assert!(world.rescues.contains(&slot) && world.asked.is_empty());
    assert_eq!(world.state(1), None);
}

#[test]
fn a_new_trial_hands_an_unproven_one_back_first() {
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 60_000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.order(Order::Try(launch(3, 60_000)));
    assert_eq!(world.machine.status().serving, Some(release(1)));
    world.answer(GenerationId(3), Outcome::Success);
    let status = world.machine.status();
    assert_eq!((status.serving, status.standby), (Some(release(3)), Some(release(1))));
}

#[test]
fn reloads_that_are_asked_for_during_a_reload_become_one() {
    let mut world = World::serving(1);
    world.order(Order::Try(reload(1, 1000)));
    for number in 2..50 {
        world.order(Order::Try(reload(number, 1000)));
    }
    assert_eq!(world.processes.len(), 2, "one candidate at a time");
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!(world.processes.len(), 3);
    world.answer(GenerationId(3), Outcome::Success);
    world.pass(SECOND, &[1, 2, 3]);
    assert_eq!(world.machine.status().serving, Some(release(49)), "the last one asked for");
    assert_eq!(world.machine.generations().iter().map(|g| g.id.0).max(), Some(3));
}

#[test]
fn what_was_to_be_restored_does_not_push_aside_what_runs_by_now() {
    let restore = |number| Launch { ticket: Ticket::Restore, ..launch(number, 0) };
    let mut world = World::serving(1);
    world.order(Order::Try(restore(2)));
    assert_eq!(world.processes.len(), 1);
    // What the image brought only runs until there is a release.
    let mut world = World::new();
    let image = Plan { release: Running::Image, ..(*launch(0, 0).plan).clone() };
    world.order(Order::Try(Launch { plan: image.into(), ..restore(0) }));
    world.answer(GenerationId(1), Outcome::Success);
    world.order(Order::Try(restore(2)));
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!(world.machine.status().serving, Some(release(2)));
}

#[test]
fn what_could_not_be_selected_is_selected_again() {
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 5000)));
    world.answer(GenerationId(2), Outcome::Success);
    let wanted = world.selected;
    world.step(Event::NotSelected);
    world.selected = (Slot(0), Slot(0));
    world.pass(Millis(200), &[1, 2]);
    assert_eq!(world.selected, wanted);
    assert!(world.machine.deadline().is_none_or(|at| at.since(world.now) > Millis(500)), "once was enough");
}

#[test]
fn f14_a_program_that_cannot_be_spawned_leaves_the_old_one_alone() {
    let mut world = World::serving(1);
    world.cannot_spawn = true;
    world.order(Order::Try(launch(2, 5000)));
    let TrialState::Refused { cause, .. } = world.standing() else { panic!() };
    assert_eq!(cause, Cause::Launch);
    assert_eq!(world.machine.status().serving, Some(release(1)));
}

#[test]
fn a_program_that_listens_elsewhere_is_told_so() {
    let mut world = World::new();
    world.elsewhere = Some("it listens on 3000".into());
    world.order(Order::Try(launch(1, 0)));
    world.answer(GenerationId(1), Outcome::Failure);
    world.pass(Millis::from_secs(60), &[]);
    let limit = Millis::from_secs(60);
    let expected = Fact::Retried(GenerationId(1), Reason::NotHealthyIn(limit, world.elsewhere.clone()));
    assert!(world.said.contains(&expected), "{:?}", world.said);
}

#[test]
fn slots_are_used_again_and_do_not_grow() {
    let mut world = World::serving(1);
    for id in 2..60 {
        world.order(Order::Try(launch(id as u8, 100)));
        world.answer(GenerationId(id), Outcome::Success);
        world.pass(Millis(100), &[id]);
        let event = world.end(GenerationId(id - 1), Exit::Code(0), true).unwrap();
        world.step(event);
        for slot in std::mem::take(&mut world.rescues) {
            world.step(Event::Quiet(slot));
        }
    }
    assert!(world.selected.0 <= Slot(2), "{:?}", world.selected);
}
