//! Answers of the admin socket for people.

use std::fmt::Write;

use serde_json::Value;

/// How many digits of a release are shown.
const RELEASE_DIGITS: usize = 12;

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

/// Bytes in MiB, where there is a number.
fn mib(bytes: &Value) -> Option<String> {
    const TENTH: u64 = 1024 * 1024 / 10;
    bytes.as_u64().map(|bytes| format!("{}.{} MiB", bytes / TENTH / 10, bytes / TENTH % 10))
}

/// What processes take up: memory, processor, open files; dashes before the first look.
fn taken_up(uses: &Value) -> [String; 3] {
    let none = || "-".to_owned();
    let cpu = uses["cpu_percent"].as_u64().map(|percent| format!("{percent} %"));
    [mib(&uses["memory_bytes"]).unwrap_or_else(none), cpu.unwrap_or_else(none), word(&uses["descriptors"])]
}

/// The account of the whole member. A kernel that does not count a peak or a pressure says nothing of it.
fn memory(memory: &Value) -> String {
    let size = |name: &str| mib(&memory[name]).unwrap_or_else(|| "none".to_owned());
    let (used, limit, kills) = (size("used_bytes"), size("limit_bytes"), word(&memory["kills"]));
    let peak = mib(&memory["peak_bytes"]).map(|peak| format!(", peak {peak}")).unwrap_or_default();
    let percent = memory["pressure"]["some_10s"].as_f64();
    let pressure = percent.map(|percent| format!(", pressure {percent:.2} %")).unwrap_or_default();
    let groups = memory["group_kills"].as_u64().filter(|groups| *groups > 0);
    let groups = groups.map(|groups| format!(", whole groups: {groups}")).unwrap_or_default();
    let together = if memory["killed_together"] == true {
        "; all at once if it runs out (memory.oom.group)"
    } else {
        ""
    };
    format!("memory {used}{peak}, limit {limit}{pressure}, killed for it: {kills}{groups}{together}")
}

/// The status as tables.
pub fn status(answer: &Value) -> String {
    let mut text = format!(
        "baton-boot {}, pid {}, up {}, {} restarts{}\n",
        word(&answer["version"]),
        word(&answer["pid"]),
        age(&answer["age_ms"]),
        word(&answer["restarts"]),
        if answer["stopping"] == true { ", stopping" } else { "" }
    );
    if answer["settings"] != Value::Null {
        let _ = writeln!(text, "settings: {}", word(&answer["settings"]));
    }
    if answer["replaced_on_disk"] == true {
        text.push_str("its file was replaced: the new one runs from the next start of the container on\n");
    }
    if answer["control"] != Value::Null {
        text.push_str(&control(&answer["control"]));
    }
    let each = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let mut line = |columns: [String; 9]| {
        let [a, b, c, d, e, f, g, h, i] = columns;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{a:<11} {b:<12} {c:<9} {d:<8} {e:<8} {f:<7} {g:<9} {h:<6} {i}");
    };
    let head = ["generation", "release", "state", "healthy", "pid", "age", "memory", "cpu", "files"];
    line(head.map(str::to_owned));
    for one in each("generations") {
        let healthy = if one["healthy"] == true { "yes" } else { "no" };
        let [id, release, state, pid] =
            ["generation", "release", "state", "pid"].map(|name| word(&one[name]));
        let [memory, cpu, files] = taken_up(&one["uses"]);
        let others = one["pids"].as_array().map_or(0, |pids| pids.len().saturating_sub(1));
        let pid = if others > 0 { format!("{pid} +{others}") } else { pid };
        line([id, release, state, healthy.to_owned(), pid, age(&one["age_ms"]), memory, cpu, files]);
    }
    for one in each("generations") {
        if let Some(why) = one["unanswered"].as_str() {
            let (id, why) = (word(&one["generation"]), readable(why));
            let _ = writeln!(text, "generation {id} can bind nothing more ({why}): reload to replace it");
        }
    }
    for other in each("others") {
        let (pid, name) = (word(&other["pid"]), word(&other["name"]));
        let _ =
            writeln!(text, "process {pid} ({name}) belongs to no generation: it ends with the bootloader");
    }
    // Mostly the same for all: of the last one.
    if let Some(withheld) = each("generations").last().and_then(|one| one["withheld"].as_array().cloned())
        && !withheld.is_empty()
    {
        let names: Vec<String> = withheld.iter().map(word).collect();
        let _ = writeln!(text, "variables that the program does not get: {}", names.join(", "));
    }
    for one in each("listeners") {
        let [name, address, handover] = ["name", "address", "handover"].map(|name| word(&one[name]));
        let forwarded = one["forwarded"].as_str().map(|why| format!(", forwarded: {}", readable(why)));
        let _ = writeln!(text, "listener {name} on {address}, {handover}{}", forwarded.unwrap_or_default());
        for stranger in one["strangers"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "  {} listens there too", word(stranger));
        }
    }
    if answer["itself"] != Value::Null {
        let [memory, cpu, files] = taken_up(&answer["itself"]);
        let _ = writeln!(text, "baton-boot itself: memory {memory}, cpu {cpu}, files {files}");
    }
    if answer["memory"] != Value::Null {
        let _ = writeln!(text, "{}", memory(&answer["memory"]));
    }
    if answer["cut_off"] != Value::Null {
        let [alive, ran] = ["alive", "ran"].map(|name| word(&answer["cut_off"][name]));
        let _ = writeln!(text, "the run before was cut off not long after {alive}, running: {ran}");
    }
    if answer["trial"] != Value::Null {
        let _ = writeln!(text, "last trial: {}", trial(&answer["trial"]));
    }
    text
}

/// How a member stands with control, on two lines.
fn control(control: &Value) -> String {
    let [server, member, service, epoch] =
        ["server", "member", "service", "seen_epoch"].map(|name| word(&control[name]));
    let since = age(&control["since_ms"]);
    let session = match (&control["connected"], &control["trouble"]) {
        (Value::Bool(true), _) => format!("connected to {server} for {since}"),
        (_, Value::Null) => format!("not connected yet, for {since}"),
        (_, trouble) => format!("not connected for {since}, {server} was tried last: {}", word(trouble)),
    };
    let committed = match &control["committed"] {
        Value::Null => "nothing committed".to_owned(),
        // As long as it is shown everywhere else.
        release => {
            let short: String = word(release).chars().take(RELEASE_DIGITS).collect();
            format!("committed {short} of epoch {}", word(&control["committed_epoch"]))
        }
    };
    let credential = match &control["credential_renewed"] {
        Value::Null => "no credential".to_owned(),
        at => format!("credential renewed {}", word(at)),
    };
    format!(
        "control: {session}\nmember {member} of {service}, {committed}, newest epoch seen {epoch}, {credential}\n"
    )
}

/// Lines of output, each with who wrote it when.
pub fn logs(answer: &Value) -> String {
    let lines = answer["lines"].as_array().cloned().unwrap_or_default();
    let line = |line: &Value| {
        let [time, generation, stream, text] =
            ["time", "generation", "stream", "line"].map(|name| word(&line[name]));
        format!("{time} {generation} {stream} {text}\n")
    };
    let missed = if answer["missed"] == true {
        "... lines are missing: they came faster than they were read\n"
    } else {
        ""
    };
    lines.iter().map(line).fold(missed.to_owned(), |text, line| text + &line)
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
    fn a_member_tells_how_it_stands_with_control() {
        let told = |control: &Value| {
            status(&json!({ "control": control })).lines().skip(1).take(2).collect::<Vec<_>>().join("\n")
        };
        let mut member = json!({
            "connected": true, "since_ms": 200_000, "server": "https://c:7400", "trouble": null, "member": "web-1",
            "service": "web", "seen_epoch": 9, "committed": "0123456789abcdef", "committed_epoch": 8,
            "credential_renewed": "2026-01-31T23:59:59.000001Z",
        });
        let rest = "member web-1 of web, committed 0123456789ab of epoch 8, newest epoch seen 9, credential renewed \
            2026-01-31T23:59:59.000001Z";
        assert_eq!(told(&member), format!("control: connected to https://c:7400 for 3 min\n{rest}"));
        member["connected"] = false.into();
        member["trouble"] = "cannot connect".into();
        let lost = "control: not connected for 3 min, https://c:7400 was tried last: cannot connect";
        assert_eq!(told(&member), format!("{lost}\n{rest}"));
        for name in ["trouble", "server", "committed", "committed_epoch", "seen_epoch", "credential_renewed"]
        {
            member[name] = Value::Null;
        }
        let new = "control: not connected yet, for 3 min\nmember web-1 of web, nothing committed, newest epoch seen -, no credential";
        assert_eq!(told(&member), new);
    }

    #[test]
    fn a_status_reads_as_tables() {
        let answer = json!({
            "version": "0.1.0", "pid": 1, "age_ms": 200_000, "stopping": false, "restarts": 4,
            "replaced_on_disk": true,
            "generations": [
                { "generation": 1, "release": "image", "state": "standby", "healthy": true, "unanswered": "broken", "pid": 7, "pids": [7, 9], "age_ms": 200_000,
                  "uses": { "memory_bytes": 90_000_000, "cpu_percent": 3, "descriptors": 12 } },
                { "generation": 2, "release": "image", "state": "serving", "healthy": false, "pid": null, "age_ms": 9_999,
                  "withheld": ["BATON_LISTEN", "A\u{1b}B"] },
            ],
            "others": [{ "pid": 41, "name": "s\u{1b}h" }],
            "listeners": [
                { "name": "http", "address": "0.0.0.0:80", "handover": "auto", "forwarded": null,
                  "strangers": ["process 71 (python3)"] },
                { "name": "admin", "address": "0.0.0.0:81", "handover": "inherit",
                  "forwarded": "setsockopt(SO_REUSEPORT) failed: Protocol not available" },
            ],
            "itself": { "memory_bytes": 3_000_000, "cpu_percent": 0, "descriptors": 41 },
            "memory": { "used_bytes": 9_000_000, "peak_bytes": null, "limit_bytes": null, "kills": 2 },
            "trial": { "state": "refused", "cause": "exit", "detail": "exit 1 after 0.8 s" },
        });
        let expected = "\
baton-boot 0.1.0, pid 1, up 3 min, 4 restarts
its file was replaced: the new one runs from the next start of the container on
generation  release      state     healthy  pid      age     memory    cpu    files
1           image        standby   yes      7 +1     3 min   85.8 MiB  3 %    12
2           image        serving   no       -        9 s     -         -      -
generation 1 can bind nothing more (broken): reload to replace it
process 41 (s\u{fffd}h) belongs to no generation: it ends with the bootloader
variables that the program does not get: BATON_LISTEN, A\u{fffd}B
listener http on 0.0.0.0:80, auto
  process 71 (python3) listens there too
listener admin on 0.0.0.0:81, inherit, forwarded: setsockopt(SO_REUSEPORT) failed: Protocol not available
baton-boot itself: memory 2.8 MiB, cpu 0 %, files 41
memory 8.5 MiB, limit none, killed for it: 2
last trial: refused: exit 1 after 0.8 s
";
        assert_eq!(status(&answer), expected);
        let mut known = answer;
        known["memory"]["peak_bytes"] = json!(20_000_000);
        known["memory"]["pressure"] =
            json!({ "some_10s": 1.5, "some_60s": 0.2, "full_10s": 0.0, "full_60s": 0.0 });
        known["memory"]["group_kills"] = json!(0);
        known["memory"]["killed_together"] = json!(false);
        let line = "memory 8.5 MiB, peak 19.0 MiB, limit none, pressure 1.50 %, killed for it: 2\n";
        assert!(status(&known).contains(line), "{}", status(&known));
        known["memory"]["group_kills"] = json!(1);
        known["memory"]["killed_together"] = json!(true);
        known["cut_off"] =
            json!({ "alive": "2026-01-31T23:59:59.000001Z", "ran": "generation 1 (image) serving" });
        let line = "the run before was cut off not long after 2026-01-31T23:59:59.000001Z, running: generation 1 (image) serving\n";
        assert!(status(&known).contains(line), "{}", status(&known));
        let line = "killed for it: 2, whole groups: 1; all at once if it runs out (memory.oom.group)\n";
        assert!(status(&known).contains(line), "{}", status(&known));
        assert_eq!(reload(&json!({ "state": "proven" })), "reload: proven\n");
        // JSON has no need to escape what terminals obey beyond ASCII.
        assert_eq!(reload(&json!({ "state": ["\u{9b}2J"] })), "reload: [\"\u{fffd}2J\"]\n");
    }
}
