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
        /// And what is written from then on, until the bootloader ends.
        follow: bool,
    },
}

/// How many lines are shown when nobody says how many.
pub const LINES_DEFAULT: u32 = 100;

/// What is said behind the number of lines when they are to be followed.
const FOLLOW: &str = " follow";

impl Request {
    /// The request with this name.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "status" => Some(Self::Status),
            "reload" => Some(Self::Reload),
            "logs" => Some(Self::Logs { lines: LINES_DEFAULT, follow: false }),
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

    /// Whether the answer is there already, and waits for nothing that a program does.
    pub fn is_answered_at_once(self) -> bool {
        match self {
            Self::Status | Self::Logs { follow: false, .. } => true,
            Self::Reload | Self::Logs { follow: true, .. } => false,
        }
    }

    /// How it is said on the socket: its word and, for logs, how many lines and whether they are followed.
    pub fn line(self) -> String {
        match self {
            Self::Status | Self::Reload => self.word().to_owned(),
            Self::Logs { lines, follow } => {
                format!("{} {lines}{}", self.word(), if follow { FOLLOW } else { "" })
            }
        }
    }

    /// What somebody said on the socket, up to the line feed or the end; none when it is no request.
    pub fn read(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.trim_end();
        match line.split_once(' ') {
            Some(("logs", rest)) => {
                let (lines, follow) = rest.strip_suffix(FOLLOW).map_or((rest, false), |lines| (lines, true));
                Some(Self::Logs { lines: lines.parse().ok()?, follow })
            }
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
        let logs = |lines, follow| Some(Request::Logs { lines, follow });
        for (line, request) in [
            ("status\n", Some(Request::Status)),
            ("reload\r\n", Some(Request::Reload)),
            ("logs", logs(LINES_DEFAULT, false)),
            ("logs 7\n", logs(7, false)),
            ("logs 0", logs(0, false)),
            ("logs 7 follow\n", logs(7, true)),
            ("logs 7 followed", None),
            ("logs follow", None),
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
