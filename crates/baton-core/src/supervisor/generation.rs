//! One launch of a release inside a member: what state it is in, and what may become of it.

use alloc::sync::Arc;

use super::plan::Plan;
use super::slots::Slot;
use crate::exit::Exit;
use crate::health::Health;
use crate::ids::GenerationId;
use crate::units::Millis;

/// The state of a generation. It changes in [`State::next`] and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Spawned and not ready.
    Starting,
    /// Ready and being judged.
    Probing,
    /// Gets new connections.
    Serving,
    /// Alive, gets no new connections, can be handed back to at once.
    Standby,
    /// Asked to stop, or without its main process: finishing.
    Draining,
    /// No process of it is left.
    Gone,
}

/// What can happen to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It said that it is ready, or answered its first probe.
    Ready,
    /// It was judged healthy and serves from now on.
    Promoted,
    /// Its successor serves; it stands by.
    Displaced,
    /// It serves again.
    HandedBack,
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
        use Change::{Displaced, Emptied, Exited, HandedBack, Promoted, Ready, Retired};
        use State::{Draining, Gone, Probing, Serving, Standby, Starting};
        match (self, change) {
            (Starting, Ready) => Ok(Probing),
            // Ready may be said again at any time: by notify after the first probe, or after a reload of its own.
            (Probing | Serving | Standby | Draining, Ready) => Ok(self),
            (Probing, Promoted) => Ok(Serving),
            (Serving, Displaced) => Ok(Standby),
            (Standby, HandedBack) => Ok(Serving),
            (Starting | Probing | Serving | Standby | Draining, Retired | Exited) => Ok(Draining),
            (Starting | Draining, Emptied) => Ok(Gone),
            (Gone, Ready | Promoted | Displaced | HandedBack | Retired | Exited | Emptied)
            | (Starting | Serving | Standby | Draining, Promoted)
            | (Starting | Probing | Standby | Draining, Displaced)
            | (Starting | Probing | Serving | Draining, HandedBack)
            | (Probing | Serving | Standby, Emptied) => Err(Illegal { state: self, change }),
        }
    }
}

/// How far the end of a generation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// When it was asked to stop, or lost its main process.
    pub since: Millis,
    /// What the main process left has been asked to stop too.
    pub tree_asked: bool,
    /// Everything left has been killed.
    pub killed: bool,
}

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
    /// Since when it has been healthy without a break.
    pub healthy_since: Option<Millis>,
    /// When it is to be probed next, if it is.
    pub probe_at: Option<Millis>,
    /// A probe is under way.
    pub asked: bool,
    /// How its main process ended.
    pub exit: Option<Exit>,
    /// Set from the moment it drains.
    pub ending: Option<Ending>,
}

impl Generation {
    pub(super) fn new(id: GenerationId, plan: Arc<Plan>, slot: Slot, now: Millis) -> Self {
        Self {
            id,
            plan,
            slot,
            launched: now,
            state: State::Starting,
            health: Health::Starting,
            healthy_since: None,
            probe_at: None,
            asked: false,
            exit: None,
            ending: None,
        }
    }

    /// How long it has been running.
    pub fn age(&self, now: Millis) -> Millis {
        now.since(self.launched)
    }

    /// When the next probe is to start: never two at once, and none of a generation that gets no connections.
    pub(super) fn probe_due(&self) -> Option<Millis> {
        let wanted = matches!(self.state, State::Starting | State::Probing | State::Serving);
        self.probe_at.filter(|_| wanted && !self.asked)
    }

    /// Whether it still has to show that it can serve.
    pub(super) fn is_judged(&self) -> bool {
        matches!(self.state, State::Starting | State::Probing)
    }

    /// When a generation that is still being judged has used up its time.
    pub(super) fn judged_by(&self) -> Option<Millis> {
        self.is_judged().then(|| self.launched + self.plan.settings.startup_timeout)
    }

    /// When what the main process leaves is asked to stop, and when everything left is killed.
    pub(super) fn ending_limits(&self) -> Option<(Millis, Millis)> {
        let settings = &self.plan.settings;
        let tree_after = settings.stop_tree_after.unwrap_or(Millis(settings.drain.0 / 2));
        self.ending.map(|ending| (ending.since + tree_after, ending.since + settings.drain))
    }

    /// The next moment at which time alone changes something.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let settles = self.settles_at();
        let probe = self.probe_due();
        let end = self.ending.zip(self.ending_limits()).and_then(|(ending, (tree, kill))| match ending {
            Ending { killed: true, .. } => None,
            Ending { tree_asked: true, .. } => Some(kill),
            Ending { .. } => Some(tree.min(kill)),
        });
        [settles, probe, self.judged_by(), end].into_iter().flatten().min()
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
        use State::{Draining as D, Gone as G, Probing as P, Serving as S, Standby as B, Starting as A};
        let table = [
            // change             Starting  Probing  Serving  Standby  Draining  Gone
            (Change::Ready, [Some(P), Some(P), Some(S), Some(B), Some(D), None]),
            (Change::Promoted, [None, Some(S), None, None, None, None]),
            (Change::Displaced, [None, None, Some(B), None, None, None]),
            (Change::HandedBack, [None, None, None, Some(S), None, None]),
            (Change::Retired, [Some(D), Some(D), Some(D), Some(D), Some(D), None]),
            (Change::Exited, [Some(D), Some(D), Some(D), Some(D), Some(D), None]),
            (Change::Emptied, [Some(G), None, None, None, Some(G), None]),
        ];
        for (change, row) in table {
            for (state, expected) in [A, P, S, B, D, G].into_iter().zip(row) {
                assert_eq!(
                    state.next(change),
                    expected.ok_or(Illegal { state, change }),
                    "{state:?} {change:?}"
                );
            }
        }
    }
}
