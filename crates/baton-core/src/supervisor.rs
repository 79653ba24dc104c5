//! The bootloader's decisions: which generation is launched, judged, serves, stands by, drains and goes.
//!
//! [`Supervisor::step`] takes what happened and answers with what to do; [`Supervisor::deadline`] says when to
//! call it again though nothing happened. It owns no clock, no socket and no process.
//!
//! Every launch takes the same way: a slot of its own, judged on the private path, switched to when healthy,
//! the one before standing by for the bake. The one exception is a program that crashed and left nothing
//! behind: it is launched again on the very sockets where its clients are waiting.

mod copies;
mod crash;
mod elsewhere;
mod generation;
mod message;
mod plan;
mod recycle;
mod report;
mod room;
mod said;
mod selection;
mod slots;
mod stop;
#[cfg(test)]
mod tests;
mod trial;
mod watchdog;

use alloc::sync::Arc;
use alloc::vec::Vec;

pub use elsewhere::listens_elsewhere;
pub use generation::{Change, Ending, Generation, Illegal, State};
pub use message::{Command, Event, Order, Scope};
pub use plan::{Launch, Plan, Running, Ticket};
pub use recycle::{RECYCLE_EVERY, TOO_MUCH_FOR};
pub use report::{Fact, Reason, Status, TrialState};
pub use selection::{Selection, Split};
pub use slots::Slot;
pub use stop::{End, Urgency, drain_within, shutdown};
pub use watchdog::Watchdog;

use crate::backoff::{Backoff, Next};
use crate::exit::Exit;
use crate::health::{Health, Outcome};
use crate::ids::{GenerationId, ReleaseId};
use crate::run::Ready;
use crate::signal::Signal;
use crate::units::Millis;
use crate::words::Words;
use crash::Restart;
use slots::Slots;
use stop::Stop;
use trial::Trial;

/// How long a program of which nothing can be asked must run to count as healthy: long enough for a missing
/// module or a wrong setting to end it.
pub const SETTLE: Millis = Millis::from_secs(1);
/// A program that asks to be relaunched sooner than this after its launch is crashing in disguise.
const RELAUNCH_AGE_MIN: Millis = Millis::from_secs(1);
/// How much longer a start or an end may take than its settings allow, if the program asks for it: a migration,
/// or a job that must not be cut, and not a program that asks for ever.
pub const EXTENSION_MAX: Millis = Millis::from_secs(3600);
/// When to try again to select somebody. The kernel refuses only when it has no memory for it.
const SELECT_AGAIN: Millis = Millis(100);

/// The generations of one member.
#[derive(Debug, Clone)]
pub struct Supervisor {
    /// In order of launch; those that are gone are removed.
    generations: Vec<Generation>,
    slots: Slots,
    /// The slot that everybody reaches. Before the first generation serves, connections wait there.
    serving_slot: Slot,
    /// Who owns the serving slot.
    serving: Option<GenerationId>,
    /// Some generation has served: connections at the serving slot wait for it to come back.
    has_served: bool,
    trial: Option<Trial>,
    last_trial: Option<(Ticket, TrialState)>,
    /// What was proven last.
    proven: Option<Proven>,
    restart: Option<Restart>,
    backoff: Backoff,
    stop: Option<Stop>,
    /// A reload that was asked for while another one was being judged.
    reload: Option<Launch>,
    /// When to select once more what could not be selected.
    select_at: Option<Millis>,
    next_id: u32,
    /// How often something was launched again that had failed or ended.
    restarts: u32,
    /// When a generation was last replaced for its memory.
    recycled_at: Option<Millis>,
    /// How long the platform lets a stop take, if that is known.
    stop_limit: Option<Millis>,
    /// The drain of which was said last that the platform cuts it.
    cut_drain: Option<Millis>,
}

/// What stayed healthy for a whole bake.
#[derive(Debug, Clone)]
struct Proven {
    plan: Arc<Plan>,
    started_in: Option<Millis>,
}

/// Restarts allowed before any plan has said how many.
const MAX_RESTARTS_DEFAULT: u32 = 10;

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// A member without any generation.
    pub fn new() -> Self {
        let mut slots = Slots::default();
        let serving_slot = slots.take();
        Self {
            generations: Vec::new(),
            slots,
            serving_slot,
            serving: None,
            has_served: false,
            trial: None,
            last_trial: None,
            proven: None,
            restart: None,
            backoff: Backoff::new(MAX_RESTARTS_DEFAULT),
            stop: None,
            reload: None,
            select_at: None,
            next_id: 1,
            restarts: 0,
            recycled_at: None,
            stop_limit: None,
            cut_drain: None,
        }
    }

    /// Takes in what happened at `now` and answers with what to do, in order.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        match event {
            Event::Order(order) => self.obey(now, order, &mut out),
            Event::Started(id) => self.on_started(now, id),
            Event::FailedToStart(id, exit) => self.on_exit(now, id, exit, true, &mut out),
            Event::Said(id, notice) => self.on_said(now, id, notice, &mut out),
            Event::Named { generation, pid, started } => self.on_named(generation, pid, started, &mut out),
            Event::Probed(id, found) => self.on_probed(now, id, found, &mut out),
            Event::NotAsked(id) => self.on_not_asked(now, id),
            Event::Examined(id, found) => self.on_examined(id, &found),
            Event::Moved(id) => self.on_moved(now, id, &mut out),
            Event::ListensElsewhere(id, hint) => self.on_listens_elsewhere(id, hint),
            Event::Used { generation, used, limit } => self.on_used(now, generation, used, limit, &mut out),
            Event::Measured { generation, room, known } => {
                self.on_measured(now, generation, room, known, &mut out);
            }
            Event::Exited { generation, exit, empty } => self.on_exit(now, generation, exit, empty, &mut out),
            Event::CopyExited { generation, copy, exit, empty } => {
                self.on_copy_exited(now, generation, copy, exit, empty, &mut out);
            }
            Event::Emptied(id) => self.on_emptied(now, id, &mut out),
            Event::Quiet(slot) => self.slots.quiet(slot),
            Event::NoMemoryLeft => self.make_room(now, &mut out),
            Event::NotSelected => self.select_at = Some(now + SELECT_AGAIN),
            Event::Accepted(id, count) => self.on_accepted(id, count),
            Event::HandedOver(id, took) => {
                self.find_mut(id).into_iter().for_each(|generation| generation.handed_over_in = Some(took));
            }
            Event::Woken => {}
        }
        self.pass_time(now, &mut out);
        out
    }

    /// When to call [`Supervisor::step`] with [`Event::Woken`] if nothing else happens before.
    pub fn deadline(&self) -> Option<Millis> {
        let generations = self.generations.iter().filter_map(Generation::deadline);
        let bake = self.trial.as_ref().and_then(Trial::bakes_until);
        let restart = self.restart_at();
        let stop = self.stop.as_ref().map(Stop::gives_up_at);
        generations.chain(bake).chain(restart).chain(stop).chain(self.select_at).min()
    }

    /// The generations that are not gone, in order of launch.
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// How often something was launched again by itself: because it had failed, or ended.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether a trial is under way.
    pub fn on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Whether something is being tried, or waits for that to end.
    pub fn is_busy(&self) -> bool {
        self.trial.is_some() || self.reload.is_some()
    }

    /// The releases that run, are tried, or are to be launched again.
    pub fn releases(&self) -> impl Iterator<Item = ReleaseId> {
        let running = self.generations.iter().map(|generation| &generation.plan);
        let again = self.restart.iter().map(|restart| &restart.plan);
        let proven = self.proven.iter().map(|proven| &proven.plan);
        running.chain(again).chain(proven).filter_map(|plan| plan.release.id())
    }

    /// Whether anything runs, or is to be launched again.
    pub fn has_work(&self) -> bool {
        !self.generations.is_empty() || self.restart.is_some()
    }

    /// The plan of the generation that serves, or that is being launched again to serve.
    pub fn serving_plan(&self) -> Option<Arc<Plan>> {
        let serving = self.serving.and_then(|id| self.find(id)).map(|g| g.plan.clone());
        serving.or_else(|| self.restart.as_ref().map(|restart| restart.plan.clone()))
    }

    fn obey(&mut self, now: Millis, order: Order, out: &mut Vec<Command>) {
        match order {
            Order::Stop => self.on_stop(now, out),
            Order::Forward(signal) => self.forward(signal, out),
            Order::Try(_) | Order::GoBack(_) | Order::HandBack if self.stop.is_some() => {}
            // It took time to prepare, and meanwhile something else runs.
            Order::Try(launch) if launch.ticket == Ticket::Restore && !self.misses(&launch.plan) => {}
            // What was asked for meanwhile may be newer than what is being judged; one more covers them all.
            Order::Try(launch) if launch.ticket == Ticket::Reload && self.judges_reload() => {
                if self.reload.replace(launch).is_none() {
                    out.push(Command::Say(Fact::ReloadWaits));
                }
            }
            Order::Try(launch) => {
                self.reload = None;
                if launch.ticket == Ticket::Restore {
                    // It is not on trial: its limit counts from its first launch.
                    self.backoff = Backoff::new(launch.plan.settings.max_restarts);
                }
                self.try_plan(now, launch, out);
            }
            // A trial under way goes back by itself, or is ended first.
            Order::GoBack(launch) if self.trial.is_none() => {
                // Not there any more: control grants a slot when it sees that.
                drop(self.go_back_to_warm(now, launch, out));
            }
            Order::GoBack(_) => {}
            Order::HandBack => self.end_trial(now, &Reason::TakenBack, out),
        }
    }

    fn on_started(&mut self, now: Millis, id: GenerationId) {
        let Some(generation) = self.find_mut(id) else { return };
        if generation.plan.check.is_some() && generation.plan.settings.ready == Ready::Probe {
            generation.probe_at = Some(now);
        }
    }

    fn on_probed(&mut self, now: Millis, id: GenerationId, found: Result<(), Words>, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        let Some(check) = generation.plan.check.clone() else { return };
        let (asked, found_well) = (generation.asked.take(), found.is_ok());
        let startup = generation.plan.settings.startup_timeout;
        // Where copies share a queue, any of them may have answered.
        let counts = match asked.filter(|_| generation.plan.asks_each()) {
            Some(copy) => generation.copies.answered(now, copy, found_well, startup),
            None => true,
        };
        if !matches!(generation.state, State::Starting | State::Probing | State::Serving) {
            return;
        }
        if !counts {
            generation.probe_at = Some(now + generation.wait(now, &check, found_well));
            return;
        }
        let before = generation.health;
        let outcome = if found_well { Outcome::Success } else { Outcome::Failure };
        generation.health = before.fold(&check, outcome);
        generation.last_failure = found.err();
        generation.probe_at = Some(now + generation.wait(now, &check, found_well));
        let health = generation.health;
        let cause = Reason::Unhealthy(generation.last_failure.clone());
        if before == Health::Starting && health != Health::Starting {
            self.become_ready(now, id, out);
        }
        match health {
            Health::Healthy { .. } if !before.is_healthy() => self.on_healthy(now, id, out),
            Health::Unhealthy { .. } => self.on_unhealthy(now, id, &cause, before.is_healthy(), out),
            Health::Starting | Health::Answering { .. } | Health::Healthy { .. } => {}
        }
    }

    /// It is asked again, and what is known of its health stays.
    fn on_not_asked(&mut self, now: Millis, id: GenerationId) {
        let Some(generation) = self.find_mut(id) else { return };
        let Some(check) = generation.plan.check.clone() else { return };
        generation.asked = None;
        generation.probe_at = Some(now + generation.wait(now, &check, false));
    }

    /// The generation has just become healthy.
    fn on_healthy(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        // Good answers of a program that hangs elsewhere prove nothing.
        if generation.is_starved() {
            return;
        }
        let age = generation.age(now);
        generation.healthy_since = Some(now);
        generation.started_in.get_or_insert(age);
        if generation.state == State::Starting {
            self.become_ready(now, id, out);
        }
        if self.serving == Some(id) {
            self.restart = None;
        }
        if self.is_candidate(id) {
            self.switch(now, id, out);
        } else if self.serving == Some(id) && self.find(id).is_some_and(|g| g.state == State::Probing) {
            self.change(id, Change::Promoted, out);
            self.say_serving(now, id, out);
        }
    }

    /// One more probe or missed sign of life has found the generation unhealthy; `fresh`: it was healthy before.
    fn on_unhealthy(
        &mut self,
        now: Millis,
        id: GenerationId,
        cause: &Reason,
        fresh: bool,
        out: &mut Vec<Command>,
    ) {
        let healthy_since = self.find_mut(id).and_then(|generation| generation.healthy_since.take());
        if self.is_candidate(id) {
            self.try_failed(now, id, cause, out);
        } else if self.serving == Some(id) {
            if fresh {
                // Before anything is done about it.
                out.push(Command::Examine(id));
            }
            self.on_serving_unhealthy(now, id, healthy_since, cause, fresh, out);
        }
    }

    /// A hung program is not cut off: the same release is started beside it and takes over when it is healthy. How long
    /// it was healthy until now says whether this is the next failure of a series.
    fn on_serving_unhealthy(
        &mut self,
        now: Millis,
        id: GenerationId,
        healthy_since: Option<Millis>,
        cause: &Reason,
        fresh: bool,
        out: &mut Vec<Command>,
    ) {
        if self.falls_back() {
            return self.end_trial(now, cause, out);
        }
        let bakes = self.trial.as_ref().is_some_and(|trial| trial.bakes(id));
        if bakes {
            self.refuse(id, cause, out);
        }
        if self.trial.is_none() && self.restart.is_none() && self.stop.is_none() {
            match self.backoff.next(now, healthy_since) {
                Next::Restart(wait) => {
                    out.push(Command::Say(Fact::Restarting(id, cause.clone(), wait)));
                    let Some(plan) = self.plan_after(id, !bakes, out) else { return };
                    self.restart = Some(Restart { at: now + wait, plan, ticket: Ticket::Replace });
                }
                // It answers somebody, perhaps: leaving it is better than leaving nobody.
                Next::GiveUp if fresh => out.push(Command::Say(Fact::GivenUp(id, cause.clone()))),
                Next::GiveUp => {}
            }
        }
    }

    fn on_exit(&mut self, now: Millis, id: GenerationId, exit: Exit, empty: bool, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        let (before, after) = (generation.state, generation.age(now));
        let cause = Reason::Ended { exit: exit.clone(), after, behind: !empty };
        if !self.change(id, Change::Exited, out) {
            return;
        }
        if let Some(generation) = self.find_mut(id) {
            generation.exit = Some(exit);
            let ending = Ending::begin(now, generation.plan.settings.drain);
            let was_asked = generation.ending.get_or_insert(ending).ask_at.is_none();
            if !was_asked {
                // It ended before it was asked to: its sockets are left to look after.
                self.ask(now, id, out);
            }
        }
        // Whatever follows may launch on the same sockets, if nobody holds them any more.
        if empty {
            self.on_emptied(now, id, out);
        } else {
            self.ask_rest(id, out);
        }
        if self.stop.is_some() {
            self.remember_exit(id, &cause);
        } else if self.is_candidate(id) {
            self.try_failed(now, id, &cause, out);
        } else if self.serving == Some(id) {
            self.on_crash(now, id, cause, out);
        } else if before == State::Standby {
            out.push(Command::Say(Fact::StandbyLost(id, cause)));
            self.retire(now, id, out);
        } else if before == State::Quiescing {
            self.retire(now, id, out);
        }
    }

    fn on_emptied(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find(id) else { return };
        let (slot, after) = (generation.slot, generation.age(now));
        let cause = generation.exit.clone().map(|exit| Reason::Ended { exit, after, behind: false });
        self.change(id, Change::Emptied, out);
        if self.find(id).is_some_and(|g| g.state == State::Gone) {
            self.slots.owner_gone(slot);
            // One that never ran has been told of already.
            if !matches!(cause, Some(Reason::Ended { exit: Exit::FailedToStart { .. }, .. })) {
                out.push(Command::Say(Fact::Gone(id, cause)));
            }
            out.push(Command::Forget(id));
            self.measure_again(out);
        }
    }

    /// Does what is due. Everything here depends on time alone.
    fn pass_time(&mut self, now: Millis, out: &mut Vec<Command>) {
        let ids: Vec<GenerationId> = self.generations.iter().map(|g| g.id).collect();
        for id in ids {
            self.pass_time_for(now, id, out);
        }
        self.bake(now, out);
        if self.restart_at().is_some_and(|at| at <= now)
            && let Some(restart) = self.restart.take()
        {
            self.relaunch(now, restart, out);
        }
        if self.select_at.take_if(|at| *at <= now).is_some() {
            self.select(out);
        }
        if !self.judges_reload()
            && let Some(launch) = self.reload.take()
        {
            self.try_plan(now, launch, out);
            return self.pass_time(now, out);
        }
        self.start_what_waited(now, out);
        // Only now: what has ended during this step must still be found above.
        self.generations.retain(|g| g.state != State::Gone);
        self.pass_time_for_stop(now, out);
    }

    fn pass_time_for(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        self.pass_time_for_room(now, id, out);
        self.pass_time_for_signs(now, id, out);
        let leaves = |g: &Generation| g.quiesced_by().or_else(|| g.warm_by());
        if self.find(id).and_then(leaves).is_some_and(|at| at <= now) {
            self.retire(now, id, out);
        }
        while let Some(copy) = self.due_copy(now, id) {
            out.push(Command::SpawnCopy { generation: id, copy });
        }
        let Some(generation) = self.find(id).filter(|generation| generation.lives()) else { return };
        if generation.ending.is_some() {
            self.pass_time_for_ending(now, id, out);
        } else if generation.settles_at().is_some_and(|at| at <= now) {
            self.on_healthy(now, id, out);
        } else if generation.judged_by().is_some_and(|at| at <= now) {
            // What it was given in the end, with what it asked for.
            let limit = generation.judged_by().unwrap_or(now).since(generation.launched);
            let found = generation.elsewhere.as_ref().or(generation.last_failure.as_ref());
            let cause = Reason::NotHealthyIn(limit, found.cloned());
            self.on_never_healthy(now, id, &cause, out);
        } else if generation.probe_due().is_some_and(|at| at <= now) {
            // One that gets a part of the connections is asked on the way that only leads to it.
            let private = generation.slot != self.serving_slot || self.split().is_some();
            let Some(generation) = self.find_mut(id) else { return };
            let copy = generation.copy_to_ask();
            generation.asked = Some(copy);
            out.push(Command::Probe { generation: id, copy, private });
        }
    }

    fn on_never_healthy(&mut self, now: Millis, id: GenerationId, cause: &Reason, out: &mut Vec<Command>) {
        if self.is_candidate(id) {
            return self.try_failed(now, id, cause, out);
        }
        // A program that was launched again on the serving slot: it must go before the next may come.
        self.retire(now, id, out);
        if self.serving == Some(id) {
            self.on_crash(now, id, cause.clone(), out);
        }
    }

    fn add(&mut self, now: Millis, plan: Arc<Plan>, slot: Slot) -> GenerationId {
        let id = GenerationId(self.next_id);
        self.next_id += 1;
        self.generations.push(Generation::new(id, plan, slot, now));
        id
    }

    /// Spawns a generation that was added.
    fn start(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let others = self.generations.iter().filter(|g| g.lives() && g.id != id).count();
        if !self.change(id, Change::Launched, out) {
            return;
        }
        let Some(generation) = self.find_mut(id) else { return };
        generation.launched = now;
        let (plan, slot) = (generation.plan.clone(), generation.slot);
        // Anyone else may leave the group; the one that is launched may, too, once it has been replaced.
        out.push(Command::Spare(others + 1));
        // Launched in place, it is reached like everybody; the private path stays with whom it leads to.
        let private = if slot == self.serving_slot { self.private_slot() } else { slot };
        let serving = self.serving_slot;
        out.push(Command::Select(Selection { serving, private, split: self.split() }));
        self.report_cut_drain(id, plan.settings.drain, out);
        let fact = Fact::Launched(id, plan.release);
        out.push(Command::Spawn { generation: id, plan, slot });
        // Said in the form in which the release wants its output.
        out.push(Command::Say(fact));
    }

    fn forward(&self, signal: Signal, out: &mut Vec<Command>) {
        let serving = self.serving.and_then(|id| self.find(id)).filter(|g| g.exit.is_none());
        let only = || self.generations.iter().find(|g| g.lives() && g.exit.is_none());
        if let Some(generation) = serving.or_else(only) {
            out.push(Command::Kill { generation: generation.id, signal, scope: Scope::Main });
        }
    }

    fn standby(&self) -> Option<GenerationId> {
        self.generations.iter().find(|g| g.state == State::Standby).map(|g| g.id)
    }

    fn find(&self, id: GenerationId) -> Option<&Generation> {
        self.generations.iter().find(|g| g.id == id)
    }

    fn find_mut(&mut self, id: GenerationId) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|g| g.id == id)
    }

    /// Whether the generation has changed.
    fn change(&mut self, id: GenerationId, change: Change, out: &mut Vec<Command>) -> bool {
        let split = self.split();
        let Some(generation) = self.find_mut(id) else { return false };
        match generation.state.next(change) {
            Ok(state) => generation.state = state,
            Err(illegal) => {
                out.push(Command::Say(Fact::Fault(id, illegal)));
                return false;
            }
        }
        if split.is_some() && self.split().is_none() {
            // The other one goes: before anything is done about that, nobody must reach it any more.
            self.select(out);
        }
        true
    }
}
