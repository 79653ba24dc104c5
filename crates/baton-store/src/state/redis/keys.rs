//! The names of the keys. All have one hash tag, so that in a cluster all are on one node: a transaction does not span
//! several.

use baton_core::ids::ServiceName;

/// The keys of one Baton.
#[derive(Debug)]
pub(super) struct Keys {
    tag: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { tag: format!("{{{prefix}}}") }
    }

    /// The number of the schema.
    pub(super) fn schema(&self) -> String {
        format!("{}:schema", self.tag)
    }

    /// A set: the names of the services.
    pub(super) fn services(&self) -> String {
        format!("{}:services", self.tag)
    }

    /// A hash: the version of a service, the epoch in force, and its record. Whoever changes anything of the service
    /// changes the version.
    pub(super) fn service(&self, name: &ServiceName) -> String {
        format!("{}:service:{name}", self.tag)
    }

    /// A hash: the deploys of a service by epoch.
    pub(super) fn deploys(&self, name: &ServiceName) -> String {
        format!("{}:deploys:{name}", self.tag)
    }

    /// A hash: the records of a service's members.
    pub(super) fn members(&self, name: &ServiceName) -> String {
        format!("{}:members:{name}", self.tag)
    }

    /// A sorted set: the servers by when they were last here.
    pub(super) fn servers(&self) -> String {
        format!("{}:servers", self.tag)
    }

    /// A hash: what members said last to a server.
    pub(super) fn said(&self, server: &str) -> String {
        format!("{}:said:{server}", self.tag)
    }

    /// A sorted set: those members by the number of what they said.
    pub(super) fn changed(&self, server: &str) -> String {
        format!("{}:changed:{server}", self.tag)
    }

    /// A sorted set: those members by when they were last heard.
    pub(super) fn heard(&self, server: &str) -> String {
        format!("{}:heard:{server}", self.tag)
    }

    /// A stream: the events.
    pub(super) fn events(&self) -> String {
        format!("{}:events", self.tag)
    }

    /// A hash: who may do what, sealed, and a mark of it that every change changes.
    pub(super) fn access(&self) -> String {
        format!("{}:access", self.tag)
    }

    /// How many turns to prune have begun.
    pub(super) fn prunes(&self) -> String {
        format!("{}:prunes", self.tag)
    }

    /// Whose turn to prune it is; it ends by itself.
    pub(super) fn prune_turn(&self) -> String {
        format!("{}:prune-turn", self.tag)
    }

    /// The channel on which everybody is told to look again.
    pub(super) fn hints(&self) -> String {
        format!("{}:hints", self.tag)
    }
}
