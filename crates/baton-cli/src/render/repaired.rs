//! What a store was given back.

use std::collections::BTreeMap;
use std::path::Path;

use baton_core::ids::ReleaseId;
use baton_release::repair::GivenBack;
use serde::Serialize;

use super::{bytes, count, id};
use crate::escape::escape;

/// A release of a member's directory, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// The directory.
    dir: String,
    /// The release.
    id: String,
    /// Whether the server has all of it now.
    is_whole: bool,
    /// The service it was made for; absent when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    /// Chunks of files that the server lacked, and their bytes.
    chunks: usize,
    /// See `chunks`.
    bytes: u64,
    /// What travelled, in bytes.
    bytes_sent: u64,
    /// Why it was not given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Repaired {
    /// What came of a release.
    pub fn of(release: ReleaseId, dir: &Path, done: Result<GivenBack, String>) -> Self {
        let (dir, id) = (dir.display().to_string(), release.to_string());
        match done {
            Ok(GivenBack { service, chunks, bytes, bytes_sent, packs: _ }) => {
                let service = Some(service.to_string());
                Self { dir, id, is_whole: true, service, chunks, bytes, bytes_sent, why: None }
            }
            Err(why) => {
                let (service, why) = (None, Some(why));
                Self { dir, id, is_whole: false, service, chunks: 0, bytes: 0, bytes_sent: 0, why }
            }
        }
    }
}

/// How many releases no directory had whole.
pub fn left(all: &[Repaired]) -> usize {
    let mut whole: BTreeMap<&str, bool> = BTreeMap::new();
    for one in all {
        *whole.entry(&one.id).or_default() |= one.is_whole;
    }
    whole.values().filter(|is_whole| !**is_whole).count()
}

/// A line for each release.
pub fn text(all: &[Repaired]) -> String {
    if all.is_empty() {
        return "there is no release in these directories\n".to_owned();
    }
    let line = |one: &Repaired| {
        let service = one.service.as_deref().map(|service| format!(" of {}", escape(service)));
        let release = format!("release {}{}", id(&one.id), service.unwrap_or_default());
        match (&one.why, one.chunks, one.bytes_sent) {
            (Some(why), ..) => format!("{release} in {}: {}\n", escape(&one.dir), escape(why)),
            (None, 0, 0) => format!("{release}: nothing was missing\n"),
            (None, 0, sent) => format!("{release}: its manifest was given back, {} sent\n", bytes(sent)),
            (None, chunks, sent) => {
                let (chunks, content) = (count(chunks as u64, "chunk"), bytes(one.bytes));
                format!("{release}: {chunks} of {content} given back, {} sent\n", bytes(sent))
            }
        }
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_told_and_what_one_has_damaged_another_may_have_right() {
        let release = |digit: u8| ReleaseId::from_bytes([digit; 32]);
        let given = |chunks, bytes, bytes_sent| {
            Ok(GivenBack { service: "web".parse().unwrap(), chunks, bytes, bytes_sent, packs: 1 })
        };
        let (one, two) = (Path::new("one"), Path::new("two"));
        let mut all = vec![
            Repaired::of(release(0x11), one, given(0, 0, 0)),
            Repaired::of(release(0x22), one, given(0, 0, 2_000)),
            Repaired::of(release(0x33), one, given(1, 5_000_000, 3_000_000)),
            Repaired::of(release(0x44), one, Err("app.js \u{1b} was altered".to_owned())),
        ];
        let expected = "\
release 111111111111 of web: nothing was missing
release 222222222222 of web: its manifest was given back, 2.0 kB sent
release 333333333333 of web: 1 chunk of 5.0 MB given back, 3.0 MB sent
release 444444444444 in one: app.js \\x1b was altered
";
        assert_eq!((text(&all).as_str(), left(&all)), (expected, 1));
        all.push(Repaired::of(release(0x44), two, given(1, 1, 1)));
        assert_eq!(left(&all), 0);
        assert_eq!(text(&[]), "there is no release in these directories\n");
    }
}
