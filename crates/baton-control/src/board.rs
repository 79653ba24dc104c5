//! What the keeper knows, for everybody to read: a snapshot that never changes and is replaced by the next.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use baton_core::history::Lock;
use baton_core::ids::ServiceName;
use baton_core::metric::Unsure;
use baton_core::units::Millis;
use baton_store::state::Service;
use baton_wire::api::ServiceStatus;

use crate::sessions::Hellos;
use crate::view;
use crate::view::status;

/// Everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    /// The services that are known.
    pub services: BTreeMap<ServiceName, Arc<Posted>>,
    /// Grows whenever events were added.
    pub events: u64,
    /// Why nothing can be decided: the state store cannot be written.
    pub trouble: Option<String>,
    /// The state store was away since this server started: it knows of no service, which says nothing about them.
    pub unread: bool,
}

impl Board {
    /// The lock of a service that this one is a flavor of, and whose it is.
    pub(crate) fn lock_above(&self, service: &ServiceName) -> Option<(ServiceName, &Lock)> {
        service.bases().find_map(|base| {
            let lock = self.services.get(&base)?.service.history().lock()?;
            Some((base, lock))
        })
    }

    /// How a service stands that is known; it is locked as well where one is that it is a flavor of, and what is wrong with the
    /// state store is wrong for every service.
    pub(crate) fn status(&self, service: &ServiceName, posted: &Posted) -> ServiceStatus {
        let mut status = ServiceStatus { trouble: self.trouble.clone(), ..posted.status(service).clone() };
        if status.lock.is_none() {
            let above = self.lock_above(service);
            status.lock = above.map(|(base, lock)| view::lock_of(&base, lock));
        }
        status
    }
}

/// One service.
#[derive(Debug)]
pub(crate) struct Posted {
    /// Grows with every change that somebody may wait for.
    pub version: u64,
    /// All that is known of it.
    pub service: Service,
    /// When that was so.
    pub seen_at: Millis,
    /// Why the rollout waits for its metric, if it does.
    pub unsure: Option<Unsure>,
    /// What its members said of themselves when they connected.
    pub hellos: Hellos,
    /// How many of them are connected.
    pub sessions: usize,
    /// Put together when somebody asks: it takes a look at every member.
    pub status: OnceLock<ServiceStatus>,
}

impl Posted {
    /// How it stands by itself.
    fn status(&self, name: &ServiceName) -> &ServiceStatus {
        self.status.get_or_init(|| {
            let mut status = status::of(name, &self.service, self.seen_at);
            if let Some(unsure) = &self.unsure {
                status::wait_for_metric(&mut status, unsure);
            }
            status.version = self.version;
            if let Some(deploy) = &mut status.deploy {
                deploy.accepted = self.service.kept().to_string();
            }
            status
        })
    }
}
