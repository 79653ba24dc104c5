//! Frames, read by range where a grant says.
//!
//! Nothing that comes from there is believed: where it comes from is somebody else's server. What it says about a failure goes
//! no further than one word of it.

use std::io::Read;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_core::ids::PackId;
use baton_core::release::grant::{Grant, GrantedPack};
use baton_core::release::pack::{Frame, PACK_BYTES_MAX};
use baton_core::release::reading;
use ureq::Agent;

use super::{kind_of, kind_of_failure, wait};
use crate::control::Control;
use crate::pace::Pace;
use crate::parallel;
use crate::store::{Kind, Retry, StoreError};

/// How many bytes that nobody needs are read rather than asking anew behind them: about what a request and the head of its
/// answer take, so that a small change stays small.
const GAP_BYTES: u64 = 2 << 10;
/// How long an answer may take besides its bytes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The slowest that bytes may come: what comes slower is asked for again from where it stopped.
const BYTES_PER_SECOND_MIN: u64 = 35_000;
/// What an attempt must have brought so that the next one counts as the first again: a slow network gets there in the end, and
/// a server that drips does not hold anybody.
const PROGRESS_BYTES: usize = 64 << 10;
/// How much is read of what a server says about a failure.
const REASON_BYTES_MAX: u64 = 1024;

/// What a server of packs said instead of the frames.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{host} answers {status}{code}")]
    Status { host: String, status: u16, code: String },
    #[error("{host} answers with another range than was asked for")]
    OtherRange { host: String },
    #[error("{host} answers with more than was asked for")]
    TooMuch { host: String },
    #[error("{host} ends its answer too early")]
    TooShort { host: String },
    #[error("the address at {host} is none")]
    Address { host: String },
}

/// A range of a pack to read, and what came of it.
struct Piece<'a> {
    pack: &'a GrantedPack,
    range: Range<u64>,
    content: Mutex<Vec<u8>>,
}

/// How packs are read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) agent: &'a Agent,
    /// Who asks the server itself, which is shown who asks. Nobody else is.
    pub(super) here: Option<(&'a Agent, &'a Control)>,
    /// The server that an address without a host is one of.
    pub(super) base: &'a str,
    pub(super) pace: &'a Pace,
    /// How long to wait before each further attempt, in milliseconds.
    pub(super) pauses: &'a [u64],
}

impl Reader<'_> {
    /// Reads the frames of a grant, several ranges at a time.
    pub(super) fn frames(self, grant: &Grant) -> Result<Vec<(Frame, Vec<u8>)>, StoreError> {
        let pieces: Vec<Piece<'_>> = grant.packs.iter().flat_map(pieces).collect();
        parallel::for_each_range(&pieces, |piece| {
            let content = self.read(piece)?;
            *piece.content.lock().unwrap_or_else(PoisonError::into_inner) = content;
            Ok::<(), StoreError>(())
        })?;
        let mut frames = Vec::new();
        for Piece { pack, range, content } in pieces {
            let content = content.into_inner().unwrap_or_else(PoisonError::into_inner);
            let inside = |place: &Range<u64>| place.start >= range.start && place.end <= range.end;
            for (frame, place) in pack.frames.iter().filter(|(_, place)| inside(place)) {
                let packed =
                    &content[(place.start - range.start) as usize..(place.end - range.start) as usize];
                frames.push((frame.clone(), packed.to_vec()));
            }
        }
        Ok(frames)
    }

    /// Reads a range, again after a pause while that makes sense, from where it stopped.
    fn read(self, piece: &Piece<'_>) -> Result<Vec<u8>, StoreError> {
        let bytes = (piece.range.end - piece.range.start).min(PACK_BYTES_MAX as u64);
        // A byte more tells whether there is more, without a buffer of twice the length.
        let mut content = Vec::with_capacity(bytes as usize + 1);
        let mut pauses = self.pauses.iter();
        loop {
            let before = content.len();
            match self.read_once(piece, &mut content) {
                Err(error) if error.retry() == Retry::Later => {
                    if content.len() - before >= PROGRESS_BYTES {
                        pauses = self.pauses.iter();
                    }
                    match pauses.next() {
                        Some(pause) => wait(*pause),
                        None => return Err(error),
                    }
                }
                done => return done.map(|()| content),
            }
        }
    }

    /// Adds to `content` what is missing of a range, as far as it comes.
    fn read_once(
        self,
        Piece { pack: GrantedPack { id, url, .. }, range, .. }: &Piece<'_>,
        content: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let Self { agent, here, base, pace, .. } = self;
        let start = range.start + content.len() as u64;
        let left = range.end - start;
        let host = host(base, url);
        let failed = |cause: ureq::Error| match cause {
            // It would tell all of it.
            ureq::Error::BadUri(_) => {
                failure(*id, Kind::Denied).because(Refused::Address { host: host.clone() })
            }
            cause => failure(*id, kind_of_failure(&cause)).because(cause),
        };
        let request = match here.filter(|_| url.starts_with('/')) {
            Some((asking, control)) => control.bear(asking.get(format!("{base}{url}"))),
            None => agent.get(url),
        };
        let mut response = request
            .header("Range", format!("bytes={start}-{}", range.end - 1))
            .config()
            .timeout_global(Some(ANSWER_TIMEOUT + Duration::from_secs(left / BYTES_PER_SECOND_MIN)))
            .build()
            .call()
            .map_err(failed)?;
        let status = response.status().as_u16();
        if status != 206 {
            let mut reason = Vec::new();
            // What is cut off says less, and nothing else.
            let _ = response.body_mut().as_reader().take(REASON_BYTES_MAX).read_to_end(&mut reason);
            let code = code(&String::from_utf8_lossy(&reason));
            let kind = kind_of_status(status);
            return Err(failure(*id, kind).because(Refused::Status { host, status, code }));
        }
        let said = response.headers().get("Content-Range").and_then(|range| range.to_str().ok());
        if !said.is_some_and(|said| said.starts_with(&format!("bytes {start}-"))) {
            return Err(failure(*id, Kind::Corrupt).because(Refused::OtherRange { host }));
        }
        let before = content.len();
        let ended = pace.reader(response.body_mut().as_reader()).take(left + 1).read_to_end(content);
        let came = (content.len() - before) as u64;
        match ended {
            _ if came > left => Err(failure(*id, Kind::Corrupt).because(Refused::TooMuch { host })),
            Err(error) => Err(failure(*id, Kind::Unavailable).because(error)),
            Ok(_) if came < left => Err(failure(*id, Kind::Unavailable).because(Refused::TooShort { host })),
            Ok(_) => Ok(()),
        }
    }
}

fn pieces(pack: &GrantedPack) -> Vec<Piece<'_>> {
    let places: Vec<Range<u64>> = pack.frames.iter().map(|(_, place)| place.clone()).collect();
    let piece = |range| Piece { pack, range, content: Mutex::default() };
    reading::ranges(&places, GAP_BYTES).into_iter().map(piece).collect()
}

fn failure(id: PackId, kind: Kind) -> StoreError {
    StoreError::new(kind, format!("read pack {id}"))
}

/// What a status means here: a store says in several ways that the right to read has ended.
fn kind_of_status(status: u16) -> Kind {
    match status {
        200 => Kind::Corrupt,
        // S3 answers 400 when temporary credentials have expired.
        400 | 401 | 403 => Kind::Denied,
        416 => Kind::Missing,
        status => kind_of(status),
    }
}

/// The host of an address, for people. What follows it is a right, and stays out of every text.
fn host(base: &str, url: &str) -> String {
    let url = if url.starts_with('/') { base } else { url };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", host.rsplit('@').next().unwrap_or_default())
}

/// What an answer in XML says the failure is, if it is a word: `AccessDenied`, `SlowDown`.
fn code(reason: &str) -> String {
    let code = reason.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let is_word = |code: &str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    code.filter(|(code, _)| is_word(code)).map(|(code, _)| format!(" {code}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_answer_but_a_word_is_told() {
        let xml = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>secret</Message></Error>";
        assert_eq!(code(xml), " AccessDenied");
        for other in
            ["secret", "<Code>a secret</Code>", "<Code>cut", &format!("<Code>{}</Code>", "a".repeat(65))]
        {
            assert_eq!(code(other), "");
        }
    }

    #[test]
    fn nothing_of_an_address_but_the_host_is_told() {
        let base = "http://control:7400";
        for (url, expected) in [
            ("/v1/packs/1?token=x", "http://control:7400"),
            ("https://bucket.example:9000/packs/1?X-Amz-Signature=x", "https://bucket.example:9000"),
            ("https://user:secret@bucket.example?x", "https://bucket.example"),
        ] {
            assert_eq!(host(base, url), expected);
        }
    }
}
