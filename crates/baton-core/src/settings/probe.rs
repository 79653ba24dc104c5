//! What is asked by `[run.health]`: exactly one question.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::value;
use crate::run::{HttpProbe, Probe, StatusRange};

/// The settings that ask something.
const QUESTIONS: [&str; 4] = ["http", "grpc", "tcp", "exec"];
/// The settings that say more about `http`.
const OF_HTTP: [&str; 4] = ["status", "headers", "host", "body"];
/// Headers that a request has anyway, or that would make it another one.
const OWN_HEADERS: [&str; 7] =
    ["connection", "content-length", "expect", "host", "te", "transfer-encoding", "upgrade"];

/// Reads the question over the `inherited` one; none when there is none, or when it is wrong.
pub(super) fn read(table: &mut Table<'_, '_>, inherited: Option<Probe>) -> Option<Probe> {
    let path = table.read("http", value::http_path);
    let grpc = table.read("grpc", value::text);
    let tcp = table.read("tcp", value::boolean);
    let exec = table.list("exec", value::text);
    if tcp == Some(false) {
        table.wrong("tcp", "is false", "leave it out, or write tcp = true");
    }
    if exec.as_ref().and_then(|words| words.first()).is_some_and(String::is_empty) {
        table.wrong("exec", "names no program", "write the program first: [\"./check\", \"--quick\"]");
    }
    let asked = QUESTIONS.into_iter().filter(|key| table.has(key)).count();
    if asked > 1 {
        table.wrong_here("asks more than one question", "keep one of http, grpc, tcp and exec");
    }
    let http = match (inherited, path) {
        // A flavor with another path keeps the rest of the question.
        (Some(Probe::Http(base)), Some(path)) => Some(Probe::Http(HttpProbe { path, ..base })),
        (_, Some(path)) => Some(Probe::Http(HttpProbe::get(path))),
        (inherited, None) => inherited.filter(|_| asked == 0),
    };
    let others = [
        grpc.map(|service| Probe::Grpc { service }),
        tcp.map(|_| Probe::Tcp),
        exec.map(|command| Probe::Exec { command }),
    ];
    let mut probe = http.or_else(|| others.into_iter().flatten().next());
    read_details(table, &mut probe);
    probe
}

fn read_details(table: &mut Table<'_, '_>, probe: &mut Option<Probe>) {
    // Read in any case, so that what is wrong is told and what is known is known.
    let mut nowhere = HttpProbe::get(String::new());
    let http = match probe {
        Some(Probe::Http(http)) => http,
        Some(Probe::Grpc { .. } | Probe::Tcp | Probe::Exec { .. }) | None => {
            for key in OF_HTTP {
                if table.has(key) && !table.has("http") {
                    table.wrong(key, "is for http probes", "leave it out, or write http = \"/health\"");
                }
            }
            &mut nowhere
        }
    };
    if let Some(status) = table.list("status", status) {
        http.status = status;
    }
    let headers = table.table("headers", |headers| {
        headers.chosen(header_name, |headers, name| headers.read(name, header_value).unwrap_or_default())
    });
    if !headers.is_empty() {
        http.headers = headers.into_iter().collect();
    }
    table.set("host", &mut http.host, |value| host(value).map(Some));
    table.set("body", &mut http.body, |value| body(value).map(Some));
}

fn status(value: &DeValue<'_>) -> Result<StatusRange, Wrong> {
    let fix = "write statuses from 100 to 599, such as \"204\" or \"200-299\"";
    let text = match value {
        DeValue::Integer(number) => number.to_string(),
        other => value::string(other, fix)?.to_owned(),
    };
    text.parse().map_err(|_| Wrong::new(format!("is {text:?}"), fix))
}

fn header_name(name: &str) -> Result<String, Wrong> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(Wrong::new("is not the name of a header", "use letters, digits and -"));
    }
    if name.eq_ignore_ascii_case("host") {
        return Err(Wrong::new("has a setting of its own", "write host = \"NAME\" beside http"));
    }
    if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Err(Wrong::new("is set by the bootloader", "leave it out"));
    }
    Ok(name.to_owned())
}

fn header_value(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = value::text(value)?;
    match text.chars().find(|c| !matches!(c, ' '..='~')) {
        Some(c) => Err(Wrong::new(format!("has {c:?} in it"), "write printable ASCII characters only")),
        None => Ok(text),
    }
}

fn host(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = value::string(value, "write a name, such as \"www.example.org\"")?;
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    good.then(|| text.to_owned())
        .ok_or_else(|| Wrong::new(format!("is {text:?}"), "write a name, such as \"www.example.org\""))
}

fn body(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = value::text(value)?;
    if text.is_empty() {
        return Err(Wrong::new(
            "is empty, which every answer contains",
            "leave it out, or write what it must say",
        ));
    }
    Ok(text)
}

/// Whether any question is asked, right or wrong.
pub(super) fn is_asked(table: &Table<'_, '_>) -> bool {
    QUESTIONS.into_iter().any(|key| table.has(key))
}
