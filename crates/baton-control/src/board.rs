//! What the keeper knows, for everybody to read: a snapshot that never changes and is replaced by the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_core::ids::ServiceName;
use baton_store::state::Service;
use baton_wire::api::ServiceStatus;

use crate::sessions::Hellos;

/// Everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    /// The services that are known.
    pub services: BTreeMap<ServiceName, Arc<Posted>>,
    /// Grows whenever events were added.
    pub events: u64,
    /// Why nothing can be decided: the state store cannot be written.
    pub trouble: Option<String>,
}

/// One service.
#[derive(Debug)]
pub(crate) struct Posted {
    /// How it stands.
    pub status: ServiceStatus,
    /// All that is known of it.
    pub service: Service,
    /// What its members said of themselves when they connected.
    pub hellos: Hellos,
    /// How many of them are connected.
    pub sessions: usize,
}
