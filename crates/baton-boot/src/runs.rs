//! The generations' processes.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_core::exit::Exit;
use baton_core::ids::GenerationId;
use baton_core::signal::Signal;
use baton_core::supervisor::{Event, Plan, Scope, Slot};
use baton_sys::priority;
use baton_sys::process::{self, Waited};
use baton_sys::terminal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::followed::Followed;
use crate::log;
use crate::memory::Memory;
use crate::notify::Ended;
use crate::output::LastLines;
use crate::probe::Surroundings;
use crate::tree::{self, Main, REAPED_AT_ONCE, Root, signal_all};

/// Of how many generations that are gone the last lines are kept: their failure is reported when they are.
const LAST_WORDS: usize = 4;

/// Of how many copies that have ended it is remembered that they were of their generation.
const ENDED_KEPT: usize = 64;

/// What each copy of a generation is told that is not in its plan.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// The folder that it may write to, if there is one.
    pub scratch: Option<PathBuf>,
    /// Where it says how it is.
    pub notify: String,
}

/// The priority of a generation that is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lowered {
    /// What it has.
    pub nice: i32,
    /// What it gets when it serves.
    pub then: i32,
}

/// One generation's processes and what was opened for them.
#[derive(Debug)]
pub struct Run {
    /// What its processes are known by, once it was started.
    pub root: Option<Root>,
    /// What only its launch knew of what it is told.
    pub told: Told,
    /// What it runs.
    pub plan: Arc<Plan>,
    /// Whose sockets it has.
    pub slot: Slot,
    /// What it wrote at last.
    pub lines: LastLines,
    /// Where it runs and with what, once it was started.
    pub surroundings: Option<Surroundings>,
    /// Hears what it says of itself.
    pub notices: Option<JoinHandle<()>>,
    /// Looks whether it gets on with its work.
    pub beacon: Option<JoinHandle<()>>,
    /// Looks at what its main process does, which is not asked to stop meanwhile.
    pub examination: Option<JoinHandle<()>>,
    /// When it is sent at the latest what [`Runs::signal_after`] is to send.
    latest: Option<watch::Sender<Instant>>,
    /// Its `oom_score_adj`, once it was set.
    pub weight: Option<i16>,
    /// Its priority is lower than it shall be, while it is judged.
    pub lowered: Option<Lowered>,
    /// Our terminal is its own.
    pub on_terminal: bool,
    /// It gets the new connections.
    pub serves: bool,
    /// It was proven: what it uses from now on is no part of what a start takes.
    pub proven: bool,
    /// The main process of each copy, until it is told that it has ended.
    copies: Vec<Option<Current>>,
    /// The process that it has named as its main one, if it has.
    followed: Option<Followed>,
    /// Takes the ends of its main processes, and tells each when all has been heard that was said before: it may have named
    /// another main process.
    pub after_said: Option<mpsc::UnboundedSender<Ended>>,
    /// We have killed it.
    killed: bool,
    /// No process is left.
    empty: bool,
}

/// The main process of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Current {
    main: Main,
    /// It has ended, and that is still to be told: its pid may be somebody else's.
    has_ended: bool,
}

impl Current {
    fn running(main: Main) -> Self {
        Self { main, has_ended: false }
    }
}

impl Run {
    /// One that is about to be started.
    pub fn new(plan: Arc<Plan>, slot: Slot) -> Self {
        let lines = LastLines::default();
        Self {
            root: None,
            told: Told::default(),
            plan,
            slot,
            lines,
            surroundings: None,
            notices: None,
            beacon: None,
            examination: None,
            latest: None,
            weight: None,
            lowered: None,
            on_terminal: false,
            serves: false,
            proven: false,
            copies: Vec::new(),
            followed: None,
            after_said: None,
            killed: false,
            empty: false,
        }
    }

    /// A copy has been started.
    pub fn add_copy(&mut self, copy: u32, main: Main) {
        let index = copy as usize;
        if self.copies.len() <= index {
            self.copies.resize(index + 1, None);
        }
        self.copies[index] = Some(Current::running(main));
        self.empty = false;
        if let Some(root) = &mut self.root {
            // Of one that is gone there may be others left in its session, for a while.
            root.mains.push(main);
            let surplus = root.mains.len().saturating_sub(self.copies.len() + ENDED_KEPT);
            root.mains.drain(..surplus);
        }
    }

    /// Another process is the main one from now on; whether it was not before. Only where there is one copy, and as long as
    /// nobody was told that this one has ended.
    fn follow(&mut self, main: Main, events: &mpsc::UnboundedSender<Event>) -> bool {
        let [Some(before)] = self.copies[..] else { return false };
        if before.main == main {
            return false;
        }
        self.copies[0] = Some(Current::running(main));
        self.followed = Some(Followed::watch(main, events.clone()));
        if let Some(root) = &mut self.root {
            root.follow(before.main, main);
        }
        true
    }

    /// This copy's main process has ended: that is told in its turn. Given back where nobody hears what is said before.
    fn tell_later(&mut self, generation: GenerationId, copy: usize, exit: Exit) -> Option<Ended> {
        let current = self.copies.get_mut(copy)?.as_mut()?;
        current.has_ended = true;
        let ended = Ended { generation, main: current.main, exit };
        match &self.after_said {
            Some(later) => later.send(ended).err().map(|unheard| unheard.0),
            None => Some(ended),
        }
    }

    /// The copy whose main process this is, and has not ended.
    fn copy_of(&self, pid: i32) -> Option<usize> {
        self.copies.iter().position(|copy| copy.is_some_and(|one| one.main.pid == pid && !one.has_ended))
    }

    /// A copy was given these sockets, by their inodes.
    pub fn add_sockets(&mut self, sockets: &[u64]) {
        let Some(root) = &mut self.root else { return };
        let new: Vec<u64> = sockets.iter().copied().filter(|socket| !root.sockets.contains(socket)).collect();
        root.sockets.extend(new);
    }

    /// The main processes that have not ended.
    pub fn mains(&self) -> impl Iterator<Item = i32> {
        self.copies.iter().flatten().filter(|current| !current.has_ended).map(|current| current.main.pid)
    }

    /// It was told that every main process has ended.
    fn is_reaped(&self) -> bool {
        self.root.is_some() && self.copies.iter().all(Option::is_none)
    }

    fn is_empty(&self) -> bool {
        if process::adopts_orphans() && !process::has_children() {
            return true;
        }
        let Some(root) = &self.root else { return true };
        // Where processes cannot be listed, the limit of the stop decides.
        self.is_reaped()
            && tree::of(root).is_ok_and(|left| left.iter().all(|process| root.is_main(process.pid)))
    }

    fn signal(&self, signal: Signal, scope: Scope) -> io::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        match scope {
            Scope::Main => self.signal_mains(signal),
            Scope::Rest => {
                let mut rest = tree::of(root)?;
                rest.retain(|process| !root.is_main(process.pid));
                signal_all(&rest, signal)
            }
            Scope::Tree if signal == Signal::KILL => {
                let killed = tree::kill(|| tree::of(root));
                // Those are reached also without a free descriptor to find anybody else by.
                self.signal_mains(signal).and(killed)
            }
            Scope::Tree => signal_all(&tree::of(root)?, signal),
        }
    }

    fn signal_mains(&self, signal: Signal) -> io::Result<()> {
        let followed = |pid: i32| self.followed.as_ref().filter(|followed| followed.main.pid == pid);
        let send = |pid| match followed(pid).and_then(|followed| followed.main.process()) {
            // It may be another one's child, who has reaped it.
            Some(process) => process::signal(process, signal),
            None => process::signal_child(pid, signal),
        };
        let sent: Vec<io::Result<()>> = self.mains().map(send).collect();
        sent.into_iter().collect()
    }
}

/// What came of taking the exit status of children.
#[derive(Debug, Default)]
pub struct Reaped {
    /// The ends that are told at once, as nobody hears any more what was said before.
    pub unheard: Vec<Ended>,
    /// There may be more of them.
    pub more: bool,
}

/// All generations that are not forgotten.
#[derive(Debug, Default)]
pub struct Runs {
    runs: BTreeMap<GenerationId, Run>,
    /// The process group that our terminal was given to.
    foreground: Option<i32>,
    /// Children that are no generation's main process, and who waits for their end.
    awaited: BTreeMap<i32, oneshot::Sender<Exit>>,
    /// What generations that are gone wrote at last, the newest at the end.
    last_words: VecDeque<(GenerationId, LastLines)>,
}

impl Runs {
    /// Adds one.
    pub fn insert(&mut self, id: GenerationId, run: Run) {
        self.runs.insert(id, run);
    }

    /// One of them.
    pub fn get(&self, id: GenerationId) -> Option<&Run> {
        self.runs.get(&id)
    }

    /// One of them, to change.
    pub fn get_mut(&mut self, id: GenerationId) -> Option<&mut Run> {
        self.runs.get_mut(&id)
    }

    /// What the processes are known by of the generation that has this slot, if it has any process left.
    pub fn owner(&self, slot: Slot) -> Option<Root> {
        self.runs.values().rfind(|run| run.slot == slot && !run.empty).and_then(|run| run.root.clone())
    }

    /// Those that are not forgotten, in order of launch.
    pub fn iter(&self) -> impl Iterator<Item = (GenerationId, &Run)> {
        self.runs.iter().map(|(id, run)| (*id, run))
    }

    /// Takes the exit status of children that have ended, a few at a time; `None` when none has.
    pub fn reap(&mut self, memory: &Memory) -> Option<Reaped> {
        self.reap_from(process::reap, memory)
    }

    fn reap_from(
        &mut self,
        mut next: impl FnMut() -> io::Result<Option<Waited>>,
        memory: &Memory,
    ) -> Option<Reaped> {
        let (mut reaped, mut any) = (Reaped::default(), false);
        for _ in 0..REAPED_AT_ONCE {
            // Asked before each is reaped: until then a child's number is its own.
            let elsewhere = self.followed_elsewhere();
            match next() {
                Ok(Some(Waited::Ended(pid, exit))) => {
                    any = true;
                    reaped.unheard.extend(self.ended(pid, exit, &elsewhere, memory));
                }
                Ok(Some(Waited::Stopped(pid))) => self.stopped(pid),
                Ok(None) => return any.then_some(reaped),
                Err(error) => {
                    log::say(format_args!("cannot reap: {error}"));
                    return any.then_some(reaped);
                }
            }
        }
        reaped.more = true;
        Some(reaped)
    }

    /// The numbers of main processes that are followed and not our children: a child of ours that has one got it later.
    fn followed_elsewhere(&self) -> Vec<i32> {
        let followed = self.runs.values().filter_map(|run| run.followed.as_ref());
        followed.filter(|followed| !is_our_child(followed.main)).map(|followed| followed.main.pid).collect()
    }

    /// Who stops a program at our terminal means us too.
    fn stopped(&self, pid: i32) {
        // Those that we kill we suspend ourselves. Of one that has named another one only that one's parent may hear.
        let main = |run: &&Run| {
            let was_main = run.root.iter().flat_map(|root| &root.former).any(|main| main.pid == pid);
            !run.killed && (was_main || run.mains().any(|main| main == pid))
        };
        let foreground = |run: &Run| run.on_terminal && terminal::foreground() == Some(group_of(pid));
        if self.runs.values().find(main).is_some_and(foreground)
            && let Err(error) = terminal::stop_too()
        {
            log::say(format_args!("cannot stop with the program: {error}"));
        }
    }

    /// The generations at our terminal, and their process groups.
    fn on_terminal(&self) -> impl Iterator<Item = (GenerationId, i32)> {
        let on_terminal = self.runs.iter().filter(|(_, run)| run.on_terminal);
        on_terminal.flat_map(|(id, run)| run.mains().map(|main| (*id, group_of(main))))
    }

    /// Whether a generation that is launched now may read from our terminal, and whether it is in its foreground
    /// at once: a candidate is not, beside one that reads already.
    pub fn terminal(&self) -> Option<bool> {
        let foreground = terminal::foreground()?;
        let ours =
            foreground == terminal::own_group() || self.on_terminal().any(|(_, group)| group == foreground);
        ours.then(|| self.on_terminal().next().is_none())
    }

    /// Puts whoever serves in the foreground of our terminal, or the last one launched when none serves, or us when
    /// none is left.
    pub fn hand_terminal(&mut self, serving: Option<GenerationId>) {
        if !self.runs.values().any(|run| run.on_terminal) && self.foreground.is_none() {
            return;
        }
        let served = self.on_terminal().find(|(id, _)| Some(*id) == serving);
        let holder = served.or_else(|| self.on_terminal().last()).map(|(_, group)| group);
        // Somebody else's job, such as a shell that got us into its background, keeps it.
        let held = terminal::foreground();
        let ours = held == Some(terminal::own_group())
            || held == self.foreground
            || self.on_terminal().any(|(_, group)| Some(group) == held);
        if holder != self.foreground
            && ours
            && let Err(error) = terminal::give_to(holder.unwrap_or_else(terminal::own_group))
        {
            log::say(format_args!("cannot hand over the terminal: {error}"));
        }
        self.foreground = holder;
    }

    /// Lets the program that reads from our terminal go on with us. `false`: none of them is at a terminal.
    pub fn resume(&self) -> bool {
        let reads = self.foreground.or_else(|| self.on_terminal().last().map(|(_, group)| group));
        reads.is_some_and(|group| terminal::resume(group).is_ok())
    }

    /// The exit status of a child that was just started and is no generation's main process.
    pub fn exit_of(&mut self, pid: i32) -> oneshot::Receiver<Exit> {
        let (ended, exit) = oneshot::channel();
        self.awaited.insert(pid, ended);
        exit
    }

    fn ended(&mut self, pid: i32, exit: Exit, elsewhere: &[i32], memory: &Memory) -> Option<Ended> {
        if let Some(waits) = self.awaited.remove(&pid) {
            // Whoever asked may have lost patience.
            let _ = waits.send(exit);
            return None;
        }
        if elsewhere.contains(&pid) {
            return None;
        }
        let (id, run, copy) =
            self.runs.iter_mut().find_map(|(id, run)| run.copy_of(pid).map(|copy| (id, run, copy)))?;
        let exit = if run.killed { exit } else { memory.explain(exit) };
        run.tell_later(*id, copy, exit)
    }

    /// Takes note of main processes that have ended and were not ours to reap: how they ended only their parents know. Gives
    /// back what is told at once, as [`Runs::reap`] does.
    pub fn followed_ended(&mut self) -> Vec<Ended> {
        let mut unheard = Vec::new();
        for (id, run) in &mut self.runs {
            let ended = run.followed.as_ref().filter(|followed| followed.has_ended());
            let Some(main) = ended.map(|followed| followed.main) else { continue };
            if run.copies != [Some(Current::running(main))] || is_our_child(main) {
                continue;
            }
            unheard.extend(run.tell_later(*id, 0, Exit::Code(0)));
        }
        unheard
    }

    /// What it means that a main process has ended, when that is told: nothing, if another one has taken its place.
    pub fn end(&mut self, ended: Ended) -> Option<Event> {
        let Ended { generation, main, exit } = ended;
        let run = self.get_mut(generation)?;
        let told = Some(Current { main, has_ended: true });
        let copy = run.copies.iter().position(|copy| *copy == told)?;
        run.copies[copy] = None;
        run.empty = run.is_empty();
        if run.empty {
            // Nobody writes any more: its last words are on their way, and belong to what is told now.
            run.lines.wait_for_end();
        }
        let empty = run.empty;
        Some(match u32::try_from(copy) {
            Ok(copy) if run.plan.settings.workers > 1 => Event::CopyExited { generation, copy, exit, empty },
            _ => Event::Exited { generation, exit, empty },
        })
    }

    /// Follows another main process of a generation; whether it was not the one already.
    pub fn follow(&mut self, id: GenerationId, main: Main, events: &mpsc::UnboundedSender<Event>) -> bool {
        self.get_mut(id).is_some_and(|run| run.follow(main, events))
    }

    /// Sends to the process that is followed what the one before it was sent, and not before that: where that waits for
    /// [`Runs::signal_after`], so does this.
    pub fn ask_followed(&self, id: GenerationId, signal: Signal) {
        let Some(run) = self.get(id) else { return };
        let Some(process) = run.followed.as_ref().and_then(|followed| followed.main.process()) else {
            return;
        };
        let latest = run.latest.clone();
        tokio::spawn(async move {
            if let Some(latest) = latest {
                latest.closed().await;
            }
            for signal in [signal, Signal::CONT] {
                if let Err(error) = process::signal(process, signal) {
                    log::say(format_args!("cannot send {signal} to generation {id}: {error}"));
                }
            }
        });
    }

    /// Tells which generations have lost their last process since.
    pub fn emptied(&mut self) -> Vec<Event> {
        let mut emptied = Vec::new();
        for (id, run) in &mut self.runs {
            if run.is_reaped() && !run.empty && run.is_empty() {
                run.empty = true;
                emptied.push(Event::Emptied(*id));
            }
        }
        emptied
    }

    /// Sets how soon the kernel ends a generation when memory runs out, unless it is set to that already.
    pub fn weigh(&mut self, id: GenerationId, score: i16) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.weight != Some(score)) else { return };
        let Some(root) = &run.root else { return };
        run.weight = Some(score);
        // It happens at every handover. Who is overlooked keeps what it has from who started it.
        let descendants = process::descendants().unwrap_or_default();
        for process in tree::among(&descendants, root) {
            // A value below that of a privileged process above us cannot be had: then it stays.
            let _ = process::set_oom_score_adj(process.pid, score);
        }
    }

    /// Gives a generation that was judged the priority that it shall have.
    pub fn raise(&mut self, id: GenerationId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (Some(lowered), Some(root)) = (run.lowered.take(), &run.root) else { return };
        if let Some(surroundings) = &mut run.surroundings {
            surroundings.attributes.nice = Some(lowered.then);
        }
        let descendants = process::descendants().unwrap_or_default();
        for process in tree::among(&descendants, root) {
            priority::change(process.pid, lowered.nice, lowered.then);
        }
    }

    /// Whether any generation serves.
    pub fn any_serves(&self) -> bool {
        self.runs.values().any(|run| run.serves)
    }

    /// Sends a signal to a generation.
    pub fn signal(&mut self, id: GenerationId, signal: Signal, scope: Scope) {
        let Some(run) = self.get_mut(id) else { return };
        // What cannot be killed is tried again and again.
        let told = run.killed && signal == Signal::KILL;
        run.killed |= signal == Signal::KILL;
        if let Err(error) = run.signal(signal, scope)
            && !told
        {
            log::say(format_args!("cannot send {signal} to generation {id}: {error}"));
        }
    }

    /// Sends a signal to a generation's main processes when something has come to an end, or the limit has passed: to those
    /// that still run then.
    pub fn signal_after(
        &mut self,
        end: impl Future<Output = ()> + Send + 'static,
        limit: Duration,
        id: GenerationId,
        signal: Signal,
    ) {
        let Some(run) = self.get_mut(id) else { return };
        let (latest, at) = watch::channel(Instant::now() + limit);
        run.latest = Some(latest);
        let running = |main: &&Main| run.mains().any(|pid| pid == main.pid);
        let mains = run.root.iter().flat_map(|root| &root.mains).filter(running);
        let Some(mains) = mains.map(Main::process).collect::<Option<Vec<_>>>() else {
            // Without /proc it cannot be told later from another one that got its pid.
            return self.signal(id, signal, Scope::Main);
        };
        tokio::spawn(async move {
            end_or_latest(end, at).await;
            if let Err(error) = signal_all(&mains, signal) {
                log::say(format_args!("cannot send {signal} to generation {id}: {error}"));
            }
        });
    }

    /// What [`Runs::signal_after`] is to send to a generation is sent after this time at the latest.
    pub fn hurry(&mut self, id: GenerationId, limit: Duration) {
        let by = Instant::now() + limit;
        if let Some(latest) = self.get(id).and_then(|run| run.latest.as_ref()) {
            latest.send_modify(|at| *at = by.min(*at));
        }
    }

    /// Lets go of a generation of which no process is left, and tells its slot unless another one has that.
    pub fn forget(&mut self, id: GenerationId) -> Option<Slot> {
        let run = self.runs.remove(&id)?;
        [run.notices, run.beacon].into_iter().flatten().for_each(|task| task.abort());
        self.last_words.push_back((id, run.lines));
        let surplus = self.last_words.len().saturating_sub(LAST_WORDS);
        self.last_words.drain(..surplus);
        self.runs.values().all(|other| other.slot != run.slot).then_some(run.slot)
    }

    /// The last lines that a generation wrote.
    pub fn last_lines(&self, id: GenerationId) -> Vec<String> {
        let living = self.get(id).map(|run| &run.lines);
        let gone = || self.last_words.iter().find(|(gone, _)| *gone == id).map(|(_, lines)| lines);
        living.or_else(gone).map(LastLines::get).unwrap_or_default()
    }
}

/// The process group of a main process at our terminal: its own, if we have started it, and one that was named may have that
/// of the one before.
fn group_of(main: i32) -> i32 {
    terminal::group_of(main).unwrap_or(main)
}

/// Whether this very process, and not another one with its number, is a child of ours that was not reaped.
fn is_our_child(main: Main) -> bool {
    process::is_child(main.pid) && main.process().is_none_or(|process| !process::is_gone(process))
}

/// Waits for an end, but not longer than until the latest moment, which may come nearer meanwhile.
async fn end_or_latest(end: impl Future<Output = ()>, mut latest: watch::Receiver<Instant>) {
    let passed = async {
        loop {
            let at = *latest.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(at) => return,
                changed = latest.changed() => if changed.is_err() { return },
            }
        }
    };
    tokio::select! {
        () = end => {}
        () = passed => {}
    }
}

#[cfg(test)]
mod tests;
