//! How a program is judged, as lines of a manifest: `run.health.<key> <value>`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::fault::{Fault, TextError};
use super::lines::{Lines, Words, quote};
use super::run_lines::{read_value, refused};
use crate::run::{HealthCheck, HttpProbe, Probe, StatusRange};
use crate::units::Millis;

const PROBE: &str = "run.health.probe";
const STATUS: &str = "run.health.status";
const HEADER: &str = "run.health.header";
const HOST: &str = "run.health.host";
const BODY: &str = "run.health.body";
const LISTENER: &str = "run.health.listener";

/// The kind of a probe, before its details are read.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Http,
    Grpc,
    Tcp,
    Exec,
}

const KINDS: [(&str, Kind); 4] =
    [("http", Kind::Http), ("grpc", Kind::Grpc), ("tcp", Kind::Tcp), ("exec", Kind::Exec)];

/// The lines, in the order of the manifest.
pub(super) fn write(health: &HealthCheck) -> Vec<(&'static str, String)> {
    let HealthCheck { probe, listener, interval, timeout, failures, successes } = health;
    let mut lines = match probe {
        Probe::Http(http) => http_lines(http),
        Probe::Grpc { service } => Vec::from([(PROBE, format!("grpc {}", quote(service)))]),
        Probe::Tcp => Vec::from([(PROBE, "tcp".to_string())]),
        Probe::Exec { command } => {
            let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
            Vec::from([(PROBE, format!("exec {}", words.join(" ")))])
        }
    };
    lines.extend(listener.iter().map(|listener| (LISTENER, quote(listener))));
    lines.push(("run.health.interval", interval.0.to_string()));
    lines.push(("run.health.timeout", timeout.0.to_string()));
    lines.push(("run.health.failures", failures.to_string()));
    lines.push(("run.health.successes", successes.to_string()));
    lines
}

fn http_lines(http: &HttpProbe) -> Vec<(&'static str, String)> {
    let HttpProbe { path, status, headers, host, body } = http;
    let mut lines = Vec::from([(PROBE, format!("http {}", quote(path)))]);
    if *status != [StatusRange::DEFAULT] {
        lines.extend(status.iter().map(|range| (STATUS, range.to_string())));
    }
    lines.extend(headers.iter().map(|(name, value)| (HEADER, format!("{} {}", quote(name), quote(value)))));
    lines.extend(host.iter().map(|host| (HOST, quote(host))));
    lines.extend(body.iter().map(|body| (BODY, quote(body))));
    lines
}

/// Reads what [`write`] wrote; none when there is no probe.
pub(super) fn read(lines: &mut Lines<'_>) -> Result<Option<HealthCheck>, TextError> {
    let Some(mut words) = lines.take(PROBE)? else {
        return Ok(None);
    };
    let probe = match words.one_of(&KINDS)? {
        Kind::Http => {
            let path = words.quoted()?;
            words.end()?;
            Probe::Http(read_http(lines, &words, path)?)
        }
        Kind::Grpc => Probe::Grpc { service: last(&mut words)? },
        Kind::Tcp => {
            words.end()?;
            Probe::Tcp
        }
        Kind::Exec => Probe::Exec { command: read_command(&mut words)? },
    };
    let listener = match probe.connects() {
        true => Some(last(&mut lines.expect(LISTENER)?)?),
        false => None,
    };
    Ok(Some(HealthCheck {
        probe,
        listener,
        interval: Millis(read_value(lines, "run.health.interval")?),
        timeout: Millis(read_value(lines, "run.health.timeout")?),
        failures: read_value(lines, "run.health.failures")?,
        successes: read_value(lines, "run.health.successes")?,
    }))
}

fn read_http(lines: &mut Lines<'_>, line: &Words<'_>, path: String) -> Result<HttpProbe, TextError> {
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = "a path starts with `/` and has printable ASCII characters only";
        return Err(line.fault(refused(PROBE, why)));
    }
    let mut http = HttpProbe::get(path);
    let mut status: Vec<StatusRange> = Vec::new();
    while let Some(mut words) = lines.take(STATUS)? {
        status.push(words.value("a status, or two with a - between them")?);
        words.end()?;
    }
    if status == [StatusRange::DEFAULT] {
        return Err(line.fault(refused(STATUS, "this is the default, which has no line")));
    }
    if !status.is_empty() {
        http.status = status;
    }
    while let Some(mut words) = lines.take(HEADER)? {
        let (name, value) = (words.quoted()?, words.quoted()?);
        words.end()?;
        check_header(&words, &http.headers, &name, &value)?;
        http.headers.push((name, value));
    }
    http.host = lines.take(HOST)?.map(|mut words| last(&mut words)).transpose()?;
    if http.host.as_ref().is_some_and(|host| host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(line.fault(refused(HOST, "a host has printable ASCII characters only")));
    }
    http.body = lines.take(BODY)?.map(|mut words| last(&mut words)).transpose()?;
    Ok(http)
}

/// What would make another request of it is refused.
fn check_header(
    line: &Words<'_>,
    before: &[(String, String)],
    name: &str,
    value: &str,
) -> Result<(), TextError> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let printable = |c: char| matches!(c, ' '..='~');
    if name.is_empty() || !name.bytes().all(token) || !value.chars().all(printable) {
        let why = "a header has a name of letters, digits and -, and a value of printable ASCII characters";
        return Err(line.fault(refused(HEADER, why)));
    }
    if before.last().is_some_and(|(last, _)| last.as_str() >= name) {
        return Err(line.fault(refused(HEADER, "names are sorted, each once")));
    }
    Ok(())
}

fn read_command(words: &mut Words<'_>) -> Result<Vec<String>, TextError> {
    let mut command = Vec::new();
    while !words.is_empty() {
        command.push(words.quoted()?);
    }
    let fault = |why| -> Fault { refused(PROBE, why) };
    if command.first().is_none_or(String::is_empty) {
        return Err(words.fault(fault("it names no program")));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(words.fault(fault("it has a NUL character, which no program can be given")));
    }
    Ok(command)
}

/// The text that is all that is left of a line.
fn last(words: &mut Words<'_>) -> Result<String, TextError> {
    let text = words.quoted()?;
    words.end()?;
    Ok(text)
}
