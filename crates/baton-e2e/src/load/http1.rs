//! One HTTP/1.1 connection of a client, seen as closely as the socket allows.

use std::io::{Error, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::answer::{self, Asked, Reading};
use super::connection::Standing;
use super::ledger::{Attempt, Close, End};
use super::plan::Ask;
use super::stream::{Stream, readable, try_read};

/// How long a server that said it would close may take to do so, before the client does.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// An open connection.
#[derive(Debug)]
pub struct Http1 {
    stream: Stream,
    buffer: Vec<u8>,
    /// The last attempt on it; with its process, once that is known.
    pub last: Attempt,
    /// Whether no further request may follow: the client has asked to close, or the server has said so.
    pub closing: bool,
}

impl Http1 {
    /// Talks HTTP/1.1 on a connection.
    pub fn open(stream: Stream, first: Attempt) -> Self {
        Self { stream, buffer: Vec::new(), last: first, closing: false }
    }

    /// How the connection stands between two requests.
    pub fn standing(&self) -> Standing {
        if !self.buffer.is_empty() {
            return Standing::Surplus;
        }
        match try_read(&self.stream, &mut [0]) {
            Ok(0) => Standing::Closed,
            Ok(_) => Standing::Surplus,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Standing::Open,
            Err(_) => Standing::Closed,
        }
    }

    /// Waits for the close that the server announced. Whether something came before it.
    pub async fn surplus_before_close(&mut self) -> bool {
        let surplus = !self.buffer.is_empty();
        surplus || matches!(timeout(CLOSE_WAIT, self.stream.read(&mut [0])).await, Ok(Ok(1..)))
    }

    /// Sends a request and reads its answer. `close` asks the server to close afterwards.
    pub async fn exchange(&mut self, ask: &Ask, seq: u64, close: bool) -> End {
        if let Err(error) = self.send(ask, seq, close).await {
            return self.cut(close_of(&error));
        }
        loop {
            let ended = match self.stream.read_buf(&mut self.buffer).await {
                Ok(bytes) => bytes == 0,
                Err(error) => return self.cut(close_of(&error)),
            };
            match answer::read(&self.buffer, ended) {
                Reading::More if ended => return self.cut(Close::Eof),
                Reading::More => {}
                Reading::Nonsense(why) => return End::Mismatched { why },
                Reading::Whole { answer, bytes } => {
                    self.buffer.drain(..bytes);
                    self.closing = close || answer.close || ended;
                    let asked = Asked { conn: self.last.conn, seq, body_bytes: ask.body_bytes() };
                    return answer::judge(&answer, asked);
                }
            }
        }
    }

    async fn send(&mut self, ask: &Ask, seq: u64, close: bool) -> Result<(), Error> {
        let mut request = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nX-Conn: {}\r\nX-Seq: {seq}\r\n",
            ask.method(),
            ask.path(),
            self.last.target.host(),
            self.last.conn
        );
        if ask.body_bytes() > 0 {
            request += &format!("Content-Length: {}\r\n", ask.body_bytes());
        }
        if close {
            request += "Connection: close\r\n";
        }
        request += "\r\n";
        let body = vec![b'x'; ask.body_bytes()];
        let (first, second) = body.split_at(body.len() / 2);
        self.stream.write_all(&[request.as_bytes(), first].concat()).await?;
        if !second.is_empty() {
            // A server that closes meanwhile is noticed at once, not only when the rest is written.
            let rest = Duration::from_millis(ask.rest().0);
            if let Ok(ready) = timeout(rest, readable(&self.stream)).await {
                ready?;
            }
            self.stream.write_all(second).await?;
        }
        Ok(())
    }

    fn cut(&self, close: Close) -> End {
        End::Cut { first_byte: !self.buffer.is_empty(), close }
    }
}

fn close_of(error: &Error) -> Close {
    match error.kind() {
        ErrorKind::UnexpectedEof => Close::Eof,
        _ => Close::Reset,
    }
}
