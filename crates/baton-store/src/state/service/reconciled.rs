//! What becomes of a service of which a store and a server know different things.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use baton_core::fleet::{Fleet, Tie};
use baton_core::history::{History, Settled, Tags, settle};
use baton_core::ids::DeployId;
use baton_core::units::Millis;
use baton_wire::stored::Milestones;

use super::{Notes, Service};

/// All tags of two states of a service. What two releases have the same name is that of the one which got it last.
fn tags_of_both(one: &History, other: &History) -> Tags {
    let mut all = one.tags().clone();
    for (name, tag) in other.tags() {
        let known = all.entry(name.clone()).or_insert_with(|| tag.clone());
        if known.since < tag.since {
            *known = tag.clone();
        }
    }
    all
}

impl Service {
    /// What goes on where the store has lost something that is known here, or has gone on without it: one of the two logs of
    /// deploys, and what was accepted beside it on either side. A lock stays, and so does a tag, since whoever locks or tags must be able
    /// to rely on it; a slot stays, since whoever has it may use it; what was reached was reached.
    pub(in crate::state) fn reconciled(&self, stored: &Self, before: Option<&Self>, now: Millis) -> Self {
        let deploy = |service: &Self| service.history.in_force().map(|deploy| deploy.id);
        let same = deploy(self) == deploy(stored);
        let mut next = self.clone();
        if same || settle(&self.history, &stored.history) == Settled::TakeOver {
            next.adopt(stored.clone(), before, now);
        }
        if same {
            next.give_again(&self.fleet);
        }
        if next.history.lock().is_none() {
            let lock = self.history.lock().or(stored.history.lock()).cloned();
            next.history = Arc::new(History::clone(&next.history).with_lock(lock));
        }
        let tags = tags_of_both(&self.history, &stored.history);
        if *next.history.tags() != tags {
            next.history = Arc::new(History::clone(&next.history).with_tags(tags));
        }
        for notes in [&self.notes, &stored.notes] {
            next.reach_again(notes);
        }
        next
    }

    /// Whether it has all that was accepted in another state of the service: its deploys and how far they got, its lock, its tags, its
    /// slots. What members say is not accepted by anybody, and is heard again.
    pub(in crate::state) fn has_all_of(&self, other: &Self) -> bool {
        let has_slot = |id| self.fleet.member(id).is_some_and(|known| matches!(known.tie(), Tie::Slot(_)));
        self.history == other.history
            && self.log().eq(other.log())
            && other.fleet.grants().all(|(id, _)| has_slot(id))
    }

    /// Slots that were given, and are not known any more.
    fn give_again(&mut self, fleet: &Fleet) {
        for (member, grant) in fleet.grants() {
            if self.fleet.member(member).is_some_and(|known| !matches!(known.tie(), Tie::Slot(_))) {
                Arc::make_mut(&mut self.fleet).grant(slice::from_ref(member), grant);
            }
        }
    }

    /// How far deploys got that are in this log.
    fn reach_again(&mut self, notes: &BTreeMap<DeployId, Notes>) {
        for (&deploy, reached) in notes {
            let known = self.milestones(deploy);
            let Milestones { switched, incomplete, drained } = reached.milestones;
            let all = Milestones {
                switched: known.switched.or(switched),
                incomplete: known.incomplete.or(incomplete),
                drained: known.drained.or(drained),
            };
            if all == known || self.history.find(deploy).is_none() {
                continue;
            }
            let notes = Arc::make_mut(&mut self.notes).entry(deploy).or_default();
            notes.milestones = all;
            notes.learnt = notes.learnt.or(reached.learnt);
            if all.switched != known.switched {
                Arc::make_mut(&mut self.history).note_switched(deploy);
                if self.history.in_force().is_some_and(|in_force| in_force.id == deploy) {
                    Arc::make_mut(&mut self.fleet).note_switched();
                }
            }
        }
    }
}
