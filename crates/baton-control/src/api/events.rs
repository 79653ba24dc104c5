//! What happened.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use baton_core::ids::ServiceName;
use baton_store::state::Numbered;
use baton_wire::api::EventView;
use serde::Deserialize;
use tokio::time::Instant;

use super::extract::Asked;
use super::{Refusal, Shared, WAIT_MAX, blocking};
use crate::access::Caller;
use crate::board::Board;
use crate::view;

/// Most events in one answer: a megabyte or less. Who wants more asks again after the last one.
const EVENTS_MAX: usize = 1000;

/// Which events.
#[derive(Deserialize)]
pub(super) struct Which {
    after: Option<u64>,
    service: Option<String>,
    wait_ms: Option<u64>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(asked): Asked<Which>,
) -> Result<Json<Vec<EventView>>, Refusal> {
    let service = asked.service.map(|service| service.parse::<ServiceName>()).transpose()?;
    if !service.as_ref().map_or_else(|| caller.covers_all(), |service| caller.covers(service)) {
        let text = "the token is not for all services: name one of its own, as in /v1/events?service=web";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text));
    }
    let from = asked.after.unwrap_or(0).saturating_add(1);
    let deadline = Instant::now() + Duration::from_millis(asked.wait_ms.unwrap_or(0)).min(WAIT_MAX);
    loop {
        // Noted before the store is read, so that nothing is missed in between.
        let seen = shared.board().events;
        let events = read(&shared, service.clone(), from).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if !events.is_empty() || left.is_zero() || shared.is_stopping() {
            return Ok(Json(events.into_iter().map(view::event).collect()));
        }
        let wait_ms = u64::try_from(left.as_millis()).ok();
        shared.wait(wait_ms, |board: &Arc<Board>| board.events != seen).await;
    }
}

async fn read(shared: &Shared, service: Option<ServiceName>, from: u64) -> Result<Vec<Numbered>, Refusal> {
    let states = Arc::clone(&shared.states);
    let read = blocking(move || states.events(service.as_ref(), from, EVENTS_MAX)).await?;
    Ok(read?)
}
