//! Asking a generation how it is.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use baton_core::health::Outcome;
use baton_core::run::Probe;
use baton_core::units::Millis;
use baton_sys::socket;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::listener::Way;

/// How much of an answer is read. A health page is short.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How often a queue is looked at while a connection waits in it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One question to one generation.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub probe: Probe,
    /// How it is reached.
    pub way: Way,
    /// How long it may take.
    pub timeout: Millis,
}

/// Asks, and tells whether the answer was good and in time.
pub async fn ask(question: Question) -> Outcome {
    let limit = Duration::from_millis(question.timeout.0);
    match tokio::time::timeout(limit, answer(question)).await {
        Ok(Ok(true)) => Outcome::Success,
        Ok(Ok(false) | Err(_)) | Err(_) => Outcome::Failure,
    }
}

async fn answer(question: Question) -> io::Result<bool> {
    let mut stream = connect(&question.way).await?;
    stream.write_all(&question.way.greeting).await?;
    match &question.probe {
        Probe::Http { path } => http(stream, question.way.to, path).await,
        Probe::Tcp => match &question.way.socket {
            Some(socket) => accepted(socket).await,
            // Its own socket: a connection is all that can be seen.
            None => Ok(true),
        },
    }
}

async fn connect(way: &Way) -> io::Result<TcpStream> {
    if way.from.is_empty() {
        return TcpStream::connect(way.to).await;
    }
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for from in &way.from {
        match connect_from(*from, way.to).await {
            // Another probe's connection still has this port: for a moment after a fork, the child has it too.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse) =>
            {
                last = error;
            }
            other => return other,
        }
    }
    Err(last)
}

async fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseport(true)?;
    // Reset at the end: closed normally, its port could not be used again for a minute.
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    socket.bind(from)?;
    socket.connect(to).await
}

async fn http(stream: TcpStream, to: SocketAddr, path: &str) -> io::Result<bool> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(other)?;
    let ask = async {
        let request = Request::get(path)
            .header("host", to.to_string())
            .header("user-agent", "baton-boot")
            .header("connection", "close")
            .body(Empty::new())
            .map_err(other)?;
        let answer = sender.send_request(request).await.map_err(other)?;
        let good = answer.status().is_success() || answer.status().is_redirection();
        // The whole answer: a program that dies in the middle of it is not healthy.
        Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
        Ok(good)
    };
    tokio::pin!(connection);
    tokio::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        // The connection may end with the answer's last byte: the answer is then complete all the same.
        _ = &mut connection => ask.await,
    }
}

/// A connection to a listening socket always succeeds: only when it has left the queue has a program taken it.
async fn accepted(socket: &OwnedFd) -> io::Result<bool> {
    while socket::queue(socket.as_fd())?.waiting > 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(true)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
