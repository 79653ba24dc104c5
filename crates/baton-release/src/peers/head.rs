//! The head of the one question that a member answers its peers.

use baton_core::ids::ReleaseId;

use super::IDS_MAX;

/// Most headers of a question.
const HEADERS_MAX: usize = 16;
/// Longest body in bytes: ids with their line feeds.
const BODY_BYTES_MAX: usize = IDS_MAX * 65;

/// What the head of a question says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Of which release chunks are asked for.
    pub release: ReleaseId,
    /// How long the body is, in bytes.
    pub length: usize,
    /// What shows that a member asks.
    pub mark: String,
}

impl Head {
    /// The head in these bytes, up to and with its empty line.
    ///
    /// # Errors
    /// The HTTP status to answer with.
    pub fn parse(bytes: &[u8]) -> Result<Self, u16> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) | Err(_) => return Err(400),
        }
        let asked = request.path.and_then(|path| path.strip_prefix("/v1/releases/")?.strip_suffix("/chunks"));
        let release = asked.and_then(|id| id.parse().ok()).ok_or(404_u16)?;
        if request.method != Some("POST") {
            return Err(405);
        }
        let header = |name: &str| {
            let mut found = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            let first = found.next().and_then(|header| std::str::from_utf8(header.value).ok());
            // Of two it is not clear which one counts.
            first.filter(|_| found.next().is_none())
        };
        let length =
            header("content-length").filter(|_| header("transfer-encoding").is_none()).ok_or(411_u16)?;
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits).ok_or(400_u16)?;
        if length > BODY_BYTES_MAX {
            return Err(413);
        }
        let mark = header("authorization").and_then(|value| value.strip_prefix("Baton ")).ok_or(403_u16)?;
        Ok(Self { release, length, mark: mark.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_one_question_is_refused() {
        let id = "ab".repeat(32);
        let path = format!("/v1/releases/{id}/chunks");
        let right = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Baton 12\r\ncontent-length: 65\r\n\r\n"
        );
        let head = Head { release: id.parse().unwrap(), length: 65, mark: "12".to_owned() };
        assert_eq!(Head::parse(right.as_bytes()), Ok(head));
        for (change, to, status) in [
            ("POST", "GET", 405),
            ("POST", "PO\0ST", 400),
            ("/chunks", "/chunks/", 404),
            ("/v1/releases/ab", "/v1/releases/../AB", 404),
            ("HTTP/1.1", "HTTP/9", 400),
            ("65", "+65", 400),
            ("65", "-1", 400),
            ("65", "133121", 413),
            ("65", "99999999999999999999999", 400),
            ("content-length: 65", "x: y", 411),
            ("content-length: 65", "content-length: 65\r\ncontent-length: 66", 411),
            ("content-length: 65", "content-length: 65\r\ntransfer-encoding: chunked", 411),
            ("Baton 12", "Bearer 12", 403),
            ("Authorization", "X", 403),
            ("\r\n\r\n", "\r\n", 400),
            ("\r\n\r\n", "\r\n\r\nmore", 400),
        ] {
            assert_eq!(Head::parse(right.replace(change, to).as_bytes()), Err(status), "{change} → {to}");
        }
        let many = right.replace("Host: x", &"a: b\r\n".repeat(20));
        assert_eq!(Head::parse(many.as_bytes()), Err(400));
    }
}
