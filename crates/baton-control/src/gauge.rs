//! Asks a Prometheus server what rollouts that have a metric wait for.
//!
//! Every server of control asks for itself: whoever does not know gives no slots. What is asked is the deploy's, and where is
//! the operator's of this server alone, so that who may deploy sends control nowhere else.

mod login;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_core::deploy::Kind;
use baton_core::ids::{DeployId, ServiceName};
use baton_core::metric::{ANSWER_MAX, Measure, MetricGate, Sample};
use baton_core::words::Words;
use baton_release::control::is_here;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use ureq::Agent;
use ureq::http::header::AUTHORIZATION;
use ureq::http::{StatusCode, Uri};

pub use self::login::{LoginError, PrometheusLogin};
use crate::board::Board;
use crate::chain::chain;
use crate::clock::Clock;
use crate::keeper::{Ask, Inbox};

/// Most bytes of an answer that is one number.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long it rests where nothing is to be asked and nothing happens.
const REST: Duration = Duration::from_secs(60);

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPrometheus {
    /// The address is none.
    #[error("{0:?} is not the address of a Prometheus server: write http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// There is something to show, and no address of who is to see it.
    #[error("there is no Prometheus server that is to see what is in {}: say which one, with --prometheus", .0.display())]
    Nobody(PathBuf),
    /// Others could read on the way what is shown.
    #[error(
        "what is in {} could be read on the way to {address}: use https://, or a proxy on this machine that does",
        path.display()
    )]
    Plain {
        /// The file.
        path: PathBuf,
        /// Where it would go.
        address: String,
    },
    /// There is nothing to show.
    #[error(transparent)]
    Login(#[from] LoginError),
}

/// Where Prometheus is.
#[derive(Debug, Clone)]
pub(crate) struct Prometheus {
    base: String,
    agent: Agent,
    login: Option<PrometheusLogin>,
}

impl Prometheus {
    /// The one that this server asks, where there is one.
    ///
    /// # Errors
    /// See [`Prometheus::at`], or there is something to show and nobody to see it.
    pub(crate) fn new(
        address: Option<&str>,
        login: Option<PrometheusLogin>,
    ) -> Result<Option<Self>, InvalidPrometheus> {
        match (address, login) {
            (Some(address), login) => Self::at(address, login).map(Some),
            (None, Some(login)) => Err(InvalidPrometheus::Nobody(login.path().clone())),
            (None, None) => Ok(None),
        }
    }

    /// At this address, which is shown this. Nothing is sent yet.
    ///
    /// # Errors
    /// It is none, or there is nothing to show, or others could read that on the way.
    pub(crate) fn at(address: &str, login: Option<PrometheusLogin>) -> Result<Self, InvalidPrometheus> {
        let base = address.trim_end_matches('/');
        let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://")).unwrap_or_default();
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#' | '@')) {
            return Err(InvalidPrometheus::Address(address.to_owned()));
        }
        if let Some(login) = &login {
            let uri: Uri = base.parse().map_err(|_| InvalidPrometheus::Address(address.to_owned()))?;
            if base.starts_with("http://") && !uri.host().is_some_and(is_here) {
                let (path, address) = (login.path().clone(), base.to_owned());
                return Err(InvalidPrometheus::Plain { path, address });
            }
            // A mistake in it is told now, and not in the first rollout.
            login.header()?;
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_millis(ANSWER_MAX.0)))
            .build();
        Ok(Self { base: base.to_owned(), agent: Agent::new_with_config(config), login })
    }

    /// The value of a query now, or why there is none. Blocks.
    fn ask(&self, query: &str) -> Result<Measure, String> {
        let url = format!("{}/api/v1/query", self.base);
        let mut request = self.agent.get(&url).query("query", query);
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, login.header().map_err(|error| chain(&error))?.reveal());
        }
        let mut answer = request.call().map_err(|error| format!("{} does not answer: {error}", self.base))?;
        if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.not_let_in(answer.status()));
        }
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        read(&body.map_err(|error| format!("{} does not answer: {error}", self.base))?)
    }

    fn not_let_in(&self, status: StatusCode) -> String {
        let (base, status) = (&self.base, status.as_u16());
        match &self.login {
            Some(login) => {
                let path = login.path().display();
                format!(
                    "{base} does not let this server in with what is in {path} ({status}): replace it there"
                )
            }
            None => format!(
                "{base} wants to know who asks ({status}): start this server with --prometheus-token-file or \
                 --prometheus-password-file"
            ),
        }
    }
}

/// An answer of the API of Prometheus, as far as it is looked at.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Series {
    value: (f64, String),
}

/// The one number in an answer.
fn read(body: &str) -> Result<Measure, String> {
    let answer: Answer =
        serde_json::from_str(body).map_err(|_| "what answers is not Prometheus".to_owned())?;
    if answer.status != "success" {
        return Err(format!("Prometheus refuses the query: {}", Words::new(&answer.error)));
    }
    let no_number = || "the query does not find a number at one time".to_owned();
    let Data { kind, result } = answer.data.ok_or_else(no_number)?;
    let value = match kind.as_str() {
        "scalar" => serde_json::from_value::<(f64, String)>(result).map_err(|_| no_number())?.1,
        "vector" => {
            let series: Vec<Series> = serde_json::from_value(result).map_err(|_| no_number())?;
            match &series[..] {
                [] => return Err("the query finds nothing".to_owned()),
                [one] => one.value.1.clone(),
                many => {
                    return Err(format!("the query finds {} series: make them one, with sum()", many.len()));
                }
            }
        }
        _ => return Err(no_number()),
    };
    value.parse().map_err(|_| format!("the query finds {}, which is no number", Words::new(&value)))
}

/// Asks for all rollouts that have a metric, until nobody is left to tell.
pub(crate) async fn run(
    prometheus: Option<Prometheus>,
    mut board: watch::Receiver<Arc<Board>>,
    inbox: Inbox,
    clock: Clock,
) {
    let mut next: BTreeMap<(ServiceName, DeployId), Instant> = BTreeMap::new();
    loop {
        let wanted = wanted(&board.borrow_and_update());
        let now = Instant::now();
        next.retain(|rollout, _| wanted.contains_key(rollout));
        for (rollout, (query, gate)) in wanted {
            let due = next.entry(rollout.clone()).or_insert(now);
            if *due <= now {
                *due = now + Duration::from_millis(gate.interval.0);
                tokio::spawn(measure(prometheus.clone(), rollout, query, inbox.clone(), clock));
            }
        }
        let soon = next.values().min().copied().unwrap_or(now + REST);
        tokio::select! {
            changed = board.changed() => if changed.is_err() { return },
            () = sleep_until(soon) => {}
            () = inbox.closed() => return,
        }
    }
}

/// What is to be asked: of rollouts that have a metric and have not reached their target.
fn wanted(board: &Board) -> BTreeMap<(ServiceName, DeployId), (String, MetricGate)> {
    let mut wanted = BTreeMap::new();
    for (name, posted) in &board.services {
        let Some(deploy) = posted.service.history().in_force() else { continue };
        let under_way =
            deploy.kind == Kind::Rollout && posted.service.milestones(deploy.id).switched.is_none();
        if let Some(gate) = deploy.policy.metric.as_ref().filter(|_| under_way) {
            let query = gate.query_for(name, deploy.release);
            wanted.insert((name.clone(), deploy.id), (query, gate.clone()));
        }
    }
    wanted
}

/// Asks once, and tells what came of it.
async fn measure(
    prometheus: Option<Prometheus>,
    (service, deploy): (ServiceName, DeployId),
    query: String,
    inbox: Inbox,
    clock: Clock,
) {
    // What is answered is how it was at the latest when it was asked.
    let at = clock.now();
    let found = match prometheus {
        None => Err("this server knows no Prometheus: start it with --prometheus".to_owned()),
        Some(prometheus) => spawn_blocking(move || prometheus.ask(&query))
            .await
            .unwrap_or_else(|_| Err("the server is stopping".to_owned())),
    };
    // Nobody wants to know any more where it ends.
    let _ = inbox.send(Ask::Measured { service, deploy, sample: Sample { at, found } }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f81_one_number_is_read_and_everything_else_is_named() {
        let vector = |result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#)
        };
        let series = r#"{"metric":{"job":"web"},"value":[1435781451.781,"0.05"]}"#;
        assert_eq!(read(&vector(series)).unwrap().to_string(), "0.05");
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}"#;
        assert_eq!(read(scalar).unwrap().to_string(), "7");
        let nan = r#"{"metric":{},"value":[1,"NaN"]}"#;
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        let error = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        for (body, says) in [
            (vector(""), "finds nothing"),
            (vector(&format!("{series},{series}")), "2 series"),
            (vector(nan), "finds NaN"),
            (matrix.to_owned(), "not find a number"),
            (error.to_owned(), "refuses the query: parse error"),
            ("<html>".to_owned(), "not Prometheus"),
            (String::new(), "not Prometheus"),
        ] {
            let why = read(&body).unwrap_err();
            assert!(why.contains(says), "{body}: {why}");
        }
    }

    #[test]
    fn p36_what_prometheus_says_is_told_in_one_line_of_bounded_length() {
        let long = "x\\u001b[31m\\n".repeat(10_000);
        let error = format!(r#"{{"status":"error","error":"{long}"}}"#);
        let value =
            format!(r#"{{"status":"success","data":{{"resultType":"scalar","result":[1,"{long}"]}}}}"#);
        for body in [error, value] {
            let why = read(&body).unwrap_err();
            assert!(why.len() < 400 && !why.contains(char::is_control) && why.contains("x [31m"), "{why:?}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for bad in ["", "localhost:9090", "ftp://x", "http://", "http://a b", "http://u:p@host"] {
            assert!(Prometheus::at(bad, None).is_err(), "{bad}");
        }
        assert!(Prometheus::at("http://127.0.0.1:9090/prom/", None).is_ok());
    }

    #[test]
    fn p43_what_is_shown_is_sent_nowhere_where_others_could_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "hunter2\n").unwrap();
        let at = |address: &str| Prometheus::at(address, Some(PrometheusLogin::Token(file.clone())));
        for fine in [
            "https://prometheus.internal",
            "https://10.0.0.1:9090/prom",
            "http://127.0.0.1:9090",
            "http://[::1]:9090",
            "http://localhost:9090/x",
        ] {
            assert!(at(fine).is_ok(), "{fine}");
        }
        for bad in [
            "http://prometheus.internal",
            "http://10.0.0.1:9090",
            "http://127.0.0.1.example:9090",
            "http://localhost.example",
        ] {
            let error = at(bad).unwrap_err();
            assert!(matches!(error, InvalidPrometheus::Plain { .. }), "{bad}: {error}");
            assert!(Prometheus::at(bad, None).is_ok(), "{bad}");
        }
        std::fs::write(&file, "").unwrap();
        assert!(matches!(at("https://prometheus.internal"), Err(InvalidPrometheus::Login(_))));
        let nobody = Prometheus::new(None, Some(PrometheusLogin::Token(file.clone())));
        assert!(matches!(nobody, Err(InvalidPrometheus::Nobody(_))));
        assert!(Prometheus::new(None, None).unwrap().is_none());
    }
}
