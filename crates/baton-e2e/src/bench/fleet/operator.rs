//! Whoever asks control: one connection that is kept, and every answer timed.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use baton_wire::access::{Join, Joined};
use baton_wire::api::{DeployView, PolicyView, Propose, ServiceStatus, Wanted};

use super::light::SERVICE;
use super::way::{Connection, Way};

/// How long an answer may take: longer than the longest poll.
const LIMIT: Duration = Duration::from_secs(60);
/// Most fields of a head.
const FIELDS_MAX: usize = 32;
/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// An operator at one server.
pub struct Operator {
    server: SocketAddr,
    way: Way,
    stream: Option<Box<dyn Connection>>,
}

impl Operator {
    /// One that has not connected yet.
    pub const fn new(server: SocketAddr, way: Way) -> Self {
        Self { server, way, stream: None }
    }

    /// How the service stands; once it is newer than `after`, where that is given.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub fn status(&mut self, after: Option<u64>) -> anyhow::Result<ServiceStatus> {
        let wait = after.map_or_else(String::new, |after| format!("?after={after}&wait_ms=30000"));
        self.ask("GET", &format!("/v1/services/{SERVICE}{wait}"), &[])
    }

    /// Puts a release in force.
    ///
    /// # Errors
    /// As [`Operator::status`].
    pub fn deploy(&mut self, release: &str, policy: &PolicyView) -> anyhow::Result<DeployView> {
        let propose = Propose {
            wanted: Wanted::Rollout,
            release: Some(release.to_owned()),
            policy: Some(policy.clone()),
            again: true,
            parent: None,
            reason: String::new(),
            actor: "bench".to_owned(),
            idempotency_key: None,
            dry_run: false,
            warrant: None,
            unsigned: false,
        };
        self.ask("POST", &format!("/v1/services/{SERVICE}/deploys"), &serde_json::to_vec(&propose)?)
    }

    /// The credential of a member, where the token that is shown makes members.
    ///
    /// # Errors
    /// As [`Operator::status`].
    pub fn join(&mut self, member: &str) -> anyhow::Result<String> {
        let join = Join { service: SERVICE.to_owned(), member: member.to_owned(), key: member.to_owned() };
        let joined: Joined = self.ask("POST", "/v1/join", &serde_json::to_vec(&join)?)?;
        Ok(joined.credential)
    }

    /// How many members are connected to this server.
    ///
    /// # Errors
    /// As [`Operator::status`].
    pub fn sessions(&mut self) -> anyhow::Result<usize> {
        let text = String::from_utf8(self.exchange("GET", "/metrics", &[])?)?;
        let line = text.lines().find_map(|line| line.strip_prefix("baton_sessions{service=\"web\"} "));
        Ok(line.unwrap_or("0").trim().parse()?)
    }

    fn ask<T: serde::de::DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<T> {
        let answer = self.exchange(method, path, body)?;
        serde_json::from_slice(&answer).with_context(|| String::from_utf8_lossy(&answer).into_owned())
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        // One that has failed is not asked again.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.way.connect(self.server, LIMIT)?,
        };
        let (server, length) = (self.server, body.len());
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: {server}\r\ncontent-length: {length}\r\n");
        if length > 0 {
            request.push_str("content-type: application/json\r\n");
        }
        if let Some(bearer) = self.way.bearer() {
            request.push_str(&format!("authorization: {}\r\n", bearer.to_str()?));
        }
        request.push_str("\r\n");
        stream.write_all(&[request.as_bytes(), body].concat())?;
        let answer = read_answer(&mut stream).with_context(|| format!("{method} {path}"))?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// The body of an answer that says that all is well.
fn read_answer(stream: &mut impl Read) -> anyhow::Result<Vec<u8>> {
    let (mut answer, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the server has closed the connection");
        answer.extend_from_slice(&buffer[..read]);
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(begin) = head.parse(&answer)? else { continue };
        let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length: usize = std::str::from_utf8(length.context("no length")?.value)?.parse()?;
        let status = head.code.unwrap_or(0);
        if answer.len() < begin + length {
            continue;
        }
        let body = answer.split_off(begin);
        if !(200..300).contains(&status) {
            bail!("the server answers {status}: {}", String::from_utf8_lossy(&body));
        }
        return Ok(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_in_whatever_pieces_it_comes() {
        struct Pieces(Vec<&'static [u8]>);
        impl Read for Pieces {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                if self.0.is_empty() {
                    return Ok(0);
                }
                let piece = self.0.remove(0);
                out[..piece.len()].copy_from_slice(piece);
                Ok(piece.len())
            }
        }
        let well = Pieces(vec![b"HTTP/1.1 200 OK\r\nCont", b"ent-Length: 4\r\n\r\nab", b"cd"]);
        assert_eq!(read_answer(&mut { well }).unwrap(), b"abcd");
        let refused = Pieces(vec![b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nno"]);
        assert_eq!(read_answer(&mut { refused }).unwrap_err().to_string(), "the server answers 409: no");
        let short = Pieces(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"]);
        assert!(read_answer(&mut { short }).is_err());
    }
}
