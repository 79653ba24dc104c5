//! Who may talk to a server that asks nobody who they are: programs on this machine, and nobody who speaks through their web
//! browser.
//!
//! A page on any web site can send requests to this machine, and with a name that it lets point here (DNS
//! rebinding) read the answers too. Both show in the `Host` and `Origin` that the browser sends along.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::Refusal;

/// Lets through what is meant for this server, which listens at `port`.
pub(crate) async fn check(State(port): State<u16>, request: Request, next: Next) -> Response {
    match judge(request.uri(), request.headers(), port) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn judge(uri: &Uri, headers: &HeaderMap, port: u16) -> Result<(), Refusal> {
    // HTTP/2 has the host in the request line; when both are there, both must be right.
    let header = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    let hosts: Vec<&str> = uri.authority().map(Authority::as_str).into_iter().chain(header).collect();
    if hosts.is_empty() || !hosts.iter().all(|host| is_here(host, port, true)) {
        return Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong-host",
            format!(
                "this server answers only to localhost:{port} and 127.0.0.1:{port}: use one of them as address"
            ),
        ));
    }
    let from_here =
        |origin: &str| origin.strip_prefix("http://").is_some_and(|host| is_here(host, port, false));
    let foreign = |origin: &axum::http::HeaderValue| !origin.to_str().is_ok_and(from_here);
    if headers.get_all(ORIGIN).iter().any(foreign) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "wrong-origin",
            "web pages of other origins may not use this server",
        ));
    }
    Ok(())
}

/// Whether a `HOST[:PORT]` names this machine and this server.
fn is_here(text: &str, port: u16, port_optional: bool) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    // What parses may still carry a user name, which no client of ours sends.
    if text.contains('@') {
        return false;
    }
    let here = match authority.port() {
        Some(given) => given.as_str() == port.to_string(),
        None => port_optional && !text.ends_with(':'),
    };
    here && is_loopback(authority.host())
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_under_its_own_names_is_served() {
        for (host, origin, status) in [
            (Some("127.0.0.1:7400"), None, None),
            (Some("localhost:7400"), None, None),
            (Some("LOCALHOST"), None, None),
            (Some("[::1]:7400"), None, None),
            (Some("127.0.0.1"), Some("http://127.0.0.1:7400"), None),
            (Some("127.0.0.1:7400"), Some("http://localhost:7400"), None),
            (None, None, Some(421)),
            (Some(""), None, Some(421)),
            (Some("evil.example:7400"), None, Some(421)),
            (Some("127.0.0.1.evil.example:7400"), None, Some(421)),
            (Some("localhost.evil.example"), None, Some(421)),
            (Some("127.0.0.1:80"), None, Some(421)),
            (Some("127.0.0.1:"), None, Some(421)),
            (Some("a@127.0.0.1:7400"), None, Some(421)),
            (Some("10.0.0.1:7400"), None, Some(421)),
            (Some("127.0.0.1:7400"), Some("null"), Some(403)),
            (Some("127.0.0.1:7400"), Some(""), Some(403)),
            (Some("127.0.0.1:7400"), Some("http://localhost"), Some(403)),
            (Some("127.0.0.1:7400"), Some("http://localhost:3000"), Some(403)),
            (Some("127.0.0.1:7400"), Some("https://localhost:7400"), Some(403)),
            (Some("127.0.0.1:7400"), Some("http://evil.example:7400"), Some(403)),
        ] {
            let mut headers = HeaderMap::new();
            let mut set = |name, value: Option<&str>| {
                value.map(|value| headers.insert(name, value.parse().unwrap()));
            };
            set(HOST, host);
            set(ORIGIN, origin);
            let judged = judge(&Uri::from_static("/v1/services"), &headers, 7400);
            let found = judged.err().map(|refusal| refusal.status.as_u16());
            assert_eq!(found, status, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn the_host_of_the_request_line_counts_too() {
        let headers = HeaderMap::new();
        assert!(judge(&Uri::from_static("http://localhost:7400/v1"), &headers, 7400).is_ok());
        assert!(judge(&Uri::from_static("http://evil.example:7400/v1"), &headers, 7400).is_err());
    }
}
