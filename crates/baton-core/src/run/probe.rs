//! Health questions, and which answers are good ones.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// One health question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A `GET`.
    Http(HttpProbe),
    /// `grpc.health.v1.Health/Check`; `SERVING` is a success.
    Grpc {
        /// The service that is asked about; empty for the whole server.
        service: String,
    },
    /// A connection; it succeeds when the program has accepted it.
    Tcp,
    /// A program, run in the generation's directory and environment; exit 0 is a success.
    Exec {
        /// The program and its arguments; never empty.
        command: Vec<String>,
    },
}

impl Probe {
    /// Whether it is put to a listener.
    pub const fn connects(&self) -> bool {
        match self {
            Self::Http(_) | Self::Grpc { .. } | Self::Tcp => true,
            Self::Exec { .. } => false,
        }
    }
}

/// An HTTP request, and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// The path and query, starting with `/`.
    pub path: String,
    /// Which statuses are a success; never empty.
    pub status: Vec<StatusRange>,
    /// Added to the request, sorted by name.
    pub headers: Vec<(String, String)>,
    /// The `Host` of the request; the address that is asked when not set.
    pub host: Option<String>,
    /// What the answer's body must contain.
    pub body: Option<String>,
}

impl HttpProbe {
    /// `GET path`, which succeeds with a status of 200 to 399.
    pub fn get(path: String) -> Self {
        Self { path, status: Vec::from([StatusRange::DEFAULT]), headers: Vec::new(), host: None, body: None }
    }

    /// Whether an answer with this status can be a good one.
    pub fn accepts(&self, status: u16) -> bool {
        self.status.iter().any(|range| range.contains(status))
    }
}

/// HTTP statuses from one to another, both included: `204` or `200-299`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

/// Why a text is no [`StatusRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a status from 100 to 599, or two with a - between them, the lower one first")]
pub struct InvalidStatus;

impl StatusRange {
    /// What counts as a success when nothing else is said.
    pub const DEFAULT: Self = Self { first: 200, last: 399 };

    /// Statuses from `first` to `last`, if there can be such answers.
    pub fn new(first: u16, last: u16) -> Result<Self, InvalidStatus> {
        let possible = |status| (100..=599).contains(&status);
        if possible(first) && possible(last) && first <= last {
            Ok(Self { first, last })
        } else {
            Err(InvalidStatus)
        }
    }

    fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl FromStr for StatusRange {
    type Err = InvalidStatus;

    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().map_err(|_| InvalidStatus),
            false => Err(InvalidStatus),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(number(first)?, number(last)?)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn status_ranges_are_read_as_they_are_written() {
        for text in ["200", "200-399", "100-599"] {
            assert_eq!(text.parse::<StatusRange>().unwrap().to_string(), text);
        }
        for text in ["", "-", "2xx", "99", "600", "300-200", "+200", "200-", "200 - 300", "200-299-300"] {
            assert_eq!(text.parse::<StatusRange>(), Err(InvalidStatus), "{text:?}");
        }
    }

    #[test]
    fn an_answer_is_good_by_its_status() {
        let mut probe = HttpProbe::get("/".into());
        assert!([200, 204, 302, 399].iter().all(|status| probe.accepts(*status)));
        assert!([100, 199, 400, 503].iter().all(|status| !probe.accepts(*status)));
        probe.status = ["200", "401"].map(|text| text.parse().unwrap()).to_vec();
        assert!(probe.accepts(401) && !probe.accepts(204));
    }
}
