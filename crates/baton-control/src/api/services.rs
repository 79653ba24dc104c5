//! How services and their members stand.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use baton_wire::api::{MemberStatus, ServiceStatus};
use serde::Deserialize;

use super::extract::{Asked, Named};
use super::{Refusal, Shared};
use crate::access::Caller;
use crate::board::Board;
use crate::view;

/// Wait for something newer.
#[derive(Deserialize)]
pub(super) struct After {
    after: Option<u64>,
    wait_ms: Option<u64>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<ServiceStatus>>, Refusal> {
    let board = shared.known()?;
    let seen = board.services.iter().filter(|(service, _)| caller.covers(service));
    Ok(Json(seen.map(|(service, posted)| board.status(service, posted)).collect()))
}

pub(super) async fn one(
    State(shared): State<Shared>,
    Named(service): Named,
    Asked(asked): Asked<After>,
) -> Result<Json<ServiceStatus>, Refusal> {
    shared.posted(&service)?;
    if let Some(after) = asked.after {
        let is_due =
            |board: &Arc<Board>| board.services.get(&service).is_none_or(|posted| posted.version > after);
        shared.wait(asked.wait_ms, is_due).await;
    }
    let posted = shared.posted(&service)?;
    Ok(Json(shared.board().status(&service, &posted)))
}

pub(super) async fn members(
    State(shared): State<Shared>,
    Named(service): Named,
) -> Result<Json<Vec<MemberStatus>>, Refusal> {
    let posted = shared.posted(&service)?;
    Ok(Json(view::member::all(&posted, shared.clock.now())))
}
