//! A web server that speaks HTTP/1.1, HTTP/2, gRPC and WebSocket on one port, and answers as the load generator wants:
//! who answers, and what was asked. Its release is its generation, so that two of them are told apart, or what the variable
//! named by `$ANSWERS_BY` says. It may be [ill](baton_e2e::chaos::ill).
//!
//! It binds `$PORT` of `$HOST`, which is loopback if nothing is said, or with `--stdin` takes the socket that is its standard
//! input. On SIGTERM it finishes what it has and ends. With `$MOMENTS` it tells there when it was asked for its health first.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRef, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::any;
use axum::serve::ListenerExt;
use baton_e2e::bench::moments;
use baton_e2e::chaos::ill::Patient;
use baton_e2e::load::echo;
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic_prost::ProstCodec;

/// In how many parts an answer comes that comes in parts.
const PARTS: u64 = 5;
/// How long a client may take to answer a closing handshake.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Becomes true when the server is to end. It has ended when the last receiver is gone.
type Stop = watch::Receiver<bool>;

/// What handlers know.
#[derive(Clone)]
struct Known {
    stop: Stop,
    patient: Patient,
}

impl FromRef<Known> for Stop {
    fn from_ref(known: &Known) -> Self {
        known.stop.clone()
    }
}

impl FromRef<Known> for Patient {
    fn from_ref(known: &Known) -> Self {
        known.patient
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Work {
    ms: u64,
}

impl Work {
    async fn part(self, of: u64) {
        tokio::time::sleep(Duration::from_millis(self.ms) / u32::try_from(of).unwrap_or(1)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let patient = Patient::begin()?;
    let mut term = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    let app = Router::new()
        .route("/health", any(health))
        .route("/stream", any(stream))
        .route(echo::SOCKET, any(open_socket))
        .route(echo::METHOD, any(call))
        .fallback(answer)
        .with_state(Known { stop: stopped, patient });
    let begin = {
        let stop = stop.clone();
        async move {
            term.recv().await;
            stop.send_replace(true);
        }
    };
    // Else the end of a WebSocket would wait, behind an answer, until the client's next message confirms that one.
    let listener = listener().await?.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, app).with_graceful_shutdown(begin).await?;
    // The server knows nothing any more of connections that became WebSockets; each has a receiver.
    stop.closed().await;
    Ok(())
}

async fn listener() -> anyhow::Result<TcpListener> {
    if std::env::args().any(|word| word == "--stdin") {
        let socket = std::net::TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        socket.set_nonblocking(true)?;
        return Ok(TcpListener::from_std(socket)?);
    }
    let port = std::env::var("PORT").context("there is no $PORT")?;
    let host = std::env::var("HOST").unwrap_or_else(|_| "127.0.0.1".into());
    Ok(TcpListener::bind(format!("{host}:{port}")).await?)
}

/// Who answers, and what was asked.
fn identity(conn: Option<&str>, seq: Option<&str>, bytes: usize) -> Value {
    static RELEASE: OnceLock<String> = OnceLock::new();
    let release = RELEASE.get_or_init(|| {
        let name = std::env::var("ANSWERS_BY").unwrap_or_else(|_| "BATON_GENERATION".into());
        std::env::var(name).unwrap_or_else(|_| "none".into())
    });
    json!({ "release": release, "pid": std::process::id(), "conn": conn, "seq": seq, "bytes": bytes })
}

fn of_headers(headers: &HeaderMap, bytes: usize) -> String {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    format!("{}\n", identity(header("x-conn"), header("x-seq"), bytes))
}

fn of_message(asked: &echo::Asked) -> String {
    let (conn, seq) = (asked.conn.to_string(), asked.seq.to_string());
    identity(Some(&conn), Some(&seq), asked.filler.len()).to_string()
}

async fn answer(Query(work): Query<Work>, headers: HeaderMap, body: Bytes) -> String {
    work.part(1).await;
    of_headers(&headers, body.len())
}

async fn health(State(patient): State<Patient>) -> (StatusCode, &'static str) {
    static TOLD: OnceLock<()> = OnceLock::new();
    TOLD.get_or_init(|| {
        if let Some(path) = std::env::var_os("MOMENTS") {
            // Whoever measures has gone: nobody misses it.
            let _ = moments::tell(Path::new(&path), moments::now(), "healthy");
        }
    });
    if patient.is_healthy() { (StatusCode::OK, "healthy") } else { (StatusCode::SERVICE_UNAVAILABLE, "ill") }
}

async fn stream(Query(work): Query<Work>, headers: HeaderMap) -> Body {
    let part = of_headers(&headers, 0);
    let parts = tokio_stream::iter(0..PARTS).then(move |_| {
        let part = part.clone();
        async move {
            work.part(PARTS).await;
            Ok::<_, std::convert::Infallible>(part)
        }
    });
    Body::from_stream(parts)
}

async fn open_socket(upgrade: WebSocketUpgrade, State(stop): State<Stop>) -> Response {
    upgrade.on_upgrade(|socket| async move {
        // Whatever goes wrong, it is the client that tells.
        let _ = talk(socket, stop).await;
    })
}

/// Answers each message; when the server is to end, says so after the answer that is under way.
async fn talk(mut socket: WebSocket, mut stop: Stop) -> Result<(), axum::Error> {
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match message {
            Some(Ok(Message::Binary(bytes))) => {
                let asked = echo::Asked::decode(bytes).map_err(axum::Error::new)?;
                Work { ms: asked.ms }.part(1).await;
                socket.send(Message::Text(of_message(&asked).into())).await?;
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_) | Message::Text(_)) | Err(_)) | None => return Ok(()),
        }
    }
    let away = CloseFrame { code: close_code::AWAY, reason: "the server ends".into() };
    socket.send(Message::Close(Some(away))).await?;
    let closed = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = tokio::time::timeout(CLOSE_WAIT, closed).await;
    Ok(())
}

/// The method of gRPC.
async fn call(request: Request) -> Response {
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<echo::Answered, echo::Asked>::default());
    let echo = tower::service_fn(|request: tonic::Request<echo::Asked>| async move {
        let asked = request.into_inner();
        Work { ms: asked.ms }.part(1).await;
        Ok::<_, tonic::Status>(tonic::Response::new(echo::Answered { identity: of_message(&asked) }))
    });
    grpc.unary(echo, request).await.map(Body::new)
}
