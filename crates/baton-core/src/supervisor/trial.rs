//! Trying a plan: beside what serves, judged, switched to, baked, proven, or taken back.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::plan::{Launch, Plan, Running, Ticket};
use super::report::{Fact, Reason, TrialState};
use super::watchdog::Watchdog;
use super::{Change, Command, Generation, Proven, Restart, State, Supervisor};
use crate::backoff::{Backoff, Next};
use crate::bake::{Bake, TRAFFIC_PATIENCE};
use crate::costs::is_slower;
use crate::ids::GenerationId;
use crate::run::OnExit;
use crate::units::{Millis, Share};

/// How often a plan is tried before it is refused. A failure after the switch is never repeated.
const TRIES: u32 = 2;

/// The trial under way: at most one.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    generation: GenerationId,
    plan: Arc<Plan>,
    ticket: Ticket,
    bake: Bake,
    tries: u32,
    /// Which part of the new connections it gets while it bakes, if not all.
    split: Option<Share>,
    /// Set at the switch.
    baked_at: Option<Millis>,
    /// Set when that is over and connections are missing: until when they are waited for.
    traffic_by: Option<Millis>,
    /// The connections that were accepted.
    traffic: Traffic,
}

/// Connections that were accepted where the candidate listens, and how many of them were its own.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    all: u64,
    /// In millionths.
    own: u128,
}

impl Traffic {
    /// There are so many by now, of which the candidate has got this part since they were counted last: of those that are
    /// divided between two, nobody knows who has accepted which.
    fn count(&mut self, all: u64, part: Share) -> u64 {
        self.own += u128::from(all.saturating_sub(self.all)) * u128::from(part.ppm());
        self.all = all;
        u64::try_from(self.own / 1_000_000).unwrap_or(u64::MAX)
    }
}

impl Trial {
    /// When the bake ends, or its time is over and connections are missing, once it has begun.
    pub fn bakes_until(&self) -> Option<Millis> {
        self.traffic_by.or(self.baked_at)
    }

    /// Which part of the new connections it is to get now, if not all.
    pub fn split(&self) -> Option<Share> {
        self.baked_at.and(self.split)
    }

    /// Whether this generation is the one that bakes.
    pub fn bakes(&self, id: GenerationId) -> bool {
        self.generation == id && self.baked_at.is_some()
    }

    /// Whether the trial brings back what the member runs anyway.
    pub fn replaces_the_serving(&self) -> bool {
        matches!(self.ticket, Ticket::Restore | Ticket::Replace)
    }

    /// Whether what the member runs anyway is being judged.
    pub fn restores(&self) -> bool {
        self.ticket == Ticket::Restore && self.baked_at.is_none()
    }

    /// Whether somebody asked for it here, and not control.
    pub fn is_reload(&self) -> bool {
        self.ticket == Ticket::Reload
    }

    pub fn standing(&self) -> (Ticket, TrialState) {
        let standing = if self.baked_at.is_some() { TrialState::Proving } else { TrialState::Trying };
        (self.ticket, standing)
    }
}

impl Supervisor {
    /// Starts a trial. One that has not switched yet is dropped; one that bakes hands back first, so that what
    /// stands by is always the last that was proven.
    pub(super) fn try_plan(&mut self, now: Millis, launch: Launch, out: &mut Vec<Command>) {
        if self.trial.is_some() {
            self.end_trial(now, &Reason::Superseded, out);
        }
        let Err(launch) = self.go_back_to_warm(now, launch, out) else { return };
        if let Some(standby) = self.standby() {
            // Three at once would be one too many.
            self.retire(now, standby, out);
        }
        let Launch { plan, ticket, bake } = launch;
        if ticket == Ticket::Restore && matches!(plan.release, Running::Release(_)) && self.proven.is_none() {
            // In an earlier life, or by the whole fleet.
            self.proven = Some(Proven { plan: plan.clone(), started_in: None });
        }
        let alone = self.must_be_alone(&plan);
        // A launch that waits would only bring back what this one is to replace, unless nothing serves.
        if self.serving.is_some() || alone {
            self.restart = None;
        }
        if alone {
            self.serving = None;
            self.each_alive(|this, id| this.let_go(now, id, out));
        }
        let generation = self.launch_candidate(now, plan.clone(), ticket, out);
        // What takes the place of one that failed is better for everybody.
        let split = plan.settings.split.filter(|_| !matches!(ticket, Ticket::Restore | Ticket::Replace));
        let (baked_at, traffic_by, traffic) = (None, None, Traffic::default());
        self.trial =
            Some(Trial { generation, plan, ticket, bake, tries: 1, split, baked_at, traffic_by, traffic });
    }

    /// If what is wanted stands by, it serves from this moment on, and bakes like any other. Else it is given back.
    pub(super) fn go_back_to_warm(
        &mut self,
        now: Millis,
        launch: Launch,
        out: &mut Vec<Command>,
    ) -> Result<(), Launch> {
        let warm = self.standby().and_then(|standby| self.find(standby));
        let warm = warm.filter(|warm| is_what_it_was(&warm.plan, &launch.plan)).map(|warm| warm.id);
        let Some(id) = warm else { return Err(launch) };
        let Launch { plan, ticket, bake } = launch;
        // It is as it was when it was proven, or not: there is no use in trying twice, nor with a part of everybody.
        let tries = TRIES;
        let (split, baked_at, traffic_by, traffic) = (None, None, None, Traffic::default());
        self.trial =
            Some(Trial { generation: id, plan, ticket, bake, tries, split, baked_at, traffic_by, traffic });
        self.wake(now, id);
        self.switch(now, id, out);
        Ok(())
    }

    /// Asks a generation that stood by how it is, from now on.
    fn wake(&mut self, now: Millis, id: GenerationId) {
        let Some(generation) = self.find_mut(id) else { return };
        generation.warm_until = None;
        generation.probe_at = generation.plan.check.is_some().then_some(now);
        if generation.watchdog != Watchdog::Off {
            generation.watchdog = generation.watchdog.started(now, generation.plan.settings.watchdog);
        }
        if generation.beacon != Watchdog::Off {
            generation.beacon = generation.beacon.started(now, generation.stall_limit());
        }
    }

    fn launch_candidate(
        &mut self,
        now: Millis,
        plan: Arc<Plan>,
        ticket: Ticket,
        out: &mut Vec<Command>,
    ) -> GenerationId {
        let slot = self.slots.take();
        let others = self.generations.iter().any(Generation::lives);
        let waits = self.must_be_alone(&plan) && others;
        // What the member runs anyway is launched in any case.
        let asked_for = !matches!(ticket, Ticket::Restore | Ticket::Replace);
        let id = self.add(now, plan, slot);
        if !waits && others && asked_for {
            self.measure(id, out);
        } else if waits {
            out.extend(self.find(id).map(|g| Command::Say(Fact::Waits(id, g.plan.release))));
        } else {
            self.start(now, id, out);
        }
        id
    }

    /// Whether nobody else may live while this plan runs: what it says itself, or what those say that live.
    pub(super) fn must_be_alone(&self, plan: &Plan) -> bool {
        let others = self.generations.iter().filter(|g| g.lives());
        !plan.settings.overlap || others.into_iter().any(|g| !g.plan.settings.overlap)
    }

    /// Launches the generation that waited to be alone, when it is.
    pub(super) fn start_what_waited(&mut self, now: Millis, out: &mut Vec<Command>) {
        if self.generations.iter().any(Generation::lives) {
            return;
        }
        if let Some(id) = self.generations.iter().find(|g| g.state == State::Waiting).map(|g| g.id) {
            self.start(now, id, out);
        }
    }

    pub(super) fn is_candidate(&self, id: GenerationId) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.generation == id && trial.baked_at.is_none())
    }

    /// Where the private path leads: to the candidate, if there is one.
    pub(super) fn private_slot(&self) -> super::Slot {
        let candidate = self.trial.as_ref().filter(|trial| trial.baked_at.is_none());
        let slot = candidate.and_then(|trial| self.find(trial.generation)).map(|g| g.slot);
        slot.unwrap_or(self.serving_slot)
    }

    /// The candidate is healthy, or stood by: from now on it gets the new connections.
    pub(super) fn switch(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some((slot, state)) = self.find(id).map(|g| (g.slot, g.state)) else { return };
        let (old, old_slot) = (self.serving.replace(id), self.serving_slot);
        self.serving_slot = slot;
        let is_first = !core::mem::replace(&mut self.has_served, true);
        self.restart = None;
        // Where nothing has ever served, nobody may be there yet who would connect; and only what comes by TCP is counted.
        let waits_for_nobody = |trial: &&mut Trial| is_first || !listens_by_tcp(&trial.plan);
        self.trial.iter_mut().filter(waits_for_nobody).for_each(|trial| trial.bake.connections = 0);
        let bake = self.trial.as_ref().map_or(Bake::NONE, |trial| trial.bake);
        let standby = old.and_then(|old| self.find(old)).filter(|old| stands_by(old, bake)).map(|old| old.id);
        let change = if state == State::Standby { Change::HandedBack } else { Change::Promoted };
        self.change(id, change, out);
        if let Some(standby) = standby {
            self.change(standby, Change::Displaced, out);
            self.find_mut(standby).into_iter().for_each(|standby| standby.left_at = Some(now));
        }
        if let Some(trial) = &mut self.trial {
            trial.baked_at = Some(now + bake.time);
        }
        self.select(out);
        if old.is_some() && self.find(id).is_some_and(|g| !g.plan.settings.listen.is_empty()) {
            out.push(Command::TimeHandover(id));
        }
        self.count_accepted(id, bake.connections, out);
        if state == State::Standby {
            out.extend(old.map(|from| Command::Say(Fact::HandedBack { from, to: id })));
        } else {
            self.say_serving(now, id, out);
            self.report_slow_start(id, out);
        }
        match (old, standby, self.split()) {
            (_, Some(standby), Some(split)) => out.push(Command::Say(Fact::Split(id, split.share, standby))),
            (_, Some(_), None) => {}
            (Some(old), None, _) => self.let_go(now, old, out),
            (None, None, _) => self.leave_slot(old_slot, out),
        }
    }

    /// Has the connections counted that the candidate accepts from now on, where some are wanted.
    fn count_accepted(&mut self, id: GenerationId, connections: u32, out: &mut Vec<Command>) {
        let share = u64::from(self.trial_share().ppm());
        let Some(generation) = self.find_mut(id).filter(|_| connections > 0) else { return };
        generation.accepted = None;
        let enough = u64::from(connections).saturating_mul(1_000_000).div_ceil(share.max(1));
        out.push(Command::CountAccepted { generation: id, enough });
    }

    /// So many were accepted at the listeners of the candidate.
    pub(super) fn on_accepted(&mut self, id: GenerationId, count: u64) {
        let share = self.trial_share();
        let Some(trial) = self.trial.as_mut().filter(|trial| trial.bakes(id)) else { return };
        let own = trial.traffic.count(count, share);
        if let Some(generation) = self.find_mut(id) {
            generation.accepted = Some(own);
        }
    }

    /// The part of the new connections that the candidate gets: all, where nothing stands by.
    fn trial_share(&self) -> Share {
        self.split().map_or(Share::ALL, |split| split.share)
    }

    /// Ends the bake, if its time is over and nothing is missing, or was waited for in vain.
    pub(super) fn bake(&mut self, now: Millis, out: &mut Vec<Command>) {
        let Some(trial) = &self.trial else { return };
        let Some(baked_at) = trial.baked_at.filter(|at| *at <= now) else { return };
        let (id, wanted, waits_until) = (trial.generation, trial.bake.connections, trial.traffic_by);
        let accepted = self.find(id).and_then(|generation| generation.accepted);
        let enough = wanted == 0 || accepted.is_some_and(|accepted| accepted >= u64::from(wanted));
        match waits_until {
            _ if enough => self.prove(now, out),
            None => {
                out.push(Command::Say(Fact::WaitsForTraffic(id, accepted, wanted)));
                self.trial.iter_mut().for_each(|trial| trial.traffic_by = Some(baked_at + TRAFFIC_PATIENCE));
            }
            Some(until) if until <= now => {
                out.push(Command::Say(Fact::TooLittleTraffic(id, accepted, wanted)));
                self.prove(now, out);
            }
            Some(_) => {}
        }
    }

    /// The whole bake was healthy: keep it, and let the one before go.
    fn prove(&mut self, now: Millis, out: &mut Vec<Command>) {
        let split = self.split();
        let Some(trial) = self.trial.take() else { return };
        if split.is_some() {
            self.select(out);
        }
        if trial.bake.connections > 0 {
            out.push(Command::StopCounting(trial.generation));
        }
        out.push(Command::Say(Fact::Proven(trial.generation, trial.plan.release)));
        if !trial.replaces_the_serving() {
            self.backoff = Backoff::new(trial.plan.settings.max_restarts);
            self.last_trial = Some((trial.ticket, TrialState::Proven));
        }
        let started_in = self.find(trial.generation).and_then(|g| g.started_in);
        self.proven = Some(Proven { plan: trial.plan.clone(), started_in });
        let keep_warm = trial.plan.settings.keep_warm;
        let Trial { generation, plan, ticket, .. } = trial;
        out.push(Command::Commit { generation, plan, ticket });
        let Some(standby) = self.standby() else { return };
        let Some(keep_warm) = keep_warm else { return self.retire(now, standby, out) };
        if let Some(generation) = self.find_mut(standby) {
            generation.warm_until = Some(now + keep_warm);
        }
        out.push(Command::Say(Fact::KeptWarm(standby, keep_warm)));
    }

    /// A try failed before the switch.
    pub(super) fn try_failed(
        &mut self,
        now: Millis,
        id: GenerationId,
        cause: &Reason,
        out: &mut Vec<Command>,
    ) {
        self.retire(now, id, out);
        let Some(trial) = self.trial.as_mut().filter(|trial| trial.generation == id) else { return };
        let (plan, ticket) = (trial.plan.clone(), trial.ticket);
        if !trial.replaces_the_serving() && trial.tries < TRIES {
            trial.tries += 1;
            out.push(Command::Say(Fact::Retried(id, cause.clone())));
            let generation = self.launch_candidate(now, plan, ticket, out);
            if let Some(trial) = &mut self.trial {
                trial.generation = generation;
            }
            return;
        }
        self.refuse(id, cause, out);
        self.select_serving_alone(out);
        if matches!(ticket, Ticket::Restore | Ticket::Replace) {
            self.try_again_later(now, id, plan, ticket, cause, out);
        } else {
            self.go_back(now, Ticket::Restore, out);
        }
    }

    /// Launches what was proven last, unless somebody serves or is about to. With [`Ticket::Replace`] it takes
    /// over from who serves.
    fn go_back(&mut self, now: Millis, ticket: Ticket, out: &mut Vec<Command>) {
        let vacant = self.serving.is_none() || ticket == Ticket::Replace;
        let Some(proven) = self.proven.as_ref().filter(|_| vacant && self.restart.is_none()) else { return };
        out.push(Command::Say(Fact::GoingBack(proven.plan.release)));
        self.restart = Some(Restart { at: now, plan: proven.plan.clone(), ticket });
    }

    /// What to launch when the serving generation has failed: the same again or, if it is not proven, what was.
    pub(super) fn plan_after(
        &self,
        id: GenerationId,
        baked: bool,
        out: &mut Vec<Command>,
    ) -> Option<Arc<Plan>> {
        let same = self.find(id)?.plan.clone();
        let Some(proven) = self.proven.as_ref().filter(|_| !baked) else { return Some(same) };
        out.push(Command::Say(Fact::GoingBack(proven.plan.release)));
        Some(proven.plan.clone())
    }

    /// Says so when what has just begun to serve took much longer to start than the last proven one.
    fn report_slow_start(&self, id: GenerationId, out: &mut Vec<Command>) {
        let took = self.find(id).and_then(|g| g.started_in);
        let proven = self.proven.as_ref().and_then(|proven| proven.started_in);
        if let Some((took, proven)) = took.zip(proven).filter(|(took, proven)| is_slower(*took, *proven)) {
            out.push(Command::Say(Fact::SlowStart(id, took, proven)));
        }
    }

    /// What the member runs anyway could not be launched: again later, as long as its settings allow.
    fn try_again_later(
        &mut self,
        now: Millis,
        id: GenerationId,
        plan: Arc<Plan>,
        ticket: Ticket,
        cause: &Reason,
        out: &mut Vec<Command>,
    ) {
        let leave = plan.settings.on_exit == OnExit::Exit && matches!(cause, Reason::Ended { .. });
        match if leave { Next::GiveUp } else { self.backoff.next(now, None) } {
            Next::Restart(wait) => {
                out.push(Command::Say(Fact::Restarting(id, cause.clone(), wait)));
                self.restart = Some(Restart { at: now + wait, plan, ticket });
            }
            Next::GiveUp if self.serving.is_none() => self.give_up(now, id, cause.clone(), out),
            Next::GiveUp => out.push(Command::Say(Fact::GivenUp(id, cause.clone()))),
        }
    }

    /// Ends the trial without success, and returns to the generation that stands by if it had switched.
    pub(super) fn end_trial(&mut self, now: Millis, cause: &Reason, out: &mut Vec<Command>) {
        let Some(trial) = &self.trial else { return };
        let (id, switched) = (trial.generation, trial.baked_at.is_some());
        if !switched {
            self.refuse(id, cause, out);
            self.retire(now, id, out);
            self.select_serving_alone(out);
            if *cause != Reason::Superseded {
                self.go_back(now, Ticket::Restore, out);
            }
        } else if let Some(standby) = self.standby() {
            self.refuse(id, cause, out);
            self.hand_back(now, id, standby, out);
        } else if *cause == Reason::Superseded {
            // Nothing to return to: it goes on serving, unproven, until the next one has taken over.
            self.refuse(id, cause, out);
        } else if self.proven.is_some() {
            self.refuse(id, cause, out);
            self.go_back(now, Ticket::Replace, out);
        }
    }

    fn hand_back(&mut self, now: Millis, from: GenerationId, to: GenerationId, out: &mut Vec<Command>) {
        let Some(slot) = self.find(to).map(|g| g.slot) else { return };
        self.serving = Some(to);
        self.serving_slot = slot;
        self.select(out);
        self.change(to, Change::HandedBack, out);
        self.wake(now, to);
        out.push(Command::Say(Fact::HandedBack { from, to }));
        self.retire(now, from, out);
    }

    pub(super) fn refuse(&mut self, id: GenerationId, cause: &Reason, out: &mut Vec<Command>) {
        let Some(trial) = self.trial.take() else { return };
        // What runs anyway is not refused: it is launched again, and that is told.
        if !trial.replaces_the_serving() {
            out.push(Command::Say(Fact::Refused(id, trial.plan.release, cause.clone())));
            let said = self.find(id).and_then(|generation| generation.said.as_ref());
            self.last_trial = Some((trial.ticket, TrialState::ended(id, cause, said)));
        }
    }

    /// Whether nothing runs yet that this plan would bring, or only what the image brought.
    pub(super) fn misses(&self, plan: &Plan) -> bool {
        let image = self.serving_plan().is_some_and(|serving| serving.release == Running::Image);
        !self.has_work() || (image && plan.release != Running::Image)
    }

    pub(super) fn say_serving(&self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        if let Some(generation) = self.find(id) {
            let fact = Fact::Serving(id, generation.plan.release, generation.age(now));
            out.push(Command::Say(fact));
        }
    }

    /// Whether a reload was asked for that has not ended.
    pub fn is_reloading(&self) -> bool {
        self.reload.is_some() || self.trial.as_ref().is_some_and(Trial::is_reload)
    }

    /// Whether somebody asked for a reload, and its candidate is still being judged.
    pub(super) fn judges_reload(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.ticket == Ticket::Reload && trial.baked_at.is_none())
    }

    /// Forwards what still lands on a slot that nobody shall reach any more.
    pub(super) fn leave_slot(&mut self, slot: super::Slot, out: &mut Vec<Command>) {
        let held = self.generations.iter().any(|g| g.slot == slot && g.state != State::Gone);
        // Rescued twice, it would be thought quiet while the second one still accepts from it.
        if self.slots.leave(slot, !held) {
            out.push(Command::Rescue(slot));
        }
    }
}

/// Whether a generation of the one plan is what the other one would launch. What the image brought lies in a folder
/// that anybody may have changed since.
fn is_what_it_was(old: &Plan, wanted: &Plan) -> bool {
    matches!(wanted.release, Running::Release(_)) && old == wanted
}

/// Whether the generation can be kept to hand back to. A worker without sockets cannot: it would go on taking
/// work beside its successor.
fn stands_by(old: &Generation, bake: Bake) -> bool {
    old.state == State::Serving
        && old.healthy_since.is_some()
        && !old.plan.settings.listen.is_empty()
        && (bake.time > Millis::ZERO || bake.connections > 0)
}

fn listens_by_tcp(plan: &Plan) -> bool {
    plan.settings.listen.iter().any(|listen| listen.address.tcp().is_some())
}
