//! One HTTP/2 connection of a client, for plain requests and for gRPC.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tokio::time::Duration;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::answer::{Answer, Asked, judge};
use super::connection::Standing;
use super::echo;
use super::ledger::{Attempt, Close, End};
use super::plan::Ask;
use super::stream::Stream;

/// An open connection.
#[derive(Debug)]
pub struct Http2 {
    sender: Sender,
    /// Moves the bytes; ends with the connection, or with this.
    driver: JoinHandle<()>,
    /// The last attempt on it; with its process, once that is known.
    pub last: Attempt,
}

impl Http2 {
    /// Talks HTTP/2 on a connection, without asking first.
    pub async fn open(stream: Stream, first: Attempt) -> Result<Self, End> {
        let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| cut(&error, false))?;
        let driver = tokio::spawn(async move {
            // What goes wrong on it is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Self { sender: Sender(sender), driver, last: first })
    }

    /// How the connection stands between two requests.
    pub fn standing(&self) -> Standing {
        if self.sender.0.is_closed() { Standing::Closed } else { Standing::Open }
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(&mut self, ask: &Ask, seq: u64) -> End {
        let asked = Asked { conn: self.last.conn, seq, body_bytes: ask.body_bytes() };
        let request = Request::builder()
            .method(ask.method())
            .uri(format!("http://{}{}", self.last.target.host(), ask.path()))
            .header("x-conn", asked.conn)
            .header("x-seq", seq)
            .body(body(ask));
        let request = match request {
            Ok(request) => request,
            Err(error) => return End::NotSent { why: error.to_string() },
        };
        let response = match self.sender.0.send_request(request).await {
            Ok(response) => response,
            Err(error) => return cut(&error, false),
        };
        let status = response.status().as_u16();
        match response.into_body().collect().await {
            Ok(body) => judge(&Answer { status, body: body.to_bytes().into(), close: false }, asked),
            Err(error) => cut(&error, true),
        }
    }

    /// Calls a method by gRPC. The answer is read as a stream of one message, since then the moment is known when
    /// it begins.
    pub async fn call(&mut self, ask: &Ask, seq: u64) -> End {
        let asked = Asked { conn: self.last.conn, seq, body_bytes: ask.body_bytes() };
        let Ok(origin) = format!("http://{}", self.last.target.host()).parse::<Uri>() else {
            return End::NotSent { why: format!("{} is no address for gRPC", self.last.target) };
        };
        let mut client = Grpc::with_origin(self.sender.clone(), origin);
        if let Err(error) = client.ready().await {
            return cut(&error, false);
        }
        let message =
            echo::Asked { conn: asked.conn, seq, ms: ask.work().0, filler: vec![b'x'; ask.body_bytes()] };
        let codec = ProstCodec::<echo::Asked, echo::Answered>::default();
        let path = PathAndQuery::from_static(echo::METHOD);
        let mut answers = match client.server_streaming(tonic::Request::new(message), path, codec).await {
            Ok(response) => response.into_inner(),
            Err(status) => return failed(&status, false),
        };
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return End::Mismatched { why: "the answer has no message".into() },
            Err(status) => return failed(&status, true),
        };
        match answers.message().await {
            Ok(None) => judge(&Answer { status: 200, body: answer.identity.into(), close: false }, asked),
            Ok(Some(_)) => End::Mismatched { why: "the answer has two messages".into() },
            Err(status) => failed(&status, true),
        }
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The body of a request: in two parts, with a rest between them.
fn body(ask: &Ask) -> Body {
    if ask.body_bytes() == 0 {
        return Body::empty();
    }
    let half = Bytes::from(vec![b'x'; ask.body_bytes() / 2]);
    let rest = Bytes::from(vec![b'x'; ask.body_bytes() - half.len()]);
    let frames = [half, rest].map(|part| Ok::<_, Infallible>(Frame::data(part)));
    let frames = tokio_stream::iter(frames).throttle(Duration::from_millis(ask.rest().0));
    Body::new(StreamBody::new(frames))
}

/// What a call that failed means: the connection broke, or the other side said so.
fn failed(status: &tonic::Status, first_byte: bool) -> End {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return cut(error, first_byte);
        }
        source = error.source();
    }
    match status.code() {
        // What tonic makes of a stream that was reset, or of one without its end.
        Code::Cancelled | Code::Internal if first_byte => End::Cut { first_byte, close: Close::Eof },
        _ => End::Mismatched { why: format!("the status is {:?}: {}", status.code(), status.message()) },
    }
}

/// What a broken connection means. A request that the server has said it did not work on (GOAWAY, REFUSED_STREAM), or that
/// was never sent, looks like any other that was cut before its answer began.
fn cut(error: &(dyn std::error::Error + 'static), first_byte: bool) -> End {
    let mut source = Some(error);
    while let Some(error) = source {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::ConnectionReset) {
            return End::Cut { first_byte, close: Close::Reset };
        }
        source = error.source();
    }
    End::Cut { first_byte, close: Close::Eof }
}

/// What sends requests, as tonic wants it.
#[derive(Debug, Clone)]
struct Sender(SendRequest<Body>);

impl Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
