//! Certificates that somebody gave.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton_release::disk::failed;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use crate::reread::{Reread, Trouble};

/// How long before its end a certificate is complained about: a month, in which somebody is at work.
const WARNED_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A certificate and its key in files.
pub(crate) struct Given {
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    certificate: Reread<Certificate>,
}

/// A certificate with its key.
#[derive(Clone)]
struct Certificate {
    certified: Arc<CertifiedKey>,
    /// When it ends, in milliseconds since 1970.
    ends: u64,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Given {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be read, are not in PEM, or do not fit.
    pub(super) fn open(
        chain: &Path,
        key: &Path,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, TlsError> {
        let paths = vec![chain.to_owned(), key.to_owned()];
        let certificate = Reread::open(paths, || read(chain, key, &provider))?;
        Ok(Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), provider, certificate }))
    }

    /// The certificate that is used now, and why the one in the files is not, where it is another one.
    fn certificate(&self) -> (Certificate, Option<Trouble>) {
        self.certificate.get(|| read(&self.chain, &self.key, &self.provider))
    }

    /// What somebody has to do about it, if anything, at this time in milliseconds since 1970.
    pub(crate) fn warning(&self, now: u64) -> Option<String> {
        let (Certificate { ends, .. }, trouble) = self.certificate();
        if let Some(Trouble { full, .. }) = trouble {
            return Some(format!(
                "the certificate is not used as it is in the files now, but as it was before: {full}"
            ));
        }
        let left = ends.saturating_sub(now);
        let file = self.chain.display();
        match left {
            0 => Some(format!(
                "the certificate in {file} has ended, and nobody believes it any more: renew it"
            )),
            left if u128::from(left) < WARNED_BEFORE.as_millis() => {
                Some(format!("the certificate in {file} ends in {} days: renew it", left / DAY_MS))
            }
            _ => None,
        }
    }
}

impl ResolvesServerCert for Given {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate().0.certified)
    }
}

/// The certificate in these files.
fn read(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<Certificate, TlsError> {
    let certificates = read_chain(chain)?;
    let ends = certificates.first().and_then(|first| {
        let (_, certificate) = X509Certificate::from_der(first).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok()
    });
    let ends = ends.ok_or_else(|| TlsError::Pem { path: chain.to_owned(), what: "certificate" })?;
    let certified = CertifiedKey::from_der(certificates, read_key(key)?, provider)?;
    Ok(Certificate { certified: Arc::new(certified), ends: ends.saturating_mul(1000) })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = fs::read(path).map_err(failed("read", path))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.ok_or_else(|| TlsError::Pem { path: path.to_owned(), what: "certificate" })
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = fs::read(path).map_err(failed("read", path))?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| TlsError::Pem { path: path.to_owned(), what: "private key" })
}
