//! Copies that do not run, while others of their generation do: what waits for them is forwarded.

use baton_core::ids::GenerationId;
use baton_core::supervisor::Slot;
use tokio::task::JoinHandle;

use super::World;
use crate::rescue::{Bypass, Watched};

/// The queues of one copy.
#[derive(Debug)]
struct Bypassed {
    slot: Slot,
    /// None for all that a former program in the slot had, and the one there now has not.
    copy: Option<u32>,
    task: JoinHandle<()>,
}

/// All queues from which connections are forwarded, until their copy is launched again.
#[derive(Debug, Default)]
pub struct Bypasses(Vec<Bypassed>);

impl Bypasses {
    /// Ends those of a slot, or of one of its copies. The tasks run on the thread that calls us: none is at work now,
    /// and none will be.
    pub fn end(&mut self, slot: Slot, copy: Option<u32>) {
        let ends = |one: &Bypassed| one.slot == slot && (copy.is_none() || one.copy == copy);
        self.0.extract_if(.., |one| ends(one)).for_each(|one| one.task.abort());
    }

    /// Ends all.
    pub fn end_all(&mut self) {
        self.0.drain(..).for_each(|one| one.task.abort());
    }
}

impl World {
    /// A copy has ended, and others of its generation run.
    pub(super) fn bypass(&mut self, id: GenerationId, copy: u32) {
        let Some(slot) = self.runs.get(id).map(|run| run.slot) else { return };
        let queues = self.listeners.bypass(slot, copy);
        self.bypasses.end(slot, Some(copy));
        self.forward_from(slot, Some(copy), queues);
    }

    /// A program was launched in a slot: it may have fewer copies than the one before.
    pub(super) fn bypass_vacant(&mut self, slot: Slot) {
        let queues = self.listeners.vacant(slot);
        self.forward_from(slot, None, queues);
    }

    fn forward_from(&mut self, slot: Slot, copy: Option<u32>, queues: Vec<Watched>) {
        if queues.is_empty() {
            return;
        }
        let mut bypass = Bypass::new(queues, self.runs.owner(slot), self.onward.clone());
        // At once: the copy may be launched again in the next moment, and take its time to start.
        bypass.look();
        self.bypasses.0.push(Bypassed { slot, copy, task: tokio::spawn(bypass.run()) });
    }
}
