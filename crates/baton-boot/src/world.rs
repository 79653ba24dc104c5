//! Does what the supervisor asks for.
//!
//! What takes long is only started here; its end comes back as an event.

mod bypass;
mod launch;
mod room;

use std::time::{Duration, Instant};

use baton_core::ids::GenerationId;
use baton_core::run::{Probe, oom_score_adj};
use baton_core::signal::Signal;
use baton_core::supervisor::{Command, Event, Scope, Selection, Slot, State, Supervisor};
use baton_core::units::Millis;
use baton_core::words::Words;
use baton_sys::process;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::bypass::Bypasses;
use crate::admin::{self, Around, Outside};
use crate::config::Config;
use crate::elsewhere::{self, Asked};
use crate::environment::withheld;
use crate::evidence;
use crate::forwarding;
use crate::interception::Interception;
use crate::listeners::Listeners;
use crate::log;
use crate::memory::Memory;
use crate::notify::{Ended, News};
use crate::outlive::{caught, caught_now, fault, rest};
use crate::output::Outlet;
use crate::place::{Note, Place};
use crate::probe::{self, Check, Question};
use crate::rescue::{self, Onward, Stray};
use crate::runs::{Reaped, Runs};
use crate::seldom::Seldom;
use crate::traffic::Traffic;
use crate::tree::{self, Main};
use crate::watching::Watching;

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
    watching: Watching,
    outlet: Outlet,
    events: mpsc::UnboundedSender<Event>,
    notices: mpsc::Sender<News>,
    onward: Onward,
    bypasses: Bypasses,
    /// It is looked whether generations without a main process have lost their last one, which takes a list of all
    /// processes.
    emptied: Seldom,
}

impl World {
    /// A world without any process; what happens in it goes to `events`, what programs say and that they end to `notices`.
    pub fn new(
        config: Config,
        place: Place,
        events: mpsc::UnboundedSender<Event>,
        notices: mpsc::Sender<News>,
        outlet: Outlet,
    ) -> Self {
        let (strays, found) = mpsc::unbounded_channel();
        tokio::spawn(forward_all(found));
        let memory = Memory::watch(events.clone());
        Self {
            listeners: Listeners::new(&config),
            interception: Interception::default(),
            config,
            place,
            runs: Runs::default(),
            watching: Watching::default(),
            memory,
            outlet,
            events,
            notices,
            onward: Onward { strays, traffic: Traffic::default() },
            bypasses: Bypasses::default(),
            emptied: Seldom::default(),
        }
    }

    /// Starts to watch what programs use, and to keep the note of what runs.
    pub fn watch(&self) {
        self.place.keep_note();
        self.watching.start(self.memory.clone(), self.events.clone());
    }

    /// Gives new connections to others, and whether that has succeeded.
    pub fn select(&mut self, selection: Selection) -> bool {
        let selected = self.listeners.select(selection);
        if !selected {
            self.tell(Event::NotSelected);
        }
        selected
    }

    /// Does one thing. Who gets new connections, the exit code and what is to be committed are the caller's business.
    pub fn perform(&mut self, command: Command) {
        match command {
            Command::Spare(count) => self.listeners.spares = count,
            Command::Measure { generation, release } => self.measure(generation, release),
            Command::CountAccepted { generation, enough } => self.count_accepted(generation, enough),
            Command::StopCounting(generation) => self.onward.traffic.forget(generation),
            Command::Spawn { generation, plan, slot } => self.spawn(generation, &plan, slot),
            Command::SpawnCopy { generation, copy } => self.spawn_copy(generation, copy),
            Command::Bypass { generation, copy } => self.bypass(generation, copy),
            Command::Probe { generation, copy, private } => self.probe(generation, copy, private),
            Command::Examine(generation) => self.examine(generation),
            Command::Locate(generation) => self.locate(generation),
            Command::Follow { generation, pid, started, ask } => {
                self.follow(generation, Main { pid, started: Some(started) }, ask);
            }
            Command::Stop { generation, signal, limit } => self.stop(generation, signal, in_ms(limit)),
            Command::Hurry { generation, limit } => self.runs.hurry(generation, in_ms(limit)),
            Command::Kill { generation, signal, scope } => self.kill(generation, signal, scope),
            Command::Rescue(slot) => self.rescue(slot),
            Command::Close => {
                self.bypasses.end_all();
                self.listeners.close();
            }
            Command::Forget(generation) => {
                if let Some(slot) = self.runs.forget(generation) {
                    self.listeners.forget(slot);
                }
                self.watching.forget(generation);
                self.interception.forget(generation);
                self.onward.traffic.forget(generation);
                self.place.forget(generation);
            }
            Command::Say(fact) => log::say(&fact),
            Command::Select(_) | Command::TimeHandover(_) | Command::Commit { .. } | Command::Exit(_) => {}
        }
    }

    /// Takes the exit status of children that have ended; whether there may be more of them.
    pub fn reap(&mut self) -> bool {
        let Some(Reaped { unheard, more }) = self.runs.reap(&self.memory) else { return false };
        unheard.into_iter().for_each(|ended| self.end_now(ended));
        self.emptied.want();
        self.look();
        more
    }

    /// What it means that a main process has ended; nothing, if another one has taken its place.
    pub fn end(&mut self, ended: Ended) -> Option<Event> {
        // Who is left behind may have ended before this was told.
        self.emptied.want();
        self.runs.end(ended)
    }

    fn end_now(&mut self, ended: Ended) {
        if let Some(event) = self.end(ended) {
            self.tell(event);
        }
    }

    /// In how long it is to be looked again who has lost its last process, if it is.
    pub fn looks_in(&self) -> Option<Duration> {
        let now = Instant::now();
        self.emptied.due(now).map(|due| due.duration_since(now))
    }

    /// Looks who has lost its last process, if that is due.
    pub fn look(&mut self) {
        self.runs.followed_ended().into_iter().for_each(|ended| self.end_now(ended));
        let emptied = self.emptied.take(Instant::now, || self.runs.emptied());
        emptied.into_iter().flatten().for_each(|event| self.tell(event));
    }

    /// Notes what runs, for a start after this run was cut off.
    pub fn note(&self, machine: &Supervisor) {
        let together = || self.memory.usage().is_some_and(|usage| usage.together);
        self.place.note(|| Note::of(machine, together()));
    }

    /// A generation has named another one of its processes as its main one.
    fn follow(&mut self, id: GenerationId, main: Main, ask: Option<Signal>) {
        // One that has ended by now is followed no more.
        let gone = main.process().is_none_or(process::is_gone);
        if gone || !self.runs.follow(id, main, &self.events) {
            return;
        }
        let pid = main.pid;
        log::say(format_args!(
            "generation {id} is followed at process {pid}, which it names as its main one"
        ));
        if let Some(signal) = ask {
            self.runs.ask_followed(id, signal);
        }
    }

    /// Lets a program at our terminal go on, after we were stopped with it; `false` where there is none.
    pub fn resume(&self) -> bool {
        self.runs.resume()
    }

    /// Takes note of who serves: it has the terminal, and the kernel is to end it last, should memory run out.
    pub fn weigh(&mut self, machine: &Supervisor) {
        let serving = machine.generations().iter().find(|generation| generation.state == State::Serving);
        self.runs.hand_terminal(serving.map(|generation| generation.id));
        let none_serves = serving.is_none();
        for generation in machine.generations() {
            let serving = generation.state == State::Serving;
            if serving {
                self.interception.serves(&generation.plan);
            }
            if let Some(run) = self.runs.get_mut(generation.id) {
                run.serves = serving;
            }
            let score = oom_score_adj(&generation.plan.settings.process, serving);
            self.runs.weigh(generation.id, score);
            let judged = matches!(generation.state, State::Starting | State::Probing);
            // With nobody beside it, it need not stand back.
            if serving || judged && none_serves {
                self.runs.raise(generation.id);
            }
        }
    }

    fn probe(&mut self, id: GenerationId, copy: u32, private: bool) {
        // Anybody may have removed one, and a probe does not come by it.
        self.listeners.keep_names();
        self.listeners.look_for_strangers();
        let events = self.events.clone();
        match caught_now(|| self.question(id, copy, private)) {
            None => self.tell(Event::NotAsked(id)),
            Some(Ok((question, timeout))) => drop(tokio::spawn(async move {
                let asked = caught(async {
                    fault("probe");
                    probe::ask(question, timeout).await
                });
                // A fault of ours says nothing of the program; but without an end, nothing would be asked any more.
                let found = asked.await.map_or(Event::NotAsked(id), |found| Event::Probed(id, found));
                let _ = events.send(found);
            })),
            // Every probe has an end, or none would follow.
            Some(Err(why)) => self.tell(Event::Probed(id, Err(Words::new(&why)))),
        }
    }

    fn count_accepted(&mut self, id: GenerationId, enough: u64) {
        let Some(run) = self.runs.get(id) else { return };
        let listeners = run.plan.settings.listen.iter();
        let mut here = |name: &String| self.listeners.named(run.slot, name)?.listen().address.tcp();
        let addresses = listeners.filter_map(|listen| here(&listen.name)).collect();
        self.onward.traffic.count(id, addresses, enough, self.events.clone());
    }

    fn question(&mut self, id: GenerationId, copy: u32, private: bool) -> Result<(Question, Millis), String> {
        let run = self.runs.get(id).ok_or("it does not run")?;
        let check = run.plan.check().cloned().ok_or("there is nothing to ask")?;
        if let Probe::Exec { command } = &check.probe {
            let surroundings = run.surroundings.clone().ok_or("it does not run")?;
            let started = Check::start(command, &surroundings, |pid| self.runs.exit_of(pid))?;
            return Ok((Question::Run(started), check.timeout));
        }
        let (name, slot) = (check.listener.unwrap_or_default(), run.slot);
        let listener = self.listeners.named(slot, &name);
        let way = listener.map(|listener| listener.way(slot, copy, private));
        let way = way.transpose().map_err(|error| log::chain(&error))?.flatten();
        let way = way.ok_or_else(|| format!("there is no way to listener {name:?}"))?;
        self.onward.traffic.note_own(id, &way.to);
        Ok((Question::Connect { probe: check.probe, way }, check.timeout))
    }

    /// Looks at what a generation's processes do, and at what it wrote last.
    fn examine(&mut self, id: GenerationId) {
        let (last, events) = (self.last_lines(id), self.events.clone());
        let Some(run) = self.runs.get_mut(id) else { return };
        let root = run.root.clone();
        run.examination = Some(tokio::spawn(async move {
            let found = match root {
                Some(root) => evidence::gather(root).await,
                None => Vec::new(),
            };
            let last = last.iter().rev().take(LAST_LINES_SAID).rev().map(|line| format!("wrote: {line}"));
            for line in found.iter().cloned().chain(last) {
                log::say(format_args!("generation {id}: {line}"));
            }
            let _ = events.send(Event::Examined(id, found.join("\n")));
        }));
    }

    /// Looks whether a generation that does not answer listens elsewhere.
    fn locate(&mut self, id: GenerationId) {
        let Some(run) = self.runs.get(id) else { return };
        let (Some(root), Some(name)) =
            (run.root.clone(), run.plan.check().and_then(|check| check.listener.clone()))
        else {
            return;
        };
        let slot = run.slot;
        let Some(listener) = self.listeners.named(slot, &name) else { return };
        let asked = Asked {
            address: listener.listen().address.clone(),
            to_bind: listener.to_bind(slot, 0),
            socket: listener.socket(slot, 0),
        };
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let hint = elsewhere::look(&root, &asked).map(|hint| Event::ListensElsewhere(id, hint));
            // The receiver lives as long as the member.
            hint.map(|hint| events.send(hint))
        });
    }

    fn stop(&mut self, id: GenerationId, signal: Signal, limit: Duration) {
        let Some(run) = self.runs.get_mut(id) else { return };
        let examination = run.examination.take_if(|examination| !examination.is_finished());
        // Its program may close a socket at which a connection still waits that was forwarded to it.
        let settled = self.listeners.settled(run.slot, limit);
        if examination.is_none() && settled.is_none() {
            self.runs.signal(id, signal, Scope::Main);
        } else {
            // Of the time that a program has to stop, most is its own.
            let examined = examination.map(|examination| timeout(limit / 4, examination));
            let ready = async {
                tokio::join!(ended(examined), ended(settled));
            };
            self.runs.signal_after(ready, limit, id, signal);
        }
        self.runs.signal(id, Signal::CONT, Scope::Main);
    }

    fn kill(&mut self, id: GenerationId, signal: Signal, scope: Scope) {
        self.runs.signal(id, signal, scope);
        if scope != Scope::Main {
            self.runs.emptied().into_iter().for_each(|event| self.tell(event));
        }
    }

    fn rescue(&mut self, slot: Slot) {
        self.bypasses.end(slot, None);
        let (owner, onward, events) = (self.runs.owner(slot), self.onward.clone(), self.events.clone());
        // What is relayed to a program that has ended would wait for it: the rescue accepts instead.
        drop(self.listeners.settled(slot, Duration::ZERO));
        let watched = self.listeners.queues(slot);
        if watched.is_empty() {
            return self.tell(Event::Quiet(slot));
        }
        tokio::spawn(async move {
            let quiet = || {
                let events = events.clone();
                move || drop(events.send(Event::Quiet(slot)))
            };
            while let Err(error) = rescue::watch(&watched, owner.as_ref(), &onward, quiet()) {
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
    pub fn status(&self, now: Millis, machine: &Supervisor, settings: Option<String>) -> serde_json::Value {
        let cut_off = self.place.cut_off().cloned();
        let (memory, own, others) = (self.memory.usage(), self.watching.own(), self.watching.others());
        let member = Around { memory, own, others, settings, cut_off };
        admin::status(now, machine, &self.listeners, &member, |id| Outside {
            pids: self.runs.get(id).map(|run| run.mains().collect()).unwrap_or_default(),
            found: self.watching.of(id),
            withheld: self.runs.get(id).map(|run| withheld(&self.config, &run.plan)).unwrap_or_default(),
            unanswered: self.interception.lost(id),
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

    /// Ends what is left of this run within the limit: answers on their way, and processes that no generation owns.
    pub async fn leave(&mut self, limit: Duration) {
        tokio::join!(forwarding::over(limit), tree::end_strays(limit));
        self.bypasses.end_all();
        self.listeners.close();
    }

    /// Removes the files that only this run needed.
    pub async fn clear(&mut self) {
        self.place.leave().await;
    }
}

fn in_ms(time: Millis) -> Duration {
    Duration::from_millis(time.0)
}

/// Waits for what may not be there.
async fn ended(what: Option<impl Future>) {
    if let Some(what) = what {
        what.await;
    }
}

async fn forward_all(mut found: mpsc::UnboundedReceiver<Stray>) {
    while caught(forward_each(&mut found)).await.is_none() {
        rest().await;
    }
}

async fn forward_each(found: &mut mpsc::UnboundedReceiver<Stray>) {
    fault("strays");
    while let Some(stray) = found.recv().await {
        tokio::spawn(rescue::forward(stray));
    }
}
