//! The HTTP API of control, typed.

mod advice;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use baton_core::access::Shown;
use baton_core::history::TagName;
use baton_core::ids::{BuildKey, MemberId, ServiceName};
use baton_release::control::{Control, ControlError, Hindrance};
use baton_wire::access::{
    Approving, AuditPage, GuardView, MadeToken, MakeToken, PendingView, Protection, ProtectionView, TokenView,
};
use baton_wire::api::{
    DeployView, EventView, Forget, Forgotten, LockView, Locking, MemberStatus, Preview, Propose, Prune,
    Pruned, References, Refused, ReleaseView, Repair, Repaired, ServiceStatus, TagView, Tagging, Unlocked,
    Verified, Verify, Versions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use crate::exit::Exit;

/// How long to wait for a connection: a server that does not answer within it has a problem.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take beyond what the server was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may take for which the server looks at all that was made.
const LONG_TIMEOUT: Duration = Duration::from_secs(600);
/// The status of an answer to who has shown nothing, or nothing that is known.
const UNAUTHORIZED: u16 = 401;
/// Most bytes of an answer: the members of the largest fleet, 100,000, each with its last lines of output.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// What came back: a status and a body, whatever they are.
type Answer = Result<(u16, Vec<u8>), ClientError>;

/// Control, as operators see it: one server, or several, any of which will do.
#[derive(Debug)]
pub struct Client {
    control: Arc<Control>,
    /// Who asks, once it is known whom to believe.
    asking: OnceLock<Agent>,
}

/// Why control has not answered what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{base:?} is not the address of a server: write https://HOST:PORT, or http://HOST:PORT")]
    Address {
        /// As given.
        base: String,
    },
    /// The address has a port that there is not.
    #[error("{base:?} has the port {port:?}, which is none: write a number from 1 to 65535")]
    Port {
        /// As given.
        base: String,
        /// What stands for the port.
        port: String,
    },
    /// The address has a name and a password in it, which nobody would look at. They are not repeated here.
    #[error("the address of a server is https://HOST:PORT: a name and a password in it are not supported")]
    Credentials,
    /// It is not known whom to believe, or nothing may be shown there.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Nobody answers.
    #[error("control is unreachable at {base}: {advice}")]
    Unreachable {
        /// The address.
        base: String,
        /// What to do about it.
        advice: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// It was understood, and refused.
    #[error("{}", refused.message)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server says.
        refused: Refused,
    },
    /// Whoever answers is not control, or another version of it.
    #[error("{base} does not answer like control: is it the right address, and as new as this program?")]
    NotUnderstood {
        /// The address.
        base: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether it makes sense to try again: control is away or is being restarted.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => Exit::of_status(*status) == Exit::Unreachable,
            Self::Control(error) => error.is_away(),
            Self::Address { .. } | Self::Port { .. } | Self::Credentials | Self::NotUnderstood { .. } => {
                false
            }
        }
    }

    /// The same where all of these servers were asked.
    fn of_all(self, bases: &[String]) -> Self {
        match self {
            Self::Unreachable { advice, source, .. } => {
                Self::Unreachable { base: bases.join(", "), advice, source }
            }
            other => other,
        }
    }

    /// What happened, without advice for who has just begun.
    pub fn cause(&self) -> String {
        match self {
            Self::Unreachable { base, source, .. } => format!("{base}: {source}"),
            Self::Refused { .. }
            | Self::Address { .. }
            | Self::Port { .. }
            | Self::Credentials
            | Self::Control(_)
            | Self::NotUnderstood { .. } => self.to_string(),
        }
    }
}

impl Client {
    /// The control server at this address, to which nothing is shown. Nothing is sent yet.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        Self::of(base, None, None)
    }

    /// The control server at this address, or several, with commas between, to which a token is shown; `authority` is a file with certificates to believe.
    /// Nothing is sent yet.
    ///
    /// Proxies named in the environment are not used, as with members.
    ///
    /// # Errors
    /// The address is none, or the token could be read on its way.
    pub fn of(base: &str, token: Option<Shown>, authority: Option<PathBuf>) -> Result<Self, ClientError> {
        base.split(',').try_for_each(|base| check(base.trim().trim_end_matches('/')))?;
        let control = Arc::new(Control::new(base, token, authority)?.in_order());
        Ok(Self { control, asking: OnceLock::new() })
    }

    /// The address of the one that is asked now.
    pub fn base(&self) -> &str {
        self.control.base()
    }

    /// Where it is, whom to believe there, and who asks: for its artefact store.
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Every service.
    pub fn services(&self) -> Result<Vec<ServiceStatus>, ClientError> {
        self.get("/v1/services", Duration::ZERO)
    }

    /// One service, as it is now.
    pub fn service(&self, service: &ServiceName) -> Result<ServiceStatus, ClientError> {
        self.get(&format!("/v1/services/{service}"), Duration::ZERO)
    }

    /// One service, as soon as it is newer than this version, or as it is after `wait`.
    pub fn service_after(
        &self,
        service: &ServiceName,
        version: u64,
        wait: Duration,
    ) -> Result<ServiceStatus, ClientError> {
        let (wait_ms, path) = (wait.as_millis(), format!("/v1/services/{service}"));
        let newer = format!("{path}?after={version}&wait_ms={wait_ms}");
        let told_by = self.base().to_owned();
        self.answer(|agent| {
            // The versions of another server are others: it says at once how it is.
            let path = if self.base() == told_by { &newer } else { &path };
            self.without_body(agent.get(self.url(path)), wait + ANSWER_TIMEOUT)
        })
    }

    /// The members of a service.
    pub fn members(&self, service: &ServiceName) -> Result<Vec<MemberStatus>, ClientError> {
        self.get(&format!("/v1/services/{service}/members"), Duration::ZERO)
    }

    /// Lets members go that will not come back, and tells which.
    pub fn forget(&self, service: &ServiceName, asked: &Forget) -> Result<Forgotten, ClientError> {
        self.post(&format!("/v1/services/{service}/members/forget"), asked)
    }

    /// The deploys of a service, newest first.
    pub fn deploys(&self, service: &ServiceName) -> Result<Vec<DeployView>, ClientError> {
        self.get(&format!("/v1/services/{service}/deploys"), Duration::ZERO)
    }

    /// The releases, newest first.
    pub fn releases(&self) -> Result<Vec<ReleaseView>, ClientError> {
        self.get("/v1/releases", Duration::ZERO)
    }

    /// Removes releases that nobody needs, or tells which would go.
    pub fn prune(&self, asked: &Prune) -> Result<Pruned, ClientError> {
        self.send("/v1/releases/prune", asked, LONG_TIMEOUT)
    }

    /// Checks a part of what the server keeps, and says where to go on.
    pub fn verify(&self, asked: &Verify) -> Result<Verified, ClientError> {
        self.send("/v1/releases/verify", asked, LONG_TIMEOUT)
    }

    /// Has it given back what it has lost of some releases, from members that are connected to it.
    pub fn repair(&self, asked: &Repair) -> Result<Repaired, ClientError> {
        self.send("/v1/releases/repair", asked, LONG_TIMEOUT)
    }

    /// Some of the events after this number, oldest first; waits for the first for as long as `wait`.
    pub fn events(
        &self,
        service: Option<&ServiceName>,
        after: u64,
        wait: Duration,
    ) -> Result<Vec<EventView>, ClientError> {
        let of = service.map(|service| format!("&service={service}")).unwrap_or_default();
        let wait_ms = wait.as_millis();
        self.get(&format!("/v1/events?after={after}&wait_ms={wait_ms}{of}"), wait)
    }

    /// Puts a deploy in force. It is durable on return, and sent again with the same key it is made once.
    pub fn propose(&self, service: &ServiceName, proposal: &Propose) -> Result<DeployView, ClientError> {
        self.post(&format!("/v1/services/{service}/deploys"), proposal)
    }

    /// Locks a service. It is durable on return.
    pub fn lock(&self, service: &ServiceName, why: &Locking) -> Result<LockView, ClientError> {
        self.post(&format!("/v1/services/{service}/lock"), why)
    }

    /// Unlocks a service, and tells what the lock was, and which one holds on.
    pub fn unlock(&self, service: &ServiceName, why: &Locking) -> Result<Option<Unlocked>, ClientError> {
        self.post(&format!("/v1/services/{service}/unlock"), why)
    }

    /// The tags of a service.
    pub fn tags(&self, service: &ServiceName) -> Result<Vec<TagView>, ClientError> {
        self.get(&format!("/v1/services/{service}/tags"), Duration::ZERO)
    }

    /// Gives a release a tag. It is durable on return.
    pub fn tag(
        &self,
        service: &ServiceName,
        tag: &TagName,
        tagging: &Tagging,
    ) -> Result<TagView, ClientError> {
        self.put(&format!("/v1/services/{service}/tags/{tag}"), tagging)
    }

    /// Takes a tag away, and tells what it was.
    pub fn untag(&self, service: &ServiceName, tag: &TagName) -> Result<Option<TagView>, ClientError> {
        let path = format!("/v1/services/{service}/tags/{tag}");
        self.answer(|agent| self.without_body(agent.delete(self.url(&path)), ANSWER_TIMEOUT))
    }

    /// What a proposal with `dry_run` would do.
    pub fn preview(&self, service: &ServiceName, proposal: &Propose) -> Result<Preview, ClientError> {
        self.post(&format!("/v1/services/{service}/deploys"), proposal)
    }

    /// Where the outputs of a build step are; nothing when nobody has made them.
    pub fn outputs(&self, key: BuildKey) -> Result<Option<String>, ClientError> {
        let path = format!("/v1/builds/{key}");
        match self.body(|agent| self.without_body(agent.get(self.url(&path)), ANSWER_TIMEOUT))? {
            (404, _) => Ok(None),
            (200, body) => Ok(Some(String::from_utf8_lossy(&body).into_owned())),
            (status, body) => Err(self.refused(status, &body)),
        }
    }

    /// Keeps where the outputs of a build step are. `false` when the store lacks some of them.
    pub fn keep_outputs(&self, key: BuildKey, record: &str) -> Result<bool, ClientError> {
        let path = format!("/v1/builds/{key}");
        let send = |agent: &Agent| {
            let request = self.control.bear(agent.put(self.url(&path)));
            request.config().timeout_global(Some(LONG_TIMEOUT)).build().send(record)
        };
        match self.body(send)? {
            (404, _) => Ok(false),
            (200, _) => Ok(true),
            (status, body) => Err(self.refused(status, &body)),
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, ClientError> {
        self.answer(|agent| self.without_body(agent.get(self.url(path)), wait + ANSWER_TIMEOUT))
    }

    /// The tokens that were given out.
    pub fn tokens(&self) -> Result<Vec<TokenView>, ClientError> {
        self.get("/v1/tokens", Duration::ZERO)
    }

    /// Makes a token. Sent again it is the same one.
    pub fn make_token(&self, asked: &MakeToken) -> Result<MadeToken, ClientError> {
        self.post("/v1/tokens", asked)
    }

    /// Makes a token worth nothing.
    pub fn revoke_token(&self, id: &str) -> Result<TokenView, ClientError> {
        let path = format!("/v1/tokens/{id}");
        self.answer(|agent| self.without_body(agent.delete(self.url(&path)), ANSWER_TIMEOUT))
    }

    /// Makes what a member has worth nothing.
    pub fn revoke_member(&self, service: &ServiceName, member: &MemberId) -> Result<(), ClientError> {
        let path = format!("/v1/services/{service}/members/{member}/credential");
        let answer: Result<serde_json::Value, _> =
            self.answer(|agent| self.without_body(agent.delete(self.url(&path)), ANSWER_TIMEOUT));
        answer.map(drop)
    }

    /// The deploys that wait for a second person.
    pub fn pending(&self) -> Result<Vec<PendingView>, ClientError> {
        self.get("/v1/pending", Duration::ZERO)
    }

    /// Lets one of them begin.
    pub fn approve(&self, pending: &PendingView, approving: &Approving) -> Result<DeployView, ClientError> {
        let path = format!("/v1/services/{}/pending/{}", pending.service, pending.id);
        self.post(&path, approving)
    }

    /// Lets one of them wait no more.
    pub fn reject(&self, pending: &PendingView) -> Result<PendingView, ClientError> {
        let path = format!("/v1/services/{}/pending/{}", pending.service, pending.id);
        self.answer(|agent| self.without_body(agent.delete(self.url(&path)), ANSWER_TIMEOUT))
    }

    /// Lets deploys of a service wait for a second person, or no more.
    pub fn protect(
        &self,
        service: &ServiceName,
        protection: Protection,
    ) -> Result<ProtectionView, ClientError> {
        self.put(&format!("/v1/services/{service}/protection"), &protection)
    }

    fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|source| self.not_understood(source))?;
        self.answer(|agent| {
            let request = self.control.bear(agent.put(self.url(path))).content_type("application/json");
            request.config().timeout_global(Some(ANSWER_TIMEOUT)).build().send(&body)
        })
    }

    /// The guards that are switched off.
    pub fn guards(&self) -> Result<Vec<GuardView>, ClientError> {
        self.get("/v1/guards", Duration::ZERO)
    }

    /// Some of the audit log, after this record.
    pub fn audit(&self, after: u64) -> Result<AuditPage, ClientError> {
        self.get(&format!("/v1/audit?after={after}"), Duration::ZERO)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.control.base())
    }

    fn without_body(
        &self,
        request: RequestBuilder<WithoutBody>,
        limit: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        self.control.bear(request).config().timeout_global(Some(limit)).build().call()
    }

    /// Who asks.
    fn asking(&self) -> Result<&Agent, ClientError> {
        if let Some(asking) = self.asking.get() {
            return Ok(asking);
        }
        let asking = self.control.asking().map_err(|error| match error {
            ControlError::Unreachable { source, .. } => self.unreachable(ureq::Error::Io(source)),
            ControlError::Stranger { source, .. } if Hindrance::of_io(&source) == Hindrance::NotTls => {
                self.unreachable(ureq::Error::Io(source))
            }
            other => ClientError::Control(other),
        })?;
        let config = asking.timeout_connect(Some(CONNECT_TIMEOUT)).build();
        Ok(self.asking.get_or_init(|| Agent::new_with_config(config)))
    }

    /// Which versions of secrets are current.
    pub fn versions(&self, references: &References) -> Result<Vec<Option<String>>, ClientError> {
        self.post("/v1/secrets/versions", references).map(|Versions { versions }| versions)
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.send(path, body, ANSWER_TIMEOUT)
    }

    fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|source| self.not_understood(source))?;
        self.answer(|agent| {
            let request = self.control.bear(agent.post(self.url(path))).content_type("application/json");
            request.config().timeout_global(Some(limit)).build().send(&body)
        })
    }

    fn answer<T: DeserializeOwned>(
        &self,
        send: impl Fn(&Agent) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let (status, body) = self.body(send)?;
        if (200..300).contains(&status) {
            serde_json::from_slice(&body).map_err(|source| self.not_understood(source))
        } else {
            Err(self.refused(status, &body))
        }
    }

    /// Sends a request to one server after the other until one can work.
    fn body(&self, send: impl Fn(&Agent) -> Result<Response<Body>, ureq::Error>) -> Answer {
        let bases = self.control.bases();
        let mut answer = self.body_of_one(&send);
        for _ in 1..bases.len() {
            if !is_away(&answer) {
                break;
            }
            self.control.go_on();
            let next = self.body_of_one(&send);
            // Who answers, and cannot work, says more than who does not answer.
            if !is_away(&next) || answer.is_err() && next.is_ok() {
                answer = next;
            }
        }
        answer.map_err(|error| error.of_all(bases))
    }

    /// Sends a request, once more if the connection broke: everything that is sent may arrive twice.
    fn body_of_one(&self, send: impl Fn(&Agent) -> Result<Response<Body>, ureq::Error>) -> Answer {
        let asking = self.asking()?;
        let read = || {
            let mut response = send(asking)?;
            let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
            Ok((response.status().as_u16(), body))
        };
        let answered = match read() {
            Err(error) if broke(&error) => read(),
            first => first,
        };
        answered.map_err(|source| self.unreachable(source))
    }

    fn unreachable(&self, source: ureq::Error) -> ClientError {
        let base = self.base().to_owned();
        let advice = advice::advice(Hindrance::of(&source), &base, self.control.authority());
        ClientError::Unreachable { base, advice, source: Box::new(source) }
    }

    /// What a server says instead of the answer, with what to do about it here.
    fn refused(&self, status: u16, body: &[u8]) -> ClientError {
        let mut refused = refused(self.base(), status, body);
        if status == UNAUTHORIZED && self.control.shown().is_none() {
            refused.message.push_str(advice::NO_TOKEN);
        }
        ClientError::Refused { status, refused }
    }

    fn not_understood(&self, source: serde_json::Error) -> ClientError {
        ClientError::NotUnderstood { base: self.base().to_owned(), source }
    }
}

/// Whether an address is one of a server.
fn check(base: &str) -> Result<(), ClientError> {
    let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://")).unwrap_or_default();
    if host.is_empty() || host.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err(ClientError::Address { base: base.to_owned() });
    }
    if host.contains('@') {
        return Err(ClientError::Credentials);
    }
    match port(host).filter(|port| !port.parse().is_ok_and(|port: u16| port > 0)) {
        Some(port) => Err(ClientError::Port { port: port.to_owned(), base: base.to_owned() }),
        None => Ok(()),
    }
}

/// Whether another server may be better off.
fn is_away(answer: &Answer) -> bool {
    match answer {
        Ok((status, _)) => Exit::of_status(*status) == Exit::Unreachable,
        Err(error) => error.is_away(),
    }
}

/// What stands for the port behind a host, if anything does: an address of IPv6 has colons of its own, in brackets.
fn port(host: &str) -> Option<&str> {
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    behind.rsplit_once(':').map(|(_, port)| port)
}

/// Whether a connection that was there has broken: the server may have been restarted in between.
fn broke(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() != std::io::ErrorKind::ConnectionRefused,
        ureq::Error::Protocol(_) => true,
        // Time-outs and mistakes in the request would only repeat, and the list may grow.
        _ => false,
    }
}

/// What a server says instead of the answer. A proxy in between does not speak JSON, and neither does who is no control.
fn refused(base: &str, status: u16, body: &[u8]) -> Refused {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().unwrap_or_default().trim();
        let message = match Exit::of_status(status) {
            Exit::Unreachable => format!("the server answers {status}: {line}"),
            _ => format!(
                "{base} does not answer like control, but with {status} ({line}): name control with --server"
            ),
        };
        Refused { code: "failed".to_owned(), message }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_http_and_nothing_more() {
        for good in [
            "http://127.0.0.1:7400",
            "http://control/",
            "http://[::1]:7400",
            "https://control:7400",
            "https://a/, https://b:1",
        ] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:7400",
            "ftp://control",
            "http://",
            "https://",
            "http://a b",
            "http://a/b",
            "https://a,",
            "https://a,b",
        ] {
            assert!(matches!(Client::new(bad), Err(ClientError::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn a_port_that_is_none_and_a_password_are_refused() {
        for bad in ["http://127.0.0.1:99999", "http://[::1]:0", "http://control:", "http://a:b"] {
            assert!(matches!(Client::new(bad), Err(ClientError::Port { .. })), "{bad}");
        }
        let error = Client::new("http://kim:secret@control:7400").unwrap_err();
        assert!(matches!(error, ClientError::Credentials) && !error.to_string().contains("secret"));
        assert!(Client::new("http://[::1]").is_ok());
    }

    #[test]
    fn who_refuses_without_json_is_quoted() {
        let json = br#"{"code":"conflict","message":"somebody was faster","new":1}"#;
        let refused = |status, body| refused("http://control", status, body);
        assert_eq!(refused(409, json).code, "conflict");
        assert_eq!(refused(502, b"Bad Gateway\n<html>").message, "the server answers 502: Bad Gateway");
        let stranger = refused(404, b"<!DOCTYPE HTML>\n<html>").message;
        assert_eq!(
            stranger,
            "http://control does not answer like control, but with 404 (<!DOCTYPE HTML>): name control with --server"
        );
    }
}
