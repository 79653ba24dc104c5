//! Who this member is to control: a token makes it a member, once; from then on it shows a credential, which it renews and keeps
//! on its disk.
//!
//! Nobody waits for any of this but the session: the program runs with control or without.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_core::access::{BadToken, Shown};
use baton_core::ids::{MemberId, ServiceName};
use baton_core::run::secrets::Secret;
use baton_release::control::{Believed, Control as Server, ControlError};
use baton_release::disk::{DiskError, failed, replace_private};
use baton_wire::access::{Join, Joined};
use baton_wire::api::Refused;
use hyper::header::HeaderValue;

use crate::config::{Control, TokenSource};
use crate::log;

/// Where the credential is, in the state directory: it, the service and the member it is of, and when to renew it, one on a line.
const CREDENTIAL: &str = "credential";
/// Where the key is by which control knows a member that asks a second time.
const KEY: &str = "credential-key";
/// How many random bytes that has.
const KEY_BYTES: usize = 32;
/// How soon a credential is asked for again that was not given.
const AGAIN: Duration = Duration::from_secs(60);

/// Why control does not know who this is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Control cannot be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It was asked, and refuses.
    #[error("{0}")]
    Refused(String),
    /// It answers with something else.
    #[error("control's answer is not understood")]
    NotUnderstood(#[source] Option<serde_json::Error>),
    /// What it gave cannot be kept.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The token cannot be read.
    #[error("the token in {} cannot be used", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadToken,
    },
    /// There are no random numbers to be had.
    #[error("the system has no random numbers")]
    Randomness(#[source] getrandom::Error),
}

/// Who this member is to control.
pub struct Identity {
    server: Arc<Server>,
    token: Option<TokenSource>,
    service: ServiceName,
    member: MemberId,
    dir: PathBuf,
    /// When the credential is to be renewed; none without one.
    due: Mutex<Option<SystemTime>>,
}

/// What is kept on disk.
struct Kept {
    shown: Shown,
    due: SystemTime,
}

impl TokenSource {
    /// The token, as it is now.
    fn read(&self) -> Result<Shown, IdentityError> {
        match self {
            Self::Text(token) => Ok(token.clone()),
            Self::File(path) => {
                let text = fs::read_to_string(path).map_err(failed("read", path))?;
                text.parse().map_err(|source| IdentityError::Token { path: path.clone(), source })
            }
        }
    }
}

impl Identity {
    /// As the settings and the state directory say. Nobody is asked yet.
    ///
    /// # Errors
    /// The token would be readable on its way to control.
    pub fn open(control: &Control, dir: &Path) -> Result<Self, ControlError> {
        let (service, member) = (control.service.clone(), control.member.clone());
        let token = control.token.as_ref().and_then(|token| token.read().ok());
        // A token for another control counts more than what the one before has given.
        let fingerprint = token.as_ref().and_then(|token| token.fingerprint);
        let same = |kept: &Kept| fingerprint.is_none() || kept.shown.fingerprint == fingerprint;
        let path = dir.join(CREDENTIAL);
        let kept = match read(&path, (&service, &member)) {
            Some(Left::Ours(kept)) => Some(kept).filter(same),
            Some(Left::Others(whose)) => {
                // With a token, this one becomes a member.
                if control.token.is_none() {
                    log::say(of_another(&path, &whose, (&service, &member)));
                }
                None
            }
            None => None,
        };
        let (shown, due) = kept.map_or((token, None), |kept| (Some(kept.shown), Some(kept.due)));
        let server = Arc::new(Server::new(&control.server, shown, control.authority.clone())?);
        let (token, dir, due) = (control.token.clone(), dir.to_owned(), Mutex::new(due));
        Ok(Self { server, token, service, member, dir, due })
    }

    /// Control.
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server)
    }

    /// What the session shows.
    pub fn bearer(&self) -> Option<HeaderValue> {
        let mut value: HeaderValue = self.server.bearer()?.reveal().parse().ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Makes sure that there is a credential, where there is a token for one, and says how control is known. Blocks.
    ///
    /// # Errors
    /// Control gives none, or is not there.
    pub fn ready(&self) -> Result<Believed, IdentityError> {
        match &self.token {
            Some(token) if self.due().is_none() => self.join(token)?,
            Some(_) | None if self.is_due() => {
                // Control may have been away for so long that this one has ended. If not, it is good for a while yet.
                if let Err(error) = self.renew() {
                    log::say(format_args!("this member's credential is not renewed: {}", log::chain(&error)));
                }
            }
            Some(_) | None => {}
        }
        Ok(self.server.believed()?)
    }

    /// Whether it is time for the next credential.
    pub fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= SystemTime::now())
    }

    /// When the next one is asked for; none without one.
    pub fn due(&self) -> Option<SystemTime> {
        *self.lock()
    }

    /// Control has refused what was shown: the next one is asked for before it is shown again, or, where it was asked for
    /// just now, in a while.
    pub fn doubt(&self) {
        if let Some(due) = &mut *self.lock()
            && *due > SystemTime::now() + AGAIN
        {
            *due = UNIX_EPOCH;
        }
    }

    /// Gets the next credential. Blocks.
    ///
    /// # Errors
    /// Control does not give it, or is not there: it is asked for again in a while.
    pub fn renew(&self) -> Result<(), IdentityError> {
        *self.lock() = Some(SystemTime::now() + AGAIN);
        match self.ask("/v1/renew", &[]) {
            Ok(joined) => self.keep(&joined),
            // What this member had is worth nothing any more; a new token may be there by now.
            Err(IdentityError::Refused(why)) => match &self.token {
                Some(token) => {
                    log::say(format_args!("this member's credential is not renewed: {why}"));
                    self.join(token)
                }
                None => Err(IdentityError::Refused(why)),
            },
            Err(error) => Err(error),
        }
    }

    /// Becomes a member.
    fn join(&self, token: &TokenSource) -> Result<(), IdentityError> {
        let token = token.read()?;
        let key = self.key()?;
        let (service, member) = (self.service.to_string(), self.member.to_string());
        let body = serde_json::to_vec(&Join { service, member, key });
        let body = body.map_err(|error| IdentityError::NotUnderstood(Some(error)))?;
        let before = self.server.shown();
        // It may be there only now: that it is safe on its way was not checked at the start.
        self.server.show_token(token)?;
        let joined = self.ask("/v1/join", &body).inspect_err(|_| self.show_again(before))?;
        self.keep(&joined)?;
        log::say(format_args!("control knows this member now"));
        Ok(())
    }

    /// A token that gives nothing is no reason to forget what this member had: control may take that again.
    fn show_again(&self, before: Option<Shown>) {
        if let Some(Err(error)) = before.map(|before| self.server.show_token(before)) {
            log::say(format_args!("what this member had is not shown any more: {error}"));
        }
    }

    fn ask(&self, path: &str, body: &[u8]) -> Result<Joined, IdentityError> {
        let (status, answer) = self.server.post(path, body)?;
        if status == 200 {
            return serde_json::from_slice(&answer)
                .map_err(|error| IdentityError::NotUnderstood(Some(error)));
        }
        let refused: Option<Refused> = serde_json::from_slice(&answer).ok();
        match refused {
            // It was heard, and may say otherwise in a moment.
            Some(refused) if status < 500 && status != 429 => Err(IdentityError::Refused(refused.message)),
            Some(_) | None => Err(IdentityError::NotUnderstood(None)),
        }
    }

    /// Shows a credential from now on, and keeps it for after a restart.
    fn keep(&self, joined: &Joined) -> Result<(), IdentityError> {
        // Members that joined together do not renew together.
        let after = Duration::from_millis(joined.renew_after_ms).mul_f64(1.0 - fastrand::f64() / 4.0);
        let due = SystemTime::now() + after;
        self.server.show(Secret::new(joined.credential.clone()))?;
        *self.lock() = Some(due);
        let since = due.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Some(shown) = self.server.shown() else { return Ok(()) };
        let text = format!("{}\n{}\n{}\n{since}\n", shown.to_secret().reveal(), self.service, self.member);
        Ok(replace_private(&self.dir.join(CREDENTIAL), text.as_bytes())?)
    }

    /// The key by which control knows this member again; it is on disk before it is sent.
    fn key(&self) -> Result<String, IdentityError> {
        let path = self.dir.join(KEY);
        match fs::read_to_string(&path) {
            Ok(key) if !key.trim().is_empty() => return Ok(key.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path)(error).into()),
        }
        let mut random = [0; KEY_BYTES];
        getrandom::fill(&mut random).map_err(IdentityError::Randomness)?;
        let key: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        replace_private(&path, key.as_bytes())?;
        Ok(key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SystemTime>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member, and its service.
type Whose<'a> = (&'a ServiceName, &'a MemberId);

/// What an earlier life has left.
enum Left {
    /// This member's credential.
    Ours(Kept),
    /// That of another one: this one had another name or service then.
    Others((ServiceName, MemberId)),
}

fn read(path: &Path, ours: Whose<'_>) -> Option<Left> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let shown = lines.next()?.parse().ok()?;
    let whose: (ServiceName, MemberId) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    if (&whose.0, &whose.1) != ours {
        return Some(Left::Others(whose));
    }
    let since: u64 = lines.next()?.parse().ok()?;
    Some(Left::Ours(Kept { shown, due: UNIX_EPOCH + Duration::from_secs(since) }))
}

/// Why this member has no credential, where there is one.
fn of_another(path: &Path, (service, member): &(ServiceName, MemberId), ours: Whose<'_>) -> String {
    let (of, is, set) = match ours.0 == service {
        true => (String::new(), String::new(), String::new()),
        false => (
            format!(" of service {service}"),
            format!(" of service {}", ours.0),
            format!("BATON_SERVICE={service} and "),
        ),
    };
    format!(
        "the credential in {} is of member {member}{of}, and this is {}{is}: set {set}BATON_MEMBER={member}, or give a token \
         (BATON_TOKEN_FILE)",
        path.display(),
        ours.1
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{self, Receiver};
    use std::thread;

    use super::*;
    use crate::config::SupplySettings;

    /// Refuses whatever it is asked, and tells what was shown to it.
    fn refuser() -> (String, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut asked = Vec::new();
                while !String::from_utf8_lossy(&asked).contains("\r\n\r\n") {
                    let mut some = [0; 4096];
                    let read = stream.read(&mut some).unwrap();
                    asked.extend_from_slice(&some[..read]);
                }
                let body = r#"{"code":"not-allowed","message":"you are not known"}"#;
                let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n", body.len());
                write!(stream, "{head}connection: close\r\n\r\n{body}").unwrap();
                let asked = String::from_utf8_lossy(&asked).into_owned();
                let shown = asked.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization"));
                let path = asked.split(' ').nth(1).unwrap();
                // Nobody may be listening any more.
                let _ = tell.send(format!("{path} {}", shown.unwrap().rsplit(' ').next().unwrap()));
            }
        });
        (address, told)
    }

    fn control(server: String) -> Control {
        Control {
            server,
            token: Some(TokenSource::Text("baton_once".parse().unwrap())),
            authority: None,
            service: "web".parse().unwrap(),
            member: "web-1".parse().unwrap(),
            labels: Vec::new(),
            trusted_keys: None,
            supply: SupplySettings::default(),
        }
    }

    #[test]
    fn a_token_that_was_used_up_does_not_take_the_place_of_the_credential() {
        let (address, told) = refuser();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CREDENTIAL), "member_mine\nweb\nweb-1\n0\n").unwrap();
        let identity = Identity::open(&control(address), dir.path()).unwrap();
        assert!(identity.is_due());
        identity.ready().unwrap();
        assert_eq!(told.recv().unwrap(), "/v1/renew member_mine");
        assert_eq!(told.recv().unwrap(), "/v1/join baton_once");
        assert_eq!(identity.bearer().unwrap(), "Bearer member_mine");
        // It was asked for just now.
        identity.doubt();
        assert!(!identity.is_due());
    }

    #[test]
    fn a_credential_of_another_member_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CREDENTIAL);
        let (service, member) = ("web".parse().unwrap(), "web-1".parse().unwrap());
        let told = |kept: &str| {
            fs::write(&path, kept).unwrap();
            match read(&path, (&service, &member)) {
                Some(Left::Others(whose)) => Some(of_another(&path, &whose, (&service, &member))),
                Some(Left::Ours(_)) | None => None,
            }
        };
        let is = format!("the credential in {} is of member", path.display());
        let token = "or give a token (BATON_TOKEN_FILE)";
        assert_eq!(
            told("member_theirs\nweb\na\n0\n"),
            Some(format!("{is} a, and this is web-1: set BATON_MEMBER=a, {token}"))
        );
        assert_eq!(
            told("member_theirs\napi\na\n0\n"),
            Some(format!(
                "{is} a of service api, and this is web-1 of service web: \
                 set BATON_SERVICE=api and BATON_MEMBER=a, {token}"
            ))
        );
        for ours in ["member_mine\nweb\nweb-1\n0\n", "", "member_mine\nwe b\na\n0\n", "member_mine\n"] {
            assert_eq!(told(ours), None, "{ours:?}");
        }
    }

    #[test]
    fn a_credential_that_control_refuses_is_renewed_before_it_is_shown_again() {
        let (address, _told) = refuser();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CREDENTIAL), "member_mine\nweb\nweb-1\n99999999999\n").unwrap();
        let identity = Identity::open(&control(address), dir.path()).unwrap();
        assert!(!identity.is_due());
        identity.doubt();
        assert!(identity.is_due());
    }
}
