//! The records of a state store, as bytes.
//!
//! Reading is strict: whatever is missing or out of range is an error that names the field, never a default,
//! since the store may be damaged or written to by others. `proto/baton/stored/v1/records.proto` says how the
//! format may change.

mod backup;
mod deploy;
mod event;
mod field;
mod member;

use std::error::Error;

use baton_core::costs::Learnt;
use baton_core::deploy::Deploy;
use baton_core::fleet::Grant;
use baton_core::history::{Lock, Tag, TagName, Tags};
use baton_core::ids::{Epoch, ReleaseId};
use prost::Message;

pub use backup::{BackedUp, Backup};

/// The messages as generated. Nobody else sees them.
mod v1 {
    include!(concat!(env!("OUT_DIR"), "/baton.stored.v1.rs"));
}

/// The schema that these records have, raised with every addition: a store that was written with a greater
/// one must not be opened, because what is not known here would be lost when it is written back.
pub const SCHEMA: u64 = 5;

/// Something that a state store keeps.
#[expect(private_bounds, reason = "the generated messages are nobody else's business")]
pub trait Record: Encoded {
    /// The bytes to store.
    fn to_bytes(&self) -> Vec<u8> {
        self.to_message().encode_to_vec()
    }

    /// The record in these bytes.
    ///
    /// # Errors
    /// When they are anything else than such a record, complete and in range.
    fn from_bytes(bytes: &[u8]) -> Result<Self, BadRecord> {
        let message = Self::Message::decode(bytes).map_err(BadRecord::Encoding)?;
        Self::from_message(message)
    }
}

impl<T: Encoded> Record for T {}

/// A record and its message.
trait Encoded: Sized {
    type Message: Message + Default;
    fn to_message(&self) -> Self::Message;
    fn from_message(message: Self::Message) -> Result<Self, BadRecord>;
}

/// What is kept of a service beside its deploys and members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// The highest epoch that any of its members has reported.
    pub highest_epoch: Epoch,
    /// Why it takes no new release, if it does not.
    pub lock: Option<Lock>,
    /// The names that its releases have.
    pub tags: Tags,
}

/// A deploy of the log and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedDeploy {
    /// The deploy.
    pub deploy: Deploy,
    /// How many members were live when it came into force.
    pub members_at_start: u32,
    /// How far it got.
    pub milestones: Milestones,
    /// What the release had cost its members when the target was reached; none before.
    pub learnt: Option<Learnt>,
}

/// When a deploy got somewhere for the first time, in milliseconds since 1970; none when it never did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Milestones {
    /// Its target was reached.
    pub switched: Option<u64>,
    /// Only members were left that refused the release or could not get it.
    pub incomplete: Option<u64>,
    /// No old generation was left.
    pub drained: Option<u64>,
}

/// A member that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberRecord {
    /// The slot that it has, or had.
    pub slot: Option<Slot>,
    /// Whether it is gone.
    pub gone: bool,
}

impl MemberRecord {
    /// What it says once the deploy of this epoch is in force: a slot of another deploy has ended, and is left over where it is not
    /// known how.
    pub fn under(self, in_force: Option<Epoch>) -> Self {
        let slot = match self.slot {
            Some(Slot::Given { epoch, grant }) if epoch.is_none() || epoch != in_force => {
                (!grant.proven).then_some(Slot::Leftover)
            }
            slot => slot,
        };
        Self { slot, ..self }
    }
}

/// What a member has of the slots of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// It was given one.
    Given {
        /// In the deploy of this epoch; none in what was written before schema 5.
        epoch: Option<Epoch>,
        /// Which.
        grant: Grant,
    },
    /// One in a deploy before, and how that ended is not known.
    Leftover,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// They are not even a message.
    #[error("it is not a protobuf message")]
    Encoding(#[source] prost::DecodeError),
    /// Something is missing.
    #[error("its field {field} is missing")]
    Missing {
        /// The path of the field.
        field: &'static str,
    },
    /// Something is out of range.
    #[error("its field {field} is not valid")]
    Invalid {
        /// The path of the field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Encoded for ServiceRecord {
    type Message = v1::Service;

    fn to_message(&self) -> v1::Service {
        let lock = |lock: &Lock| v1::Lock {
            reason: Some(lock.reason.clone()),
            actor: Some(lock.actor.clone()),
            since: Some(lock.since),
        };
        let tag = |(name, tag): (&TagName, &Tag)| v1::Tag {
            name: Some(name.to_string()),
            release: Some(tag.release.as_bytes().to_vec()),
            actor: Some(tag.actor.clone()),
            since: Some(tag.since),
        };
        v1::Service {
            highest_epoch: Some(self.highest_epoch.0),
            lock: self.lock.as_ref().map(lock),
            tags: self.tags.iter().map(tag).collect(),
        }
    }

    fn from_message(message: v1::Service) -> Result<Self, BadRecord> {
        let highest_epoch = Epoch(field::present(message.highest_epoch, "highest_epoch")?);
        let lock = message.lock.map(read_lock).transpose()?;
        let tags = message.tags.into_iter().map(read_tag).collect::<Result<_, _>>()?;
        Ok(Self { highest_epoch, lock, tags })
    }
}

fn read_tag(tag: v1::Tag) -> Result<(TagName, Tag), BadRecord> {
    let name = field::parsed(tag.name, "tags.name")?;
    let release = ReleaseId::from_bytes(field::id(tag.release, "tags.release")?);
    let actor = field::present(tag.actor, "tags.actor")?;
    Ok((name, Tag { release, actor, since: field::present(tag.since, "tags.since")? }))
}

fn read_lock(lock: v1::Lock) -> Result<Lock, BadRecord> {
    Ok(Lock {
        reason: field::present(lock.reason, "lock.reason")?,
        actor: field::present(lock.actor, "lock.actor")?,
        since: field::present(lock.since, "lock.since")?,
    })
}

#[cfg(test)]
mod tests;
