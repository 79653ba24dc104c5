//! Answers of the admin socket for people.

use std::fmt::Write;

use serde_json::Value;

/// A word of the answer; a dash where there is none.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => readable(text),
        other => readable(&other.to_string()),
    }
}

/// A text that cannot drive a terminal.
fn readable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

/// How long, to the largest unit that fits.
fn age(value: &Value) -> String {
    let seconds = value.as_u64().unwrap_or(0) / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// The status as tables.
pub fn status(answer: &Value) -> String {
    let mut text = format!(
        "baton-boot {}, pid {}, up {}{}\n",
        word(&answer["version"]),
        word(&answer["pid"]),
        age(&answer["age_ms"]),
        if answer["stopping"] == true { ", stopping" } else { "" }
    );
    if answer["replaced_on_disk"] == true {
        text.push_str("its file was replaced: the new one runs from the next start of the container on\n");
    }
    let each = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let mut line = |columns: [String; 6]| {
        let [a, b, c, d, e, f] = columns;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{a:<11} {b:<9} {c:<9} {d:<8} {e:<8} {f}");
    };
    line(["generation", "release", "state", "healthy", "pid", "age"].map(str::to_owned));
    for one in each("generations") {
        let healthy = if one["healthy"] == true { "yes" } else { "no" };
        let [id, release, state, pid] =
            ["generation", "release", "state", "pid"].map(|name| word(&one[name]));
        line([id, release, state, healthy.to_owned(), pid, age(&one["age_ms"])]);
    }
    for one in each("listeners") {
        let [name, address, handover] = ["name", "address", "handover"].map(|name| word(&one[name]));
        let _ = writeln!(text, "listener {name} on {address}, {handover}");
    }
    if answer["memory"] != Value::Null {
        let mib = |name: &str| {
            let bytes = answer["memory"][name].as_u64();
            bytes.map_or_else(|| "none".to_owned(), |bytes| format!("{} MiB", bytes / (1024 * 1024)))
        };
        let (used, limit, kills) = (mib("used_bytes"), mib("limit_bytes"), word(&answer["memory"]["kills"]));
        let _ = writeln!(text, "memory {used}, limit {limit}, killed for it: {kills}");
    }
    if answer["trial"] != Value::Null {
        let _ = writeln!(text, "last trial: {}", trial(&answer["trial"]));
    }
    text
}

/// Lines of output, each with who wrote it when.
pub fn logs(answer: &Value) -> String {
    let lines = answer["lines"].as_array().cloned().unwrap_or_default();
    let line = |line: &Value| {
        let [time, generation, stream, text] =
            ["time", "generation", "stream", "line"].map(|name| word(&line[name]));
        format!("{time} {generation} {stream} {text}\n")
    };
    lines.iter().map(line).collect()
}

/// How a reload ended.
pub fn reload(answer: &Value) -> String {
    format!("reload: {}\n", trial(answer))
}

fn trial(answer: &Value) -> String {
    let state = word(&answer["state"]);
    match answer["detail"].as_str() {
        Some(detail) => format!("{state}: {}", readable(detail)),
        None => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_reads_as_tables() {
        let answer = json!({
            "version": "0.1.0", "pid": 1, "age_ms": 200_000, "stopping": false, "replaced_on_disk": true,
            "generations": [
                { "generation": 1, "release": "image", "state": "standby", "healthy": true, "pid": 7, "age_ms": 200_000 },
                { "generation": 2, "release": "image", "state": "serving", "healthy": false, "pid": null, "age_ms": 9_999 },
            ],
            "listeners": [{ "name": "http", "address": "0.0.0.0:80", "handover": "auto" }],
            "memory": { "used_bytes": 9_000_000, "peak_bytes": null, "limit_bytes": null, "kills": 2 },
            "trial": { "state": "refused", "cause": "exit", "detail": "exit 1 after 0.8 s" },
        });
        let expected = "\
baton-boot 0.1.0, pid 1, up 3 min
its file was replaced: the new one runs from the next start of the container on
generation  release   state     healthy  pid      age
1           image     standby   yes      7        3 min
2           image     serving   no       -        9 s
listener http on 0.0.0.0:80, auto
memory 8 MiB, limit none, killed for it: 2
last trial: refused: exit 1 after 0.8 s
";
        assert_eq!(status(&answer), expected);
        assert_eq!(reload(&json!({ "state": "proven" })), "reload: proven\n");
        // JSON has no need to escape what terminals obey beyond ASCII.
        assert_eq!(reload(&json!({ "state": ["\u{9b}2J"] })), "reload: [\"\u{fffd}2J\"]\n");
    }
}
