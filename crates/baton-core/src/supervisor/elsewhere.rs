//! A program that listens, but not where its clients are.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::run::Address;
use crate::words::Words;

/// How many addresses are named: more fit into no sentence.
const NAMED_MAX: usize = 3;

/// What is wrong with a program at whose listener nobody accepts: it accepts elsewhere. Nothing, if it does not.
///
/// `listener` is where clients are, `to_bind` what the program was told to bind: another one where it is forwarded to.
pub fn listens_elsewhere(listener: &Address, to_bind: &Address, accepts_at: &[Address]) -> Option<Words> {
    let is_right = |found: &&Address| is_at(found, to_bind) || is_at(found, listener);
    let named: Vec<String> =
        accepts_at.iter().filter(|found| !is_right(found)).take(NAMED_MAX).map(ToString::to_string).collect();
    let is_forwarded_to = listener != to_bind;
    if named.is_empty() || (is_forwarded_to && accepts_at.iter().any(|found| is_at(found, to_bind))) {
        return None;
    }
    let told = match to_bind {
        Address::Tcp(address) => format!("let it bind $PORT ({})", address.port()),
        Address::Unix(path) if is_forwarded_to => format!("let it bind {{path:NAME}} ({path})"),
        Address::Unix(_) => "let it take the socket that it is given".to_string(),
    };
    let change = if is_forwarded_to { "" } else { ", or change run.listen.address" };
    Some(Words::new(&format!(
        "the program listens on {}, and nobody accepts at its listener {listener}: {told}{change}",
        named.join(", ")
    )))
}

/// Whether a socket that somebody listens on is at an address: at the same port, wherever else, or at the same path. A
/// path is replaced while it is handed over: a socket that has it now was bound at a private name beside it.
fn is_at(found: &Address, address: &Address) -> bool {
    match (found, address) {
        (Address::Tcp(found), Address::Tcp(address)) => found.port() == address.port(),
        (Address::Unix(found), Address::Unix(path)) => {
            found == path || found.as_str().starts_with(path.beside("").as_str())
        }
        (Address::Tcp(_), Address::Unix(_)) | (Address::Unix(_), Address::Tcp(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(listener: &str, to_bind: &str, found: &[&str]) -> Option<String> {
        let at = |address: &str| address.parse::<Address>().unwrap();
        let found: Vec<Address> = found.iter().map(|address| at(address)).collect();
        listens_elsewhere(&at(listener), &at(to_bind), &found).map(|words| words.to_string())
    }

    #[test]
    fn another_port_is_named_and_the_right_one_is_not() {
        let listener = "0.0.0.0:8080";
        assert_eq!(
            hint(listener, listener, &["127.0.0.1:3000"]).unwrap(),
            "the program listens on 127.0.0.1:3000, and nobody accepts at its listener 0.0.0.0:8080: let it bind \
             $PORT (8080), or change run.listen.address"
        );
        assert_eq!(
            hint(listener, "127.0.0.1:20001", &["[::]:3000", "127.0.0.1:9090"]).unwrap(),
            "the program listens on [::]:3000, 127.0.0.1:9090, and nobody accepts at its listener 0.0.0.0:8080: let \
             it bind $PORT (20001)"
        );
        // The socket that it was given is its own to look at, and does not accept by itself.
        assert!(hint(listener, listener, &["0.0.0.0:8080", "127.0.0.1:3000"]).is_some());
        assert_eq!(hint(listener, listener, &["0.0.0.0:8080"]), None);
        assert_eq!(hint(listener, "127.0.0.1:20001", &["127.0.0.1:20001", "127.0.0.1:9090"]), None);
        assert_eq!(hint(listener, listener, &[]), None);
        let many = hint(listener, listener, &["1.1.1.1:2", "1.1.1.1:3", "1.1.1.1:4", "1.1.1.1:5"]).unwrap();
        assert!(many.contains("1.1.1.1:4") && !many.contains("1.1.1.1:5"), "{many}");
    }

    #[test]
    fn another_path_is_named_and_the_right_one_is_not() {
        let listener = "unix:/run/app.sock";
        assert_eq!(
            hint(listener, listener, &["unix:/tmp/app.sock"]).unwrap(),
            "the program listens on unix:/tmp/app.sock, and nobody accepts at its listener unix:/run/app.sock: let it \
             take the socket that it is given, or change run.listen.address"
        );
        assert_eq!(
            hint(listener, "unix:/run/app.sock.baton-3", &["127.0.0.1:3000"]).unwrap(),
            "the program listens on 127.0.0.1:3000, and nobody accepts at its listener unix:/run/app.sock: let it \
             bind {path:NAME} (/run/app.sock.baton-3)"
        );
        assert!(hint("0.0.0.0:8080", "0.0.0.0:8080", &["unix:/run/app.sock"]).is_some());
        assert_eq!(hint(listener, listener, &["unix:/run/app.sock"]), None);
        assert_eq!(hint(listener, listener, &["unix:/run/app.sock.baton-2"]), None);
        assert_eq!(
            hint(listener, "unix:/run/app.sock.baton-3", &["unix:/run/app.sock.baton-3", "1.1.1.1:2"]),
            None
        );
    }
}
