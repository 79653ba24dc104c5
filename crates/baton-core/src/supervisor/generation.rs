//! One launch of a release inside a member: what state it is in, and what may become of it.

use alloc::sync::Arc;

use super::copies::Copies;
use super::plan::Plan;
use super::room::Looking;
use super::slots::Slot;
use super::watchdog::Watchdog;
use crate::exit::Exit;
use crate::health::Health;
use crate::ids::GenerationId;
use crate::signal::Signal;
use crate::units::{Micros, Millis};
use crate::words::Words;

/// The state of a generation. It changes in [`State::next`] and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not spawned yet: it must be alone, and others are still there; or it is being found out whether there is memory
    /// for it.
    Waiting,
    /// Spawned and not ready.
    Starting,
    /// Ready and being judged.
    Probing,
    /// Gets new connections.
    Serving,
    /// Alive, gets no new connections, can be handed back to at once.
    Standby,
    /// Asked to take no new work: finishing what it has, with the time that takes.
    Quiescing,
    /// Asked to stop, or without its main process: finishing.
    Draining,
    /// No process of it is left.
    Gone,
}

/// What can happen to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is spawned.
    Launched,
    /// It said that it is ready, or answered its first probe.
    Ready,
    /// It was judged healthy and serves from now on.
    Promoted,
    /// Its successor serves; it stands by.
    Displaced,
    /// It serves again.
    HandedBack,
    /// Its successor serves; it is asked to take no new work.
    Quiesced,
    /// It is asked to stop.
    Retired,
    /// Its main process has ended.
    Exited,
    /// No process of it is left, or none ever ran.
    Emptied,
}

/// A change that a state has no answer to: a fault in the bootloader, reported and otherwise ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a generation that is {state:?} cannot be {change:?}")]
pub struct Illegal {
    /// The state that was kept.
    pub state: State,
    /// The change that was refused.
    pub change: Change,
}

impl State {
    /// The state after a change.
    pub fn next(self, change: Change) -> Result<Self, Illegal> {
        use Change::{Displaced, Emptied, Exited, HandedBack, Launched, Promoted, Quiesced, Ready, Retired};
        use State::{Draining, Gone, Probing, Quiescing, Serving, Standby, Starting, Waiting};
        match (self, change) {
            (Waiting, Launched) => Ok(Starting),
            (Starting, Ready) => Ok(Probing),
            // Ready may be said again at any time: by notify after the first probe, or after a reload of its own.
            (Probing | Serving | Standby | Quiescing | Draining, Ready) => Ok(self),
            (Probing, Promoted) => Ok(Serving),
            (Serving, Displaced) => Ok(Standby),
            (Standby, HandedBack) => Ok(Serving),
            (Serving, Quiesced) => Ok(Quiescing),
            // Nothing of it was ever there.
            (Waiting, Retired) => Ok(Gone),
            (Starting | Probing | Serving | Standby | Quiescing | Draining, Retired | Exited) => Ok(Draining),
            (Starting | Draining, Emptied) => Ok(Gone),
            (
                Gone,
                Launched | Ready | Promoted | Displaced | HandedBack | Quiesced | Retired | Exited | Emptied,
            )
            | (Waiting, Ready | Promoted | Displaced | HandedBack | Quiesced | Exited | Emptied)
            | (Starting | Probing | Serving | Standby | Quiescing | Draining, Launched)
            | (Starting | Serving | Standby | Quiescing | Draining, Promoted)
            | (Starting | Probing | Standby | Quiescing | Draining, Displaced | Quiesced)
            | (Starting | Probing | Serving | Quiescing | Draining, HandedBack)
            | (Probing | Serving | Standby | Quiescing, Emptied) => Err(Illegal { state: self, change }),
        }
    }
}

/// How far the end of a generation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// When it is asked to stop, if it has not been asked yet.
    pub ask_at: Option<Millis>,
    /// When it was asked to stop, or lost its main process.
    pub since: Millis,
    /// When everything left is killed.
    pub kill_at: Millis,
    /// What its main process does was looked at, for whoever wants to know why it took so long.
    pub examined: bool,
    /// What the main process left has been asked to stop too.
    pub tree_asked: bool,
    /// When everything left was killed, for the last time.
    pub killed_at: Option<Millis>,
}

impl Ending {
    /// One that begins at that moment, by itself: nobody is to be asked.
    pub(super) fn begin(now: Millis, drain: Millis) -> Self {
        let kill_at = now + drain;
        Self { ask_at: None, since: now, kill_at, examined: false, tree_asked: false, killed_at: None }
    }
}

/// What comes next for a generation that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndingStep {
    /// The main process is asked to stop.
    Ask,
    /// What the main process left is asked to stop.
    AskTree,
    /// It does not end: what it does is looked at.
    Examine,
    /// Everything left is killed.
    Kill,
}

/// How long a connection may be without its first request: it was made at the moment of the switch, and its client is
/// as far away as clients are. Many programs close at the stop signal what has not asked for anything yet.
const FIRST_REQUEST: Millis = Millis(250);
/// How long before it is killed a program that does not end is looked at: longer than that takes.
const EXAMINE_BEFORE: Millis = Millis(500);
/// How long after everything left was killed it is killed again, until nothing is left: what was started in that moment
/// was overlooked.
const KILL_AGAIN: Millis = Millis::from_secs(1);
/// How long before a generation has used up its time it is looked at where it listens: longer than that takes.
const LOCATE_BEFORE: Millis = Millis(500);

/// One launch of a release.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Its number.
    pub id: GenerationId,
    /// What runs, and how.
    pub plan: Arc<Plan>,
    /// Whose sockets it has.
    pub slot: Slot,
    /// When it was launched.
    pub launched: Millis,
    /// Its state.
    pub state: State,
    /// What its probes have shown.
    pub health: Health,
    /// What its last probe found, if that was bad.
    pub last_failure: Option<Words>,
    /// Since when it has been healthy without a break.
    pub healthy_since: Option<Millis>,
    /// How long after its launch it was healthy for the first time.
    pub started_in: Option<Millis>,
    /// How long after it was known to be healthy it got the new connections of another one, if there was one.
    pub handed_over_in: Option<Micros>,
    /// How many connections it has accepted since then, where that is counted and can be.
    pub accepted: Option<u64>,
    /// When its next sign of life is due.
    pub watchdog: Watchdog,
    /// When its progress file must have changed.
    pub beacon: Watchdog,
    /// Since when it has been using more memory than it should.
    pub above_since: Option<Millis>,
    /// It was looked at where it listens.
    pub located: bool,
    /// Where it listens instead of where its clients are.
    pub elsewhere: Option<Words>,
    /// Its own words on how it is.
    pub said: Option<Words>,
    /// It said that it reads its settings again.
    pub reloading: bool,
    /// It said that it ends by its own wish.
    pub leaving: bool,
    /// By when it must be healthy, if it asked for more time than its settings give.
    pub extended: Option<Millis>,
    /// When it is asked to stop though it is not idle; set while it is quiescing.
    pub quiesce_until: Option<Millis>,
    /// When it got new connections for the last time, if it does not any more.
    pub left_at: Option<Millis>,
    /// Until when it is kept to be gone back to, though its successor is proven.
    pub warm_until: Option<Millis>,
    /// When it is to be probed next, if it is.
    pub probe_at: Option<Millis>,
    /// A probe is under way.
    pub asked: Option<u32>,
    /// The copies of its program.
    pub copies: Copies,
    /// How its main process ended, or the first of its copies that was not launched again.
    pub exit: Option<Exit>,
    /// Set from the moment it drains.
    pub ending: Option<Ending>,
    /// It is launched when there is memory for it.
    pub room: Option<Looking>,
}

impl Generation {
    pub(super) fn new(id: GenerationId, plan: Arc<Plan>, slot: Slot, now: Millis) -> Self {
        let copies = Copies::new(now, &plan.settings);
        Self {
            id,
            plan,
            slot,
            copies,
            launched: now,
            state: State::Waiting,
            health: Health::Starting,
            last_failure: None,
            healthy_since: None,
            started_in: None,
            handed_over_in: None,
            accepted: None,
            watchdog: Watchdog::Off,
            beacon: Watchdog::Off,
            above_since: None,
            located: false,
            elsewhere: None,
            said: None,
            reloading: false,
            leaving: false,
            extended: None,
            quiesce_until: None,
            left_at: None,
            warm_until: None,
            probe_at: None,
            asked: None,
            exit: None,
            ending: None,
            room: None,
        }
    }

    /// Gives it more time to start or to end, up to [`EXTENSION_MAX`](super::EXTENSION_MAX) more than its settings
    /// do. Nobody may hold up the end of the container.
    pub(super) fn extend(&mut self, until: Millis, stopping: bool) {
        let settings = &self.plan.settings;
        if self.is_judged() {
            let most = self.launched + settings.startup_timeout + super::EXTENSION_MAX;
            self.extended = self.extended.max(Some(until.min(most)));
        } else if let Some(ending) = self.ending.as_mut().filter(|_| !stopping) {
            let most = ending.since + settings.drain + super::EXTENSION_MAX;
            ending.kill_at = ending.kill_at.max(until.min(most));
        }
    }

    /// When it may be asked to stop, once somebody wants that.
    pub(super) fn may_be_asked_at(&self, now: Millis) -> Millis {
        let left_at = match self.state {
            State::Serving => Some(now),
            State::Standby => self.left_at,
            State::Waiting
            | State::Starting
            | State::Probing
            | State::Quiescing
            | State::Draining
            | State::Gone => None,
        };
        let works = self.healthy_since.is_some() && !self.plan.settings.listen.is_empty();
        left_at.filter(|_| works).map_or(now, |left_at| now.max(left_at + FIRST_REQUEST))
    }

    /// How long it has been running.
    pub fn age(&self, now: Millis) -> Millis {
        now.since(self.launched)
    }

    /// When the next probe is to start: never two at once, and none of a generation that gets no connections.
    pub(super) fn probe_due(&self) -> Option<Millis> {
        let wanted = matches!(self.state, State::Starting | State::Probing | State::Serving);
        self.probe_at.filter(|_| wanted && self.asked.is_none())
    }

    /// Whether it still has to show that it can serve.
    pub(super) fn is_judged(&self) -> bool {
        matches!(self.state, State::Starting | State::Probing)
    }

    /// When a generation that is still being judged has used up its time.
    pub fn judged_by(&self) -> Option<Millis> {
        let limit = self.launched + self.plan.settings.startup_timeout;
        self.is_judged().then(|| self.extended.map_or(limit, |extended| extended.max(limit)))
    }

    /// The end, if it has begun, and the next thing that it brings.
    pub(super) fn ending_step(&self) -> Option<(Millis, EndingStep)> {
        let (settings, ending) = (&self.plan.settings, self.ending?);
        // Less than its settings give, where the platform has a limit of its own.
        let granted = ending.kill_at.since(ending.since).min(settings.drain);
        let tree_after = settings.stop_tree_after.unwrap_or(Millis(granted.0 / 2)).min(granted);
        let before = EXAMINE_BEFORE.min(Millis(ending.kill_at.since(ending.since).0 / 2));
        let examine = (ending.kill_at - before, EndingStep::Examine);
        let steps = [
            ending.ask_at.map(|at| (at, EndingStep::Ask)),
            (!ending.tree_asked).then_some((ending.since + tree_after, EndingStep::AskTree)),
            // What has no main process left has nothing to look at.
            (!ending.examined && ending.killed_at.is_none() && self.exit.is_none()).then_some(examine),
            Some((ending.killed_at.map_or(ending.kill_at, |at| at + KILL_AGAIN), EndingStep::Kill)),
        ];
        steps.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When its watchdog bites. Of a generation that gets no work, or that ends, no sign is expected.
    pub(super) fn watchdog_due(&self) -> Option<Millis> {
        let working = matches!(self.state, State::Probing | State::Serving);
        self.watchdog.due().filter(|_| working)
    }

    /// When its progress file must have changed; as for the watchdog.
    pub(super) fn progress_due(&self) -> Option<Millis> {
        let working = matches!(self.state, State::Probing | State::Serving);
        self.beacon.due().filter(|_| working)
    }

    /// How long its progress file may stay as it is.
    pub(super) fn stall_limit(&self) -> Option<Millis> {
        self.plan.settings.progress.as_ref().map(|progress| progress.within)
    }

    /// Whether a sign of life is overdue, of whichever kind.
    pub(super) fn is_starved(&self) -> bool {
        [self.watchdog, self.beacon].iter().any(|sign| matches!(sign, Watchdog::Starved { .. }))
    }

    /// When to look where it listens: shortly before it has used up its time, since afterwards it is gone.
    pub(super) fn locate_at(&self) -> Option<Millis> {
        let before = LOCATE_BEFORE.min(Millis(self.plan.settings.startup_timeout.0 / 2));
        let wanted = !self.located && !self.plan.settings.listen.is_empty();
        self.judged_by().filter(|_| wanted).map(|at| at - before)
    }

    /// When it is asked to stop, if it was asked to take no new work before.
    pub(super) fn quiesced_by(&self) -> Option<Millis> {
        self.quiesce_until.filter(|_| self.state == State::Quiescing)
    }

    /// The signal by which its main process was asked last to stop or to take no new work, if its other processes have not had
    /// it as well.
    pub(super) fn was_asked(&self) -> Option<Signal> {
        match &self.ending {
            Some(ending) => {
                let main_only = ending.ask_at.is_none() && !ending.tree_asked && self.exit.is_none();
                main_only.then_some(self.plan.settings.stop_signal)
            }
            None => self.plan.settings.quiesce_signal.filter(|_| self.state == State::Quiescing),
        }
    }

    /// When it is asked to stop, if it stands by though its successor is proven.
    pub(super) fn warm_by(&self) -> Option<Millis> {
        self.warm_until.filter(|_| self.state == State::Standby)
    }

    /// When one of its copies is to be launched again.
    pub(super) fn copy_due(&self) -> Option<Millis> {
        self.copies.due().filter(|_| self.state == State::Serving)
    }

    /// Whether any process of it may be there.
    pub(super) fn lives(&self) -> bool {
        match self.state {
            State::Waiting | State::Gone => false,
            State::Starting
            | State::Probing
            | State::Serving
            | State::Standby
            | State::Quiescing
            | State::Draining => true,
        }
    }

    /// How long it waits for memory at the most: as long as it might take to start.
    pub(super) fn room_by(&self) -> Option<Millis> {
        let waits = self.room.is_some() && self.state == State::Waiting;
        waits.then(|| self.launched + self.plan.settings.startup_timeout)
    }

    /// The next moment at which time alone changes something.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let settles = self.settles_at();
        let probe = self.probe_due();
        let end = self.ending_step().map(|(at, _)| at);
        let signs = [self.watchdog_due(), self.progress_due(), self.locate_at()];
        let others =
            [self.quiesced_by(), self.warm_by(), self.copy_due(), self.room_by()].into_iter().chain(signs);
        [settles, probe, self.judged_by(), end].into_iter().chain(others).flatten().min()
    }

    /// When a generation that nothing can be asked about counts as healthy, if it is one.
    pub(super) fn settles_at(&self) -> Option<Millis> {
        let silent = self.plan.check.is_none() && self.plan.settings.ready == crate::run::Ready::Probe;
        (silent && self.is_judged()).then(|| self.launched + super::SETTLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state with every change: what comes out, `None` where it is refused.
    #[test]
    fn every_state_answers_every_change() {
        use State::{Draining as D, Gone as G, Probing as P, Quiescing as Q, Serving as S, Standby as B};
        use State::{Starting as A, Waiting as W};
        let table = [
            // change             Waiting  Starting  Probing  Serving  Standby  Quiescing  Draining  Gone
            (Change::Launched, [Some(A), None, None, None, None, None, None, None]),
            (Change::Ready, [None, Some(P), Some(P), Some(S), Some(B), Some(Q), Some(D), None]),
            (Change::Promoted, [None, None, Some(S), None, None, None, None, None]),
            (Change::Displaced, [None, None, None, Some(B), None, None, None, None]),
            (Change::HandedBack, [None, None, None, None, Some(S), None, None, None]),
            (Change::Quiesced, [None, None, None, Some(Q), None, None, None, None]),
            (Change::Retired, [Some(G), Some(D), Some(D), Some(D), Some(D), Some(D), Some(D), None]),
            (Change::Exited, [None, Some(D), Some(D), Some(D), Some(D), Some(D), Some(D), None]),
            (Change::Emptied, [None, Some(G), None, None, None, None, Some(G), None]),
        ];
        for (change, row) in table {
            for (state, expected) in [W, A, P, S, B, Q, D, G].into_iter().zip(row) {
                assert_eq!(
                    state.next(change),
                    expected.ok_or(Illegal { state, change }),
                    "{state:?} {change:?}"
                );
            }
        }
    }
}
