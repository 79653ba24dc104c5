//! What to do when no answer comes: a sentence for each reason.

use std::net::SocketAddr;
use std::path::Path;

use baton_release::control::Hindrance;

use crate::args::LISTEN;

/// What to do where control asks for a token, and none was shown.
pub const NO_TOKEN: &str = "; show it with --token-file FILE, or name that file in BATON_TOKEN_FILE";

/// What to do about a server at this address, from which no answer came; `authority` is the file with certificates that are
/// believed, if one was named.
pub fn advice(hindrance: Hindrance, base: &str, authority: Option<&Path>) -> String {
    let another = "name another with --server";
    match hindrance {
        Hindrance::NobodyThere => format!("nobody listens there: {}, or {another}", start(base)),
        Hindrance::NoSuchName => {
            format!("nothing is known by this name: is it right, and can this machine look it up? Or {another}")
        }
        Hindrance::NotBelieved => match authority {
            Some(path) => format!(
                "none of the certificates in {} vouches for it: name the right file with --ca, which is ca.pem among \
                 the server's data",
                path.display()
            ),
            None => "nobody who is known here vouches for its certificate: show a token of it, which says whom to \
                     believe (--token-file FILE, or BATON_TOKEN_FILE), or name its authority with --ca FILE, which is \
                     ca.pem among the server's data"
                .to_owned(),
        },
        Hindrance::OtherName => "its certificate is for other names: ask it by one of these, or add this one to it \
                                 with `baton server --name`"
            .to_owned(),
        Hindrance::NotTls => format!("it does not speak TLS: write {}", with(base, "http://")),
        Hindrance::NotHttp => {
            format!("it does not speak HTTP: if it speaks TLS, write {}, or {another}", with(base, "https://"))
        }
        Hindrance::Other => format!("is it running, and is this its address? Or {another}"),
    }
}

/// The same address in another way.
fn with(base: &str, scheme: &str) -> String {
    let host = base.split_once("://").map_or(base, |(_, host)| host);
    format!("{scheme}{host}")
}

/// How to start a server that answers at this address.
fn start(base: &str) -> String {
    let (scheme, host) = base.split_once("://").unwrap_or(("https", base));
    let at = host.replace("localhost", "127.0.0.1").parse::<SocketAddr>();
    let Some(at) = at.ok().filter(|at| at.ip().is_loopback()) else {
        return "start `baton server` on that machine".to_owned();
    };
    let dev = if scheme == "http" { " --dev" } else { "" };
    let listen = if at.to_string() == LISTEN { String::new() } else { format!(" --listen {at}") };
    format!("start it with `baton server{dev}{listen}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::SERVER;

    #[test]
    fn where_nobody_listens_a_server_is_started_that_answers_there() {
        for (base, command) in [
            (SERVER, "`baton server --dev`"),
            ("http://localhost:7400", "`baton server --dev`"),
            ("http://127.0.0.1:9000", "`baton server --dev --listen 127.0.0.1:9000`"),
            ("http://[::1]:7400", "`baton server --dev --listen [::1]:7400`"),
            ("https://127.0.0.1:7400", "`baton server`"),
            ("https://localhost:9000", "`baton server --listen 127.0.0.1:9000`"),
            ("https://control:7400", "`baton server` on that machine"),
            ("http://10.0.0.1:7400", "`baton server` on that machine"),
        ] {
            let advice = advice(Hindrance::NobodyThere, base, None);
            assert!(advice.contains(command), "{base}: {advice}");
        }
    }

    #[test]
    fn what_is_no_server_that_is_away_is_not_started() {
        let ca = Path::new("other.pem");
        for (hindrance, base, authority, says) in [
            (Hindrance::NoSuchName, "https://control", None, "nothing is known by this name"),
            (Hindrance::NotBelieved, "https://control", None, "--token-file FILE"),
            (Hindrance::NotBelieved, "https://control", None, "--ca FILE"),
            (Hindrance::NotBelieved, "https://control", Some(ca), "certificates in other.pem"),
            (Hindrance::OtherName, "https://control", None, "--name"),
            (Hindrance::NotTls, "https://control:1", None, "write http://control:1"),
            (Hindrance::NotHttp, "http://control:1", None, "write https://control:1"),
            (Hindrance::Other, "http://control:1", None, "is it running"),
        ] {
            let advice = advice(hindrance, base, authority);
            assert!(advice.contains(says) && !advice.contains("start"), "{hindrance:?}: {advice}");
        }
    }
}
