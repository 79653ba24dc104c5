//! What can go wrong at a state store.

use std::error::Error;
use std::path::PathBuf;

use baton_core::history::ProposeError;
use baton_core::ids::{DeployId, ServiceName};
use baton_core::rollout::Inadmissible;
use baton_release::store::Kind;

/// What went wrong at a state store. Nothing has changed then, except after those of [`Kind::Unavailable`]: what
/// was attempted may have happened, and is attempted again under the same id.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A proposal is refused.
    #[error("nothing has changed for {service}")]
    Refused {
        /// The service.
        service: ServiceName,
        /// Why.
        #[source]
        source: ProposeError,
    },
    /// A proposal has the id of a deploy that says something else.
    #[error(
        "cannot put a deploy of {service} in force: {} is the id of another one, propose again with a new id",
        .id.short()
    )]
    IdTaken {
        /// The service.
        service: ServiceName,
        /// The id.
        id: DeployId,
    },
    /// Another server has begun to remove releases from the artefact store.
    #[error("nothing has changed for {service}: another server removes releases at this moment, try again")]
    Pruned {
        /// The service.
        service: ServiceName,
    },
    /// Slots are refused.
    #[error("cannot give slots to members of {service}")]
    NoSlots {
        /// The service.
        service: ServiceName,
        /// Why.
        #[source]
        source: Inadmissible,
    },
    /// The service has no deploy at all.
    #[error("cannot give slots to members of {service}: nothing was ever deployed")]
    NothingInForce {
        /// The service.
        service: ServiceName,
    },
    /// The service has no such deploy.
    #[error("cannot note the progress of deploy {}: {service} has no such deploy", .deploy.short())]
    NoSuchDeploy {
        /// The service.
        service: ServiceName,
        /// The deploy.
        deploy: DeployId,
    },
    /// Another deploy is in force.
    #[error("cannot note the progress of deploy {}: another deploy of {service} is in force", .deploy.short())]
    NotInForce {
        /// The service.
        service: ServiceName,
        /// The deploy.
        deploy: DeployId,
    },
    /// Another process uses the file.
    #[error(
        "cannot open the state store {}: another server has it open, stop that one or use another directory",
        .path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A newer version has written the file.
    #[error(
        "cannot open the state store {}: a newer baton has written it (schema {found}, this one knows {known}), \
         start that version or a later one",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest schema that this version knows.
        known: u64,
    },
    /// What is stored is not what it should be.
    #[error(
        "cannot read the state store {}: {what} is damaged, put a backup in its place or start with another directory",
        .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is damaged.
        what: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// What is in a store that others can write to is not what it should be.
    #[error(
        "the state store {store} has something else than it should at {what}: put back what was there, or delete it, \
         and a server that knows what was there writes it back"
    )]
    Wrong {
        /// Where the store is.
        store: String,
        /// The key.
        what: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A backup is brought only to a store without anything in it.
    #[error("cannot bring a backup to {store}: there is a state store already, and two are never mixed")]
    NotEmpty {
        /// Where.
        store: String,
    },
    /// There is no room for what was to be written.
    #[error("cannot write the state store {}: its disk is full, free some space there and try again", .path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// What there is no room for.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store answers, and will not let this server in, however long it is waited for.
    #[error(
        "cannot use the state store {store}: it does not let this server in, put its address, user, password or \
         certificate right"
    )]
    Shut {
        /// Where the store is.
        store: String,
        /// What it says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store cannot be reached, or its disk fails.
    #[error("cannot {attempted}: the state store is not available")]
    Unavailable {
        /// What was attempted.
        attempted: String,
        /// What failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StateError {
    /// What kind of failure it is. After [`Kind::Conflict`] another look at the state may change what is wanted.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NothingInForce { .. } | Self::NoSuchDeploy { .. } => Kind::Missing,
            Self::Refused { source: ProposeError::Conflict { .. }, .. }
            | Self::NoSlots { .. }
            | Self::NotInForce { .. } => Kind::Conflict,
            Self::Pruned { .. } => Kind::Unavailable,
            Self::Refused { .. } | Self::IdTaken { .. } | Self::Newer { .. } | Self::NotEmpty { .. } => {
                Kind::Denied
            }
            Self::InUse { .. } | Self::DiskFull { .. } | Self::Shut { .. } | Self::Unavailable { .. } => {
                Kind::Unavailable
            }
            Self::Corrupt { .. } | Self::Wrong { .. } => Kind::Corrupt,
        }
    }

    /// Whether it may be over by itself, so that a server which starts waits for it: the store is away, and not in anybody
    /// else's hands, of another version, or wrong.
    pub const fn may_heal(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
