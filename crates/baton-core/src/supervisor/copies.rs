//! The copies of a program that run side by side in one generation, on the same sockets.
//!
//! One that crashes while the others serve is launched again alone, and the others do not notice. When that does not
//! help, or none is left, the generation has crashed as one with a single process would have.

use alloc::vec::Vec;

use super::report::{Fact, Reason};
use super::{Command, Generation, State, Supervisor};
use crate::backoff::{Backoff, Next};
use crate::exit::Exit;
use crate::health::Health;
use crate::ids::GenerationId;
use crate::run::{HealthCheck, RunSettings};
use crate::units::Millis;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    /// Since then.
    Runs(Millis),
    /// It is launched again at that time.
    Waits(Millis),
    /// Having run since then.
    Ended(Millis),
}

/// The copies of one generation, counted from 0.
#[derive(Debug, Clone)]
pub struct Copies {
    copies: Vec<Copy>,
    /// When all of them were launched first.
    launched: Millis,
    /// Whose turn it is to be asked.
    turn: usize,
    backoff: Backoff,
}

impl Copies {
    /// All of them run from now on.
    pub(super) fn new(now: Millis, settings: &RunSettings) -> Self {
        let copies = alloc::vec![Copy::Runs(now); settings.workers.max(1) as usize];
        Self { copies, launched: now, turn: 0, backoff: Backoff::new(settings.max_restarts) }
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.copies.iter().filter(|copy| matches!(copy, Copy::Runs(_))).count()
    }

    /// Which one is to be asked how it is. One that was launched again is not, as long as it may take to start: it
    /// would not answer, and the others do.
    pub(super) fn asked(&self, now: Millis, startup: Millis) -> u32 {
        let answers = |copy: &Copy| match copy {
            Copy::Runs(since) => *since <= self.launched || now >= *since + startup,
            Copy::Waits(_) | Copy::Ended(_) => false,
        };
        let order = (self.turn..self.copies.len()).chain(0..self.turn);
        let mut asked = order.into_iter().filter(|index| self.copies.get(*index).is_some_and(answers));
        asked.next().unwrap_or_default() as u32
    }

    /// That one has answered, and it is another one's turn. One that has not is asked again: its failures count in a
    /// row.
    pub(super) fn answered(&mut self, copy: u32) {
        self.turn = (copy as usize + 1) % self.copies.len().max(1);
    }

    /// One has ended; whether others run.
    pub(super) fn ended(&mut self, copy: u32) -> bool {
        if let Some(copy) = self.copies.get_mut(copy as usize)
            && let Copy::Runs(since) = *copy
        {
            *copy = Copy::Ended(since);
        }
        self.running() > 0
    }

    /// What becomes of one that has ended while the others serve. Its own life counts, not theirs.
    pub(super) fn next(&mut self, now: Millis, copy: u32) -> Next {
        let since = match self.copies.get(copy as usize) {
            Some(Copy::Ended(since)) => Some(*since),
            Some(Copy::Runs(_) | Copy::Waits(_)) | None => None,
        };
        let next = self.backoff.next(now, since);
        if let (Next::Restart(wait), Some(copy)) = (next, self.copies.get_mut(copy as usize)) {
            *copy = Copy::Waits(now + wait);
        }
        next
    }

    /// When the next one is to be launched again.
    pub(super) fn due(&self) -> Option<Millis> {
        let waits = |copy: &Copy| match copy {
            Copy::Waits(at) => Some(*at),
            Copy::Runs(_) | Copy::Ended(_) => None,
        };
        self.copies.iter().filter_map(waits).min()
    }

    /// One that is to be launched now. From here on it runs.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<u32> {
        let due = |copy: &Copy| matches!(copy, Copy::Waits(at) if *at <= now);
        let index = self.copies.iter().position(due)?;
        self.copies[index] = Copy::Runs(now);
        Some(index as u32)
    }
}

impl Generation {
    /// Which of its copies is to be asked how it is, where each can be.
    pub(super) fn copy_to_ask(&self, now: Millis) -> u32 {
        let startup = self.plan.settings.startup_timeout;
        if self.plan.asks_each() { self.copies.asked(now, startup) } else { 0 }
    }

    /// The wait until the next probe. Before it is healthy, the other copies are not kept waiting for their turn.
    pub(super) fn wait(&self, now: Millis, check: &HealthCheck, found_well: bool) -> Millis {
        let first_turn =
            |successes| found_well && self.plan.asks_each() && successes < self.plan.settings.workers;
        match self.health {
            Health::Answering { successes, .. } if first_turn(successes) => Millis::ZERO,
            health => health.wait(check, self.age(now)),
        }
    }
}

impl Supervisor {
    /// One of several copies has ended. While the others serve it is launched again alone; where that does not help,
    /// they serve until something else does. Within a bake it is the release that has failed.
    pub(super) fn on_copy_exited(
        &mut self,
        now: Millis,
        id: GenerationId,
        copy: u32,
        exit: Exit,
        empty: bool,
        out: &mut Vec<Command>,
    ) {
        let bakes = self.trial.as_ref().is_some_and(|trial| trial.bakes(id));
        let Some(generation) = self.find_mut(id).filter(|generation| generation.lives()) else { return };
        if !generation.copies.ended(copy) {
            return self.on_exit(now, id, exit, empty, out);
        }
        let cause = Reason::Ended { exit, after: generation.age(now) };
        let (state, settings) = (generation.state, &generation.plan.settings);
        let queues = settings.listen.iter().any(|listen| settings.sockets(listen) > 1);
        if queues && matches!(state, State::Serving | State::Standby) {
            // Before anything else: nobody must wait for it.
            out.push(Command::Bypass { generation: id, copy });
        }
        match generation.state {
            State::Starting | State::Probing => self.on_never_healthy(now, id, &cause, out),
            State::Serving if bakes => self.on_serving_unhealthy(now, id, &cause, true, out),
            State::Serving => match generation.copies.next(now, copy) {
                Next::Restart(wait) => out.push(Command::Say(Fact::CopyRestarting { id, copy, cause, wait })),
                Next::GiveUp => self.on_serving_unhealthy(now, id, &cause, true, out),
            },
            State::Standby => {
                out.push(Command::Say(Fact::StandbyLost(id, cause)));
                self.retire(now, id, out);
            }
            // It was asked to, or will be when all are done.
            State::Quiescing | State::Draining | State::Waiting | State::Gone => {}
        }
    }

    pub(super) fn due_copy(&mut self, now: Millis, id: GenerationId) -> Option<u32> {
        let generation = self.find_mut(id).filter(|generation| generation.copy_due().is_some())?;
        generation.copies.take_due(now)
    }
}
