//! Replacing a generation that uses too much memory, before the kernel ends it.

use alloc::vec::Vec;

use super::plan::{Launch, Ticket};
use super::report::Fact;
use super::{Command, State, Supervisor};
use crate::bake::Bake;
use crate::ids::GenerationId;
use crate::units::{Bytes, Millis};

/// How long it must be too much without a break: longer than a request takes that needs much for a moment.
pub const TOO_MUCH_FOR: Millis = Millis::from_secs(10);
/// How long after a replacement the next one may follow at the earliest. A program that always needs more than it
/// should would be replaced all the time.
pub const RECYCLE_EVERY: Millis = Millis::from_secs(600);

/// Whether a generation is to be replaced that has been using too much since then.
fn is_due(now: Millis, above_since: Option<Millis>, recycled_at: Option<Millis>) -> bool {
    let long_enough = above_since.is_some_and(|since| now.since(since) >= TOO_MUCH_FOR);
    long_enough && recycled_at.is_none_or(|at| now.since(at) >= RECYCLE_EVERY)
}

impl Supervisor {
    /// The generation uses so much memory now, and the member may use up to `limit`.
    pub(super) fn on_used(
        &mut self,
        now: Millis,
        id: GenerationId,
        used: Bytes,
        limit: Bytes,
        out: &mut Vec<Command>,
    ) {
        let recycled_at = self.recycled_at;
        let Some(generation) = self.find_mut(id) else { return };
        let Some(recycle) = generation.plan.settings.recycle else { return };
        let threshold = recycle.threshold(limit);
        generation.above_since = (used > threshold).then(|| generation.above_since.unwrap_or(now));
        let serves = generation.state == State::Serving;
        let due = serves && is_due(now, generation.above_since, recycled_at);
        let plan = generation.plan.clone();
        // Whatever is under way replaces it anyway, or comes first.
        if !due || self.is_busy() || self.restart.is_some() || self.stop.is_some() {
            return;
        }
        self.recycled_at = Some(now);
        out.push(Command::Say(Fact::Recycled(id, used, threshold)));
        // It stands by for nobody: its memory is what is wanted back.
        self.try_plan(now, Launch { plan, ticket: Ticket::Reload, bake: Bake::NONE }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_must_be_too_much_for_long_enough_and_not_too_soon_again() {
        let now = Millis::from_secs(10_000);
        let ago = |seconds| Some(now - Millis::from_secs(seconds));
        for (above_since, recycled_at, expected) in [
            (None, None, false),
            (ago(9), None, false),
            (ago(10), None, true),
            (ago(5000), ago(599), false),
            (ago(5000), ago(600), true),
            (ago(9), ago(5000), false),
        ] {
            assert_eq!(is_due(now, above_since, recycled_at), expected, "{above_since:?} {recycled_at:?}");
        }
    }
}
