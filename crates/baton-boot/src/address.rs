//! Where a control server is, and a connection to it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use baton_release::control::{Believed, ControlError};
use baton_wire::session::{Carrier, prepare};
use hyper::Uri;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::names::{ANSWER_MAX, Names};

/// How long connecting may take, with the time for the name, for all addresses of a name together.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection is given up on which something was sent and not taken for so long. That something is sent at the latest after a
/// heartbeat of 2.5 s: a half-open connection is noticed within 5 s.
const UNTAKEN_MAX: Duration = Duration::from_millis(2500);

/// The address of a control server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// As people write it.
    base: String,
    tls: bool,
    /// A name, or an IP address without brackets.
    host: String,
    port: u16,
}

impl Address {
    /// Reads `http://HOST:PORT` or `https://HOST:PORT`, with a path where control is below one.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(base: &str) -> Result<Self, ControlError> {
        let read = || {
            let uri: Uri = base.parse().ok()?;
            let tls = match uri.scheme_str()? {
                "http" => false,
                "https" => true,
                _ => return None,
            };
            let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            Some(Self { base: base.to_owned(), tls, host, port })
        };
        read().ok_or_else(|| ControlError::Address(base.to_owned()))
    }

    /// As people write it.
    pub fn as_str(&self) -> &str {
        &self.base
    }

    /// Its host and port, and the path that it is below, as requests name it.
    pub fn place(&self) -> &str {
        let (_, place) = self.base.split_once("://").unwrap_or(("", &self.base));
        place.trim_end_matches('/')
    }

    /// Its name, as it was asked for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A connection to it, which is as it should be by what is believed.
    ///
    /// # Errors
    /// It is not there, or is another one.
    pub async fn connect(&self, names: &Names, believed: &Believed) -> io::Result<Box<dyn Carrier>> {
        let stream = self.reach(names).await?;
        prepare(&stream);
        give_up_untaken(&stream);
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let config = believed.client().map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// Tries its addresses, the likeliest first.
    async fn reach(&self, names: &Names) -> io::Result<TcpStream> {
        let until = Instant::now() + CONNECT;
        let addresses = match self.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => names.addresses(&self.host).await?,
        };
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            // Each has its part of the time that is left.
            let part = until.saturating_duration_since(Instant::now()) / left;
            let tried = TcpStream::connect(SocketAddr::new(address, self.port));
            match timeout_at(Instant::now() + part, tried).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
            left -= 1;
        }
        Err(failed)
    }
}

const _: () = assert!(ANSWER_MAX.as_millis() < CONNECT.as_millis(), "there is time left to connect");

fn give_up_untaken(stream: &TcpStream) {
    let untaken = u32::try_from(UNTAKEN_MAX.as_millis()).unwrap_or(u32::MAX);
    // A connection that cannot do that is one all the same.
    let _ = sockopt::set_tcp_user_timeout(stream, untaken);
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_read_with_what_it_leaves_out() {
        for (base, tls, host, port, place) in [
            ("http://127.0.0.1:7400", false, "127.0.0.1", 7400, "127.0.0.1:7400"),
            ("https://control.example", true, "control.example", 443, "control.example"),
            ("http://localhost", false, "localhost", 80, "localhost"),
            ("https://[::1]:7400", true, "::1", 7400, "[::1]:7400"),
            ("https://example.com/baton/", true, "example.com", 443, "example.com/baton"),
        ] {
            let address = Address::parse(base).unwrap();
            assert_eq!(
                (address.tls, address.host(), address.port, address.place()),
                (tls, host, port, place)
            );
        }
        for base in ["", "control:7400", "ftp://control", "https://", "/v1"] {
            assert!(Address::parse(base).unwrap_err().to_string().contains("write https://"), "{base}");
        }
    }

    #[tokio::test]
    async fn f53_an_end_that_is_gone_is_noticed_within_5_s_by_what_it_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        give_up_untaken(&stream);
        let heartbeat = crate::session::HEARTBEAT.as_millis();
        let untaken = u128::from(sockopt::tcp_user_timeout(&stream).unwrap());
        assert!(heartbeat + untaken <= 5000, "{heartbeat} {untaken}");
    }

    #[tokio::test]
    async fn where_one_address_of_a_name_does_not_answer_the_next_one_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = Names::default();
        // Nobody listens at the first, on this machine either.
        names.know("control.invalid", &[[127, 0, 0, 2].into(), [127, 0, 0, 1].into()]);
        let address = Address::parse(&format!("http://control.invalid:{port}")).unwrap();
        assert!(address.connect(&names, &Believed::Public).await.is_ok());
        drop(listener);
        let refused = address.connect(&names, &Believed::Public).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
