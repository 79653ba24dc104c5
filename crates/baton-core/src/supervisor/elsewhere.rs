//! A program that listens, but not where its clients are.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::words::Words;

/// How many addresses are named: more fit into no sentence.
const NAMED_MAX: usize = 3;

/// What is wrong with a program at whose listener nobody accepts: it accepts elsewhere. Nothing, if it does not.
///
/// `address` is the listener's, `port` what the program was told to bind: another one where it is forwarded to.
pub fn listens_elsewhere(address: SocketAddr, port: u16, accepts_at: &[SocketAddr]) -> Option<Words> {
    let is_right = |found: &&SocketAddr| found.port() == port || found.port() == address.port();
    let named: Vec<String> =
        accepts_at.iter().filter(|found| !is_right(found)).take(NAMED_MAX).map(ToString::to_string).collect();
    if named.is_empty() || (port != address.port() && accepts_at.iter().any(|found| found.port() == port)) {
        return None;
    }
    let (named, told) = (named.join(", "), format!("$PORT ({port})"));
    let change = if port == address.port() { ", or change run.listen.address" } else { "" };
    Some(Words::new(&format!(
        "the program listens on {named}, and nobody accepts at its listener {address}: let it bind {told}{change}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn another_port_is_named_and_the_right_one_is_not() {
        let listener = "0.0.0.0:8080".parse().unwrap();
        let hint = |port, found: &[&str]| listens_elsewhere(listener, port, &at(found));
        let said = |hint: Option<Words>| hint.map(|words| words.to_string()).unwrap_or_default();
        assert_eq!(
            said(hint(8080, &["127.0.0.1:3000"])),
            "the program listens on 127.0.0.1:3000, and nobody accepts at its listener 0.0.0.0:8080: let it bind \
             $PORT (8080), or change run.listen.address"
        );
        assert_eq!(
            said(hint(20_001, &["[::]:3000", "127.0.0.1:9090"])),
            "the program listens on [::]:3000, 127.0.0.1:9090, and nobody accepts at its listener 0.0.0.0:8080: let \
             it bind $PORT (20001)"
        );
        // The socket that it was given is its own to look at, and does not accept by itself.
        assert!(hint(8080, &["0.0.0.0:8080", "127.0.0.1:3000"]).is_some());
        assert_eq!(hint(8080, &["0.0.0.0:8080"]), None);
        assert_eq!(hint(20_001, &["127.0.0.1:20001", "127.0.0.1:9090"]), None);
        assert_eq!(hint(8080, &[]), None);
        let many = said(hint(1, &["1.1.1.1:2", "1.1.1.1:3", "1.1.1.1:4", "1.1.1.1:5"]));
        assert!(many.contains("1.1.1.1:4") && !many.contains("1.1.1.1:5"), "{many}");
    }
}
