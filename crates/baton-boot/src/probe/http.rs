//! The question of `run.health.http`.

use baton_core::run::HttpProbe;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;

use super::{ANSWER_BYTES_MAX, Finding, told};
use crate::stream::Stream;

/// Sends the request over a connection and judges the whole answer.
pub(super) async fn ask(stream: Stream, to: &str, probe: &HttpProbe) -> Finding {
    let failed = |error: &(dyn std::error::Error + 'static)| format!("GET {}: {}", probe.path, told(error));
    let request = request(to, probe).map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
    let ask = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (status, body) = (answer.status(), answer.into_body());
        // The whole answer: a program that dies in the middle of it is not healthy.
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("GET {}: {error}", probe.path))?.to_bytes();
        judge(probe, &status.to_string(), status.as_u16(), &body)
    };
    tokio::pin!(connection);
    tokio::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        // The connection may end with the answer's last byte: the answer is then complete all the same.
        _ = &mut connection => ask.await,
    }
}

fn request(to: &str, probe: &HttpProbe) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let host = probe.host.clone().unwrap_or_else(|| to.to_owned());
    let mut request = Request::get(&probe.path)
        .header("host", host)
        .header("user-agent", "baton-boot")
        .header("connection", "close")
        .body(Empty::new())?;
    for (name, value) in &probe.headers {
        request.headers_mut().insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok(request)
}

/// What is wrong with an answer; `line` is its status for people.
fn judge(probe: &HttpProbe, line: &str, status: u16, body: &[u8]) -> Finding {
    if !probe.accepts(status) {
        return Err(format!("GET {} answered {line}", probe.path));
    }
    match &probe.body {
        Some(text) if !contains(body, text.as_bytes()) => {
            Err(format!("GET {} answered {line} without {text:?} in its body", probe.path))
        }
        Some(_) | None => Ok(()),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_status_and_body() {
        let plain = HttpProbe::get("/h".to_owned());
        let strict = HttpProbe { body: Some("ok".to_owned()), ..plain.clone() };
        for (probe, line, body, wrong) in [
            (&plain, "200 OK", "", None),
            (&plain, "302 Found", "", None),
            (&plain, "503 Service Unavailable", "ok", Some("GET /h answered 503 Service Unavailable")),
            (&strict, "200 OK", "all ok.", None),
            (&strict, "200 OK", "o k", Some("GET /h answered 200 OK without \"ok\" in its body")),
            (&strict, "500 Internal Server Error", "ok", Some("GET /h answered 500 Internal Server Error")),
        ] {
            let status = line[..3].parse().unwrap();
            assert_eq!(
                judge(probe, line, status, body.as_bytes()).err().as_deref(),
                wrong,
                "{line} {body:?}"
            );
        }
    }

    #[test]
    fn a_request_has_what_the_settings_say() {
        let headers = [("User-Agent", "mine"), ("X-Probe", "1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let probe =
            HttpProbe { host: Some("web.test".to_owned()), headers, ..HttpProbe::get("/h?a=b".to_owned()) };
        let request = request("127.0.0.1:80", &probe).unwrap();
        let header = |name: &str| request.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(header("host"), ["web.test"]);
        assert_eq!(header("user-agent"), ["mine"]);
        assert_eq!(header("x-probe"), ["1"]);
        assert_eq!(request.uri(), "/h?a=b");
    }
}
