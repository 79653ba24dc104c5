//! Whose certificates are believed: those of an authority, which is looked for by its fingerprint in what a server sends.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baton_core::access::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    version,
};
use ureq::http::Uri;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::ControlError;

/// How long a connection, and each step of a handshake, may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Believed {
    /// Those that browsers believe.
    Public,
    /// These, in PEM.
    Only(String),
}

impl Believed {
    /// As the client for HTTP wants it.
    pub fn tls(&self) -> TlsConfig {
        let roots = match self {
            Self::Public => RootCerts::WebPki,
            Self::Only(pem) => parse_pem(pem.as_bytes())
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    Ok(_) | Err(_) => None,
                })
                .into(),
        };
        TlsConfig::builder().root_certs(roots).build()
    }

    /// As whoever speaks something else over TLS wants it.
    ///
    /// # Errors
    /// There is no TLS.
    pub fn client(&self) -> Result<ClientConfig, rustls::Error> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::Public => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Self::Only(pem) => {
                let certificates = parse_pem(pem.as_bytes()).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    Ok(_) | Err(_) => None,
                });
                // One that cannot be read keeps the others from nothing, here as in the client for HTTP.
                roots.add_parsable_certificates(
                    certificates.map(|certificate| CertificateDer::from(certificate.der().to_vec())),
                );
            }
        }
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// The authority with this fingerprint, in PEM, from a server whose certificate it has signed. Blocks.
///
/// # Errors
/// The address is none, the server is not there, or it is not that of the authority.
pub(super) fn find(base: &str, fingerprint: Fingerprint) -> Result<String, ControlError> {
    let address = || ControlError::Address(base.to_owned());
    let uri: Uri = base.parse().map_err(|_| address())?;
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name: Result<ServerName<'static>, InvalidDnsNameError> = ServerName::try_from(bare.clone());
    let name = name.map_err(|_| address())?;
    let unreachable = |source| ControlError::Unreachable { base: base.to_owned(), source };
    let mut stream = connect(&bare, uri.port_u16().unwrap_or(443)).map_err(unreachable)?;
    let looking = Arc::new(Looking::new(fingerprint));
    let stranger = |source| ControlError::Stranger { base: base.to_owned(), source };
    let mut connection = looking
        .config()
        .and_then(|config| ClientConnection::new(Arc::new(config), name))
        .map_err(|error| stranger(io::Error::other(error)))?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            // What TLS has to say against it is in an error of this kind.
            return Err(match error.kind() {
                io::ErrorKind::InvalidData => stranger(error),
                _ => unreachable(error),
            });
        }
    }
    connection.send_close_notify();
    // It knows already that it was not asked anything.
    let _ = connection.complete_io(&mut stream);
    let found = looking.found().ok_or_else(|| stranger(io::ErrorKind::InvalidData.into()))?;
    Ok(pem(&found))
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, HANDSHAKE_MAX) {
            Ok(stream) => {
                stream.set_read_timeout(Some(HANDSHAKE_MAX))?;
                stream.set_write_timeout(Some(HANDSHAKE_MAX))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    // As RFC 7468 has it.
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Believes the one authority with a fingerprint, once a server shows it with a certificate of it.
#[derive(Debug)]
struct Looking {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl Looking {
    fn new(fingerprint: Fingerprint) -> Self {
        Self { fingerprint, provider: Arc::new(ring::default_provider()), found: Mutex::default() }
    }

    fn config(self: &Arc<Self>) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])?;
        let verifier = Arc::clone(self) as Arc<dyn ServerCertVerifier>;
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    fn found(&self) -> Option<CertificateDer<'static>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut sent = intermediates.iter();
        let authority = sent.find(|sent| Fingerprint::of(sent) == self.fingerprint).ok_or(unknown.clone())?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider));
        let verifier = verifier.build().map_err(|_| unknown)?;
        let verified =
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let found = authority.clone().into_owned();
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
