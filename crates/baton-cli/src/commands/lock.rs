//! `baton lock` and `baton unlock`: a service takes no new release, and takes them again.

use baton_wire::api::Locking;

use crate::args::{Lock, Unlock};
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::proposal::actor;

/// Locks a service; it is locked once this returns.
pub fn lock(args: Lock, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let lock = context.client.lock(&service, &Locking { reason: args.reason, actor: actor() })?;
    context.ui.result(&lock, |lock| {
        format!(
            "{service} is locked: {}\ndeploys of it and of its flavors are refused until `baton unlock`; a rollback is not\n",
            escape(&lock.reason)
        )
    })
}

/// Unlocks a service.
pub fn unlock(args: Unlock, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let was = context.client.unlock(&service, &Locking { reason: String::new(), actor: actor() })?;
    context.ui.result(&was, |was| {
        let was = was.as_ref().map(|lock| format!(" (it was locked by {}: {})", lock.actor, lock.reason));
        format!("{service} takes new releases again{}\n", escape(&was.unwrap_or_default()))
    })
}
