//! One connection of a client, in the protocol of its habit.

use std::io::{Error, ErrorKind};

use super::http1::Http1;
use super::http2::Http2;
use super::ledger::{Attempt, Close, End};
use super::plan::{Ask, Habit};
use super::stream;
use super::websocket::WebSocket;

/// The system's ways of saying that the generator itself has run out of something. Linux, `errno.h`.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;

/// How an idle connection stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// A request can be sent.
    Open,
    /// It was closed while nothing was under way, and nobody minds.
    Closed,
    /// The server sent something that nobody had asked for.
    Surplus,
}

/// An open connection.
#[derive(Debug)]
pub enum Connection {
    /// HTTP/1.1; with whether the client asks to close it after its first answer.
    Http1(Http1, bool),
    /// HTTP/2.
    Http2(Http2),
    /// gRPC.
    Grpc(Http2),
    /// A WebSocket.
    WebSocket(Box<WebSocket>),
}

impl Connection {
    /// Connects, for the first attempt on this connection.
    pub async fn open(habit: Habit, first: Attempt) -> Result<Self, End> {
        let stream = stream::connect(&first.target).await.map_err(|error| unconnected(&error))?;
        Ok(match habit {
            Habit::New => Self::Http1(Http1::open(stream, first), true),
            Habit::Keep => Self::Http1(Http1::open(stream, first), false),
            Habit::Http2 => Self::Http2(Http2::open(stream, first).await?),
            Habit::Grpc => Self::Grpc(Http2::open(stream, first).await?),
            Habit::WebSocket => Self::WebSocket(Box::new(WebSocket::open(stream, first).await?)),
        })
    }

    /// The last attempt on it; with its process, once that is known.
    pub fn last(&mut self) -> &mut Attempt {
        match self {
            Self::Http1(connection, _) => &mut connection.last,
            Self::Http2(connection) | Self::Grpc(connection) => &mut connection.last,
            Self::WebSocket(connection) => &mut connection.last,
        }
    }

    /// How the connection stands between two requests.
    pub fn standing(&mut self) -> Standing {
        match self {
            Self::Http1(connection, _) => connection.standing(),
            Self::Http2(connection) | Self::Grpc(connection) => connection.standing(),
            Self::WebSocket(connection) => connection.standing(),
        }
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(&mut self, ask: &Ask, seq: u64) -> End {
        match self {
            Self::Http1(connection, close) => connection.exchange(ask, seq, *close).await,
            Self::Http2(connection) => connection.exchange(ask, seq).await,
            Self::Grpc(connection) => connection.call(ask, seq).await,
            Self::WebSocket(connection) => connection.exchange(ask, seq).await,
        }
    }

    /// Whether no further request may follow, as one side has said so in its last message.
    pub fn is_closing(&self) -> bool {
        matches!(self, Self::Http1(connection, _) if connection.closing)
    }

    /// Waits for the close that the server announced. Whether something came before it.
    pub async fn surplus_before_close(&mut self) -> bool {
        match self {
            Self::Http1(connection, _) => connection.surplus_before_close().await,
            // What comes where nobody asked is an error of the protocol, which its library tells.
            Self::Http2(_) | Self::Grpc(_) | Self::WebSocket(_) => false,
        }
    }

    /// Ends it, as the protocol has it.
    pub async fn close(self) {
        if let Self::WebSocket(connection) = self {
            connection.close().await;
        }
    }
}

/// What a failed connect means.
fn unconnected(error: &Error) -> End {
    let why = error.to_string();
    match (error.kind(), error.raw_os_error()) {
        (_, Some(EMFILE | ENFILE | EADDRNOTAVAIL | ENOBUFS)) => End::NotSent { why },
        (ErrorKind::ConnectionReset, _) => End::Cut { first_byte: false, close: Close::Reset },
        (ErrorKind::TimedOut, _) => End::TimedOut { connected: false },
        _ => End::Refused { why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_connect_says_whose_fault_it_is() {
        let end = |errno| unconnected(&Error::from_raw_os_error(errno));
        let (refused, reset, timed_out, unreachable) = (111, 104, 110, 113);
        assert!(matches!(end(refused), End::Refused { .. }));
        assert!(matches!(end(unreachable), End::Refused { .. }));
        assert_eq!(end(reset), End::Cut { first_byte: false, close: Close::Reset });
        assert_eq!(end(timed_out), End::TimedOut { connected: false });
        for own in [EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS] {
            assert!(matches!(end(own), End::NotSent { .. }), "{own}");
        }
    }
}
