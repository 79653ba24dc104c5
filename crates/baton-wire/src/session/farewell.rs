//! Why a session ends, as a WebSocket says it when it closes.

use core::fmt;

use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The longest text in bytes: a frame that closes has 125, two of them for the code (RFC 6455, 5.5).
const TEXT_BYTES_MAX: usize = 123;

/// Why, as a number of the WebSocket close codes (RFC 6455, 7.4, and the registry of IANA).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(u16);

impl Reason {
    /// All was said: "Normal Closure".
    pub const DONE: Self = Self(1000);
    /// Who says it is about to end: "Going Away".
    pub const STOPPING: Self = Self(1001);
    /// A message cannot be understood: "Invalid frame payload data".
    pub const INVALID: Self = Self(1007);
    /// Too much was said: "Policy Violation".
    pub const TOO_MUCH: Self = Self(1008);
    /// What was known of the member is not known any more, so it has to begin anew: "Service Restart".
    pub const ANEW: Self = Self(1012);
    /// Nobody can be heard now: "Try Again Later".
    pub const LATER: Self = Self(1013);
    /// The credential is none, or has ended: "Unauthorized".
    pub const UNAUTHORIZED: Self = Self(3000);
    /// The credential is that of somebody else: "Forbidden".
    pub const FORBIDDEN: Self = Self(3003);
    /// Nothing was said for too long: "Timeout".
    pub const SILENT: Self = Self(3008);
    /// Another process has the name of this one, and was started later. Of those that everybody may choose for themselves, like
    /// the 409 of HTTP.
    pub const TWIN: Self = Self(4409);
}

/// The last word of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// What programs go by.
    pub reason: Reason,
    /// What people read. What is longer than 123 bytes is cut when it is said.
    pub text: String,
}

impl Farewell {
    /// With a text.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    pub(super) fn to_frame(&self) -> CloseFrame {
        let text = &self.text[..self.text.floor_char_boundary(TEXT_BYTES_MAX)];
        CloseFrame { code: CloseCode::from(self.reason.0), reason: Utf8Bytes::from(text) }
    }

    pub(super) fn from_frame(frame: &CloseFrame) -> Self {
        Self { reason: Reason(frame.code.into()), text: frame.reason.as_str().to_owned() }
    }
}

impl fmt::Display for Farewell {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => write!(to, "code {}", self.reason.0),
            text => to.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_and_what_is_too_long_is_cut_between_characters() {
        for reason in [Reason::DONE, Reason::LATER, Reason::UNAUTHORIZED, Reason::TWIN] {
            let farewell = Farewell::new(reason, "for a reason");
            assert_eq!(Farewell::from_frame(&farewell.to_frame()), farewell);
        }
        let long = Farewell::new(Reason::TWIN, "ä".repeat(100));
        assert_eq!(Farewell::from_frame(&long.to_frame()).text, "ä".repeat(TEXT_BYTES_MAX / 2));
    }

    #[test]
    fn people_read_the_text_and_where_there_is_none_the_code() {
        assert_eq!(Farewell::new(Reason::TWIN, "another one").to_string(), "another one");
        assert_eq!(Farewell::new(Reason::TWIN, "").to_string(), "code 4409");
    }
}
