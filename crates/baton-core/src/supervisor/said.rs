//! What a generation says of itself, and what follows.

use alloc::vec::Vec;

use super::report::{Fact, Reason, TrialState};
use super::{Change, Command, Generation, State, Supervisor};
use crate::ids::GenerationId;
use crate::notice::Notice;
use crate::units::Millis;
use crate::words::Words;

impl Supervisor {
    /// The generation said something of itself.
    pub(super) fn on_said(&mut self, now: Millis, id: GenerationId, notice: Notice, out: &mut Vec<Command>) {
        let stopping = self.stop.is_some();
        let Some(generation) = self.find_mut(id).filter(|generation| generation.lives()) else { return };
        match notice {
            Notice::Ready => self.on_ready(now, id, out),
            Notice::Reloading => {
                if !core::mem::replace(&mut generation.reloading, true) {
                    out.push(Command::Say(Fact::Reloads(id)));
                }
            }
            Notice::Stopping => generation.leaving = true,
            Notice::Status(words) => generation.said = Some(words).filter(|words| !words.is_empty()),
            Notice::Alive => self.on_alive(now, id, out),
            Notice::Hangs => self.on_hung(now, id, &Reason::Hung(None), out),
            Notice::Extend(time) => generation.extend(now + time, stopping),
            // What it names is looked up first: see `on_named`.
            Notice::MainPid(_) => {}
            Notice::Idle if generation.state == State::Quiescing => self.retire(now, id, out),
            Notice::Idle => {}
        }
    }

    /// The generation names its main process. One that comes after the other was asked to stop would wait for its kill.
    pub(super) fn on_named(&mut self, id: GenerationId, pid: i32, started: u64, out: &mut Vec<Command>) {
        let Some(generation) = self.find(id).filter(|generation| generation.lives()) else { return };
        let ask = generation.was_asked();
        out.push(Command::Follow { generation: id, pid, started, ask });
    }

    fn on_ready(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        generation.reloading = false;
        let (state, askable) = (generation.state, generation.plan.check.is_some());
        self.become_ready(now, id, out);
        if state != State::Starting {
            return;
        }
        match (askable, self.find_mut(id)) {
            (true, Some(generation)) => generation.probe_at = Some(now),
            (_, _) => self.on_healthy(now, id, out),
        }
    }

    /// It can be judged, from now on or already. The first time starts its watchdog.
    pub(super) fn become_ready(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let fresh = self.find(id).is_some_and(|generation| generation.state == State::Starting);
        self.change(id, Change::Ready, out);
        if let Some(generation) = self.find_mut(id).filter(|_| fresh) {
            generation.watchdog = generation.watchdog.started(now, generation.plan.settings.watchdog);
            generation.beacon = generation.beacon.started(now, generation.stall_limit());
        }
    }

    /// A sign of life. One that was missed for too long is well again, if its probes say so too.
    fn on_alive(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        let starved = generation.is_starved();
        generation.watchdog = generation.watchdog.fed(now, generation.plan.settings.watchdog);
        self.revive(now, id, starved, out);
    }

    /// Its progress file has changed, which is a sign of life of another kind.
    pub(super) fn on_moved(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id).filter(|generation| generation.lives()) else { return };
        let starved = generation.is_starved();
        generation.beacon = generation.beacon.fed(now, generation.stall_limit());
        self.revive(now, id, starved, out);
    }

    fn revive(&mut self, now: Millis, id: GenerationId, starved: bool, out: &mut Vec<Command>) {
        let Some(generation) = self.find(id).filter(|generation| starved && !generation.is_starved()) else {
            return;
        };
        let well = generation.plan.check.is_none() || generation.health.is_healthy();
        if well && generation.state == State::Serving {
            self.on_healthy(now, id, out);
        }
    }

    /// The generation hangs, whatever its probes say.
    pub(super) fn on_hung(&mut self, now: Millis, id: GenerationId, cause: &Reason, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        if !matches!(generation.state, State::Starting | State::Probing | State::Serving) {
            return;
        }
        generation.watchdog = generation.watchdog.bitten(now, generation.plan.settings.watchdog);
        let fresh = generation.healthy_since.is_some();
        self.on_unhealthy(now, id, cause, fresh, out);
    }

    /// Its progress file has stayed as it is for too long.
    pub(super) fn on_stalled(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        let limit = generation.stall_limit();
        generation.beacon = generation.beacon.bitten(now, limit);
        let fresh = generation.healthy_since.is_some();
        self.on_unhealthy(now, id, &Reason::NoProgress(limit.unwrap_or_default()), fresh, out);
    }

    /// Does what is due because nothing was heard or seen of a generation.
    pub(super) fn pass_time_for_signs(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        if self.find(id).and_then(Generation::watchdog_due).is_some_and(|at| at <= now) {
            let limit = self.find(id).and_then(|generation| generation.plan.settings.watchdog);
            self.on_hung(now, id, &Reason::Hung(limit), out);
        }
        if self.find(id).and_then(Generation::progress_due).is_some_and(|at| at <= now) {
            self.on_stalled(now, id, out);
        }
        if let Some(generation) = self.find_mut(id).filter(|g| g.locate_at().is_some_and(|at| at <= now)) {
            generation.located = true;
            out.push(Command::Locate(id));
        }
    }

    /// It listens where none of its clients are: that says more than what its probes found.
    pub(super) fn on_listens_elsewhere(&mut self, id: GenerationId, hint: Words) {
        if let Some(generation) = self.find_mut(id) {
            generation.elsewhere = Some(hint);
        }
    }

    /// What a generation was doing belongs to the report of its failure.
    pub(super) fn on_examined(&mut self, id: GenerationId, found: &str) {
        if let Some((_, TrialState::Refused { generation, detail, .. })) = &mut self.last_trial
            && *generation == id
        {
            detail.push('\n');
            detail.push_str(found);
        }
    }
}
