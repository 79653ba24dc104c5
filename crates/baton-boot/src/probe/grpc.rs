//! The question of `run.health.grpc`: `grpc.health.v1.Health/Check`, one small message each way over HTTP/2.

use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{ANSWER_BYTES_MAX, Finding, told};
use crate::stream::Stream;

/// The answers that there are, by their number (`HealthCheckResponse.ServingStatus`).
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;
/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Sends the request over a connection and judges the answer.
pub(super) async fn ask(stream: Stream, to: &str, service: &str) -> Finding {
    let failed = |error: &(dyn std::error::Error + 'static)| format!("grpc.health.v1: {}", told(error));
    let request = Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "baton-boot")
        .body(Full::new(Bytes::from(question(service))))
        .map_err(|error| failed(&error))?;
    let tasks = Tasks::default();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(tasks.clone(), TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
    let _end = EndsWith(tasks.clone());
    tasks.spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let headers = answer.headers().clone();
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("grpc.health.v1: {error}"))?;
    if !status.is_success() {
        return Err(format!("grpc.health.v1 answered HTTP {status}"));
    }
    // An answer without a message has its trailers among the headers.
    let trailers = body.trailers().cloned().unwrap_or(headers);
    call_succeeded(&trailers)?;
    judge(&body.to_bytes())
}

/// What keeps the connection going. HTTP/2 needs tasks beside the one that asks, and none may outlive it: its
/// port must be free for the next probe.
#[derive(Debug, Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn spawn(&self, task: impl Future + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(async move {
            task.await;
        });
    }
}

impl<F: Future + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

struct EndsWith(Tasks);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

/// A `HealthCheckRequest` in its frame.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, a text.
        message.push(0x0a);
        push_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What the trailers say of the call.
fn call_succeeded(trailers: &HeaderMap) -> Finding {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        Some("5") => Err("grpc.health.v1: the server does not know this service (grpc-status 5)".to_owned()),
        Some("12") => Err("grpc.health.v1: the server does not implement it (grpc-status 12)".to_owned()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            Err(format!("grpc.health.v1: grpc-status {code} {message}"))
        }
        None => Err("grpc.health.v1: the answer has no grpc-status; is this a gRPC server?".to_owned()),
    }
}

/// What is wrong with the message of an answer.
fn judge(body: &[u8]) -> Finding {
    match status_of(body) {
        Some(SERVING) => Ok(()),
        Some(other) => {
            let word = usize::try_from(other).ok().and_then(|index| STATUSES.get(index)).copied();
            let word = word.map_or_else(|| other.to_string(), str::to_owned);
            Err(format!("grpc.health.v1 answered {word}"))
        }
        None => Err("grpc.health.v1: the answer cannot be read".to_owned()),
    }
}

/// The status in a framed `HealthCheckResponse`: its field 1, which is 0 when it is not there.
fn status_of(body: &[u8]) -> Option<u64> {
    let (prefix, message) = body.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut rest)?,
            (_, 0) => drop(take_varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            (_, _) => return None,
        }
    }
    Some(status)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_framed_as_protobuf() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("web"), [0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn an_answer_is_judged_by_its_status() {
        let table: &[(&[u8], Option<&str>)] = &[
            (&[0, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 2, 8, 2], Some("grpc.health.v1 answered NOT_SERVING")),
            (&[0, 0, 0, 0, 2, 8, 3], Some("grpc.health.v1 answered SERVICE_UNKNOWN")),
            (&[0, 0, 0, 0, 0], Some("grpc.health.v1 answered UNKNOWN")),
            (&[0, 0, 0, 0, 2, 8, 9], Some("grpc.health.v1 answered 9")),
            // Fields of a later version are passed over.
            (&[0, 0, 0, 0, 6, 0x12, 2, b'o', b'k', 8, 1], None),
            (&[0, 0, 0, 0, 11, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1], None),
            (&[1, 0, 0, 0, 2, 8, 1], Some("grpc.health.v1: the answer cannot be read")),
            (&[0, 0, 0, 0, 3, 8, 1], Some("grpc.health.v1: the answer cannot be read")),
            (&[0, 0, 0, 0, 2, 0x12, 9], Some("grpc.health.v1: the answer cannot be read")),
            (b"<htm", Some("grpc.health.v1: the answer cannot be read")),
            (b"", Some("grpc.health.v1: the answer cannot be read")),
        ];
        for (body, wrong) in table {
            assert_eq!(judge(body).err().as_deref(), *wrong, "{body:?}");
        }
    }
}
