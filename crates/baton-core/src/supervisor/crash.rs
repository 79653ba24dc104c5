//! What ended though it should serve: handed back from, launched again, or given up.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::plan::{Launch, Plan, Ticket};
use super::report::{Fact, Reason};
use super::{Command, Generation, RELAUNCH_AGE_MIN, State, Supervisor};
use crate::backoff::Next;
use crate::bake::Bake;
use crate::exit::Exit;
use crate::ids::GenerationId;
use crate::run::OnExit;
use crate::units::Millis;

/// A launch that waits for its time.
#[derive(Debug, Clone)]
pub(super) struct Restart {
    pub at: Millis,
    pub plan: Arc<Plan>,
    pub ticket: Ticket,
}

impl Supervisor {
    /// The serving generation has ended.
    pub(super) fn on_crash(&mut self, now: Millis, id: GenerationId, cause: Reason, out: &mut Vec<Command>) {
        if self.falls_back() {
            return self.end_trial(now, &cause, out);
        }
        let bakes = self.trial.as_ref().is_some_and(|trial| trial.bakes(id));
        if bakes {
            self.refuse(id, &cause, out);
        }
        let Some(generation) = self.find(id).cloned() else { return };
        self.serving = None;
        let asked_for_it = matches!(&cause, Reason::Ended { exit: Exit::Code(code), after, .. }
            if *code == generation.plan.settings.relaunch_exit_code && *after >= RELAUNCH_AGE_MIN);
        let left = generation.leaving
            && matches!(cause, Reason::Ended { exit: Exit::Code(0), after, .. } if after >= RELAUNCH_AGE_MIN);
        let next = match generation.plan.settings.on_exit {
            _ if asked_for_it => Next::Restart(Millis::ZERO),
            OnExit::Exit => Next::GiveUp,
            OnExit::Restart if left => Next::Restart(Millis::ZERO),
            OnExit::Restart => self.backoff.next(now, generation.healthy_since),
        };
        match next {
            Next::Restart(wait) => {
                let fact = if left { Fact::Left(id, cause) } else { Fact::Restarting(id, cause, wait) };
                out.push(Command::Say(fact));
                let Some(plan) = self.plan_after(id, !bakes, out) else { return };
                self.restart = Some(Restart { at: now + wait, plan, ticket: Ticket::Restore });
            }
            Next::GiveUp => self.give_up(now, id, cause, out),
        }
    }

    /// Whether what serves is on trial, with another one to hand back to. What is kept warm beside one that is
    /// proven is only gone back to when somebody wants that.
    pub(super) fn falls_back(&self) -> bool {
        self.trial.is_some() && self.standby().is_some()
    }

    /// Launches again what failed: on the serving slot if nobody holds it, else as a candidate like any other.
    pub(super) fn relaunch(&mut self, now: Millis, restart: Restart, out: &mut Vec<Command>) {
        self.restarts = self.restarts.saturating_add(1);
        let crowded = self.must_be_alone(&restart.plan) && self.generations.iter().any(Generation::lives);
        if self.waits_in_place() && !crowded {
            let id = self.add(now, restart.plan, self.serving_slot);
            self.start(now, id, out);
            self.serving = Some(id);
        } else {
            let launch = Launch { plan: restart.plan, ticket: restart.ticket, bake: Bake::NONE };
            self.try_plan(now, launch, out);
        }
    }

    /// Whether clients wait at the serving slot for a program that has served there and left nothing behind.
    pub(super) fn waits_in_place(&self) -> bool {
        let held = self.generations.iter().any(|g| g.slot == self.serving_slot && g.state != State::Gone);
        self.serving.is_none() && self.has_served && !held
    }

    /// When the launch that waits may happen. Beside a trial only in place: two candidates would be one too many.
    pub(super) fn restart_at(&self) -> Option<Millis> {
        let possible = self.trial.is_none() || self.waits_in_place();
        self.restart.as_ref().filter(|_| possible).map(|restart| restart.at)
    }
}
