//! One service as a store knows it, and everything that can be done to it.

mod reconciled;

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_core::costs::Learnt;
use baton_core::deploy::Deploy;
use baton_core::fleet::{Fleet, Grant, Heard, InForce, Member, Tie};
use baton_core::history::{History, Lock, Past, Proposal, Tag, TagName, Tags};
use baton_core::ids::{DeployId, Epoch, MemberId, ServiceName};
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_wire::stored::{LoggedDeploy, MemberRecord, Milestones, ServiceRecord, Slot};

use super::{Accepted, Kept, Milestone, News, StateError};

/// All that is known of one service at one moment. Copies are cheap and never change.
#[derive(Debug, Clone)]
pub struct Service {
    history: Arc<History>,
    notes: Arc<BTreeMap<DeployId, Notes>>,
    fleet: Arc<Fleet>,
    kept: Kept,
}

/// What the log has of a deploy beside the deploy.
#[derive(Debug, Clone, Copy, Default)]
struct Notes {
    members_at_start: u32,
    milestones: Milestones,
    learnt: Option<Learnt>,
}

impl Service {
    /// The log of its deploys.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Its members, and the deploy in force for them.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// What it would take, at the least, to lose what is known of it.
    pub const fn kept(&self) -> Kept {
        self.kept
    }

    /// The same, kept so.
    pub(super) const fn keeping(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// How far a deploy got, and when.
    pub fn milestones(&self, deploy: DeployId) -> Milestones {
        self.notes_on(deploy).milestones
    }

    /// What the release of a deploy had cost its members when it had switched.
    pub fn learnt(&self, deploy: DeployId) -> Option<Learnt> {
        self.notes_on(deploy).learnt
    }

    fn notes_on(&self, deploy: DeployId) -> Notes {
        self.notes.get(&deploy).copied().unwrap_or_default()
    }

    /// A service of which nothing is stored, in a store that was opened at the moment `opened`. Somebody may
    /// know more: the store may have been lost.
    pub(super) fn unknown(name: &ServiceName, opened: Millis) -> Self {
        Self::stored(
            name,
            Vec::new(),
            Vec::new(),
            ServiceRecord { highest_epoch: Epoch(0), lock: None, tags: Tags::new() },
            opened,
        )
    }

    /// A service as it was stored, its deploys oldest first.
    pub(super) fn stored(
        name: &ServiceName,
        log: Vec<LoggedDeploy>,
        members: Vec<(MemberId, MemberRecord)>,
        service: ServiceRecord,
        opened: Millis,
    ) -> Self {
        let in_force = log.last().map(|last| InForce {
            deploy: last.deploy.clone(),
            members_at_start: last.members_at_start,
            switched: last.milestones.switched.is_some(),
        });
        let notes = |logged: &LoggedDeploy| {
            let &LoggedDeploy { members_at_start, milestones, learnt, .. } = logged;
            (logged.deploy.id, Notes { members_at_start, milestones, learnt })
        };
        let notes = log.iter().map(notes).collect();
        let past = |logged: LoggedDeploy| Past {
            switched: logged.milestones.switched.is_some(),
            deploy: logged.deploy,
        };
        let epoch = in_force.as_ref().map(|in_force| in_force.deploy.epoch);
        let tie = |record: MemberRecord| match record.under(epoch).slot {
            Some(Slot::Given { grant, .. }) => Tie::Slot(grant),
            Some(Slot::Leftover) => Tie::Leftover,
            None => Tie::Nothing,
        };
        let gone = members.iter().filter(|(_, record)| record.gone).map(|(id, _)| id.clone());
        let gone: Vec<_> = gone.collect();
        let members = members.into_iter().map(|(id, record)| (id, tie(record)));
        let fleet = Fleet::restore(members, in_force, service.highest_epoch, opened).without(gone);
        Self {
            history: Arc::new(
                History::new(name.clone(), log.into_iter().map(past).collect())
                    .with_lock(service.lock)
                    .with_tags(service.tags),
            ),
            notes: Arc::new(notes),
            fleet: Arc::new(fleet),
            kept: Kept::Durable,
        }
    }

    /// What is to be stored of the service itself.
    pub(super) fn record(&self) -> ServiceRecord {
        ServiceRecord {
            highest_epoch: self.fleet.highest_epoch(),
            lock: self.history.lock().cloned(),
            tags: self.history.tags().clone(),
        }
    }

    /// What is to be stored of its deploys, oldest first. All but the last one never change.
    pub(super) fn log(&self) -> impl DoubleEndedIterator<Item = LoggedDeploy> {
        self.history.past().iter().map(|past| self.logged(&past.deploy))
    }

    /// What is to be stored of its deploys and is not stored so, newest first: what is in force is all that changes of a log that
    /// grows.
    pub(super) fn new_deploys(&self, stored: Option<&Self>) -> impl Iterator<Item = LoggedDeploy> {
        let known = move |id| stored.and_then(|stored| Some(stored.logged(stored.history.find(id)?)));
        self.log().rev().take_while(move |logged| known(logged.deploy.id).as_ref() != Some(logged))
    }

    fn logged(&self, deploy: &Deploy) -> LoggedDeploy {
        let Notes { members_at_start, milestones, learnt } = self.notes_on(deploy.id);
        LoggedDeploy { deploy: deploy.clone(), members_at_start, milestones, learnt }
    }

    /// What is to be stored of the members.
    pub(super) fn member_records(&self) -> BTreeMap<&MemberId, MemberRecord> {
        self.fleet.members().map(|(id, member)| (id, self.record_of(member))).collect()
    }

    fn record_of(&self, member: &Member) -> MemberRecord {
        let slot = match member.tie() {
            Tie::Slot(grant) => Some(Slot::Given { epoch: self.epoch(), grant }),
            Tie::Leftover => Some(Slot::Leftover),
            // What was found is found again with the first report.
            Tie::Found | Tie::Nothing => None,
        };
        MemberRecord { slot, gone: member.is_gone() }
    }

    /// The number of the deploy in force.
    fn epoch(&self) -> Option<Epoch> {
        self.fleet.in_force().map(|in_force| in_force.deploy.epoch)
    }

    /// What is to be stored of members and is not stored so, where what is stored says something else by now: none of whoever is not
    /// known any more.
    pub(super) fn new_records(&self, stored: Option<&Self>) -> Vec<(MemberId, Option<MemberRecord>)> {
        let (before, after) = (stored.map(Self::member_records).unwrap_or_default(), self.member_records());
        let gone = before.keys().filter(|id| !after.contains_key(*id)).map(|id| ((*id).clone(), None));
        let says = |record: &MemberRecord| record.under(self.epoch());
        let new = after.iter().filter(|(id, record)| before.get(*id).map(says) != Some(**record));
        new.map(|(id, record)| ((*id).clone(), Some(*record))).chain(gone).collect()
    }

    /// The same, where what is stored is an earlier state of this very service: who was not changed is not looked at.
    pub(super) fn new_records_since(&self, stored: &Self) -> Vec<(MemberId, Option<MemberRecord>)> {
        let Some(changed) = self.fleet.changed_since(&stored.fleet) else {
            return self.new_records(Some(stored));
        };
        let of = |service: &Self, id: &MemberId| {
            service.fleet.member(id).map(|member| service.record_of(member).under(self.epoch()))
        };
        let differs = |id: &&MemberId| of(self, id) != of(stored, id);
        changed.into_iter().filter(differs).map(|id| (id.clone(), of(self, id))).collect()
    }

    /// Lets those go who were silent for too long.
    pub(super) fn sweep(&mut self, now: Millis) {
        Arc::make_mut(&mut self.fleet).sweep(now);
    }

    /// Takes over what the store has, where another server has changed it. `before` is what was taken over or written last.
    pub(super) fn adopt(&mut self, stored: Self, before: Option<&Self>, now: Millis) {
        Arc::make_mut(&mut self.fleet).adopt(&stored.fleet, before.map(|before| &*before.fleet), now);
        (self.history, self.notes) = (stored.history, stored.notes);
    }

    /// Nobody is blamed for having been silent until now.
    pub(super) fn excuse(&mut self, now: Millis) {
        Arc::make_mut(&mut self.fleet).excuse(now);
    }

    /// Another server has heard a member at this moment.
    pub(super) fn renew(&mut self, member: &MemberId, at: Millis) {
        Arc::make_mut(&mut self.fleet).renew(member, at);
    }

    /// The store may have lost something.
    pub(super) fn listen_anew(&mut self, now: Millis) {
        Arc::make_mut(&mut self.fleet).listen_anew(now);
    }

    /// Adds a deploy, unless it is there already. `lock_above` is the lock of a service that this one is a flavor of.
    pub(super) fn propose(
        &mut self,
        name: &ServiceName,
        proposal: Proposal,
        lock_above: Option<(ServiceName, Lock)>,
        now: Millis,
    ) -> Result<Accepted, StateError> {
        if let Some(known) = self.history.find(proposal.id) {
            return if proposal.wish.led_to(known) {
                Ok(Accepted { deploy: known.clone(), again: true, kept: self.kept })
            } else {
                Err(StateError::IdTaken { service: name.clone(), id: proposal.id })
            };
        }
        let refused = |source| StateError::Refused { service: name.clone(), source };
        if let Some((base, lock)) = lock_above {
            self.history.check_lock(&base, &lock, &proposal.wish).map_err(refused)?;
        }
        let deploy = self.history.propose(proposal, self.fleet.highest_epoch()).map_err(refused)?;
        Arc::make_mut(&mut self.history).add(deploy.clone());
        let fleet = Arc::make_mut(&mut self.fleet);
        fleet.begin(deploy.clone(), now);
        let members_at_start = fleet.in_force().map_or(0, |in_force| in_force.members_at_start);
        let notes = Notes { members_at_start, ..Notes::default() };
        Arc::make_mut(&mut self.notes).insert(deploy.id, notes);
        Ok(Accepted { deploy, again: false, kept: self.kept })
    }

    pub(super) fn grant(
        &mut self,
        name: &ServiceName,
        epoch: Epoch,
        members: &[MemberId],
        now: Millis,
    ) -> Result<Grant, StateError> {
        self.sweep(now);
        let rollout = Rollout::of(&self.fleet, now)
            .ok_or_else(|| StateError::NothingInForce { service: name.clone() })?;
        rollout
            .admissible(epoch, members)
            .map_err(|source| StateError::NoSlots { service: name.clone(), source })?;
        let grant = rollout.grant();
        Arc::make_mut(&mut self.fleet).grant(members, grant);
        Ok(grant)
    }

    pub(super) fn reach(
        &mut self,
        name: &ServiceName,
        deploy: DeployId,
        milestone: Milestone,
        at: u64,
    ) -> Result<(), StateError> {
        let mut milestones = self.milestones(deploy);
        let when = match milestone {
            Milestone::Switched => &mut milestones.switched,
            Milestone::Incomplete => &mut milestones.incomplete,
            Milestone::Drained => &mut milestones.drained,
        };
        if when.is_some() {
            return Ok(());
        }
        *when = Some(at);
        if self.history.find(deploy).is_none() {
            return Err(StateError::NoSuchDeploy { service: name.clone(), deploy });
        }
        if self.history.in_force().is_some_and(|in_force| in_force.id != deploy) {
            return Err(StateError::NotInForce { service: name.clone(), deploy });
        }
        let notes = Arc::make_mut(&mut self.notes).entry(deploy).or_default();
        notes.milestones = milestones;
        if milestone == Milestone::Switched {
            notes.learnt = Some(self.fleet.learnt());
            Arc::make_mut(&mut self.history).note_switched(deploy);
            Arc::make_mut(&mut self.fleet).note_switched();
        }
        Ok(())
    }

    pub(super) fn set_lock(&mut self, name: &ServiceName, lock: Option<Lock>) -> Result<(), StateError> {
        Arc::make_mut(&mut self.history)
            .set_lock(lock)
            .map_err(|source| StateError::Refused { service: name.clone(), source })
    }

    pub(super) fn set_tag(
        &mut self,
        service: &ServiceName,
        name: &TagName,
        tag: Option<Tag>,
    ) -> Result<(), StateError> {
        Arc::make_mut(&mut self.history)
            .set_tag(name, tag)
            .map_err(|source| StateError::Refused { service: service.clone(), source })
    }

    pub(super) fn hear(&mut self, news: News, now: Millis) -> Heard {
        let fleet = Arc::make_mut(&mut self.fleet);
        match news {
            News::Report(report) => fleet.apply(report, now),
            News::Heartbeat { member, stamp } => fleet.heartbeat(&member, stamp, now),
            News::Left(member) if fleet.member(&member).is_some() => {
                fleet.leave(&member, now);
                Heard::News
            }
            News::Left(_) => Heard::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_core::deploy::Policy;
    use baton_core::fleet::LEASE;
    use baton_core::history::{Backing, Wish};
    use baton_core::ids::ReleaseId;
    use baton_core::report::{Report, Seen, Stamp, Standing};

    use super::*;
    use crate::state::{MemoryStore, StateStore};

    const NOW: Millis = LEASE;

    fn rollout(number: u8, parent: Option<DeployId>) -> Proposal {
        let release = ReleaseId::from_bytes([number; 32]);
        Proposal {
            id: DeployId::from_bytes([number; 16]),
            parent,
            wish: Wish::Rollout { release, policy: Policy::fast().at_once(), again: false },
            reason: String::new(),
            actor: "ada".to_owned(),
            created: 0,
            backing: Backing::InForce,
            blame: None,
        }
    }

    /// Says that a member stands so with the first deploy.
    fn say(store: &MemoryStore, web: &ServiceName, member: &MemberId, sequence: u64, standing: Standing) {
        let release = ReleaseId::from_bytes([1; 32]);
        let seen = Some(Seen { epoch: Epoch(1), deploy: DeployId::from_bytes([1; 16]) });
        let proven = standing == Standing::Proven;
        let report = Report {
            seen: seen.filter(|_| sequence > 1),
            running: proven.then_some(release),
            committed: proven.then_some((release, Epoch(1))),
            healthy: proven,
            ..Report::plain(member.clone(), Stamp { life: 1, sequence }, standing)
        };
        assert_eq!(store.hear(web, News::Report(report), NOW).unwrap(), Heard::News);
    }

    #[test]
    fn a_deploy_is_written_once_and_not_for_each_member_and_says_the_same_when_it_is_read() {
        let (store, web) = (MemoryStore::new(Millis::ZERO), "web".parse().unwrap());
        let names = ["proven", "trying", "new"].map(|name| name.parse::<MemberId>().unwrap());
        names.iter().for_each(|name| say(&store, &web, name, 1, Standing::Behind));
        store.propose(&web, rollout(1, None), NOW).unwrap();
        names[..2].iter().for_each(|name| say(&store, &web, name, 2, Standing::Staged));
        store.grant(&web, Epoch(1), &names[..2], NOW).unwrap();
        say(&store, &web, &names[0], 3, Standing::Proven);
        let before = store.service(&web, NOW).unwrap();
        let rows: Vec<_> = before.member_records().into_iter().map(|(id, row)| (id.clone(), row)).collect();

        store.propose(&web, rollout(2, Some(DeployId::from_bytes([1; 16]))), NOW).unwrap();
        let after = store.service(&web, NOW).unwrap();
        assert_eq!(after.new_records_since(&before), [], "nothing new is to be written of any member");
        assert_eq!(after.new_records(Some(&before)), []);

        // The rows of before with the log of after: as after a restart.
        let read = Service::stored(&web, after.log().collect(), rows, after.record(), NOW);
        let ties =
            |service: &Service| names.each_ref().map(|name| service.fleet().member(name).unwrap().tie());
        assert_eq!(ties(&read), [Tie::Nothing, Tie::Leftover, Tie::Nothing]);
        assert_eq!(ties(&read), ties(&after));
    }
}
