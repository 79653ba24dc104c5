//! Reading an HTTP/1.1 answer, and judging whether it is the one to the request.

use serde::Deserialize;

use super::ledger::End;

/// Longest answer, head included: far more than any example program sends.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Most header lines of an answer.
const HEADERS_MAX: usize = 64;

/// What some bytes from a server are.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// The beginning of an answer.
    More,
    /// A whole answer, perhaps with more behind it.
    Whole {
        /// The answer.
        answer: Answer,
        /// Its length.
        bytes: usize,
    },
    /// Something else.
    Nonsense(String),
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, without the marks between its chunks.
    pub body: Vec<u8>,
    /// Whether the server closes the connection after it.
    pub close: bool,
}

/// Where a body ends.
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads the answer at the start of `bytes`. `ended` says that no more will come.
pub fn read(bytes: &[u8], ended: bool) -> Reading {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < ANSWER_BYTES_MAX => return Reading::More,
        Ok(httparse::Status::Partial) => return Reading::Nonsense("the head does not end".into()),
        Err(error) => return Reading::Nonsense(format!("not an HTTP answer: {error}")),
    };
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    let framing = match (header("transfer-encoding"), header("content-length")) {
        (Some(_), _) => Framing::Chunked,
        (None, Some(length)) => match length.parse() {
            Ok(length) if length <= ANSWER_BYTES_MAX => Framing::Length(length),
            _ => return Reading::Nonsense(format!("Content-Length is {length:?}")),
        },
        (None, None) => Framing::UntilClose,
    };
    let rest = &bytes[head_bytes..];
    let (body, body_bytes) = match body(rest, &framing, ended) {
        Ok(Some(body)) => body,
        Ok(None) if bytes.len() > ANSWER_BYTES_MAX => {
            return Reading::Nonsense("the body is too long".into());
        }
        Ok(None) => return Reading::More,
        Err(why) => return Reading::Nonsense(why),
    };
    let answer = Answer {
        status: head.code.unwrap_or_default(),
        body,
        close: matches!(framing, Framing::UntilClose) || header("connection").as_deref() == Some("close"),
    };
    Reading::Whole { answer, bytes: head_bytes + body_bytes }
}

/// The body at the start of `bytes` and how many bytes it takes there; nothing when it has not come whole.
fn body(bytes: &[u8], framing: &Framing, ended: bool) -> Result<Option<(Vec<u8>, usize)>, String> {
    match *framing {
        Framing::Length(length) => Ok(bytes.get(..length).map(|body| (body.to_vec(), length))),
        Framing::UntilClose => Ok(ended.then(|| (bytes.to_vec(), bytes.len()))),
        Framing::Chunked => chunks(bytes),
    }
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let (start, length) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((start, length))) => (start, usize::try_from(length).ok()),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("a chunk has no valid length".into()),
        };
        let Some(length) = length.filter(|length| *length <= ANSWER_BYTES_MAX) else {
            return Err("a chunk is too long".into());
        };
        let end = start + length;
        match rest.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => body.extend_from_slice(&rest[start..end]),
            Some(_) => return Err("a chunk does not end where it says".into()),
        }
        at += end + 2;
        if length == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// What each line of an answer's body says about who answers and what was asked.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Identity {
    release: String,
    pid: u32,
    conn: Option<String>,
    seq: Option<String>,
    bytes: Option<usize>,
}

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The connection's number.
    pub conn: u64,
    /// The request's number.
    pub seq: u64,
    /// The length of the request's body.
    pub body_bytes: usize,
}

/// Judges an answer by what was asked.
pub fn judge(answer: &Answer, asked: Asked) -> End {
    let mismatched = |why: String| End::Mismatched { why };
    if answer.status != 200 {
        return mismatched(format!("the status is {}", answer.status));
    }
    let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let Ok(identities) = lines.map(serde_json::from_slice::<Identity>).collect::<Result<Vec<_>, _>>() else {
        let body = String::from_utf8_lossy(&answer.body);
        return mismatched(format!("the body does not say who answered: {:.200}", body.escape_debug()));
    };
    let Some(last) = identities.last() else {
        return mismatched("the body is empty".into());
    };
    let same = |other: &Identity| {
        (&other.release, other.pid, &other.conn, &other.seq)
            == (&last.release, last.pid, &last.conn, &last.seq)
    };
    if !identities.iter().all(same) {
        return mismatched("the parts of the answer contradict each other".into());
    }
    let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<u64>().ok());
    let echo = (number(&last.conn), number(&last.seq));
    match echo {
        (Some(conn), Some(seq)) if conn == asked.conn && seq < asked.seq => return End::Duplicated,
        (Some(conn), Some(seq)) if conn == asked.conn && seq == asked.seq => {}
        _ => {
            return mismatched(format!(
                "asked as connection {} request {}, answered to connection {:?} request {:?}",
                asked.conn, asked.seq, last.conn, last.seq
            ));
        }
    }
    if asked.body_bytes > 0 && last.bytes != Some(asked.body_bytes) {
        return mismatched(format!("{} bytes were sent, {:?} arrived", asked.body_bytes, last.bytes));
    }
    End::Answered { release: last.release.clone(), pid: last.pid }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, ended: bool) -> Option<(Answer, usize)> {
        match read(text.as_bytes(), ended) {
            Reading::Whole { answer, bytes } => Some((answer, bytes)),
            Reading::More => None,
            Reading::Nonsense(why) => panic!("{text:?}: {why}"),
        }
    }

    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nhello";

    #[test]
    fn an_answer_is_whole_at_its_last_byte_and_not_before() {
        for (text, close) in [(LENGTH, false), (CHUNKED, true)] {
            for end in 0..text.len() {
                assert_eq!(whole(&text[..end], true), None, "{end} bytes of {text:?}");
            }
            let (answer, bytes) = whole(&format!("{text}HTTP"), false).unwrap();
            assert_eq!((answer.status, answer.body.as_slice(), answer.close), (200, &b"hello"[..], close));
            assert_eq!(bytes, text.len());
        }
        assert_eq!(whole(UNTIL_CLOSE, false), None);
        assert_eq!(whole(UNTIL_CLOSE, true).unwrap().0.body, b"hello");
    }

    #[test]
    fn nonsense_is_told_apart_from_an_unfinished_answer() {
        for text in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(matches!(read(text.as_bytes(), false), Reading::Nonsense(_)), "{text:?}");
        }
    }

    #[test]
    fn an_answer_counts_only_for_the_request_that_it_repeats() {
        let answer = |body: &str| Answer { status: 200, body: body.into(), close: false };
        let asked = Asked { conn: 7, seq: 42, body_bytes: 0 };
        let right = r#"{"release":"r1","pid":5,"conn":"7","seq":"42"}"#;
        let answered = End::Answered { release: "r1".into(), pid: 5 };
        assert_eq!(judge(&answer(right), asked), answered);
        assert_eq!(judge(&answer(&format!("{right}\n{right}\n")), asked), answered);

        let earlier = right.replace("42", "41");
        assert_eq!(judge(&answer(&earlier), asked), End::Duplicated);

        let upload = Asked { body_bytes: 10, ..asked };
        let with_bytes = |bytes: u32| right.replace('}', &format!(r#","bytes":{bytes}}}"#));
        assert_eq!(judge(&answer(&with_bytes(10)), upload), answered);

        for (wrong, asked) in [
            (answer(""), asked),
            (answer("hello"), asked),
            (answer(&right.replace("42", "43")), asked),
            (answer(&right.replace(r#""7""#, r#""8""#)), asked),
            (answer(&right.replace(r#""42""#, "null")), asked),
            (answer(&format!("{right}\n{}", right.replace("r1", "r2"))), asked),
            (answer(right), upload),
            (answer(&with_bytes(9)), upload),
            (Answer { status: 503, ..answer(right) }, asked),
        ] {
            assert!(matches!(judge(&wrong, asked), End::Mismatched { .. }), "{wrong:?}");
        }
    }
}
