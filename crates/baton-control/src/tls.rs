//! How clients know that this is control: with certificates that somebody gave, or of an authority of its own.
//!
//! The authority is made once and kept in the data directory; who trusts it, by its file or its fingerprint, trusts nobody else
//! by that. The server's own certificate is made at each start, and again long before it ends: nothing of it is kept.

mod given;

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use baton_core::access::Fingerprint;
use baton_core::run::secrets::Secret;
use baton_release::disk::{DiskError, failed, replace, replace_private};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

pub(crate) use self::given::Given;
use crate::clock::unix_ms;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the authority is one: longer than anybody keeps a server, so that it does not end unseen.
const AUTHORITY_TTL: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// How long a certificate of the server is good for.
const CERTIFICATE_TTL: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// When the next one is made. Clocks of clients may be wrong by weeks.
const CERTIFICATE_USED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// From where certificates come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificates {
    /// From an authority of the server's own.
    Own {
        /// By which names and addresses clients call the server, besides those of this machine.
        names: Vec<String>,
    },
    /// From files in PEM.
    Given {
        /// The certificate, and those between it and an authority that clients trust.
        chain: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file is not in PEM, or has not in it what it should.
    #[error("{} has no {what} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is looked for.
        what: &'static str,
    },
    /// There is no certificate in what is kept of an authority.
    #[error("there is no certificate in what is kept of the authority")]
    NoAuthority,
    /// A name is none.
    #[error("--name {0:?} is neither a name nor an address")]
    Name(String),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The certificate and the key do not fit, or are of a kind that is not known.
    #[error("cannot use the certificate")]
    Use(#[from] rustls::Error),
}

/// An authority that vouches for servers, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Its certificate.
    pub(crate) certificate: String,
    /// Its private key.
    pub(crate) key: Secret,
    /// When it was made, in milliseconds since 1970; 0 where nobody has written that down.
    pub(crate) made: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// None that is known, but for a system without random numbers.
    pub(crate) fn make() -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let certificate = authority(SystemTime::now())?.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()), made: unix_ms() })
    }

    /// That of a data directory, which is made where there is none.
    ///
    /// # Errors
    /// It cannot be read, or a new one not be written.
    pub(crate) fn in_folder(data_dir: &Path) -> Result<Self, TlsError> {
        if let Some(known) = Self::known_in(data_dir)? {
            return Ok(known);
        }
        let made = Self::make()?;
        // The key last: who finds it finds the certificate too.
        made.publish(data_dir)?;
        replace_private(&key_file(data_dir), made.key.reveal().as_bytes())?;
        Ok(made)
    }

    /// That of a data directory, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn known_in(data_dir: &Path) -> Result<Option<Self>, TlsError> {
        let (path, key_path) = (authority_file(data_dir), key_file(data_dir));
        let key = match fs::read_to_string(&key_path) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &key_path)(error).into()),
        };
        let certificate = fs::read_to_string(&path).map_err(failed("read", &path))?;
        let known = Self { certificate, key, made: 0 };
        known.der().ok_or(TlsError::Pem { path, what: "certificate" })?;
        Ok(Some(known))
    }

    /// Whether the certificate that clients find in a data directory is that of another one.
    pub(crate) fn is_new_in(&self, data_dir: &Path) -> bool {
        fs::read_to_string(authority_file(data_dir)).is_ok_and(|found| found != self.certificate)
    }

    /// Writes the certificate where clients find it that trust it by its file.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn publish(&self, data_dir: &Path) -> Result<(), TlsError> {
        let file = authority_file(data_dir);
        // What is there already takes no space, so that a server starts on a disk that is full.
        if fs::read(&file).is_ok_and(|there| there == self.certificate.as_bytes()) {
            return Ok(());
        }
        Ok(replace(&file, self.certificate.as_bytes())?)
    }

    /// What clients know it by.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        // What is no certificate was refused where it was read.
        Fingerprint::of(&self.der().unwrap_or_else(|| CertificateDer::from(Vec::new())))
    }

    fn der(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()
    }
}

/// What the server speaks.
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    /// The certificate that somebody gave, who has to renew it.
    pub(crate) given: Option<Arc<Given>>,
}

impl Tls {
    /// As `certificates` says, for a server at `listen`, and with this authority where it is one of its own.
    ///
    /// # Errors
    /// A file or a name is not what it should be.
    pub(crate) fn new(
        certificates: &Certificates,
        listen: SocketAddr,
        authority: Option<&Authority>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            // Everybody who speaks with control comes with it.
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth();
        let mut given = None;
        let mut config = match (certificates, authority) {
            (Certificates::Given { chain, key }, _) => {
                let opened = given.insert(Given::open(chain, key, provider)?);
                builder.with_cert_resolver(Arc::<Given>::clone(opened))
            }
            (Certificates::Own { names }, authority) => {
                if let Some(bad) = names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
                    return Err(TlsError::Name(bad.clone()));
                }
                let authority = authority.ok_or(TlsError::NoAuthority)?;
                let own = Own::new(authority, all_names(names, listen.ip()), provider)?;
                builder.with_cert_resolver(Arc::new(own))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), given })
    }
}

/// Where the authority's certificate is, for clients that trust it by its file.
pub(crate) fn authority_file(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.pem")
}

fn key_file(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.key")
}

/// An authority of the server's own, and the certificate that it has made last.
struct Own {
    authority: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    current: RwLock<(Arc<CertifiedKey>, SystemTime)>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Own {
    fn new(
        authority: &Authority,
        names: Vec<String>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let der = authority.der().ok_or(TlsError::NoAuthority)?;
        // Who is named in what it signs is the same, whenever it was made.
        let key = KeyPair::from_pem(authority.key.reveal())?;
        let issuer = Issuer::new(self::authority(SystemTime::now())?, key);
        let current = certificate(&issuer, &der, &names, &provider)?;
        let current = RwLock::new((current, SystemTime::now()));
        Ok(Self { authority: der, issuer, names, provider, current })
    }

    /// The certificate that is used now; one that is used for long is replaced.
    fn certificate(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (key, made) = current;
        if now.duration_since(made).is_ok_and(|age| age < CERTIFICATE_USED) {
            return key;
        }
        // One that cannot be made leaves the one that there is, which is good for a while yet.
        let Ok(next) = certificate(&self.issuer, &self.authority, &self.names, &self.provider) else {
            return key;
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (Arc::clone(&next), now);
        next
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate(SystemTime::now()))
    }
}

/// What an authority's certificate says.
fn authority(now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "Baton control");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = ((now - DAY).into(), (now + AUTHORITY_TTL).into());
    Ok(params)
}

/// A new certificate of the server, with the authority's behind it.
fn certificate(
    issuer: &Issuer<'static, KeyPair>,
    authority: &CertificateDer<'static>,
    names: &[String],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "Baton control server");
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - DAY).into(), (now + CERTIFICATE_TTL).into());
    let certificate = params.signed_by(&key, issuer)?;
    let chain = vec![certificate.der().clone(), authority.clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

/// By which names and addresses clients may call this server.
fn all_names(said: &[String], listen: IpAddr) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let here = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let listen = Some(listen).filter(|address| !address.is_unspecified()).map(|address| address.to_string());
    let mut names: Vec<String> = here.into_iter().chain(listen).chain([host]).chain(said.to_vec()).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(dir: &Path) -> Own {
        let names = all_names(&[], "127.0.0.1".parse().unwrap());
        Own::new(&Authority::in_folder(dir).unwrap(), names, Arc::new(ring::default_provider())).unwrap()
    }

    #[test]
    fn the_authority_stays_and_the_certificate_is_made_anew_long_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (own(dir.path()), own(dir.path()));
        assert_eq!(first.authority, second.authority, "after a restart");
        let now = SystemTime::now();
        let used = first.certificate(now);
        assert_eq!(used.cert[0], first.certificate(now + CERTIFICATE_USED / 2).cert[0]);
        let later = now + CERTIFICATE_USED * 2;
        let next = first.certificate(later);
        assert_ne!(used.cert[0], next.cert[0]);
        assert_eq!(next.cert[0], first.certificate(later).cert[0]);
        assert_eq!(used.cert[1], next.cert[1], "of the same authority");
    }

    #[test]
    fn p43_the_key_of_the_authority_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let _ = own(dir.path());
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn files_that_are_not_what_they_should_be_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        fs::write(&chain, "nothing").unwrap();
        fs::write(&key, "nothing").unwrap();
        let tls = |chain: &Path, key: &Path| {
            let given = Certificates::Given { chain: chain.to_owned(), key: key.to_owned() };
            Tls::new(&given, "127.0.0.1:0".parse().unwrap(), None).err().unwrap().to_string()
        };
        assert!(tls(&chain, &key).contains("chain.pem has no certificate"));
        let _ = own(dir.path());
        let authority = authority_file(dir.path());
        assert!(tls(&authority, &key).contains("key.pem has no private key"));
        assert!(tls(&dir.path().join("none.pem"), &key).contains("cannot read"));
        let other = dir.path().join("other.pem");
        fs::write(&other, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(tls(&authority, &other).contains("cannot use the certificate"));
        let names = Certificates::Own { names: vec!["two words".to_owned()] };
        let bad = Tls::new(&names, "127.0.0.1:0".parse().unwrap(), None).err().unwrap();
        assert!(matches!(bad, TlsError::Name(_)), "{bad}");
    }
}
