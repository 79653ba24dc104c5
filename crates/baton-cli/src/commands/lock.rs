//! `baton lock` and `baton unlock`: a service takes no new release, and takes them again.

use baton_core::ids::ServiceName;
use baton_wire::api::{LockView, Locking, Unlocked};

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
    context.ui.result(&was, |was| told(&service, was.as_ref()))
}

/// What is said of a service that was unlocked: whether it takes new releases by that.
fn told(service: &ServiceName, unlocked: Option<&Unlocked>) -> String {
    let was =
        unlocked.map(|Unlocked { was, .. }| format!(" (it was locked by {}: {})", was.actor, was.reason));
    let was = escape(&was.unwrap_or_default());
    match unlocked.and_then(|unlocked| unlocked.still.as_ref()) {
        Some(LockView { reason, actor, service: Some(base), .. }) => {
            escape(&format!(
                "{service} itself is not locked any more{was}, and takes no new releases all the same: {base} is locked by {actor}: \
             {reason}; when that is over, `baton unlock --service {base}`"
            )) + "\n"
        }
        Some(_) | None => format!("{service} takes new releases again{was}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_unlocks_a_flavor_is_told_which_lock_holds_on() {
        let lock = |reason: &str, service: Option<&str>| LockView {
            reason: reason.to_owned(),
            actor: "kim".to_owned(),
            since_ms: 1,
            service: service.map(str::to_owned),
        };
        let service = "web.beat".parse().unwrap();
        let unlocked = |still| Unlocked { was: lock("mine", None), still };
        let open = told(&service, Some(&unlocked(None)));
        assert_eq!(open, "web.beat takes new releases again (it was locked by kim: mine)\n");
        let still = told(&service, Some(&unlocked(Some(lock("freeze\u{1b}[2J", Some("web"))))));
        for part in [
            "not locked any more (it was",
            "no new releases",
            "web is locked by kim: freeze",
            "--service web`",
        ] {
            assert!(still.contains(part), "{part}: {still}");
        }
        assert!(!still.contains("again") && !still.contains('\u{1b}'), "{still:?}");
        assert_eq!(told(&service, None), "web.beat takes new releases again\n");
    }
}
