//! Who is known of a service, and the sums over all of them, kept up with every change: what it costs to take in a report,
//! to count, to copy, and to tell what has changed since, does not grow with the fleet.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use rpds::RedBlackTreeMapSync;

use crate::chain::Chain;
use crate::counts::{Counts, OVERDUE_AFTER, Part, Scene, Tally};
use crate::fleet::{GONE_AFTER, LEASE, Member, Presence, Tie};
use crate::ids::MemberId;
use crate::pages::Pages;
use crate::report::Standing;
use crate::sorted::Sorted;
use crate::units::Millis;

/// How many more changes than members are remembered at the least.
const CHANGES_SPARE: usize = 64;

/// Members by name. A copy shares all that is not changed afterwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    /// In no order: finding a member is most of what a report costs.
    entries: Pages<Entry>,
    /// The same in order, which changes only when somebody comes or goes.
    names: Sorted<MemberId>,
    sums: Sums,
    changes: Changes,
}

/// What follows from the members.
#[derive(Debug, Clone, Default)]
struct Sums {
    tally: Tally,
    /// The latest moment of which the sums are.
    placed_at: Millis,
    /// When time alone may change where a member stands: not later than that, maybe earlier. Only whose entry says so is due.
    due: RedBlackTreeMapSync<Millis, Chain<MemberId>>,
    /// Who waits for a slot with the release on its disk, in the order of the deploy.
    staged: Sorted<(u64, MemberId)>,
}

/// Who was changed last, the latest first. Who was changed often is there as often.
#[derive(Debug, Clone, Default)]
struct Changes {
    /// How many changes there were.
    revision: u64,
    latest: Chain<MemberId>,
    /// Those before, until there are as many newer ones.
    before: Chain<MemberId>,
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
}

/// The same members, of whom the same is known: all else follows from that.
impl PartialEq for Roster {
    fn eq(&self, other: &Self) -> bool {
        self.entries.size() == other.entries.size()
            && self.in_no_order().all(|(id, member)| other.get(id) == Some(member))
    }
}

impl Eq for Roster {}

impl Roster {
    /// Everybody, in the order of their names.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.names.iter().filter_map(|id| Some((id, self.get(id)?)))
    }

    /// Everybody, in no order, in less time.
    pub(crate) fn in_no_order(&self) -> impl Iterator<Item = (&MemberId, &Member)> {
        self.entries.iter().map(|(id, entry)| (id, &entry.member))
    }

    pub(crate) fn get(&self, id: &MemberId) -> Option<&Member> {
        self.entries.get(id).map(|entry| &entry.member)
    }

    pub(crate) fn contains(&self, id: &MemberId) -> bool {
        self.entries.get(id).is_some()
    }

    /// The latest moment of which the sums are. What is known of an earlier one is no reason to go back.
    pub(crate) const fn placed_at(&self) -> Millis {
        self.sums.placed_at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.size() == 0
    }

    /// How many there are.
    pub(crate) fn size(&self) -> usize {
        self.entries.size()
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
        let due = self.due(scene.now);
        if due.is_empty() {
            return self.sums.tally.counts();
        }
        let mut tally = self.sums.tally.clone();
        for entry in due.into_iter().filter_map(|id| self.entries.get(id)) {
            tally.take_off(&entry.part);
            tally.add(&Part::of(&entry.member, scene));
        }
        tally.counts()
    }

    /// Who is due by then, each once.
    fn due(&self, now: Millis) -> BTreeSet<&MemberId> {
        let due = self.sums.due.iter().take_while(|(at, _)| **at <= now);
        let listed = due.flat_map(|(at, ids)| ids.iter().map(move |id| (*at, id)));
        let is_due =
            |(at, id): &(Millis, &MemberId)| self.entries.get(id).is_some_and(|entry| entry.due == Some(*at));
        listed.filter(is_due).map(|(_, id)| id).collect()
    }

    /// The same, counted one by one.
    pub(crate) fn fold(&self, scene: Scene<'_>) -> Counts {
        let mut tally = Tally::default();
        self.in_no_order().for_each(|(_, member)| tally.add(&Part::of(member, scene)));
        tally.counts()
    }

    /// Who was changed since `before`, an earlier state of the same fleet, or is not there any more; none when that is not
    /// known. What a heartbeat renews is no change.
    pub(crate) fn changed_since(&self, before: &Self) -> Option<BTreeSet<&MemberId>> {
        self.changes.since(before.changes.revision).map(Iterator::collect)
    }

    /// Adds somebody who is not there yet.
    pub(crate) fn insert(&mut self, id: &MemberId, member: Member, scene: Scene<'_>) {
        let mut entry = Entry { member, part: Part::default(), due: None, staged: None };
        self.changes.note(id, self.entries.size() + 1);
        self.sums.place(id, &mut entry, scene);
        self.entries.insert(id, entry);
        self.names.insert(id.clone());
    }

    /// Changes a member, if it is there.
    pub(crate) fn change<T>(
        &mut self,
        id: &MemberId,
        scene: Scene<'_>,
        change: impl FnOnce(&mut Member) -> T,
    ) -> Option<T> {
        self.change_if(id, scene, |member| (true, change(member)))
    }

    /// Changes a member, if it is there. `change` says whether anything follows from that: nothing does where it was heard, as
    /// was to be expected, and nothing is new but the time and the stamp.
    pub(crate) fn change_if<T>(
        &mut self,
        id: &MemberId,
        scene: Scene<'_>,
        change: impl FnOnce(&mut Member) -> (bool, T),
    ) -> Option<T> {
        let members = self.entries.size();
        // One look for all: looking for a member is most of what a report costs.
        let entry = self.entries.get_mut(id)?;
        let (follows, answer) = change(&mut entry.member);
        if follows {
            self.changes.note(id, members);
            self.sums.place(id, entry, scene);
        }
        Some(answer)
    }

    /// Changes a member, or adds it as `new` says and changes that. `change` says whether anything follows from that.
    pub(crate) fn change_or_insert<T>(
        &mut self,
        id: &MemberId,
        scene: Scene<'_>,
        new: impl FnOnce() -> Member,
        change: impl FnOnce(&mut Member) -> (bool, T),
    ) -> T {
        let members = self.entries.size();
        let Some(entry) = self.entries.get_mut(id) else {
            let mut member = new();
            let (_, answer) = change(&mut member);
            self.insert(id, member, scene);
            return answer;
        };
        let (follows, answer) = change(&mut entry.member);
        if follows {
            self.changes.note(id, members);
            self.sums.place(id, entry, scene);
        }
        answer
    }

    pub(crate) fn remove(&mut self, id: &MemberId) {
        let Some(entry) = self.entries.get(id) else { return };
        self.sums.take_off(id, entry);
        self.changes.note(id, self.entries.size());
        self.entries.remove(id);
        self.names.remove(id);
    }

    /// Changes everybody, and lets those go for whom `change` says no.
    pub(crate) fn change_all(
        &mut self,
        scene: Scene<'_>,
        mut change: impl FnMut(&MemberId, &mut Member) -> bool,
    ) {
        // In place: who is there and in which order stays as it is, but for few.
        let everybody: Vec<MemberId> = self.entries.iter().map(|(id, _)| id.clone()).collect();
        for id in &everybody {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if change(id, &mut entry.member) {
                self.sums.place(id, entry, scene);
            } else {
                self.remove(id);
            }
        }
        // No list has everybody.
        self.changes = Changes { revision: self.changes.revision + 1, ..Changes::default() };
    }

    /// Takes everybody for whom time has changed something by now as they stand now. Returns who of them cannot be waited
    /// for any longer, as far as silence alone says so.
    pub(crate) fn settle(&mut self, scene: Scene<'_>) -> BTreeSet<MemberId> {
        let (mut lost, members) = (BTreeSet::new(), self.entries.size());
        while let Some((at, ids)) = self.sums.take_due(scene.now) {
            for id in ids.iter() {
                let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.due == Some(at)) else {
                    continue;
                };
                entry.due = None;
                if self.sums.is_heard_on(id, entry, scene) {
                    continue;
                }
                if is_lost(&entry.member, scene) {
                    lost.insert(id.clone());
                }
                if self.sums.place(id, entry, scene) {
                    self.changes.note(id, members);
                }
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
                self.staged.remove(&(rank, id.clone()));
            }
            if let Some(rank) = staged {
                self.staged.insert((rank, id.clone()));
            }
            entry.staged = staged;
        }
        // One that is too early costs a look; one look for each lease is less than one change for each heartbeat.
        let due = next_due(&entry.member, scene);
        let early = entry.due.filter(|at| due.is_some_and(|due| *at <= due));
        let due = early.or(due);
        if due != entry.due {
            if let Some(at) = due {
                self.note_due(at, id);
            }
            entry.due = due;
        }
        moved
    }

    /// Whether time has changed nothing for a member, since it was heard meanwhile as it was before. It is due again.
    ///
    /// That is so for nearly all of a fleet, in each lease once.
    fn is_heard_on(&mut self, id: &MemberId, entry: &mut Entry, scene: Scene<'_>) -> bool {
        let is_heard = entry.member.presence(scene.now) == Presence::Live;
        if is_heard && entry.part.is_live() {
            self.placed_at = self.placed_at.max(scene.now);
            let due = entry.member.heard_at + LEASE;
            self.note_due(due, id);
            entry.due = Some(due);
            return true;
        }
        false
    }

    fn note_due(&mut self, at: Millis, id: &MemberId) {
        if let Some(ids) = self.due.get_mut(&at) {
            ids.push(id.clone());
        } else {
            let mut ids = Chain::default();
            ids.push(id.clone());
            self.due.insert_mut(at, ids);
        }
    }

    /// Those that are listed first, where that is due by then.
    fn take_due(&mut self, now: Millis) -> Option<(Millis, Chain<MemberId>)> {
        let (at, ids) = self.due.first().filter(|(at, _)| **at <= now)?;
        let due = (*at, ids.clone());
        self.due.remove_mut(&due.0);
        Some(due)
    }

    /// Takes off all that follows from a member.
    fn take_off(&mut self, id: &MemberId, entry: &Entry) {
        self.tally.take_off(&entry.part);
        if let Some(rank) = entry.staged {
            self.staged.remove(&(rank, id.clone()));
        }
    }
}

impl Changes {
    /// A member has changed, one of so many.
    fn note(&mut self, id: &MemberId, members: usize) {
        self.revision += 1;
        if self.latest.len() >= members + CHANGES_SPARE {
            self.before = core::mem::take(&mut self.latest);
        }
        self.latest.push(id.clone());
    }

    /// Who was changed after so many changes; none when that is not remembered.
    fn since(&self, revision: u64) -> Option<impl Iterator<Item = &MemberId>> {
        let newer = usize::try_from(self.revision.checked_sub(revision)?).ok()?;
        let known = newer <= self.latest.len() + self.before.len();
        known.then(|| self.latest.iter().chain(self.before.iter()).take(newer))
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
