//! Asks a Prometheus server what rollouts that have a metric wait for.
//!
//! Every server of control asks for itself: whoever does not know gives no slots. What is asked is the deploy's, and where is
//! the operator's of this server alone, so that who may deploy sends control nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::deploy::Kind;
use baton_core::ids::{DeployId, ServiceName};
use baton_core::metric::{ANSWER_MAX, Measure, MetricGate, Sample};
use baton_core::words::Words;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use ureq::Agent;

use crate::board::Board;
use crate::clock::Clock;
use crate::keeper::{Ask, Inbox};

/// Most bytes of an answer that is one number.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long it rests where nothing is to be asked and nothing happens.
const REST: Duration = Duration::from_secs(60);

/// Why an address is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a Prometheus server: write http://HOST:PORT or https://HOST:PORT")]
pub struct InvalidPrometheus(String);

/// Where Prometheus is.
#[derive(Debug, Clone)]
pub(crate) struct Prometheus {
    base: String,
    agent: Agent,
}

impl Prometheus {
    /// At this address. Nothing is sent yet.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn at(address: &str) -> Result<Self, InvalidPrometheus> {
        let base = address.trim_end_matches('/');
        let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://")).unwrap_or_default();
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#' | '@')) {
            return Err(InvalidPrometheus(address.to_owned()));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_millis(ANSWER_MAX.0)))
            .build();
        Ok(Self { base: base.to_owned(), agent: Agent::new_with_config(config) })
    }

    /// The value of a query now, or why there is none. Blocks.
    fn ask(&self, query: &str) -> Result<Measure, String> {
        let url = format!("{}/api/v1/query", self.base);
        let mut answer = self
            .agent
            .get(&url)
            .query("query", query)
            .call()
            .map_err(|error| format!("{} does not answer: {error}", self.base))?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        read(&body.map_err(|error| format!("{} does not answer: {error}", self.base))?)
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
            assert!(Prometheus::at(bad).is_err(), "{bad}");
        }
        assert!(Prometheus::at("http://127.0.0.1:9090/prom/").is_ok());
    }
}
