//! What keeps a server from answering, as far as an error tells: each has another remedy.

use std::io;

use rustls::CertificateError;

/// What std says before the reason for which a name has no address: it has no kind of error for that.
const NO_ADDRESS: &str = "failed to lookup address information";

/// What keeps a server from answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// Nobody listens there.
    NobodyThere,
    /// The name has no address.
    NoSuchName,
    /// No authority that is believed vouches for its certificate.
    NotBelieved,
    /// Its certificate is for other names.
    OtherName,
    /// It does not speak TLS.
    NotTls,
    /// It does not speak HTTP, or within TLS only.
    NotHttp,
    /// Anything else, which says what it is.
    Other,
}

impl Hindrance {
    /// What hindered a request.
    pub fn of(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::Io(error) => Self::of_io(error),
            ureq::Error::HostNotFound => Self::NoSuchName,
            ureq::Error::Rustls(error) => Self::of_tls(error),
            ureq::Error::Protocol(_) => Self::NotHttp,
            // The list may grow.
            _ => Self::Other,
        }
    }

    /// What hindered a connection.
    pub fn of_io(error: &io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::of_tls(error);
        }
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            return Self::of(error);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::NobodyThere,
            _ if error.to_string().starts_with(NO_ADDRESS) => Self::NoSuchName,
            _ => Self::Other,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::OtherName,
            // An authority of the same name, as all servers' own have, has other keys.
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Self::NotBelieved,
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            // The list may grow.
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, ToSocketAddrs};

    use rustls::InvalidMessage;

    use super::*;
    use crate::control::{Control, ControlError};

    fn tls(error: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn what_hinders_is_found_in_the_errors_of_the_system_and_of_tls() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = TcpStream::connect(free).unwrap_err();
        // Nobody needs to be asked: no part of a name is as long.
        let no_name = ("a".repeat(64).as_str(), 1).to_socket_addrs().unwrap_err();
        for (error, hindrance) in [
            (refused, Hindrance::NobodyThere),
            (no_name, Hindrance::NoSuchName),
            (tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), Hindrance::NotBelieved),
            (tls(rustls::Error::InvalidCertificate(CertificateError::BadSignature)), Hindrance::NotBelieved),
            (tls(rustls::Error::InvalidCertificate(CertificateError::NotValidForName)), Hindrance::OtherName),
            (tls(rustls::Error::InvalidCertificate(CertificateError::Expired)), Hindrance::Other),
            (tls(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)), Hindrance::NotTls),
            (io::ErrorKind::UnexpectedEof.into(), Hindrance::Other),
        ] {
            assert_eq!(Hindrance::of_io(&error), hindrance, "{error}");
            assert_eq!(Hindrance::of(&ureq::Error::Io(error)), hindrance);
        }
        assert_eq!(Hindrance::of(&ureq::Error::HostNotFound), Hindrance::NoSuchName);
        assert_eq!(Hindrance::of_io(&ureq::Error::HostNotFound.into_io()), Hindrance::NoSuchName);
    }

    #[test]
    fn who_speaks_tls_only_is_found_in_the_error_of_whoever_asks_in_plain() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", server.local_addr().unwrap());
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            // An alert, fatal, for a message that it does not decode.
            stream.write_all(b"\x15\x03\x03\0\x02\x02\x32").unwrap();
        });
        let refused = Control::new(&base, None, None).unwrap().post("/v1/join", b"{}").unwrap_err();
        answering.join().unwrap();
        let ControlError::Unreachable { source, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(Hindrance::of_io(&source), Hindrance::NotHttp, "{source}");
    }
}
