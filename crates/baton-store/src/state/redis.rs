//! A state store in Redis, for several servers at once, none of which leads.
//!
//! Each server holds everything in memory, as with the embedded store, and looks at Redis before it decides, when it is told
//! that something has changed, and every second. What must not be decided twice is a compare-and-set: the version of a
//! service is watched, what Redis has is taken over, the decision is made with it, and written only if the version is
//! still the one that was watched (`WATCH`, `MULTI`, `EXEC`). No scripts: the decision is the function that the simulator
//! tests, which cannot run there; and who may run none needs to trust no interpreter.
//!
//! Redis is not believed where it forgets. What a server has seen accepted it remembers, and writes it back when Redis
//! has lost it; and whenever another process answers than before, or less is there than was, nothing is granted for a lease.

mod access;
mod address;
mod answer;
mod conversation;
mod keys;
mod link;
mod log;
mod pruning;
mod rows;
mod said;
mod servers;
mod shared;
mod skew;
mod unsaved;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use baton_core::event::Event;
use baton_core::fleet::{Grant, Heard};
use baton_core::history::{Lock, Proposal, Tag, TagName};
use baton_core::ids::{DeployId, Epoch, MemberId, ServiceName};
use baton_core::units::Millis;

pub use self::address::{InvalidAddress, RedisAddress};
use self::link::Hints;
use self::shared::{Looked, Shared};
use self::skew::Skew;
use super::held::Held;
use super::{Accepted, Backup, Kept, Milestone, News, Numbered, Pruning, Service, StateError, StateStore};

/// How often Redis is looked at, told or not: a hint that is lost is found after this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a look that follows from a hint comes after the look before, at the least: where thousands of members report, there
/// is a hint for each, and one look shows what all of them say.
const HINTS_APART: Duration = Duration::from_millis(5);
/// How often a write is attempted anew because another server was faster. Each time one of them has got on.
const RACES_MAX: usize = 100;

/// A state store in Redis.
pub struct RedisStore {
    shared: Mutex<Shared>,
    hints: Mutex<Hints>,
    channel: String,
    fleet: String,
    skew: Skew,
}

impl RedisStore {
    /// The store at this address, at the moment `now`. What is there is read when somebody first asks, and until that is
    /// possible, whatever is asked fails.
    ///
    /// # Errors
    /// There are no random numbers to be had.
    pub fn new(address: RedisAddress, now: Millis) -> Result<Self, StateError> {
        let fleet = address.fleet();
        let shared = Shared::new(address, now)?;
        let (channel, skew) = (shared.channel(), shared.skew());
        Ok(Self { shared: Mutex::new(shared), hints: Mutex::default(), channel, fleet, skew })
    }

    /// Opens the store at this address, at the moment `now`, and reads all that is there.
    ///
    /// # Errors
    /// When it cannot be reached, when a newer version has written it, or when anything in it is not as it was written.
    pub fn open(address: RedisAddress, now: Millis) -> Result<Self, StateError> {
        let store = Self::new(address, now)?;
        store.shared().read()?;
        Ok(store)
    }

    /// Brings a backup to a Redis in which there is nothing yet.
    ///
    /// # Errors
    /// When there is something, or when it cannot be written.
    pub fn import(&self, backup: Backup, now: Millis) -> Result<(), StateError> {
        self.shared().import(backup.into_held(now))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // What is held is replaced in one step, so a panic of another holder does no harm.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, of a store that was read: nobody takes one that was not for an empty one.
    fn known(&self) -> Result<MutexGuard<'_, Shared>, StateError> {
        let mut shared = self.shared();
        shared.read()?;
        Ok(shared)
    }

    /// Changes a service as it is in the store at that moment.
    fn write<T>(
        &self,
        name: &ServiceName,
        mut change: impl FnMut(&mut Service) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.write_in_sight_of(name, (&[], None), |next, _| change(next))
    }

    /// The same, as these others are at that moment as well, and if no turn to prune has begun since so many had.
    fn write_in_sight_of<T>(
        &self,
        name: &ServiceName,
        (others, begun): (&[ServiceName], Option<u64>),
        mut change: impl FnMut(&mut Service, &Held) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let mut shared = self.shared();
        for _ in 0..RACES_MAX {
            shared.watch_with_turn(others.iter().chain([name]), begun.is_some())?;
            // What was repaired was written, which ends the watch.
            if shared.look(Some(name))? == Looked::Repaired {
                continue;
            }
            if let Some(begun) = begun
                && shared.read_pruning()? != (Pruning { begun, is_taken: false })
            {
                shared.unwatch();
                return Err(StateError::Pruned { service: name.clone() });
            }
            let mut next = shared.held.get(name);
            let answer = match change(&mut next, &shared.held) {
                Ok(answer) => answer,
                Err(error) => {
                    shared.unwatch();
                    return Err(error);
                }
            };
            if shared.commit(name, &next)? {
                shared.held.put(name, next);
                return Ok(answer);
            }
        }
        Err(shared.too_busy())
    }

    /// Puts a deploy in force, if no turn to prune has begun since so many had.
    fn accept(
        &self,
        service: &ServiceName,
        proposal: &Proposal,
        begun: Option<u64>,
        now: Millis,
    ) -> Result<Accepted, StateError> {
        let bases: Vec<ServiceName> = service.bases().collect();
        let accepted = self.write_in_sight_of(service, (&bases, begun), |next, held| {
            next.propose(service, proposal.clone(), held.lock_above(service), now)
        })?;
        let copies = self.shared().copies()?;
        Ok(Accepted { kept: Kept::Copies(copies), ..accepted })
    }

    /// Saves who the members are of the services of which something was told, if that is due. Where it fails, or another server
    /// has changed something since the last look, it is left to the next time.
    fn save(&self) {
        let due = self.shared().unsaved.take(Instant::now());
        let is_failed = |service: &ServiceName| !matches!(self.shared().save(service), Ok(true));
        let failed: Vec<_> = due.into_iter().filter(is_failed).collect();
        self.shared().unsaved.add(failed);
    }
}

impl StateStore for RedisStore {
    fn fleet(&self) -> String {
        self.fleet.clone()
    }

    fn clock_ahead_ms(&self) -> i64 {
        self.skew.ahead_ms()
    }

    fn ready(&self) -> Result<(), StateError> {
        let mut shared = self.shared();
        if shared.has_news() || shared.looked_before(LOOK_EVERY) {
            shared.look(None)?;
        }
        if shared.has_tales() {
            let services = shared.append(Vec::new())?;
            shared.unsaved.add(services);
        }
        drop(shared);
        self.save();
        Ok(())
    }

    fn services(&self) -> Result<Vec<ServiceName>, StateError> {
        Ok(self.known()?.held.names())
    }

    fn service(&self, name: &ServiceName, now: Millis) -> Result<Service, StateError> {
        let mut shared = self.known()?;
        let now = shared.heard_until(now);
        Ok(shared.held.look(name, now))
    }

    fn propose(
        &self,
        service: &ServiceName,
        proposal: Proposal,
        now: Millis,
    ) -> Result<Accepted, StateError> {
        self.accept(service, &proposal, None, now)
    }

    fn propose_unless_pruned(
        &self,
        service: &ServiceName,
        proposal: Proposal,
        begun: u64,
        now: Millis,
    ) -> Result<Accepted, StateError> {
        self.accept(service, &proposal, Some(begun), now)
    }

    fn pruning(&self) -> Result<Pruning, StateError> {
        self.shared().read_pruning()
    }

    fn begin_prune(&self, turn: Duration) -> Result<Option<u64>, StateError> {
        self.shared().begin_prune(turn)
    }

    fn go_on_pruning(&self, begun: u64, turn: Duration) -> Result<bool, StateError> {
        self.shared().go_on_pruning(begun, turn)
    }

    fn end_prune(&self, begun: u64) -> Result<(), StateError> {
        self.shared().end_prune(begun)
    }

    fn grant(
        &self,
        service: &ServiceName,
        epoch: Epoch,
        members: &[MemberId],
        now: Millis,
    ) -> Result<Grant, StateError> {
        self.write(service, |next| next.grant(service, epoch, members, now))
    }

    fn reach(
        &self,
        service: &ServiceName,
        deploy: DeployId,
        milestone: Milestone,
        at: u64,
    ) -> Result<(), StateError> {
        self.write(service, |next| next.reach(service, deploy, milestone, at))
    }

    fn set_lock(&self, service: &ServiceName, lock: Option<Lock>) -> Result<(), StateError> {
        self.write(service, |next| next.set_lock(service, lock.clone()))
    }

    fn set_tag(&self, service: &ServiceName, name: &TagName, tag: Option<Tag>) -> Result<(), StateError> {
        self.write(service, |next| next.set_tag(service, name, tag.clone()))
    }

    fn hear(&self, service: &ServiceName, news: News, now: Millis) -> Result<Heard, StateError> {
        Ok(self.known()?.hear(service, news, now))
    }

    fn append(&self, events: Vec<Event>) -> Result<(), StateError> {
        let services = {
            let mut shared = self.shared();
            // Where there would be too few copies nothing is told: it would be told again and again.
            shared.look(None)?;
            shared.append(events)?
        };
        self.shared().unsaved.add(services);
        self.save();
        Ok(())
    }

    fn events(
        &self,
        service: Option<&ServiceName>,
        from: u64,
        max: usize,
    ) -> Result<Vec<Numbered>, StateError> {
        Ok(self.known()?.held.events().read(service, from, max))
    }

    fn access(&self) -> Result<Option<Vec<u8>>, StateError> {
        self.shared().read_access()
    }

    fn set_access(&self, seen: Option<&[u8]>, next: &[u8]) -> Result<bool, StateError> {
        self.shared().write_access(seen, next)
    }

    fn changed(&self, since: u64, limit: Duration) -> Result<u64, StateError> {
        let until = Instant::now() + limit;
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(early) = self.shared().looked_within(HINTS_APART) {
                thread::park_timeout(early);
            }
            let left = until.saturating_duration_since(Instant::now());
            let look = || {
                let mut shared = self.shared();
                shared.look(None)?;
                let version = shared.held.version();
                Ok((version != since || left.is_zero()).then_some(version))
            };
            let connect = || self.shared().connect_for_hints();
            if let Some(version) = hints.listen(connect, &self.channel, look, left.min(LOOK_EVERY))? {
                return Ok(version);
            }
        }
    }
}
