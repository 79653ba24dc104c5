//! Ending: of one generation, and of the container.

use alloc::vec::Vec;

use super::generation::EndingStep;
use super::report::{Fact, Reason};
use super::{Change, Command, Ending, Generation, Scope, State, Supervisor, Ticket, TrialState};
use crate::exit::Exit;
use crate::ids::GenerationId;
use crate::signal::Signal;
use crate::units::Millis;

/// How long after the last limit the bootloader ends, whatever happens.
const END_AFTER: Millis = Millis::from_secs(1);
/// How much of that is kept for what the end itself takes: files, goodbyes, the last lines of the log. Until then the kernel may
/// bury what was killed.
const END_TAKES: Millis = Millis(400);

/// How much of the platform's limit is kept for what follows the last kill: burying, goodbyes, the last lines of
/// the log.
const STOP_RESERVE: Millis = Millis::from_secs(2);

/// How long a program may drain when the container is stopped, on a platform that kills everything `limit` after it
/// has asked for that. Of a limit that is shorter than what follows, the program has half.
pub fn drain_within(drain: Millis, limit: Option<Millis>) -> Millis {
    let left = limit.map(|limit| (limit - STOP_RESERVE).max(Millis(limit.0 / 2)));
    left.map_or(drain, |left| drain.min(left))
}

/// The container is being stopped.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    /// The generation whose exit code becomes ours: the one that served.
    leader: Option<GenerationId>,
    code: u8,
    /// How often it was asked for.
    asked: u32,
    gives_up_at: Millis,
}

impl Stop {
    pub fn gives_up_at(&self) -> Millis {
        self.gives_up_at
    }
}

/// When a member that is being stopped ends at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Until then its processes may end.
    pub processes: Millis,
    /// Until then it has ended itself.
    pub all: Millis,
}

/// What being asked to stop once more means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// The first time: the main processes are asked, and have their time.
    Ask,
    /// The second time: all processes are asked.
    AskTree,
    /// From the third time on: all are killed.
    Kill,
}

/// What the `asked`-th request to stop means, counted from 1.
pub fn shutdown(asked: u32) -> Urgency {
    match asked {
        0 | 1 => Urgency::Ask,
        2 => Urgency::AskTree,
        _ => Urgency::Kill,
    }
}

impl Supervisor {
    /// The same on a platform that kills everything so long after it has asked it to stop.
    #[must_use]
    pub fn with_stop_limit(self, stop_limit: Option<Millis>) -> Self {
        Self { stop_limit, ..self }
    }

    /// Whether the member is ending.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether control is to hear how it stands. That a program serves no more whose member was asked to stop is no news of its
    /// health, and control is told goodbye; that a release on trial has ended its member is.
    pub fn has_news(&self) -> bool {
        let Some(stop) = &self.stop else { return true };
        let refused = matches!(self.last_trial, Some((Ticket::Deploy { .. }, TrialState::Refused { .. })));
        stop.asked == 0 && refused
    }

    /// When the member ends at the latest, once it is being stopped.
    pub fn ends_by(&self) -> Option<End> {
        let end = |stop: &Stop| End { processes: stop.gives_up_at, all: stop.gives_up_at + END_TAKES };
        self.stop.as_ref().map(end)
    }

    pub(super) fn on_stop(&mut self, now: Millis, out: &mut Vec<Command>) {
        let asked = self.stop.as_ref().map_or(0, |stop| stop.asked) + 1;
        match shutdown(asked) {
            Urgency::Ask => self.begin_stop(now, 0, out),
            Urgency::AskTree => self.each_alive(|this, id| this.ask_all(id, out)),
            Urgency::Kill => self.each_alive(|this, id| this.kill(now, id, out)),
        }
        if let Some(stop) = &mut self.stop {
            stop.asked = asked;
        }
    }

    /// Stops everything; `code` is the exit code unless the program that serves gives another.
    fn begin_stop(&mut self, now: Millis, code: u8, out: &mut Vec<Command>) {
        if self.stop.is_some() {
            return;
        }
        let limit = self.stop_limit;
        // Of one that has just ended by itself too: what it left, and nothing ties to it, has the time that it would have had.
        let drains = self.generations.iter().map(|g| drain_within(g.plan.settings.drain, limit));
        let longest = drains.max().unwrap_or_default();
        let candidate = self.generations.last().filter(|g| g.is_judged()).map(|g| g.id);
        self.stop = Some(Stop {
            leader: self.serving.or(candidate),
            code,
            asked: 0,
            gives_up_at: now + longest + (END_AFTER - END_TAKES),
        });
        self.trial = None;
        self.restart = None;
        self.reload = None;
        self.select_at = None;
        out.push(Command::Say(Fact::Stopping));
        self.each_alive(|this, id| {
            this.hurry(now, id, out);
            this.retire(now, id, out);
        });
        // Clients of a container that ends are better refused at once than left in a queue that nobody reads;
        // but with a candidate in the group its sockets must stay where the selector expects them. After asking:
        // what is forwarded to a program is to be accepted before it is asked.
        if candidate.is_none() {
            out.push(Command::Close);
        }
    }

    /// What may take its time beside a successor may not hold up the end of the container.
    fn hurry(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let limit = self.stop_limit;
        let Some(generation) = self.find_mut(id) else { return };
        let by = now + drain_within(generation.plan.settings.drain, limit);
        let Some(ending) = &mut generation.ending else { return };
        ending.kill_at = ending.kill_at.min(by);
        if ending.ask_at.is_none() && generation.exit.is_none() {
            out.push(Command::Hurry { generation: id, limit: to_accept(now, ending) });
        }
    }

    /// Says so, once for each drain, when the platform leaves less than the settings give.
    pub(super) fn report_cut_drain(&mut self, id: GenerationId, drain: Millis, out: &mut Vec<Command>) {
        let left = drain_within(drain, self.stop_limit);
        if let Some(limit) = self.stop_limit.filter(|_| left < drain)
            && self.cut_drain.replace(drain) != Some(drain)
        {
            out.push(Command::Say(Fact::DrainCut(id, drain, limit, left)));
        }
    }

    /// Leaves with the program's exit code, so that the engine sees it.
    pub(super) fn give_up(&mut self, now: Millis, id: GenerationId, cause: Reason, out: &mut Vec<Command>) {
        let code = exit_code(&cause);
        out.push(Command::Say(Fact::GivenUp(id, cause)));
        self.begin_stop(now, code, out);
    }

    pub(super) fn remember_exit(&mut self, id: GenerationId, cause: &Reason) {
        if let Some(stop) = self.stop.as_mut().filter(|stop| stop.leader == Some(id)) {
            stop.code = exit_code(cause);
        }
    }

    pub(super) fn pass_time_for_stop(&mut self, now: Millis, out: &mut Vec<Command>) {
        let Some(stop) = &self.stop else { return };
        if self.generations.is_empty() || stop.gives_up_at <= now {
            out.push(Command::Exit(stop.code));
        }
    }

    /// Asks a generation to stop. Asked again, or gone already, it does nothing.
    pub(super) fn retire(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        // Where nobody else serves, or the container ends, clients find nobody in any case.
        let succeeded = self.serving.is_some_and(|serving| serving != id) && self.stop.is_none();
        let Some(generation) = self.find(id) else { return };
        let (state, slot) = (generation.state, generation.slot);
        if state == State::Waiting {
            self.change(id, Change::Retired, out);
            return self.leave_slot(slot, out);
        }
        if state != State::Gone && generation.ending.is_none() {
            let ask_at = if succeeded { generation.may_be_asked_at(now) } else { now };
            self.change(id, Change::Retired, out);
            let limit = self.stop.as_ref().and(self.stop_limit);
            if let Some(generation) = self.find_mut(id) {
                let drain = drain_within(generation.plan.settings.drain, limit);
                generation.ending = Some(Ending { ask_at: Some(ask_at), ..Ending::begin(ask_at, drain) });
            }
        }
        let waits = self.find(id).and_then(|g| g.ending?.ask_at).is_some_and(|at| at > now);
        if !waits || self.stop.is_some() {
            self.ask(now, id, out);
        }
    }

    /// Asks its main process to stop, unless it was or has ended by itself: then it only has its sockets left to look
    /// after.
    pub(super) fn ask(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        let (slot, signal) = (generation.slot, generation.plan.settings.stop_signal);
        if let Some(ending) = &mut generation.ending
            && ending.ask_at.take().is_some()
            && generation.exit.is_none()
        {
            out.push(Command::Stop { generation: id, signal, limit: to_accept(now, ending) });
        }
        if slot != self.serving_slot && self.stop.is_none() {
            self.leave_slot(slot, out);
        }
    }

    pub(super) fn pass_time_for_ending(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let due = |this: &Self| {
            let next = this.find(id).and_then(Generation::ending_step);
            next.filter(|(at, _)| *at <= now).map(|(_, step)| step)
        };
        while let Some(step) = due(self) {
            match step {
                EndingStep::Ask => self.ask(now, id, out),
                EndingStep::AskTree => self.ask_rest(id, out),
                EndingStep::Examine => self.examine(id, out),
                EndingStep::Kill => self.kill(now, id, out),
            }
        }
    }

    fn examine(&mut self, id: GenerationId, out: &mut Vec<Command>) {
        if let Some(ending) = self.find_mut(id).and_then(|generation| generation.ending.as_mut()) {
            ending.examined = true;
        }
        out.push(Command::Examine(id));
    }

    /// Lets a generation go whose successor serves, or waits for it: one that can be asked to take no new work
    /// has the time to finish what it has, any other one is asked to stop.
    pub(super) fn let_go(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let leaves =
            |generation: &&mut Generation| matches!(generation.state, State::Quiescing | State::Draining);
        let Some(generation) = self.find_mut(id).filter(|generation| !leaves(generation)) else { return };
        let settings = &generation.plan.settings;
        let limit = settings.quiesce.unwrap_or(settings.drain);
        let works = generation.state == State::Serving && generation.healthy_since.is_some();
        let Some(signal) = settings.quiesce_signal.filter(|_| works) else {
            return self.retire(now, id, out);
        };
        generation.quiesce_until = Some(now + limit);
        self.change(id, Change::Quiesced, out);
        out.push(Command::Say(Fact::Quiescing(id, limit)));
        out.push(Command::Kill { generation: id, signal, scope: Scope::Main });
    }

    /// Sends the stop signal to every process of the generation that has not had it yet. Not to the main process:
    /// many programs finish their work at the first one and drop it at the second.
    pub(super) fn ask_rest(&mut self, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        let Some(ending) = &mut generation.ending else { return };
        if !ending.tree_asked {
            ending.tree_asked = true;
            let signal = generation.plan.settings.stop_signal;
            out.push(Command::Kill { generation: id, signal, scope: Scope::Rest });
            out.push(Command::Kill { generation: id, signal: Signal::CONT, scope: Scope::Rest });
        }
    }

    /// Sends the stop signal to every process of the generation once more: somebody is in a hurry.
    fn ask_all(&mut self, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        let Some(ending) = &mut generation.ending else { return };
        ending.tree_asked = true;
        let signal = generation.plan.settings.stop_signal;
        out.push(Command::Kill { generation: id, signal, scope: Scope::Tree });
        out.push(Command::Kill { generation: id, signal: Signal::CONT, scope: Scope::Tree });
    }

    fn kill(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        if let Some(ending) = &mut generation.ending {
            ending.tree_asked = true;
            ending.killed_at = Some(now);
        }
        if generation.exit.is_none()
            && let Some(stop) = self.stop.as_mut().filter(|stop| stop.leader == Some(id))
        {
            // Should the kernel not bury it in time, nobody will know better.
            stop.code = Exit::Signal(Signal::KILL).code();
        }
        out.push(Command::Kill { generation: id, signal: Signal::KILL, scope: Scope::Tree });
    }

    pub(super) fn each_alive(&mut self, mut visit: impl FnMut(&mut Self, GenerationId)) {
        let alive = self.generations.iter().filter(|g| g.state != State::Gone).map(|g| g.id);
        for id in alive.collect::<Vec<_>>() {
            visit(self, id);
        }
    }
}

/// How long a program may accept what was forwarded to it before it is asked to stop: the other half of its time is to
/// finish in.
fn to_accept(now: Millis, ending: &Ending) -> Millis {
    Millis(ending.kill_at.since(now).0 / 2)
}

/// The exit code that tells why the member gave up.
fn exit_code(cause: &Reason) -> u8 {
    match cause {
        Reason::Ended { exit, .. } => exit.code(),
        Reason::NotHealthyIn(..)
        | Reason::Unhealthy(_)
        | Reason::Hung(_)
        | Reason::NoProgress(_)
        | Reason::NoRoom(_)
        | Reason::TakenBack
        | Reason::Superseded => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_stays_below_the_platforms_limit() {
        let seconds = Millis::from_secs;
        for (drain, limit, expected) in [
            (seconds(30), None, seconds(30)),
            (seconds(30), Some(seconds(120)), seconds(30)),
            (seconds(30), Some(seconds(32)), seconds(30)),
            (seconds(30), Some(seconds(30)), seconds(28)),
            (seconds(30), Some(seconds(10)), seconds(8)),
            (seconds(30), Some(seconds(3)), Millis(1500)),
            (seconds(1), Some(seconds(3)), seconds(1)),
            (seconds(30), Some(Millis::ZERO), Millis::ZERO),
        ] {
            assert_eq!(drain_within(drain, limit), expected, "{drain} within {limit:?}");
        }
    }
}
