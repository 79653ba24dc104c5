//! How servers are spoken to: as they are, or over TLS and with something to show.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use baton_core::access::Shown;
use baton_release::control::Believed;
use baton_wire::session::{Carrier, prepare};
use http::HeaderValue;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio_rustls::TlsConnector;

/// A connection of somebody who waits.
pub trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

/// How somebody speaks to the servers.
#[derive(Debug, Clone)]
pub enum Way {
    /// Without TLS, to servers that ask nobody who they are.
    Open,
    /// Over TLS, showing who asks.
    Closed {
        /// Whom to believe. No connection helps the next one, as with bootloaders that are processes of their own.
        config: Arc<ClientConfig>,
        /// What is shown.
        bearer: HeaderValue,
    },
}

impl Way {
    /// To servers with the authority in this file, for who has this token.
    ///
    /// # Errors
    /// When either is none.
    pub fn closed(authority: &Path, token: &str) -> anyhow::Result<Self> {
        let pem = std::fs::read_to_string(authority).context("the server has no authority")?;
        let mut config = Believed::Only(pem).client()?;
        config.resumption = Resumption::disabled();
        Ok(Self::Closed { config: Arc::new(config), bearer: bearer(token)? })
    }

    /// The same for somebody else.
    ///
    /// # Errors
    /// When that is no token.
    pub fn showing(&self, token: &str) -> anyhow::Result<Self> {
        Ok(match self {
            Self::Open => Self::Open,
            Self::Closed { config, .. } => {
                Self::Closed { config: Arc::clone(config), bearer: bearer(token)? }
            }
        })
    }

    /// What is shown, where anything is.
    pub fn bearer(&self) -> Option<HeaderValue> {
        match self {
            Self::Open => None,
            Self::Closed { bearer, .. } => Some(bearer.clone()),
        }
    }

    /// A connection to this server, which answers within this time or is given up.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn connect(&self, server: SocketAddr, limit: Duration) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        let Self::Closed { config, .. } = self else { return Ok(Box::new(stream)) };
        let name = ServerName::from(server.ip());
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(session, stream)))
    }

    /// The same for a member.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn join(&self, server: SocketAddr) -> io::Result<Box<dyn Carrier>> {
        let stream = tokio::net::TcpStream::connect(server).await?;
        prepare(&stream);
        let Self::Closed { config, .. } = self else { return Ok(Box::new(stream)) };
        let connector = TlsConnector::from(Arc::clone(config));
        Ok(Box::new(connector.connect(ServerName::from(server.ip()), stream).await?))
    }
}

fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let shown: Shown = token.parse()?;
    Ok(HeaderValue::try_from(format!("Bearer {}", shown.secret.reveal()))?)
}
