//! What was changed, by whom.

use axum::Json;
use axum::extract::State;
use baton_wire::access::AuditPage;
use serde::Deserialize;

use super::extract::Asked;
use super::{Refusal, Shared};

/// Most lines in one answer: half a megabyte. Who wants more asks again after the last one.
const LINES_MAX: usize = 1000;

/// From where on.
#[derive(Deserialize)]
pub(super) struct After {
    after: Option<u64>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Asked(After { after }): Asked<After>,
) -> Result<Json<AuditPage>, Refusal> {
    // Before the lines are read, which may be more by then.
    let head = shared.audit.head();
    let lines = shared.audit.lines(after.unwrap_or(0), LINES_MAX).await?;
    Ok(Json(AuditPage { lines, records: head.number, head: head.hash.to_string() }))
}
