//! Locking a service, so that it takes no new release.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use baton_core::history::Lock;
use baton_core::ids::ServiceName;
use baton_wire::api::{LockView, Locking, Unlocked};
use tokio::sync::oneshot;

use super::deploys::{ACTOR_BYTES_MAX, REASON_BYTES_MAX, check_text};
use super::extract::{Named, Sent};
use super::refusal::NOTHING_TO_DO;
use super::{Refusal, Shared};
use crate::access::Caller;
use crate::audit::Effect;
use crate::clock::unix_ms;
use crate::keeper::Ask;
use crate::view;

pub(super) async fn lock(
    State(shared): State<Shared>,
    Named(service): Named,
    Extension(caller): Extension<Caller>,
    Sent(asked): Sent<Locking>,
) -> Result<Response, Refusal> {
    check_text("reason", &asked.reason, REASON_BYTES_MAX)?;
    check_text("actor", &asked.actor, ACTOR_BYTES_MAX)?;
    if asked.reason.trim().is_empty() {
        return Err(Refusal::invalid("reason is empty: say why, for whoever is refused by it"));
    }
    let lock = Lock { reason: asked.reason, actor: caller.actor(asked.actor), since: unix_ms() };
    let is_same = |known: &&Lock| (&known.reason, &known.actor) == (&lock.reason, &lock.actor);
    if let Some(known) = shared.posted(&service)?.service.history().lock().filter(is_same) {
        return Ok((Extension(Effect::Nothing), Json(view::lock(known))).into_response());
    }
    set(&shared, service, Some(lock.clone())).await?;
    Ok(Json(view::lock(&lock)).into_response())
}

/// Answers the lock that was there, and that of a service that this one is a flavor of, which holds on.
pub(super) async fn unlock(
    State(shared): State<Shared>,
    Named(service): Named,
    Sent(asked): Sent<Locking>,
) -> Result<Json<Option<Unlocked>>, Refusal> {
    check_text("reason", &asked.reason, REASON_BYTES_MAX)?;
    check_text("actor", &asked.actor, ACTOR_BYTES_MAX)?;
    let before = shared.posted(&service)?.service.history().lock().map(view::lock);
    let still = shared.known()?.lock_above(&service).map(|(base, lock)| view::lock_of(&base, lock));
    let unlocked = set(&shared, service, None).await;
    unlocked.map_err(|refusal| match &still {
        Some(LockView { reason, actor, service: Some(base), .. }) if refusal.code == NOTHING_TO_DO => refusal
            .and(&format!(
                "{base} is locked by {actor}, and its flavors with it: {reason}; when that is over, \
                 `baton unlock --service {base}`"
            )),
        Some(_) | None => refusal,
    })?;
    Ok(Json(before.map(|was| Unlocked { was, still })))
}

async fn set(shared: &Shared, service: ServiceName, lock: Option<Lock>) -> Result<(), Refusal> {
    shared.posted(&service)?;
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Lock { service, lock, reply };
    shared.inbox.send(ask).await.map_err(|_| Refusal::stopping())?;
    answer.await.map_err(|_| Refusal::stopping())?
}
