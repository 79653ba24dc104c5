//! Names that people give releases of a service: what has one is deployed by it, and is not removed.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use baton_core::history::{Tag, TagName};
use baton_core::ids::ServiceName;
use baton_wire::api::{TagView, Tagging};
use tokio::sync::oneshot;

use super::deploys::{ACTOR_BYTES_MAX, check_text};
use super::extract::{Named, Sent};
use super::prune::needing;
use super::{Refusal, Shared, releases};
use crate::access::Caller;
use crate::audit::{Effect, Note};
use crate::clock::unix_ms;
use crate::keeper::Ask;

pub(super) async fn list(
    State(shared): State<Shared>,
    Named(service): Named,
) -> Result<Json<Vec<TagView>>, Refusal> {
    let posted = shared.posted(&service)?;
    Ok(Json(posted.service.history().tags().iter().map(view).collect()))
}

/// Gives a release a tag, which is then no other one's.
pub(super) async fn put(
    State(shared): State<Shared>,
    Path((service, tag)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Sent(asked): Sent<Tagging>,
) -> Result<Response, Refusal> {
    let (service, name): (ServiceName, TagName) = (service.parse()?, tag.parse()?);
    check_text("actor", &asked.actor, ACTOR_BYTES_MAX)?;
    // From the look whether the release is there until everybody knows that it is needed.
    let held = needing(&shared).await?;
    let posted = shared.known()?.services.get(&service).cloned();
    let history = posted.as_ref().map(|posted| posted.service.history());
    let release = releases::named(&shared, &asked.release, history, &caller).await?.id;
    releases::must_be_of(&shared, release, &service).await?;
    let tag = Tag { release, actor: caller.actor(asked.actor), since: unix_ms() };
    let is_same = |known: &&Tag| (known.release, &known.actor) == (release, &tag.actor);
    if let Some(known) = history.and_then(|history| history.tags().get(&name)).filter(is_same) {
        return Ok((Extension(Effect::Nothing), Json(view((&name, known)))).into_response());
    }
    let note = Note(format!("tag {name} of {service}: release {release}"));
    let shown = view((&name, &tag));
    set(&shared, service.clone(), name, Some(tag)).await?;
    if held.is_doubtful(&shared).await? {
        // Another server may not have known of the tag when it removed the release.
        let _held = needing(&shared).await?;
        releases::must_be_of(&shared, release, &service).await?;
    }
    Ok((Extension(note), Json(shown)).into_response())
}

/// Takes a tag away; answers what it was.
pub(super) async fn remove(
    State(shared): State<Shared>,
    Path((service, tag)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let (service, name): (ServiceName, TagName) = (service.parse()?, tag.parse()?);
    let posted = shared.posted(&service)?;
    let was = posted.service.history().tags().get(&name).map(|tag| view((&name, tag)));
    set(&shared, service, name, None).await?;
    Ok(Json(was).into_response())
}

async fn set(shared: &Shared, service: ServiceName, name: TagName, tag: Option<Tag>) -> Result<(), Refusal> {
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Tag { service, name, tag, reply };
    shared.inbox.send(ask).await.map_err(|_| Refusal::stopping())?;
    answer.await.map_err(|_| Refusal::stopping())?
}

fn view((name, tag): (&TagName, &Tag)) -> TagView {
    let Tag { release, actor, since } = tag;
    TagView { tag: name.to_string(), release: release.to_string(), actor: actor.clone(), since_ms: *since }
}
