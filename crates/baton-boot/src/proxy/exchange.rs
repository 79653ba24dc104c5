//! What a client and a server say to each other by HTTP/1.1 (RFC 9112), followed as it passes, to tell the client that
//! it should take another connection for its next request: `Connection: close` in an answer.
//!
//! Nothing is held back, and an answer is changed only where all that was said before was understood. At the first
//! doubt everything passes as it is from then on: other versions, tunnels, upgrades, lengths that could be read in two
//! ways.

use std::borrow::Cow;
use std::collections::VecDeque;

use httparse::{EMPTY_HEADER, Header, Status};

use super::framing::{Body, Place};

/// A head with more bytes is not followed: most servers refuse it, and one that comes byte by byte is read as often.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A head with more headers is not followed.
const HEADERS_MAX: usize = 128;
/// More requests without an answer nobody sends.
const PENDING_MAX: usize = 100;

/// What one connection has come to.
#[derive(Debug, Default)]
pub struct Exchange {
    requests: Stream,
    answers: Stream,
    /// Requests that are to be answered, the oldest first.
    pending: VecDeque<Asked>,
    /// It was not understood, or needs not be any more.
    over: bool,
}

/// What matters of a request for the length of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The answer has no body, whatever its head says.
    Head,
    Other,
}

/// One direction.
#[derive(Debug, Default)]
struct Stream {
    place: Place,
    /// What came of a head that is not complete.
    partial: Vec<u8>,
}

/// What a head says.
enum Read {
    /// So many bytes from its beginning, and what follows.
    Whole(usize, Body),
    Partial,
    /// It is not understood.
    Strange,
}

impl Exchange {
    /// The client says this, which is passed on as it is.
    pub fn asked(&mut self, mut bytes: &[u8]) {
        while !self.over && !bytes.is_empty() {
            let pending = &mut self.pending;
            let taken = self.requests.take(bytes, |head| request(head, pending));
            match taken {
                Some(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
                None => self.over = true,
            }
            self.over |= self.pending.len() > PENDING_MAX;
        }
    }

    /// The server says this. What is to be passed on; `leaving`: the client should not come back on this connection.
    pub fn answered<'b>(&mut self, bytes: &'b [u8], leaving: bool) -> Cow<'b, [u8]> {
        let mut at = 0;
        while !self.over
            && let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty())
        {
            let last = self.pending.len() == 1 && self.requests.is_between();
            let begins = self.answers.is_between();
            let pending = &mut self.pending;
            let mut final_head = false;
            let taken = self.answers.take(rest, |head| {
                let (read, is_final) = answer(head, pending);
                final_head = is_final;
                read
            });
            let Some(taken) = taken else {
                self.over = true;
                break;
            };
            // Who has asked for more already would lose it.
            if leaving
                && last
                && begins
                && final_head
                && let Some(changed) = with_close(rest.get(..taken).unwrap_or_default(), rest)
            {
                // Said once is enough: the rest passes as it is.
                self.over = true;
                return Cow::Owned([bytes.get(..at).unwrap_or_default(), &changed].concat());
            }
            at += taken;
        }
        Cow::Borrowed(bytes)
    }
}

impl Stream {
    /// Whether a message has ended and nothing came of the next one.
    fn is_between(&self) -> bool {
        self.place == Place::Head && self.partial.is_empty()
    }

    /// How many of these bytes, at least one, belong to the head or the body that is under way; nothing when they are
    /// not understood.
    fn take(&mut self, bytes: &[u8], read: impl FnOnce(&[u8]) -> Read) -> Option<usize> {
        if self.place != Place::Head {
            return self.place.pass(bytes);
        }
        let before = self.partial.len();
        let head: Cow<'_, [u8]> = match before {
            0 => Cow::Borrowed(bytes),
            _ => Cow::Owned([self.partial.as_slice(), bytes].concat()),
        };
        match read(&head) {
            Read::Whole(length, body) => {
                self.place = Place::after(body);
                self.partial = Vec::new();
                length.checked_sub(before).filter(|taken| *taken > 0)
            }
            Read::Partial if head.len() > HEAD_BYTES_MAX => None,
            Read::Partial => {
                self.partial = head.into_owned();
                Some(bytes.len())
            }
            Read::Strange => None,
        }
    }
}

fn request(head: &[u8], pending: &mut VecDeque<Asked>) -> Read {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(head) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Read::Partial,
        Err(_) => return Read::Strange,
    };
    let asked = match request.method {
        Some("CONNECT") | None => return Read::Strange,
        Some("HEAD") => Asked::Head,
        Some(_) => Asked::Other,
    };
    // Who waits for leave to send the body may never send it.
    let odd = has(request.headers, "Upgrade") || has(request.headers, "Expect");
    match Body::of_request(request.headers).filter(|_| request.version == Some(1) && !odd) {
        Some(body) => {
            pending.push_back(asked);
            Read::Whole(length, body)
        }
        None => Read::Strange,
    }
}

/// What an answer's head says, and whether it is complete and no interim one.
fn answer(head: &[u8], pending: &mut VecDeque<Asked>) -> (Read, bool) {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(head) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return (Read::Partial, false),
        Err(_) => return (Read::Strange, false),
    };
    let code = answer.code.unwrap_or(0);
    if answer.version != Some(1) || code == 101 || code < 100 {
        return (Read::Strange, false);
    }
    if code < 200 {
        return (Read::Whole(length, Body::NONE), false);
    }
    let bare = matches!(code, 204 | 304);
    let body = match pending.pop_front() {
        None => None,
        Some(Asked::Head) => Some(Body::NONE),
        Some(Asked::Other) if bare => Some(Body::NONE),
        Some(Asked::Other) => Body::of_answer(answer.headers),
    };
    match body {
        Some(body) => (Read::Whole(length, body), true),
        None => (Read::Strange, false),
    }
}

fn has(headers: &[Header<'_>], name: &str) -> bool {
    headers.iter().any(|header| header.name.eq_ignore_ascii_case(name))
}

/// What follows from the beginning of a complete head on, with `Connection: close` in it; nothing where it says anything
/// of the connection already but that it is kept.
fn with_close(head: &[u8], all: &[u8]) -> Option<Vec<u8>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    answer.parse(head).ok().filter(Status::is_complete)?;
    let mut said = answer.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Connection"));
    let (place, length, text): (usize, usize, &[u8]) = match (said.next(), said.next()) {
        (None, _) => (head.windows(2).position(|two| two == b"\r\n")? + 2, 0, b"Connection: close\r\n"),
        (Some(one), None) if one.value.eq_ignore_ascii_case(b"keep-alive") => {
            // The value is a part of the head.
            let place = (one.value.as_ptr() as usize).checked_sub(head.as_ptr() as usize)?;
            (place, one.value.len(), b"close")
        }
        (Some(_), _) => return None,
    };
    let (before, after) = (all.get(..place)?, all.get(place + length..)?);
    Some([before, text, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    const TOLD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                           a;x=\"y\"\r\nHTTP/1.1 2\r\n0\r\nSum: 1\r\n\r\n";

    /// What becomes of each answer, all of them passed in one piece after their request.
    fn told(exchanges: &[(&str, &str)]) -> Vec<String> {
        let mut exchange = Exchange::default();
        let passed = exchanges.iter().map(|(asked, answered)| {
            exchange.asked(asked.as_bytes());
            String::from_utf8(exchange.answered(answered.as_bytes(), true).into_owned()).unwrap()
        });
        passed.collect()
    }

    #[test]
    fn the_first_answer_that_is_understood_says_close() {
        let kept = "HTTP/1.1 404 Not Found\r\nconnection:  Keep-Alive \r\nContent-Length: 0\r\n\r\n";
        for (asked, answered, expected) in [
            (GET, PLAIN, TOLD),
            (POST, PLAIN, TOLD),
            (GET, kept, "HTTP/1.1 404 Not Found\r\nconnection:  close \r\nContent-Length: 0\r\n\r\n"),
            (HEAD, "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
            (GET, "HTTP/1.1 204 \r\n\r\n", "HTTP/1.1 204 \r\nConnection: close\r\n\r\n"),
        ] {
            assert_eq!(told(&[(asked, answered), (GET, PLAIN)]), [expected, PLAIN], "{asked}");
        }
        let chunked = CHUNKED.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        assert_eq!(told(&[(GET, CHUNKED)]), [chunked]);
        // An interim answer is none.
        let early = ["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", PLAIN].concat();
        assert_eq!(told(&[(GET, &early)]), [early.replace(PLAIN, TOLD)]);
        // After one that says so itself there is no other; of two that were asked for at once the second is told.
        let closes = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(told(&[(GET, closes)]), [closes]);
        assert_eq!(told(&[(&[GET, HEAD].concat(), PLAIN), ("", PLAIN)]), [PLAIN, TOLD]);
        // A head that comes in pieces has gone on before it is read.
        let (first, rest) = PLAIN.split_at(20);
        assert_eq!(told(&[(GET, first), ("", rest), (GET, PLAIN)]), [first, rest, TOLD]);
    }

    #[test]
    fn whatever_is_in_doubt_passes_as_it_is_for_good() {
        for (asked, answered) in [
            ("GET / HTTP/1.0\r\n\r\n", PLAIN),
            ("CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\x04\0"),
            ("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n", PLAIN),
            ("POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", PLAIN),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", PLAIN),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", PLAIN),
            ("\x16\x03\x01", "\x16\x03\x03"),
            (GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            (GET, "HTTP/1.1 200 OK\r\n\r\nuntil it ends"),
            (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi"),
            (GET, "HTTP/1.1 200 OK\r\nConnection: keep-alive, upgrade\r\nContent-Length: 0\r\n\r\nx"),
            (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"),
            ("", PLAIN),
        ] {
            // The answer that was in doubt may be no answer, so nothing behind it is one for certain.
            let passed = told(&[(asked, answered), (GET, PLAIN)]);
            if !answered.contains("Transfer-Encoding: chunked") {
                assert_eq!(passed, [answered, PLAIN], "{asked}{answered}");
            }
            assert_eq!(passed[1], PLAIN, "{asked}{answered}");
        }
        // While the client still sends, it would stop if it were told to.
        let upload = "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf";
        assert_eq!(told(&[(upload, PLAIN), (" done", ""), (GET, PLAIN)]), [PLAIN, "", TOLD]);
    }

    /// Whether the one is the other, or has the hint in one place more.
    fn differs_by_a_hint(passed: &[u8], sent: &[u8]) -> bool {
        const HINT: &[u8] = b"Connection: close\r\n";
        let added = |at: usize| {
            passed[at..].starts_with(HINT) && [&passed[..at], &passed[at + HINT.len()..]].concat() == sent
        };
        let replaced = |at: usize| {
            let (kept, told) = (at + "keep-alive".len(), at + "close".len());
            sent.get(at..kept).is_some_and(|word| word.eq_ignore_ascii_case(b"keep-alive"))
                && passed[..at] == sent[..at]
                && passed[at..].starts_with(b"close")
                && passed[told..] == sent[kept..]
        };
        passed == sent || (0..passed.len()).any(|at| added(at) || replaced(at))
    }

    fn message(answer: bool) -> impl Strategy<Value = String> {
        let body = "[ -~\\r\\n]{0,30}";
        let connection = prop::sample::select(vec!["", "Connection: keep-alive\r\n", "X: y\r\n"]);
        (body, connection, any::<bool>()).prop_map(move |(body, connection, chunked)| {
            let first = if answer { "HTTP/1.1 200 OK" } else { "POST / HTTP/1.1" };
            match (chunked, body.split_at(body.len() / 2)) {
                (true, (one, two)) if !one.is_empty() => format!(
                    "{first}\r\n{connection}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:X}\r\n{two}\r\n0\r\n\r\n",
                    one.len(), two.len()
                ),
                _ => format!("{first}\r\n{connection}Content-Length: {}\r\n\r\n{body}", body.len()),
            }
        })
    }

    proptest! {
        /// However the bytes come, nothing is lost, and every message is followed to its end: whenever somebody says
        /// that the client should leave, the next answer that comes whole does, and no other.
        #[test]
        fn any_dialogue_passes_and_the_next_whole_answer_is_told(
            exchanges in prop::collection::vec((message(false), message(true), 1usize..60), 1..6),
        ) {
            let (last, before) = exchanges.split_last().unwrap();
            let mut exchange = Exchange::default();
            for (asked, answered, size) in before {
                asked.as_bytes().chunks(*size).for_each(|piece| exchange.asked(piece));
                for piece in answered.as_bytes().chunks(*size) {
                    prop_assert_eq!(&*exchange.answered(piece, false), piece);
                }
            }
            exchange.asked(last.0.as_bytes());
            let passed = exchange.answered(last.1.as_bytes(), true).into_owned();
            prop_assert!(differs_by_a_hint(&passed, last.1.as_bytes()));
            prop_assert!(passed != last.1.as_bytes(), "{:?}", exchange);
        }

        #[test]
        fn whatever_they_say_it_differs_by_one_hint_at_the_most(
            said in prop::collection::vec((any::<bool>(), prop_oneof![
                message(true).prop_map(String::into_bytes),
                message(false).prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..40),
            ]), 0..20),
        ) {
            let (mut exchange, mut sent, mut passed) = (Exchange::default(), Vec::new(), Vec::new());
            for (by_client, bytes) in said {
                if by_client {
                    exchange.asked(&bytes);
                } else {
                    passed.extend_from_slice(&exchange.answered(&bytes, true));
                    sent.extend(bytes);
                }
            }
            prop_assert!(differs_by_a_hint(&passed, &sent));
        }
    }
}
