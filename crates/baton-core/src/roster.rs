//! Who is known of a service, and the sums over all of them, kept up with every change: what it costs to take in a report,
//! to count, to copy, and to tell what has changed since, does not grow with the fleet.

use alloc::collections::BTreeSet;

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::counts::{Counts, OVERDUE_AFTER, Part, Scene, Tally};
use crate::fleet::{GONE_AFTER, LEASE, Member, Tie};
use crate::ids::MemberId;
use crate::report::Standing;
use crate::units::Millis;

/// How many changes of members that are gone are remembered, whatever the size of the fleet.
const CHANGES_SPARE: usize = 64;

/// Members by name. A copy shares all that is not changed afterwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    entries: RedBlackTreeMapSync<MemberId, Entry>,
    sums: Sums,
    changes: Changes,
}

/// What follows from the members.
#[derive(Debug, Clone, Default)]
struct Sums {
    tally: Tally,
    /// The latest moment of which the sums are.
    placed_at: Millis,
    /// When time alone may change where a member stands: not later than that, maybe earlier.
    due: RedBlackTreeSetSync<(Millis, MemberId)>,
    /// Who waits for a slot with the release on its disk, in the order of the deploy.
    staged: RedBlackTreeSetSync<(u64, MemberId)>,
}

/// Who was changed last.
#[derive(Debug, Clone, Default)]
struct Changes {
    /// By the number of the change.
    by_number: RedBlackTreeMapSync<u64, MemberId>,
    /// The number of the last change.
    revision: u64,
    /// The changes up to this one are not remembered.
    forgotten: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    member: Member,
    /// What it has added to the tally.
    part: Part,
    /// Where it is in `due`.
    due: Option<Millis>,
    /// Where it is in `staged`.
    staged: Option<u64>,
    /// Where it is in the changes.
    revision: u64,
}

/// The same members, of whom the same is known: all else follows from that.
impl PartialEq for Roster {
    fn eq(&self, other: &Self) -> bool {
        self.members().eq(other.members())
    }
}

impl Eq for Roster {}

impl Roster {
    /// Everybody, in the order of their names.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.entries.iter().map(|(id, entry)| (id, &entry.member))
    }

    pub(crate) fn get(&self, id: &MemberId) -> Option<&Member> {
        self.entries.get(id).map(|entry| &entry.member)
    }

    pub(crate) fn contains(&self, id: &MemberId) -> bool {
        self.entries.contains_key(id)
    }

    /// The latest moment of which the sums are. What is known of an earlier one is no reason to go back.
    pub(crate) const fn placed_at(&self) -> Millis {
        self.sums.placed_at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Members that wait for a slot with the release on their disk, first those whose turn is first. Some may be silent.
    pub(crate) fn staged(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.sums.staged.iter().filter_map(|(_, id)| Some((id, self.get(id)?)))
    }

    /// How many members there are of each sort.
    pub(crate) fn counts(&self, scene: Scene<'_>) -> Counts {
        if scene.now < self.sums.placed_at {
            return self.fold(scene);
        }
        let due = |(at, _): &&(Millis, MemberId)| *at <= scene.now;
        let mut due = self.sums.due.iter().take_while(due).peekable();
        if due.peek().is_none() {
            return self.sums.tally.counts();
        }
        let mut tally = self.sums.tally.clone();
        for entry in due.filter_map(|(_, id)| self.entries.get(id)) {
            tally.take_off(&entry.part);
            tally.add(&Part::of(&entry.member, scene));
        }
        tally.counts()
    }

    /// The same, counted one by one.
    pub(crate) fn fold(&self, scene: Scene<'_>) -> Counts {
        let mut tally = Tally::default();
        self.members().for_each(|(_, member)| tally.add(&Part::of(member, scene)));
        tally.counts()
    }

    /// Who was changed since `before`, an earlier state of the same fleet, or is not there any more; none when that is not
    /// known. What a heartbeat renews is no change.
    pub(crate) fn changed_since(&self, before: &Self) -> Option<BTreeSet<&MemberId>> {
        let (ours, theirs) = (&self.changes, before.changes.revision);
        let known = (ours.forgotten..=ours.revision).contains(&theirs);
        known.then(|| ours.by_number.range(theirs + 1..).map(|(_, id)| id).collect())
    }

    /// Adds somebody who is not there yet.
    pub(crate) fn insert(&mut self, id: &MemberId, member: Member, scene: Scene<'_>) {
        let mut entry = Entry { member, part: Part::default(), due: None, staged: None, revision: 0 };
        self.changes.note(id, &mut entry, self.entries.size() + 1);
        self.sums.place(id, &mut entry, scene);
        self.entries.insert_mut(id.clone(), entry);
    }

    /// Changes a member, if it is there.
    pub(crate) fn change<T>(
        &mut self,
        id: &MemberId,
        scene: Scene<'_>,
        change: impl FnOnce(&mut Member) -> T,
    ) -> Option<T> {
        let members = self.entries.size();
        // One look for all three: looking for a member is most of what a report costs.
        let entry = self.entries.get_mut(id)?;
        let answer = change(&mut entry.member);
        self.changes.note(id, entry, members);
        self.sums.place(id, entry, scene);
        Some(answer)
    }

    /// Changes nothing of a member but when it was heard and its stamp, while it is heard all the same.
    pub(crate) fn renew<T>(&mut self, id: &MemberId, renew: impl FnOnce(&mut Member) -> T) -> Option<T> {
        self.entries.get_mut(id).map(|entry| renew(&mut entry.member))
    }

    pub(crate) fn remove(&mut self, id: &MemberId) {
        let Some(mut entry) = self.entries.get(id).cloned() else { return };
        self.changes.note(id, &mut entry, self.entries.size());
        self.entries.remove_mut(id);
        self.sums.tally.take_off(&entry.part);
        if let Some(at) = entry.due {
            self.sums.due.remove_mut(&(at, id.clone()));
        }
        if let Some(rank) = entry.staged {
            self.sums.staged.remove_mut(&(rank, id.clone()));
        }
    }

    /// Changes everybody, and lets those go for whom `change` says no.
    pub(crate) fn change_all(
        &mut self,
        scene: Scene<'_>,
        mut change: impl FnMut(&MemberId, &mut Member) -> bool,
    ) {
        let revision = self.changes.revision + 1;
        let entries = core::mem::take(self).entries;
        (self.changes.revision, self.changes.forgotten) = (revision, revision);
        for (id, entry) in &entries {
            let mut member = entry.member.clone();
            if change(id, &mut member) {
                self.insert(id, member, scene);
            }
        }
        // Whoever is gone is in no list of changes.
        self.changes.forgotten = self.changes.revision;
    }

    /// Takes everybody for whom time has changed something by now as they stand now. Returns who of them cannot be waited
    /// for any longer, as far as silence alone says so.
    pub(crate) fn settle(&mut self, scene: Scene<'_>) -> BTreeSet<MemberId> {
        let (mut lost, members) = (BTreeSet::new(), self.entries.size());
        while let Some(due) = self.sums.due.first().filter(|(at, _)| *at <= scene.now).cloned() {
            self.sums.due.remove_mut(&due);
            let (_, id) = due;
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.due = None;
            if is_lost(&entry.member, scene) {
                lost.insert(id.clone());
            }
            if self.sums.place(&id, entry, scene) {
                self.changes.note(&id, entry, members);
            }
        }
        lost
    }
}

impl Sums {
    /// Brings all that follows from a member up to date; tells whether it stands elsewhere now.
    fn place(&mut self, id: &MemberId, entry: &mut Entry, scene: Scene<'_>) -> bool {
        self.placed_at = self.placed_at.max(scene.now);
        let (part, staged) = (Part::of(&entry.member, scene), rank_if_staged(&entry.member, scene));
        let moved = part != entry.part || staged != entry.staged;
        if part != entry.part {
            self.tally.take_off(&entry.part);
            self.tally.add(&part);
            entry.part = part;
        }
        if staged != entry.staged {
            if let Some(rank) = entry.staged {
                self.staged.remove_mut(&(rank, id.clone()));
            }
            if let Some(rank) = staged {
                self.staged.insert_mut((rank, id.clone()));
            }
            entry.staged = staged;
        }
        // One that is too early costs a look; one look for each lease is less than one change for each heartbeat.
        let due = next_due(&entry.member, scene);
        let early = entry.due.filter(|at| due.is_some_and(|due| *at <= due));
        let due = early.or(due);
        if due != entry.due {
            if let Some(at) = entry.due {
                self.due.remove_mut(&(at, id.clone()));
            }
            if let Some(at) = due {
                self.due.insert_mut((at, id.clone()));
            }
            entry.due = due;
        }
        moved
    }
}

impl Changes {
    /// A member has changed, one of so many.
    fn note(&mut self, id: &MemberId, entry: &mut Entry, members: usize) {
        self.revision += 1;
        self.by_number.remove_mut(&entry.revision);
        self.by_number.insert_mut(self.revision, id.clone());
        entry.revision = self.revision;
        while self.by_number.size() > members + CHANGES_SPARE {
            let Some(first) = self.by_number.first().map(|(revision, _)| *revision) else { return };
            self.by_number.remove_mut(&first);
            self.forgotten = first;
        }
    }
}

/// Whether a member has been silent for so long that it is gone.
fn is_lost(member: &Member, scene: Scene<'_>) -> bool {
    !member.gone && scene.now.since(member.heard_at.max(scene.excused_until)) >= GONE_AFTER
}

/// The next moment at which silence makes a difference, if nobody hears of the member until then.
fn next_due(member: &Member, scene: Scene<'_>) -> Option<Millis> {
    if member.gone {
        return None;
    }
    let since = member.heard_at.max(scene.excused_until);
    let moments = [member.heard_at + LEASE, since + OVERDUE_AFTER, since + GONE_AFTER];
    let next = moments.into_iter().filter(|moment| *moment > scene.now).min();
    // Whoever is lost and not let go yet is looked at again.
    Some(next.unwrap_or(scene.now + Millis(1)))
}

/// The place in the order of the deploy of a member that could use a slot.
fn rank_if_staged(member: &Member, scene: Scene<'_>) -> Option<u64> {
    let deploy = scene.deploy?;
    let waits = member.tie == Tie::Nothing
        && member.is_meant(&deploy.policy.target)
        && member.standing(deploy) == Some(&Standing::Staged);
    waits.then_some(member.rank)
}

#[cfg(test)]
mod tests;
