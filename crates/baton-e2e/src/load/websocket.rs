//! One WebSocket of a client: messages and their echoes, for as long as the server keeps it.

use std::io::ErrorKind;

use futures_util::{FutureExt, SinkExt, StreamExt};
use prost::Message as _;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::answer::{Answer, Asked, judge};
use super::connection::Standing;
use super::echo;
use super::ledger::{Attempt, Close, End};
use super::plan::Ask;
use super::stream::Stream;

/// How long a server may take to answer a closing handshake.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    stream: WebSocketStream<Stream>,
    /// It ended without the closing handshake: whoever sends next is told.
    cut: Option<Close>,
    /// The last attempt on it; with its process, once that is known.
    pub last: Attempt,
}

impl WebSocket {
    /// Opens one on a connection.
    pub async fn open(stream: Stream, first: Attempt) -> Result<Self, End> {
        let address = format!("ws://{}{}", first.target.host(), echo::SOCKET);
        let (stream, _) = client_async(address, stream).await.map_err(unopened)?;
        Ok(Self { stream, cut: None, last: first })
    }

    /// How it stands between two messages. One that was cut still stands: a close without the handshake is no end
    /// that a server may give to it.
    pub fn standing(&mut self) -> Standing {
        match self.stream.next().now_or_never() {
            None => Standing::Open,
            Some(None | Some(Ok(Message::Close(_)))) => Standing::Closed,
            Some(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => Standing::Open,
            Some(Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Frame(_)))) => Standing::Surplus,
            Some(Some(Err(error))) => {
                self.cut = Some(close_of(&error));
                Standing::Open
            }
        }
    }

    /// Sends a message and reads its echo.
    pub async fn exchange(&mut self, ask: &Ask, seq: u64) -> End {
        let asked = Asked { conn: self.last.conn, seq, body_bytes: ask.body_bytes() };
        if let Some(close) = self.cut {
            return End::Cut { first_byte: true, close };
        }
        let message =
            echo::Asked { conn: asked.conn, seq, ms: ask.work().0, filler: vec![b'x'; ask.body_bytes()] };
        if let Err(error) = self.stream.send(Message::Binary(message.encode_to_vec().into())).await {
            return cut(&error);
        }
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    let body = text.as_str().into();
                    return judge(&Answer { status: 200, body, close: false }, asked);
                }
                // The handshake had begun when this was sent: it may be sent again, as on any idle connection.
                None | Some(Ok(Message::Close(_))) => {
                    return End::Cut { first_byte: false, close: Close::Eof };
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    return End::Mismatched { why: "the echo is no text".into() };
                }
                Some(Err(error)) => return cut(&error),
            }
        }
    }

    /// Ends it, with the handshake.
    pub async fn close(mut self) {
        if self.cut.is_none() && self.stream.close(None).await.is_ok() {
            let _ = timeout(CLOSE_WAIT, async { while let Some(Ok(_)) = self.stream.next().await {} }).await;
        }
    }
}

/// The whole of a WebSocket is one answer, which ends with the handshake: cut without it, it is cut in its midst.
fn cut(error: &Error) -> End {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => End::Cut { first_byte: false, close: Close::Eof },
        error => End::Cut { first_byte: true, close: close_of(error) },
    }
}

fn close_of(error: &Error) -> Close {
    match error {
        Error::Io(error) if error.kind() == ErrorKind::ConnectionReset => Close::Reset,
        _ => Close::Eof,
    }
}

/// What it means that it could not be opened.
fn unopened(error: Error) -> End {
    match error {
        Error::Http(response) => End::Mismatched { why: format!("the status is {}", response.status()) },
        error => End::Cut { first_byte: false, close: close_of(&error) },
    }
}
