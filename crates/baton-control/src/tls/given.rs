//! Certificates that somebody gave: read at the start, and again whenever their files change, so that nobody restarts a server
//! to renew them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_release::disk::failed;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use crate::chain::chain;

/// How often the files are looked at, at the most: with a connection, or when somebody asks what is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long before its end a certificate is complained about: a month, in which somebody is at work.
const WARNED_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A certificate and its key in files.
pub(crate) struct Given {
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    known: Mutex<Known>,
}

/// What was read last.
struct Known {
    certified: Arc<CertifiedKey>,
    /// When it ends, in milliseconds since 1970.
    ends: u64,
    /// What the files were like when they were looked at last.
    seen: Option<[Stamp; 2]>,
    looked: Instant,
    /// Why what is in the files now is not used.
    trouble: Option<String>,
}

/// By what a file is told from one that has taken its place, or was written to.
type Stamp = (u64, u64, i64, i64);

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
        let seen = stamps(chain, key).ok();
        let (certified, ends) = read(chain, key, &provider)?;
        let known = Mutex::new(Known { certified, ends, seen, looked: Instant::now(), trouble: None });
        Ok(Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), provider, known }))
    }

    /// The certificate that is used now.
    fn certified(&self) -> Arc<CertifiedKey> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut known);
        Arc::clone(&known.certified)
    }

    /// What somebody has to do about it, if anything, at this time in milliseconds since 1970.
    pub(crate) fn warning(&self, now: u64) -> Option<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut known);
        if let Some(trouble) = &known.trouble {
            return Some(format!(
                "the certificate that was renewed is not used, and the one before it is: {trouble}"
            ));
        }
        let left = known.ends.saturating_sub(now);
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

    /// Reads the files again if they are other ones. Those that cannot be used leave what there is.
    fn look(&self, known: &mut Known) {
        if known.looked.elapsed() < LOOK_EVERY {
            return;
        }
        known.looked = Instant::now();
        // A moment without a file is one in which somebody puts another one there.
        let Ok(seen) = stamps(&self.chain, &self.key) else { return };
        if known.seen == Some(seen) {
            return;
        }
        known.seen = Some(seen);
        match read(&self.chain, &self.key, &self.provider) {
            Ok((certified, ends)) => {
                (known.certified, known.ends, known.trouble) = (certified, ends, None);
            }
            Err(error) => {
                let trouble = chain(&error);
                eprintln!("baton server: {trouble}; the certificate from before is used");
                known.trouble = Some(trouble);
            }
        }
    }
}

impl ResolvesServerCert for Given {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

fn stamps(chain: &Path, key: &Path) -> io::Result<[Stamp; 2]> {
    let stamp = |path: &Path| {
        let file = fs::metadata(path)?;
        Ok::<_, io::Error>((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
    };
    Ok([stamp(chain)?, stamp(key)?])
}

/// The certificate in these files, and when it ends.
fn read(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<(Arc<CertifiedKey>, u64), TlsError> {
    let certificates = read_chain(chain)?;
    let ends = certificates.first().and_then(|first| {
        let (_, certificate) = X509Certificate::from_der(first).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok()
    });
    let ends = ends.ok_or_else(|| TlsError::Pem { path: chain.to_owned(), what: "certificate" })?;
    let certified = CertifiedKey::from_der(certificates, read_key(key)?, provider)?;
    Ok((Arc::new(certified), ends.saturating_mul(1000)))
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
