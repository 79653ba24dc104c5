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
    /// Since then, and may still be starting: alone it was launched again, and has not answered yet.
    Starts(Millis),
    /// Since then.
    Runs(Millis),
    /// It is launched again at that time.
    Waits(Millis),
    /// Having run since then.
    Ended(Millis),
}

impl Copy {
    fn runs_since(self) -> Option<Millis> {
        match self {
            Self::Starts(since) | Self::Runs(since) => Some(since),
            Self::Waits(_) | Self::Ended(_) => None,
        }
    }
}

/// The copies of one generation, counted from 0.
#[derive(Debug, Clone)]
pub struct Copies {
    copies: Vec<Copy>,
    /// Whose turn it is to be asked.
    turn: usize,
    backoff: Backoff,
}

impl Copies {
    /// All of them run from now on.
    pub(super) fn new(now: Millis, settings: &RunSettings) -> Self {
        let copies = alloc::vec![Copy::Runs(now); settings.workers.max(1) as usize];
        Self { copies, turn: 0, backoff: Backoff::new(settings.max_restarts) }
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.copies.iter().filter(|copy| copy.runs_since().is_some()).count()
    }

    /// Which one is to be asked how it is.
    pub(super) fn asked(&self) -> u32 {
        let order = (self.turn..self.copies.len()).chain(0..self.turn);
        let runs = |index: &usize| self.copies.get(*index).is_some_and(|copy| copy.runs_since().is_some());
        order.into_iter().find(runs).unwrap_or_default() as u32
    }

    /// What one has answered; whether that counts. After a good answer, or one that does not count, it is another
    /// one's turn; after a bad one it is asked again: its failures count in a row.
    pub(super) fn answered(&mut self, now: Millis, copy: u32, well: bool, startup: Millis) -> bool {
        let Some(known) = self.copies.get_mut(copy as usize) else { return true };
        let counts = match *known {
            // The others serve, and their answers must not be forgotten for it.
            Copy::Starts(since) => well || now >= since + startup,
            Copy::Runs(_) | Copy::Waits(_) | Copy::Ended(_) => true,
        };
        if let Copy::Starts(since) = *known
            && counts
        {
            *known = Copy::Runs(since);
        }
        if well || !counts {
            self.turn = (copy as usize + 1) % self.copies.len().max(1);
        }
        counts
    }

    /// One has ended; whether others run.
    pub(super) fn ended(&mut self, copy: u32) -> bool {
        if let Some(copy) = self.copies.get_mut(copy as usize)
            && let Some(since) = copy.runs_since()
        {
            *copy = Copy::Ended(since);
        }
        self.running() > 0
    }

    /// What becomes of one that has ended while the others serve. Its own life counts, not theirs.
    pub(super) fn next(&mut self, now: Millis, copy: u32) -> Next {
        let since = match self.copies.get(copy as usize) {
            Some(Copy::Ended(since)) => Some(*since),
            Some(Copy::Starts(_) | Copy::Runs(_) | Copy::Waits(_)) | None => None,
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
            Copy::Starts(_) | Copy::Runs(_) | Copy::Ended(_) => None,
        };
        self.copies.iter().filter_map(waits).min()
    }

    /// One that is to be launched now. From here on it runs.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<u32> {
        let due = |copy: &Copy| matches!(copy, Copy::Waits(at) if *at <= now);
        let index = self.copies.iter().position(due)?;
        self.copies[index] = Copy::Starts(now);
        Some(index as u32)
    }
}

impl Generation {
    /// Which of its copies is to be asked how it is, where each can be.
    pub(super) fn copy_to_ask(&self) -> u32 {
        if self.plan.asks_each() { self.copies.asked() } else { 0 }
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
        let cause = Reason::Ended { exit, after: generation.age(now), behind: false };
        let (state, settings) = (generation.state, &generation.plan.settings);
        let healthy_since = generation.healthy_since;
        let queues = settings.listen.iter().any(|listen| settings.sockets(listen) > 1);
        if queues && matches!(state, State::Serving | State::Standby) {
            // Before anything else: nobody must wait for it.
            out.push(Command::Bypass { generation: id, copy });
        }
        match generation.state {
            State::Starting | State::Probing => self.on_never_healthy(now, id, &cause, out),
            State::Serving if bakes => self.on_serving_unhealthy(now, id, healthy_since, &cause, true, out),
            State::Serving => match generation.copies.next(now, copy) {
                Next::Restart(wait) => out.push(Command::Say(Fact::CopyRestarting { id, copy, cause, wait })),
                Next::GiveUp => self.on_serving_unhealthy(now, id, healthy_since, &cause, true, out),
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
