//! Where a listener is: an IP address and a port, or a Unix socket in the file system.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;

/// What a Unix socket's address begins with.
const UNIX: &str = "unix:";
/// How many bytes the path of a listener may have. The kernel takes 107 (`sun_path`, `man 7 unix`); twelve are for
/// the end of a private name beside it.
pub const SOCKET_PATH_BYTES_MAX: usize = 95;

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// At a port of one IP address, or of all. The port is not 0: clients must find it.
    Tcp(SocketAddr),
    /// At a path.
    Unix(SocketPath),
}

impl Address {
    /// The IP address and port, where there is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Its path, where it has one.
    pub fn path(&self) -> Option<&SocketPath> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Its port, where it has one.
    pub fn port(&self) -> Option<u16> {
        self.tcp().map(|address| address.port())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// A text that is no address of a listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It is neither of the two.
    #[error("it is neither an address with a port nor a path after \"unix:\"")]
    Neither,
    /// Nobody could find it.
    #[error("port 0 cannot be found by clients")]
    NoPort,
    /// Its path cannot be that of a socket.
    #[error(transparent)]
    Path(#[from] InvalidPath),
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return Ok(Self::Unix(path.parse()?));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(InvalidAddress::NoPort),
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) => Err(InvalidAddress::Neither),
        }
    }
}

/// The absolute path of a Unix socket, of at most [`SOCKET_PATH_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketPath(String);

impl SocketPath {
    /// What stands between the path and the end of a private name.
    pub const PRIVATE: &str = ".baton-";

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A private name beside it; its end has up to five letters.
    #[must_use]
    pub fn beside(&self, end: &str) -> Self {
        Self(format!("{}{}{end}", self.0, Self::PRIVATE))
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no path of a listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Sockets without a file cannot be replaced by the next one at once.
    #[error("sockets in the abstract namespace cannot be handed over")]
    Abstract,
    /// What it is relative to would differ from program to program.
    #[error("it is not absolute")]
    Relative,
    /// It ends with a slash, or has no name in another way.
    #[error("it names no file")]
    NoFile,
    /// No path can have that.
    #[error("it has a control character in it")]
    Control,
    /// The kernel does not take so much.
    #[error("it has {0} bytes, and a socket's path may have {SOCKET_PATH_BYTES_MAX}")]
    Long(usize),
}

impl FromStr for SocketPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let name = text.rsplit('/').next().unwrap_or_default();
        match text {
            _ if text.starts_with('@') => Err(InvalidPath::Abstract),
            _ if !text.starts_with('/') => Err(InvalidPath::Relative),
            _ if matches!(name, "" | "." | "..") => Err(InvalidPath::NoFile),
            _ if text.chars().any(char::is_control) => Err(InvalidPath::Control),
            _ if text.len() > SOCKET_PATH_BYTES_MAX => Err(InvalidPath::Long(text.len())),
            _ => Ok(Self(text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_back_from_what_it_says() {
        for text in ["0.0.0.0:8080", "[::1]:80", "unix:/run/app.sock", "unix:/run/a b:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let longest = alloc::format!("/{}", "x".repeat(SOCKET_PATH_BYTES_MAX - 1));
        assert!(longest.parse::<SocketPath>().is_ok());
    }

    #[test]
    fn what_cannot_be_an_address_is_told_apart() {
        let too_long = alloc::format!("unix:/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        for (text, wrong) in [
            ("", InvalidAddress::Neither),
            ("/run/app.sock", InvalidAddress::Neither),
            ("0.0.0.0:0", InvalidAddress::NoPort),
            ("unix:@app", InvalidPath::Abstract.into()),
            ("unix:", InvalidPath::Relative.into()),
            ("unix:app.sock", InvalidPath::Relative.into()),
            ("unix:/run/", InvalidPath::NoFile.into()),
            ("unix:/run/..", InvalidPath::NoFile.into()),
            ("unix:/run/a\nb", InvalidPath::Control.into()),
            (&too_long, InvalidPath::Long(SOCKET_PATH_BYTES_MAX + 1).into()),
        ] {
            assert_eq!(text.parse::<Address>(), Err(wrong), "{text:?}");
        }
    }
}
