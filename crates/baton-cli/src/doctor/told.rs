//! What a bootloader says, line by line, read.

use serde_json::Value;

/// What its lines begin with, unless the program wants JSON.
const MARK: &str = "baton-boot: ";

/// What matters of what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A generation serves.
    Serves(u64),
    /// A generation failed, was refused, or ended: why.
    Failed(u64, String),
    /// No process of a generation is left.
    Gone(u64),
    /// A generation bound this address and got this listener's socket.
    Bound(String, String),
    /// A generation could not have the socket of this listener: why.
    Denied(String, String),
    /// Connections are relayed.
    Relayed,
    /// They are from the next launch on, if this one does not do without.
    RelaysNext,
    /// The member stops.
    Stopping,
}

/// What a line of output says, if it is the bootloader's own and matters.
pub fn told(line: &str) -> Option<Told> {
    let text = own(line)?;
    if text == "stopping" {
        return Some(Told::Stopping);
    }
    if text.ends_with(": its connections are relayed to $PORT") {
        return Some(Told::Relayed);
    }
    if text.starts_with("this system does not let a bind be answered")
        || text.ends_with("the next one is relayed to $PORT")
    {
        return Some(Told::RelaysNext);
    }
    let (id, rest) = text.strip_prefix("generation ")?.split_once(' ')?;
    let id = id.parse().ok()?;
    if rest.starts_with("is gone") {
        return Some(Told::Gone(id));
    }
    if let Some(rest) = rest.strip_prefix("bound ") {
        let (asked, listener) = rest.split_once(" and got listener ")?;
        return Some(Told::Bound(listener.trim_matches('"').to_owned(), asked.to_owned()));
    }
    if let Some(rest) = rest.strip_prefix("cannot have listener ") {
        let (listener, rest) = rest.split_once(" for ")?;
        let (_, why) = rest.split_once(": ")?;
        return Some(Told::Denied(listener.trim_matches('"').to_owned(), why.to_owned()));
    }
    for before in ["failed (", "ended by its own wish ("] {
        if let Some(rest) = rest.strip_prefix(before) {
            let (why, _) = rest.rsplit_once("); ")?;
            return Some(Told::Failed(id, why.to_owned()));
        }
    }
    // Behind the release in parentheses.
    let (_, rest) = rest.split_once(") ")?;
    match rest.strip_prefix("refused: ") {
        Some(why) => Some(Told::Failed(id, why.to_owned())),
        None => rest.starts_with("serves, ").then_some(Told::Serves(id)),
    }
}

/// The text of a line that the bootloader wrote itself.
pub fn own(line: &str) -> Option<String> {
    if let Some(text) = line.strip_prefix(MARK) {
        return Some(text.to_owned());
    }
    let line: Value = serde_json::from_str(line).ok()?;
    (line["source"] == "baton-boot").then(|| line["line"].as_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_read_and_nothing_else_is() {
        let listener = || "http".to_owned();
        for (line, expected) in [
            ("generation 1 (image) launched", None),
            ("generation 1 (image) serves, 227 ms after its launch", Some(Told::Serves(1))),
            ("generation 2 (image) is proven", None),
            ("generation 1 is gone: exit 0 after 8 s", Some(Told::Gone(1))),
            ("generation 1 is gone", Some(Told::Gone(1))),
            ("stopping", Some(Told::Stopping)),
            (
                "generation 1 bound 127.0.0.1:8080 and got listener \"http\"",
                Some(Told::Bound(listener(), "127.0.0.1:8080".to_owned())),
            ),
            (
                "generation 1 cannot have listener \"http\" for 0.0.0.0:80: it opened an IPv4 socket",
                Some(Told::Denied(listener(), "it opened an IPv4 socket".to_owned())),
            ),
            (
                "generation 1 failed (exit 0 (so) after 0.1 s); launching it again",
                Some(Told::Failed(1, "exit 0 (so) after 0.1 s".to_owned())),
            ),
            (
                "generation 9 failed (exit 1 after 0.1 s); not launching it again",
                Some(Told::Failed(9, "exit 1 after 0.1 s".to_owned())),
            ),
            (
                "generation 2 (image) refused: not healthy within 1 min",
                Some(Told::Failed(2, "not healthy within 1 min".to_owned())),
            ),
            (
                "release image does not take its socket: its connections are relayed to $PORT",
                Some(Told::Relayed),
            ),
            (
                "this system does not let a bind be answered (EBUSY): a program that does not take its socket from \
                 LISTEN_FDS is relayed to, and must listen on $PORT",
                Some(Told::RelaysNext),
            ),
            (
                "generation 1 cannot have listener \"http\" for 0.0.0.0:80: it registered its socket with epoll before \
                 it bound it; the next one is relayed to $PORT",
                Some(Told::RelaysNext),
            ),
            ("listener \"http\" something", None),
        ] {
            assert_eq!(told(&format!("{MARK}{line}")), expected, "{line}");
            let json = serde_json::json!({ "source": "baton-boot", "line": line }).to_string();
            assert_eq!(told(&json), expected, "{line}");
            let program = serde_json::json!({ "source": "program", "line": line }).to_string();
            assert_eq!((told(line), told(&program)), (None, None), "said by the program: {line}");
        }
    }
}
