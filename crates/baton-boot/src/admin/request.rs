//! What can be asked on the admin socket, and how it is said there.

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// How everything stands.
    Status,
    /// Start the program anew and hand over; answered when that has ended.
    Reload,
    /// What was written last.
    Logs {
        /// At most so many lines.
        lines: u32,
    },
}

/// How many lines are shown when nobody says how many.
const LINES_DEFAULT: u32 = 100;

impl Request {
    /// The request with this name.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "status" => Some(Self::Status),
            "reload" => Some(Self::Reload),
            "logs" => Some(Self::Logs { lines: LINES_DEFAULT }),
            _ => None,
        }
    }

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Reload => "reload",
            Self::Logs { .. } => "logs",
        }
    }

    /// How it is said on the socket: its word and, for logs, how many lines.
    pub fn line(self) -> String {
        match self {
            Self::Status | Self::Reload => self.word().to_owned(),
            Self::Logs { lines } => format!("{} {lines}", self.word()),
        }
    }

    /// What somebody said on the socket, up to the line feed or the end; none when it is no request.
    pub fn read(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.trim_end();
        match line.split_once(' ') {
            Some(("logs", lines)) => Some(Self::Logs { lines: lines.parse().ok()? }),
            Some(_) => None,
            None => Self::named(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_understood_and_nothing_else_is() {
        for (line, request) in [
            ("status\n", Some(Request::Status)),
            ("reload\r\n", Some(Request::Reload)),
            ("logs", Some(Request::Logs { lines: LINES_DEFAULT })),
            ("logs 7\n", Some(Request::Logs { lines: 7 })),
            ("logs 0", Some(Request::Logs { lines: 0 })),
            ("logs -1", None),
            ("logs 4294967296", None),
            ("logs  7", None),
            ("status 7", None),
            ("stat", None),
            ("", None),
        ] {
            assert_eq!(Request::read(line.as_bytes()), request, "{line:?}");
            if let Some(request) = request {
                assert_eq!(Request::read(request.line().as_bytes()), Some(request));
            }
        }
        assert_eq!(Request::read(b"status\xff"), None);
    }
}
