//! A connection that says HTTP/1.1 in pieces, so that a request can be left halfway.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// More headers than any server sends.
const HEADERS_MAX: usize = 100;
/// A greater answer to a small request is no answer to judge a program by.
const ANSWER_MAX: usize = 8 * 1024 * 1024;
const PIECE: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The connection ended, or was reset, before anything of an answer came.
    #[error("the connection ended without an answer")]
    Before,
    /// It ended within the answer.
    #[error("the connection ended within the answer")]
    Within,
    /// Nothing came in time.
    #[error("no answer in time")]
    Late,
    /// It is not HTTP/1.
    #[error("the answer is not HTTP/1")]
    NotHttp,
}

/// A whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The connection ends with it.
    pub closes: bool,
}

/// A connection to a program.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    host: String,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to where the program listens; a wildcard is reached by the loopback address.
    pub fn open(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let address = SocketAddr::new(ip, address.port());
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self { stream, host: address.to_string(), received: Vec::new() })
    }

    /// Sends a `GET`.
    pub fn get(&mut self, path: &str) -> io::Result<()> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: baton-doctor\r\n\r\n", self.host);
        self.stream.write_all(request.as_bytes())
    }

    /// Sends the head of a `POST` whose body has so many bytes.
    pub fn post(&mut self, path: &str, bytes: usize) -> io::Result<()> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: baton-doctor\r\nContent-Type: text/plain\r\n\
             Content-Length: {bytes}\r\n\r\n",
            self.host
        );
        self.stream.write_all(request.as_bytes())
    }

    /// Sends bytes of a body.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Whether nothing comes, not even the end, for so long.
    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        self.received.is_empty() && matches!(self.receive(deadline), Err(Broken::Late))
    }

    /// Whether the other side has closed without saying anything more.
    pub fn has_ended(&mut self) -> bool {
        self.received.is_empty() && matches!(self.receive(Instant::now()), Err(Broken::Before))
    }

    /// The next whole answer.
    pub fn answer(&mut self, limit: Duration) -> Result<Answer, Broken> {
        let deadline = Instant::now() + limit;
        loop {
            let head = loop {
                match head(&self.received)? {
                    Some(head) => break head,
                    None => self.receive(deadline)?,
                }
            };
            self.received.drain(..head.length);
            // 100 and 103 announce the answer.
            if (100..200).contains(&head.status) && head.status != 101 {
                continue;
            }
            let ended = self.body(head.body, deadline)?;
            return Ok(Answer { status: head.status, closes: head.closes || ended });
        }
    }

    /// Reads a body. Whether the connection ended with it.
    fn body(&mut self, body: Body, deadline: Instant) -> Result<bool, Broken> {
        match body {
            Body::Bytes(mut left) => {
                while left > 0 {
                    if self.received.is_empty() {
                        self.receive(deadline).map_err(within)?;
                    }
                    let taken = left.min(self.received.len());
                    self.received.drain(..taken);
                    left -= taken;
                }
                Ok(false)
            }
            Body::Chunks => loop {
                match httparse::parse_chunk_size(&self.received) {
                    Ok(httparse::Status::Complete((head, size))) => {
                        let size = usize::try_from(size).unwrap_or(ANSWER_MAX);
                        self.received.drain(..head);
                        // Each chunk, the last one too, ends with a line's end.
                        self.body(Body::Bytes(size.min(ANSWER_MAX) + 2), deadline)?;
                        if size == 0 {
                            return Ok(false);
                        }
                    }
                    Ok(httparse::Status::Partial) => self.receive(deadline).map_err(within)?,
                    Err(_) => return Err(Broken::NotHttp),
                }
            },
            Body::UntilEnd => loop {
                self.received.clear();
                match self.receive(deadline) {
                    Ok(()) => {}
                    Err(Broken::Before) => return Ok(true),
                    Err(broken) => return Err(broken),
                }
            },
        }
    }

    /// Waits for more bytes.
    fn receive(&mut self, deadline: Instant) -> Result<(), Broken> {
        if self.received.len() > ANSWER_MAX {
            return Err(Broken::NotHttp);
        }
        let ended = if self.received.is_empty() { Broken::Before } else { Broken::Within };
        // A time of zero would mean to wait for ever.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if self.stream.set_read_timeout(Some(left)).is_err() {
            return Err(ended);
        }
        let mut piece = [0; PIECE];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ended),
                Ok(bytes) => {
                    self.received.extend(&piece[..bytes]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Broken::Late);
                }
                Err(_) => return Err(ended),
            }
        }
    }
}

/// Behind the head of an answer nothing means its end too soon.
fn within(broken: Broken) -> Broken {
    match broken {
        Broken::Before => Broken::Within,
        other => other,
    }
}

/// How the length of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Bytes(usize),
    Chunks,
    UntilEnd,
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    length: usize,
    status: u16,
    closes: bool,
    body: Body,
}

/// Reads the head of an answer (RFC 9112); nothing while it is not complete.
fn head(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::NotHttp),
    };
    let status = response.code.ok_or(Broken::NotHttp)?;
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    let wish = header("connection").unwrap_or_default();
    let closes = wish.contains("close") || (response.version == Some(0) && !wish.contains("keep-alive"));
    let body = match (header("transfer-encoding"), header("content-length")) {
        _ if matches!(status, 100..200 | 204 | 304) => Body::Bytes(0),
        (Some(coding), _) if coding.contains("chunked") => Body::Chunks,
        (_, Some(length)) => Body::Bytes(length.trim().parse().map_err(|_| Broken::NotHttp)?),
        (_, None) => Body::UntilEnd,
    };
    Ok(Some(Head { length, status, closes, body }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What a client makes of a server that says this and closes.
    fn answers(said: &'static str) -> Vec<Result<Answer, Broken>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Piece by piece, as networks may.
            for byte in said.as_bytes() {
                stream.write_all(&[*byte]).unwrap();
            }
        });
        let mut client = Connection::open(address, Duration::from_secs(10)).unwrap();
        let mut all = Vec::new();
        while all.last().is_none_or(Result::is_ok) {
            all.push(client.answer(Duration::from_secs(60)));
        }
        server.join().unwrap();
        all
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let answer = |status, closes| Ok(Answer { status, closes });
        for (said, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", vec![answer(200, false), Err(Broken::Before)]),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: Close\r\n\r\n",
                vec![answer(204, true), Err(Broken::Before)],
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.0 404 No\r\n\r\nso",
                vec![answer(200, false), answer(404, true), Err(Broken::Before)],
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", vec![Err(Broken::Within)]),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", vec![Err(Broken::Within)]),
            ("HTTP/1.1 20", vec![Err(Broken::Within)]),
            ("", vec![Err(Broken::Before)]),
            ("+OK ready\r\n", vec![Err(Broken::NotHttp)]),
        ] {
            assert_eq!(answers(said), expected, "{said:?}");
        }
    }

    #[test]
    fn a_silent_and_a_closed_connection_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = Connection::open(address, Duration::from_secs(10)).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(client.is_quiet_for(Duration::from_millis(1)) && !client.has_ended());
        drop(server);
        assert!(!client.is_quiet_for(Duration::from_secs(60)) && client.has_ended());
    }
}
