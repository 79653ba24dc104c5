//! Where control keeps what must outlive it: deploys, slots, members and events.

mod backup;
pub mod conformance;
mod embedded;
mod error;
mod events;
mod held;
mod memory;
mod pruning;
mod redis;
mod rows;
mod service;
mod store;

use std::fmt;
use std::time::Duration;

use baton_core::deploy::Deploy;
use baton_core::event::Event;
use baton_core::fleet::{Grant, Heard};
use baton_core::history::{Lock, Proposal, Tag, TagName};
use baton_core::ids::{DeployId, Epoch, MemberId, ServiceName};
use baton_core::report::{Report, Stamp};
use baton_core::units::Millis;

pub use backup::{Backup, BackupError};
pub use baton_core::decision::Milestone;
pub use baton_release::store::Kind;
pub use embedded::EmbeddedStore;
pub use error::StateError;
pub use events::{EVENTS_MAX, Numbered};
pub use memory::{Fault, MemoryStore};
pub use pruning::{PRUNE_TURN, Pruning};
pub use redis::{InvalidAddress, RedisAddress, RedisStore};
pub use service::Service;

/// Whose state it is where nothing else was said.
pub(crate) const FLEET: &str = "baton";

/// A place that keeps the state of all services, shared by every server that uses it.
///
/// Every method may be called by several at once, and again after an error or without an answer. It blocks
/// while it writes to the disk. `now` is a moment on the caller's monotonic clock, always the same one; only
/// leases are measured with it.
pub trait StateStore: Send + Sync {
    /// Whose state this is, among those who keep theirs in the same place.
    fn fleet(&self) -> String {
        FLEET.to_owned()
    }

    /// By how many milliseconds this machine's clock is ahead of that of the store, below 0: behind it, as far as that was found when
    /// the store was looked at last; 0 where the store has no clock of its own. It does not block.
    fn clock_ahead_ms(&self) -> i64 {
        0
    }

    /// Whether the store can be written. On return it can, and has all that is known here: what an earlier
    /// failure has left unusable was mended.
    fn ready(&self) -> Result<(), StateError>;

    /// The services that have a deploy or a member, in the order of their names.
    fn services(&self) -> Result<Vec<ServiceName>, StateError>;

    /// What is known of a service, all as of one moment. Of a service that nobody has heard of nothing is known.
    ///
    /// On return, members that were silent for too long are gone from it.
    fn service(&self, name: &ServiceName, now: Millis) -> Result<Service, StateError>;

    /// Puts a deploy in force, if its parent still is.
    ///
    /// On return, the deploy is durable, in force, and numbered above every other of the service and every
    /// epoch that a member has reported. All slots of its parent have ended. The id of the proposal is what
    /// makes a call the same call: when a deploy has it already, that one comes back and nothing changes.
    fn propose(&self, service: &ServiceName, proposal: Proposal, now: Millis)
    -> Result<Accepted, StateError>;

    /// The same, where a release was found to be in the artefact store while so many turns to prune had begun and none was taken:
    /// since another one has begun, it may be gone, and the proposal is refused as [`StateError::Pruned`].
    fn propose_unless_pruned(
        &self,
        service: &ServiceName,
        proposal: Proposal,
        begun: u64,
        now: Millis,
    ) -> Result<Accepted, StateError> {
        let _ = begun;
        self.propose(service, proposal, now)
    }

    /// What is known at this moment of pruning at all servers that share the store. Where that is one, nothing ever is.
    fn pruning(&self) -> Result<Pruning, StateError> {
        Ok(Pruning::default())
    }

    /// Takes the turn to prune for so long, unless another server has it, and tells its number. On return, what others have put in
    /// force before is known, and from then on no [proposal](StateStore::propose_unless_pruned) that looked before is accepted.
    fn begin_prune(&self, turn: Duration) -> Result<Option<u64>, StateError> {
        let _ = turn;
        Ok(Some(0))
    }

    /// Keeps a turn for so long from now on. `false` where it has ended: nothing may be removed any more.
    fn go_on_pruning(&self, begun: u64, turn: Duration) -> Result<bool, StateError> {
        let _ = (begun, turn);
        Ok(true)
    }

    /// Ends a turn.
    fn end_prune(&self, begun: u64) -> Result<(), StateError> {
        let _ = begun;
        Ok(())
    }

    /// Gives slots to all of these members, in the deploy of this epoch, or to none of them.
    ///
    /// On return, the slots are durable and the members may be told. What comes back is what each of them
    /// was given. The store judges by what it knows itself, so that no number of callers with old views
    /// opens more slots than there are. A second call is a conflict, since the slots are taken then.
    fn grant(
        &self,
        service: &ServiceName,
        epoch: Epoch,
        members: &[MemberId],
        now: Millis,
    ) -> Result<Grant, StateError>;

    /// Notes that the deploy in force got somewhere. `at` is in milliseconds since 1970.
    ///
    /// On return, that is durable. The first time counts; a second call changes nothing.
    fn reach(
        &self,
        service: &ServiceName,
        deploy: DeployId,
        milestone: Milestone,
        at: u64,
    ) -> Result<(), StateError>;

    /// Locks a service, so that it takes no new release, or unlocks it with none.
    ///
    /// On return, that is durable. Locking it again in the same words changes nothing; another lock, and
    /// unlocking what is not locked, is refused.
    fn set_lock(&self, service: &ServiceName, lock: Option<Lock>) -> Result<(), StateError>;

    /// Gives a release of a service a name, which is then no other one's, or takes the name away with none.
    ///
    /// On return, that is durable.
    fn set_tag(&self, service: &ServiceName, name: &TagName, tag: Option<Tag>) -> Result<(), StateError>;

    /// Takes in what a member says, which renews its lease.
    ///
    /// On return, every view has it. It becomes durable with the next durable write for the service: before
    /// any slot that depends on it, while what is lost until then only slows a rollout down. A second call
    /// is [`Heard::Stale`].
    fn hear(&self, service: &ServiceName, news: News, now: Millis) -> Result<Heard, StateError>;

    /// Adds events to the end of the log, and drops the oldest beyond [`EVENTS_MAX`].
    ///
    /// On return, they are durable, and their numbers follow all others. A second call adds them again.
    fn append(&self, events: Vec<Event>) -> Result<(), StateError>;

    /// The events numbered `from` and above, of one service or of all, oldest first, at most `max` of them.
    ///
    /// Numbers begin at 1 and are never used twice. The oldest ones may be gone.
    fn events(
        &self,
        service: Option<&ServiceName>,
        from: u64,
        max: usize,
    ) -> Result<Vec<Numbered>, StateError>;

    /// Who may do what, as bytes that only control can read; none where nobody has written any.
    fn access(&self) -> Result<Option<Vec<u8>>, StateError>;

    /// Puts other bytes in the place of those that were `seen`.
    ///
    /// On return they are durable and every server reads them; or, where it returns `false`, something else is
    /// there than was seen, and nothing has changed. A second call is such a one.
    fn set_access(&self, seen: Option<&[u8]>, next: &[u8]) -> Result<bool, StateError>;

    /// Waits until something has changed after the version `since`, at most for `limit`, and returns the
    /// version that the store has now. 0 is before every version.
    ///
    /// It says only "look again": changes may come in one, and a return without a change is no mistake.
    fn changed(&self, since: u64, limit: Duration) -> Result<u64, StateError>;
}

/// A deploy that was put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The deploy.
    pub deploy: Deploy,
    /// Whether this was an earlier call, whose answer is given again.
    pub again: bool,
    /// What it would take to lose it.
    pub kept: Kept,
}

/// What it would take to lose what a store has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The loss of the disk.
    Durable,
    /// The loss of the memory of this many nodes, or a failover that the others have missed.
    Copies(u32),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Durable => f.write_str("durable"),
            Self::Copies(1) => f.write_str("1 copy"),
            Self::Copies(copies) => write!(f, "{copies} copies"),
        }
    }
}

/// What a member says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it goes from one queue to the next, and is kept nowhere")]
pub enum News {
    /// Where it stands.
    Report(Report),
    /// Nothing new, but it is there.
    Heartbeat {
        /// The member.
        member: MemberId,
        /// The place among its reports.
        stamp: Stamp,
    },
    /// It will not come back.
    Left(MemberId),
}
