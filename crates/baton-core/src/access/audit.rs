//! The audit log: lines that only grow, each with a hash of itself and all before it.
//!
//! ```text
//! NUMBER <tab> TIME <tab> WHO <tab> FROM <tab> WHAT <tab> OUTCOME <tab> DETAIL <tab> HASH
//! ```
//!
//! The hash of a line is that of the line before it, followed by the line's own text up to the hash. Whoever changes, removes
//! or inserts a line changes every hash after it, and whoever has written down the last hash sees that. Nothing but text that
//! Baton chose or made harmless is in it: no body, no query, no header.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::ids::AuditHash;

/// Longest of what others wrote in a record, in bytes.
const FIELD_BYTES_MAX: usize = 512;

/// One thing that was asked for and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Who: the holder of a token with its id, a member, or nobody.
    pub who: String,
    /// From which address.
    pub from: String,
    /// What: the method and the path.
    pub what: String,
    /// What came of it: the status, and the code of a refusal.
    pub outcome: String,
    /// What there is to say beyond that.
    pub detail: String,
}

/// Where a log ends: how many lines it has, and the hash of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last line; 0 of none.
    pub number: u64,
    /// Its hash; zeros where there is none.
    pub hash: AuditHash,
}

impl Default for Head {
    fn default() -> Self {
        Self { number: 0, hash: AuditHash::from_bytes([0; 32]) }
    }
}

/// A log, as far as it was read or written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain(Head);

/// Where a log is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It is no line of a log.
    #[error("the line after record {after} is no record")]
    NoRecord {
        /// The last one that is right.
        after: u64,
    },
    /// A line is missing, or there is one too many.
    #[error("after record {after} comes record {number}")]
    Number {
        /// The last one that is right.
        after: u64,
        /// What comes.
        number: u64,
    },
    /// The line or one before it was changed.
    #[error("record {number} does not have the hash of what it says and of what came before it")]
    Hash {
        /// The record.
        number: u64,
    },
}

impl Chain {
    /// A log that goes on after this head.
    pub const fn after(head: Head) -> Self {
        Self(head)
    }

    /// Where it ends.
    pub const fn head(&self) -> Head {
        self.0
    }

    /// The line for the next record, without a line feed.
    pub fn add(&mut self, record: &Record) -> String {
        let number = self.0.number + 1;
        let mut line = format!("{number}\t{}", record.at);
        for field in [&record.who, &record.from, &record.what, &record.outcome, &record.detail] {
            line.push('\t');
            write_field(&mut line, field);
        }
        let hash = next(self.0.hash, &line);
        self.0 = Head { number, hash };
        line.push('\t');
        line.push_str(&hash.to_string());
        line
    }

    /// Takes in the next line, if it is as it was written.
    ///
    /// # Errors
    /// It is not. The chain stays where it was.
    pub fn read(&mut self, line: &str) -> Result<Record, Broken> {
        let after = self.0.number;
        let Line { number, record, text, hash } = Line::parse(line).ok_or(Broken::NoRecord { after })?;
        if number != after + 1 {
            return Err(Broken::Number { after, number });
        }
        if hash != next(self.0.hash, text) {
            return Err(Broken::Hash { number });
        }
        self.0 = Head { number, hash };
        Ok(record)
    }
}

impl Record {
    /// The record in a line, wherever in a log that is. Whether it is as it was written, only all before it can show.
    pub fn parse(line: &str) -> Option<Self> {
        Line::parse(line).map(|line| line.record)
    }
}

/// A line, taken apart.
struct Line<'a> {
    number: u64,
    record: Record,
    /// All before the hash.
    text: &'a str,
    hash: AuditHash,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (text, hash) = line.rsplit_once('\t')?;
        let fields: Vec<&str> = text.split('\t').collect();
        let [number, at, who, from, what, outcome, detail] = fields[..] else { return None };
        let [who, from, what, outcome, detail] = [who, from, what, outcome, detail].map(ToString::to_string);
        let record = Record { at: at.parse().ok()?, who, from, what, outcome, detail };
        Some(Self { number: number.parse().ok()?, record, text, hash: hash.parse().ok()? })
    }
}

fn next(before: AuditHash, text: &str) -> AuditHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(text.as_bytes());
    AuditHash::from_bytes(*hasher.finalize().as_bytes())
}

/// A field, short and on one line: what is no printable ASCII is written as its code.
fn write_field(line: &mut String, field: &str) {
    let end = line.len() + FIELD_BYTES_MAX;
    for c in field.chars() {
        if line.len() >= end {
            line.push_str("...");
            return;
        }
        match c {
            '\\' => line.push_str("\\\\"),
            ' '..='~' => line.push(c),
            // Writing to a text does not fail.
            other => drop(write!(line, "\\u{{{:x}}}", u32::from(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn record(at: u64, detail: &str) -> Record {
        Record {
            at,
            who: "ada/0123456789ab".to_string(),
            from: "127.0.0.1".to_string(),
            what: "POST /v1/services/web/deploys".to_string(),
            outcome: "201".to_string(),
            detail: detail.to_string(),
        }
    }

    fn log(count: u64) -> Vec<String> {
        let mut chain = Chain::default();
        (1..=count).map(|at| chain.add(&record(at, "rollout"))).collect()
    }

    fn verify(lines: &[String]) -> Result<Head, Broken> {
        let mut chain = Chain::default();
        lines.iter().try_for_each(|line| chain.read(line).map(drop))?;
        Ok(chain.head())
    }

    #[test]
    fn p42_a_log_that_was_changed_anywhere_does_not_verify() {
        let lines = log(5);
        assert_eq!(verify(&lines).unwrap().number, 5);
        for at in 0..lines.len() {
            let mut removed = lines.clone();
            removed.remove(at);
            // The last line can go unseen by who has not written its hash down: then the head is another one.
            match at {
                4 => assert_ne!(verify(&removed), verify(&lines)),
                _ => assert!(verify(&removed).is_err(), "{at}"),
            }
            let mut doubled = lines.clone();
            doubled.insert(at, lines[at].clone());
            assert!(verify(&doubled).is_err(), "{at}");
            for byte in 0..lines[at].len() {
                let mut changed = lines.clone();
                let mut bytes = changed[at].clone().into_bytes();
                bytes[byte] = if bytes[byte] == b'0' { b'1' } else { b'0' };
                changed[at] = String::from_utf8(bytes).unwrap();
                assert!(verify(&changed).is_err(), "line {at}, byte {byte}");
            }
        }
        let mut swapped = lines;
        swapped.swap(1, 2);
        assert_eq!(verify(&swapped), Err(Broken::Number { after: 1, number: 3 }));
    }

    #[test]
    fn a_log_goes_on_where_it_was_left() {
        let mut lines = log(3);
        let mut chain = Chain::after(verify(&lines).unwrap());
        lines.push(chain.add(&record(4, "after a restart")));
        assert_eq!(verify(&lines).unwrap(), chain.head());
    }

    proptest! {
        #[test]
        fn p44_whatever_was_asked_for_is_one_line_of_plain_text(detail in ".*", at: u64) {
            let mut chain = Chain::default();
            let line = chain.add(&record(at, &detail));
            prop_assert!(line.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)), "{line:?}");
            prop_assert!(line.len() < 2 * FIELD_BYTES_MAX + 300);
            let read = Chain::default().read(&line);
            prop_assert!(read.is_ok_and(|read| read.at == at), "{line:?}");
        }

        #[test]
        fn any_text_is_read_or_refused(line in ".*") {
            prop_assert!(Chain::default().read(&line).is_err());
        }
    }
}
