//! Room for requests for artefacts, each of which holds a pack or two in memory: so many at once, and none for longer than it
//! needs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::artefacts::Line;

/// How long a request may take until its answer begins: as long as its client waits for a release to be published.
const REQUEST_MAX: Duration = Duration::from_secs(600);
/// How long a client may take for [`PART_BYTES`] of an answer: five times as long as one that fetches lets them take.
const PART_MAX: Duration = Duration::from_secs(10);
/// What is given to a connection at once. Less than a connection takes without anybody reading it.
const PART_BYTES: usize = 64 << 10;

/// Lets a request in when there is room for what it holds. Whoever stalls, asking or reading the answer, gives its room back.
pub(super) async fn in_turn(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    // Who adds something may have to wait until what is not needed is removed: without room, so that members that fetch need not.
    if request.method() == Method::PUT {
        drop(shared.publishing.read().await);
    }
    // The room is never closed, so there is always a permit.
    let permit = Arc::clone(&shared.room).acquire_owned().await.ok();
    match timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => sent_in_time(response, permit),
        Err(_) => Line(StatusCode::REQUEST_TIMEOUT, "the request took too long".to_owned(), "too-slow")
            .into_response(),
    }
}

/// The same answer, cut off when its client does not read it. `permit` is held until it is sent.
fn sent_in_time(response: Response, permit: impl Send + 'static) -> Response {
    let length = response.body().size_hint().exact();
    let Some(length) = length.filter(|length| *length > PART_BYTES as u64) else { return response };
    let (mut head, body) = response.into_parts();
    // Without it a client could not see that an answer was cut off.
    head.headers.insert(CONTENT_LENGTH, length.into());
    let (parts, to_send) = mpsc::channel(1);
    tokio::spawn(async move {
        let _permit = permit;
        // It is in memory already.
        let mut content = to_bytes(body, usize::MAX).await.unwrap_or_default();
        while !content.is_empty() {
            let part = content.split_to(content.len().min(PART_BYTES));
            match timeout(PART_MAX, parts.send(Ok::<Bytes, Infallible>(part))).await {
                Ok(Ok(())) => {}
                // It does not read, or has gone.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    });
    Response::from_parts(head, Body::from_stream(ReceiverStream::new(to_send)))
}
