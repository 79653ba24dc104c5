//! Room for two: whether there is memory for a candidate, and who goes when there is none.
//!
//! Of what nobody said how much it needs, and what was never proven here, nothing is known, unless it is from the image as what
//! serves is: it is launched, and should memory run out, the kernel ends it before what serves ([`crate::run::oom_score_adj`]).

use alloc::vec::Vec;

use super::report::{Fact, Reason};
use super::{Command, State, Supervisor};
use crate::ids::GenerationId;
use crate::run::{Needs, NoRoom, Room};
use crate::units::Millis;

/// It is being found out whether there is memory for a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Looking {
    /// So many looks are under way. All but the last may have seen processes that are gone.
    under_way: u32,
    /// What the last look has found.
    lack: Option<NoRoom>,
}

impl Supervisor {
    /// Finds out whether a generation that was added can be launched, and launches it if so.
    pub(super) fn measure(&mut self, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find_mut(id) else { return };
        generation.room.get_or_insert_default().under_way += 1;
        out.push(Command::Measure { generation: id, release: generation.plan.release });
    }

    /// Another one is gone, and its memory is free.
    pub(super) fn measure_again(&mut self, out: &mut Vec<Command>) {
        let waiting = self.generations.iter().find(|g| g.room.is_some() && g.state == State::Waiting);
        if let Some(id) = waiting.map(|g| g.id) {
            self.measure(id, out);
        }
    }

    pub(super) fn on_measured(
        &mut self,
        now: Millis,
        id: GenerationId,
        room: Option<Room>,
        known: Option<Needs>,
        out: &mut Vec<Command>,
    ) {
        let Some(generation) = self.find_mut(id).filter(|g| g.state == State::Waiting) else { return };
        let (release, said) = (generation.plan.release, generation.plan.settings.needs);
        let Some(looking) = &mut generation.room else { return };
        looking.under_way = looking.under_way.saturating_sub(1);
        if looking.under_way > 0 {
            return;
        }
        let needs = said.map(Needs::Said).or(known);
        let lack = room.zip(needs).and_then(|(room, needs)| room.fits(needs).err());
        let was_lacking = core::mem::replace(&mut looking.lack, lack).is_some();
        let Some(lack) = lack else { return self.start(now, id, out) };
        let leaving = |state| matches!(state, State::Quiescing | State::Draining);
        if !self.generations.iter().any(|g| leaving(g.state)) {
            self.end_trial(now, &Reason::NoRoom(lack), out);
        } else if !was_lacking {
            out.push(Command::Say(Fact::WaitsForRoom(id, release, lack)));
        }
    }

    pub(super) fn pass_time_for_room(&mut self, now: Millis, id: GenerationId, out: &mut Vec<Command>) {
        let Some(generation) = self.find(id).filter(|g| g.room_by().is_some_and(|at| at <= now)) else {
            return;
        };
        match generation.room.and_then(|looking| looking.lack) {
            Some(lack) => self.end_trial(now, &Reason::NoRoom(lack), out),
            // Who never heard anything does not know better than whoever ordered it.
            None => self.start(now, id, out),
        }
    }

    /// Memory runs out: what serves is worth more than a quick way back. Beside an unproven one it stays: that is more
    /// likely to be the cause, and whom the kernel ends is handed back from.
    pub(super) fn make_room(&mut self, now: Millis, out: &mut Vec<Command>) {
        if let Some(standby) = self.standby().filter(|_| self.trial.is_none()) {
            out.push(Command::Say(Fact::StandbyLetGo(standby)));
            self.retire(now, standby, out);
        }
    }
}
