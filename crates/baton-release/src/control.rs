//! How a control server is reached: where it is, whom to believe that it is it, and who asks.
//!
//! Whom to believe is said by a file with certificates, or by a fingerprint in the token; else those are believed that browsers
//! believe. By a fingerprint, the authority is looked for in what the server sends at the first handshake, in which nothing else
//! is said, and kept in memory. Nothing is shown to a server on another machine without TLS.

mod authority;
mod hindrance;

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use baton_core::access::Shown;
use baton_core::run::secrets::Secret;
use ureq::config::ConfigBuilder;
use ureq::http::Uri;
use ureq::tls::{PemItem, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;
use ureq::{Agent, RequestBuilder};

pub use self::authority::Believed;
pub use self::hindrance::Hindrance;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest answer that is read here: a credential, or a sentence.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Why a control server is not asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address is none.
    #[error(
        "{0:?} is not the address of a server: write https://HOST:PORT, or http://HOST:PORT on this machine"
    )]
    Address(String),
    /// What would be shown could be read by others on the way.
    #[error("no token is sent to {0} without TLS: write https://, or ask on the machine itself")]
    InPlain(String),
    /// The file with certificates cannot be used.
    #[error("cannot use the certificates in {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server cannot be reached.
    #[error("{base} is not reached")]
    Unreachable {
        /// Its address.
        base: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is another one than that of the token.
    #[error(
        "{base} is not the server that the token is for, or has another certificate authority by now: show a token that it \
         has made"
    )]
    Stranger {
        /// Its address.
        base: String,
        /// What it was.
        #[source]
        source: io::Error,
    },
}

impl ControlError {
    /// Whether it makes sense to try again.
    pub const fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Address(_) | Self::InPlain(_) | Self::Authority { .. } | Self::Stranger { .. } => false,
        }
    }
}

/// A control server.
#[derive(Debug)]
pub struct Control {
    /// The servers, any of which will do; never none.
    bases: Vec<String>,
    /// Which of them is asked: the next one once it has failed.
    asked: AtomicUsize,
    /// A file with certificates to believe.
    authority: Option<PathBuf>,
    /// What is shown; it may be another one later.
    shown: Mutex<Option<Shown>>,
    believed: OnceLock<Believed>,
}

impl Control {
    /// The server at this address, or several of them, separated by commas, to which nothing is shown.
    pub fn open(base: &str) -> Self {
        let bases: Vec<_> =
            base.split(',').map(|base| base.trim().trim_end_matches('/').to_owned()).collect();
        // Whoever asks the same servers does not begin with the same one.
        let asked = AtomicUsize::new(RandomState::new().hash_one(base) as usize % bases.len().max(1));
        Self { bases, asked, authority: None, shown: Mutex::default(), believed: OnceLock::new() }
    }

    /// The server at this address, or several of them, separated by commas, to which this is shown; `authority` is a file with
    /// certificates, of which one must vouch for it. Nothing is sent yet.
    ///
    /// # Errors
    /// The address is none, or what is shown could be read on the way there.
    pub fn new(base: &str, shown: Option<Shown>, authority: Option<PathBuf>) -> Result<Self, ControlError> {
        let control = Self { authority, ..Self::open(base) };
        for base in &control.bases {
            is_in_plain(base)?;
        }
        if let Some(shown) = shown {
            control.show_token(shown)?;
        }
        Ok(control)
    }

    /// The same, and the first one is asked first: for a person, who has said them in an order.
    #[must_use]
    pub fn in_order(self) -> Self {
        Self { asked: AtomicUsize::new(0), ..self }
    }

    /// The address of the one that is asked now, without a slash at the end.
    pub fn base(&self) -> &str {
        let asked = self.asked.load(Ordering::Relaxed) % self.bases.len().max(1);
        self.bases.get(asked).map_or("", String::as_str)
    }

    /// The file with certificates that are believed, where one is.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// The addresses of all.
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// The one that was asked has failed: another one may be better off.
    pub fn go_on(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on this is shown. The server stays the one that it was.
    ///
    /// # Errors
    /// It could be read on the way there: what was shown before still is.
    pub fn show(&self, secret: Secret) -> Result<(), ControlError> {
        self.check_way()?;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let fingerprint = shown.as_ref().and_then(|shown| shown.fingerprint);
        *shown = Some(Shown { secret, fingerprint });
        Ok(())
    }

    /// From now on this is shown, to the server that it is for.
    ///
    /// # Errors
    /// It could be read on the way there: what was shown before still is.
    pub fn show_token(&self, shown: Shown) -> Result<(), ControlError> {
        self.check_way()?;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(())
    }

    /// Whether something may be shown: nobody can read it on the way to any of the servers.
    fn check_way(&self) -> Result<(), ControlError> {
        for base in &self.bases {
            if is_in_plain(base)? {
                return Err(ControlError::InPlain(base.clone()));
            }
        }
        Ok(())
    }

    /// What is shown.
    pub fn shown(&self) -> Option<Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The value of the `Authorization` header, where something is shown.
    pub fn bearer(&self) -> Option<Secret> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().map(|shown| Secret::new(format!("Bearer {}", shown.secret.reveal())))
    }

    /// Whose certificates are believed. Blocks, and may ask the server for its authority.
    ///
    /// # Errors
    /// The file cannot be read, or the server is not there, or is another one.
    pub fn believed(&self) -> Result<Believed, ControlError> {
        // The file may be replaced: it is read each time.
        if let Some(path) = &self.authority {
            let failed = |source| ControlError::Authority { path: path.clone(), source };
            let pem = fs::read_to_string(path).map_err(failed)?;
            let is_certificate = |item: &Result<_, _>| matches!(item, Ok(PemItem::Certificate(_)));
            if !parse_pem(pem.as_bytes()).any(|item| is_certificate(&item)) {
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "there is none in PEM")));
            }
            return Ok(Believed::Only(pem));
        }
        if let Some(believed) = self.believed.get() {
            return Ok(believed.clone());
        }
        let fingerprint = {
            let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.as_ref().and_then(|shown| shown.fingerprint)
        };
        let believed = match fingerprint.filter(|_| self.base().starts_with("https://")) {
            Some(fingerprint) => Believed::Only(authority::find(self.base(), fingerprint)?),
            None => Believed::Public,
        };
        Ok(self.believed.get_or_init(|| believed).clone())
    }

    /// A request that shows what is to be shown.
    pub fn bear<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match self.bearer() {
            Some(bearer) => request.header("Authorization", bearer.reveal()),
            None => request,
        }
    }

    /// How whoever asks it begins. Blocks, and may ask the server for its authority.
    ///
    /// # Errors
    /// As for [`Control::believed`].
    pub fn asking(&self) -> Result<ConfigBuilder<AgentScope>, ControlError> {
        Ok(direct(self.believed()?.tls()))
    }

    /// Sends a body in JSON and returns the status and the body of the answer, whatever they are. Blocks.
    ///
    /// # Errors
    /// There is no answer.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>), ControlError> {
        let asking = self.asking()?.timeout_global(Some(ANSWER_MAX)).build();
        let request = self.bear(Agent::new_with_config(asking).post(format!("{}{path}", self.base())));
        let answer = request.content_type("application/json").send(body).and_then(|mut answer| {
            let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
            Ok((answer.status().as_u16(), body))
        });
        let unreachable = |error| ControlError::Unreachable { base: self.base().to_owned(), source: error };
        answer.map_err(|error| {
            let error = unreachable(error.into_io());
            self.go_on();
            error
        })
    }
}

/// How whoever asks a server itself begins: every status is an answer, no redirect is followed, and no proxy of the environment
/// is used.
pub fn direct(tls: TlsConfig) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .tls_config(tls)
}

/// Whether what is sent to this address could be read on the way there.
fn is_in_plain(base: &str) -> Result<bool, ControlError> {
    let bad = || ControlError::Address(base.to_owned());
    let uri: Uri = base.parse().map_err(|_| bad())?;
    match uri.scheme_str() {
        Some("https") => Ok(false),
        Some("http") => Ok(!uri.host().is_some_and(is_here)),
        Some(_) | None => Err(bad()),
    }
}

/// Whether a host is this machine, as far as its name alone tells.
pub fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::access::{Fingerprint, TOKEN_BYTES};

    fn token(fingerprint: Option<Fingerprint>) -> Option<Shown> {
        Some(Shown::token(&[1; TOKEN_BYTES], fingerprint))
    }

    #[test]
    fn f102_no_token_leaves_the_machine_without_tls() {
        for here in ["http://127.0.0.1:7400", "http://localhost:1/", "http://[::1]:7400", "https://control"] {
            assert!(Control::new(here, token(None), None).is_ok(), "{here}");
        }
        for away in ["http://control:7400", "http://10.0.0.1:7400", "http://localhost.example:1"] {
            assert!(matches!(Control::new(away, token(None), None), Err(ControlError::InPlain(_))), "{away}");
            assert!(Control::new(away, None, None).is_ok(), "nothing is shown to {away}");
        }
        for bad in ["control:7400", "ftp://control", "", "https://"] {
            assert!(matches!(Control::new(bad, None, None), Err(ControlError::Address(_))), "{bad}");
        }
    }

    #[test]
    fn f102_a_token_that_comes_later_does_not_leave_the_machine_without_tls_either() {
        let secret = || Secret::new("member_x".to_owned());
        for away in ["http://control:7400", "https://control,http://10.0.0.1:7400"] {
            for control in [Control::new(away, None, None).unwrap(), Control::open(away)] {
                let shown = control.show_token(token(None).unwrap());
                assert!(matches!(shown, Err(ControlError::InPlain(_))), "{away}");
                assert!(matches!(control.show(secret()), Err(ControlError::InPlain(_))), "{away}");
                assert!(control.bearer().is_none(), "nothing is shown to {away}");
            }
        }
        let here = Control::new("http://127.0.0.1:7400", None, None).unwrap();
        here.show_token(token(None).unwrap()).unwrap();
        here.show(secret()).unwrap();
        assert_eq!(here.bearer().unwrap().reveal(), "Bearer member_x");
    }

    #[test]
    fn servers_are_asked_in_turn_and_for_a_person_the_first_one_first() {
        for _ in 0..20 {
            let control = Control::new("https://a/, https://b", None, None).unwrap().in_order();
            let asked = [(); 3].map(|()| {
                let base = control.base().to_owned();
                control.go_on();
                base
            });
            assert_eq!(asked, ["https://a", "https://b", "https://a"]);
        }
    }

    #[test]
    fn what_is_shown_may_change_and_the_server_does_not() {
        let fingerprint = Some(Fingerprint::of(b"authority"));
        let control = Control::new("https://control", token(fingerprint), None).unwrap();
        control.show(Secret::new("member_x".to_owned())).unwrap();
        assert_eq!(control.bearer().unwrap().reveal(), "Bearer member_x");
        assert_eq!(control.shown.lock().unwrap().as_ref().unwrap().fingerprint, fingerprint);
        assert!(!format!("{control:?}").contains("member_x"), "p43");
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        for (text, says) in [(None, "No such file"), (Some("text"), "there is none")] {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let control = Control::new("https://control", None, Some(path.clone())).unwrap();
            let error = control.believed().unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(error.to_string().contains("ca.pem") && source.contains(says), "{error}: {source}");
        }
    }

    #[test]
    fn a_server_that_is_away_may_be_asked_again() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let control =
            Control::new(&format!("https://{free}"), token(Some(Fingerprint::of(b""))), None).unwrap();
        assert!(control.believed().unwrap_err().is_away());
    }
}
