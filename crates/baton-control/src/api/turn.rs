//! Room for requests for artefacts, each of which holds a pack or two in memory: so many at once, and none for longer than it
//! needs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::artefacts::Line;
use crate::access::Caller;

/// How long a request may take until its answer begins: as long as its client waits for a release to be published.
const REQUEST_MAX: Duration = Duration::from_secs(600);
/// How many requests there may be at once: each holds a pack or two in memory, and a thread while it uses the disk.
const REQUESTS_MAX: usize = 32;
/// How many of them one caller may have at once: half of the connections that a member fetches by.
const OF_ONE_MAX: usize = 8;
/// How long a client may take for [`ASKED_BYTES`] of its question, and for [`PART_BYTES`] of an answer: five times as long as one
/// that fetches lets them take.
const PART_MAX: Duration = Duration::from_secs(10);
/// What is given to a connection at once. Less than a connection takes without anybody reading it.
const PART_BYTES: usize = 64 << 10;
/// How much of a question comes in that time: whoever sends a byte now and then holds room as who sends nothing does. As many
/// requests as one caller may have at once get there together on a line of 128 kbit/s.
const ASKED_BYTES: usize = 16 << 10;

/// Room for requests.
#[derive(Clone)]
pub(crate) struct Room {
    all: Arc<Semaphore>,
    /// What each caller may have of it, for as long as it has something.
    each: Arc<Mutex<BTreeMap<String, Weak<Semaphore>>>>,
}

/// A place in it, until this is dropped.
struct Place {
    _own: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(REQUESTS_MAX)), each: Arc::default() }
    }
}

impl Room {
    /// Waits for a place. Who may be told from others gets only a part of the room, so that nobody alone fills it.
    async fn enter(&self, caller: &Caller) -> Place {
        // Nothing here is ever closed, so there is always a permit.
        let own = match caller {
            Caller::Anybody => None,
            known => self.part_of(known.to_string()).acquire_owned().await.ok(),
        };
        Place { _own: own, _of_all: Arc::clone(&self.all).acquire_owned().await.ok() }
    }

    fn part_of(&self, caller: String) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = each.get(&caller).and_then(Weak::upgrade) {
            return part;
        }
        each.retain(|_, part| part.strong_count() > 0);
        let part = Arc::new(Semaphore::new(OF_ONE_MAX));
        each.insert(caller, Arc::downgrade(&part));
        part
    }
}

/// Lets a request in when there is room for what it holds. Whoever stalls, asking or reading the answer, gives its room back.
pub(super) async fn in_turn(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    // Who adds something may have to wait until what is not needed is removed: without room, so that members that fetch need not.
    if request.method() == Method::PUT {
        drop(shared.publishing.read().await);
    }
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Anybody);
    let place = shared.room.enter(&caller).await;
    match timeout(REQUEST_MAX, next.run(request.map(|body| in_time(body, PART_MAX)))).await {
        Ok(response) => sent_in_time(response, place),
        Err(_) => Line(StatusCode::REQUEST_TIMEOUT, "the request took too long".to_owned(), "too-slow")
            .into_response(),
    }
}

/// The same body, which fails when its client lets us wait for longer than `limit` for [`ASKED_BYTES`] of it, or for its end.
fn in_time(body: Body, limit: Duration) -> Body {
    let parts =
        unfold((body.into_data_stream(), 0, limit), move |(mut parts, mut asked, mut left)| async move {
            let begun = Instant::now();
            let part = match timeout(left, parts.next()).await {
                Ok(part) => part?.map_err(io::Error::other),
                Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
            };
            asked += part.as_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(begun.elapsed());
            if asked >= ASKED_BYTES {
                (asked, left) = (0, limit);
            }
            Some((part, (parts, asked, left)))
        });
    Body::from_stream(parts)
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

#[cfg(test)]
mod tests {
    use baton_core::access::Credential;
    use tokio::time::sleep;

    use super::*;

    fn member(name: &str) -> Caller {
        let (service, member) = ("web".parse().unwrap(), name.parse().unwrap());
        Caller::Member(Credential { service, member, issued: 0 })
    }

    #[tokio::test]
    async fn a_caller_that_stalls_leaves_room_for_the_others() {
        let room = Room::default();
        let now = async |caller: &Caller| timeout(Duration::ZERO, room.enter(caller)).await.ok();
        let mut held = Vec::new();
        while let Some(place) = now(&member("web-1")).await {
            held.push(place);
        }
        assert_eq!(held.len(), OF_ONE_MAX);
        let other = now(&member("web-2")).await;
        assert!(other.is_some());
        held.pop();
        assert!(now(&member("web-1")).await.is_some(), "what was given back is there again");
        // Who has nothing is not remembered.
        drop((held, other));
        assert!(now(&member("web-3")).await.is_some());
        assert_eq!(room.each.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn f58_a_question_of_which_a_byte_comes_now_and_then_is_given_up() {
        let byte = |()| async {
            sleep(Duration::from_millis(1)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), ()))
        };
        let trickle = in_time(Body::from_stream(unfold((), byte)), Duration::from_millis(100));
        let ended = timeout(Duration::from_secs(60), to_bytes(trickle, usize::MAX)).await;
        assert!(ended.expect("it is not listened to for ever").is_err());
        // One that keeps coming is taken whole, however long it is.
        let parts = (0..100).map(|_| Ok::<_, Infallible>(Bytes::from_static(&[1; ASKED_BYTES])));
        let whole = in_time(Body::from_stream(tokio_stream::iter(parts)), PART_MAX);
        assert_eq!(to_bytes(whole, usize::MAX).await.unwrap().len(), 100 * ASKED_BYTES);
    }

    #[tokio::test]
    async fn there_is_no_more_room_than_there_is_whoever_asks() {
        let room = Room::default();
        let mut held = Vec::new();
        while let Ok(place) = timeout(Duration::ZERO, room.enter(&Caller::Anybody)).await {
            held.push(place);
        }
        assert_eq!(held.len(), REQUESTS_MAX);
        assert!(timeout(Duration::ZERO, room.enter(&member("web-1"))).await.is_err());
    }
}
