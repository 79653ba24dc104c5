//! Settings for a program, from what was seen of it: the text of a `baton.toml` that says why.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::end::short;
use super::kind::{Kind, kind_of};
use super::seen::{Idle, Place, Process, Request, Running, Seen, Start, Stop};
use super::start::startup_timeout;
use crate::ids::NAME_BYTES_MAX;
use crate::settings::quoted;
use crate::signal::Signal;
use crate::units::Millis;

/// The kernel gives ports from here on to whoever asks for any (`ip_local_port_range`): no client can know them.
const EPHEMERAL: u16 = 32_768;
/// A drain that serves most programs, as the settings have it when nothing is said.
const DRAIN: &str = "30s";

/// Where a command was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// It was typed.
    Typed,
    /// The entry of a `Procfile` with this name.
    Procfile(String),
    /// The script `start` of `package.json`.
    PackageJson,
    /// The only executable file in the directory.
    Executable,
}

/// What was found out about a program that was run by itself, without Baton.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the service could be called: the name of the directory.
    pub service: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where that was found.
    pub source: Source,
    /// Its processes.
    pub processes: Vec<Process>,
    /// Where it listens, and for each the path that answered `GET` with which status, if it speaks HTTP.
    pub listening: Vec<(Place, Option<(String, u16)>)>,
    /// How long after its start it listened, or said that it was ready.
    pub after: Option<Millis>,
    /// It said `READY=1` to `$NOTIFY_SOCKET`.
    pub notifies: bool,
    /// The virtual environments of Python in the directory.
    pub environments: Vec<Environment>,
}

/// A virtual environment of Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The name of its folder.
    pub folder: String,
    /// Where links in it lead to outside: its interpreter.
    pub interpreters: Vec<String>,
}

/// A `baton.toml`, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its text.
    pub text: String,
}

/// A TCP listener that clients know.
struct Listener<'a> {
    name: String,
    address: SocketAddr,
    answers: Option<&'a (String, u16)>,
}

/// What to write for a program of which this was found, and, once a first proposal was tried out, `seen`.
pub fn propose(found: &Found, seen: Option<&Seen>) -> Proposal {
    let kind = kind_of(&found.processes);
    let listeners = listeners(found);
    let mut lines = Lines::default();
    lines.say("Written by `baton init` from what it saw when it ran the program on this machine.");
    lines.say("`baton doctor` runs it as Baton does, reloads it under load, and tells what it loses.");
    lines.set("service", &quoted(&service(&found.service)));
    lines.table("[run]");
    command(&mut lines, found, &listeners);
    ready(&mut lines, found);
    stop(&mut lines, kind, seen);
    for listener in &listeners {
        lines.table("[[run.listen]]");
        listen(&mut lines, found, listener);
    }
    unlisted(&mut lines, found, &listeners);
    health(&mut lines, found, &listeners, seen);
    environments(&mut lines, &found.environments);
    Proposal { text: lines.0 }
}

fn listeners(found: &Found) -> Vec<Listener<'_>> {
    let mut all: Vec<(SocketAddr, Option<&(String, u16)>)> = found
        .listening
        .iter()
        .filter_map(|(place, answers)| match place {
            Place::Tcp(address) => Some((*address, answers.as_ref())),
            Place::Unix(_) => None,
        })
        .collect();
    // The one that answers is the one that is asked how the program is.
    all.sort_by_key(|(address, answers)| (answers.is_none(), address.port() >= EPHEMERAL, *address));
    let known = all.iter().filter(|(address, _)| address.port() < EPHEMERAL).count().max(1);
    let named = all.into_iter().take(known).enumerate();
    named
        .map(|(at, (address, answers))| {
            let name = match (at, answers) {
                (0, Some(_)) => "http".to_string(),
                (0, None) => "tcp".to_string(),
                _ => format!("listener-{}", at + 1),
            };
            Listener { name, address, answers }
        })
        .collect()
}

fn command(lines: &mut Lines, found: &Found, listeners: &[Listener<'_>]) {
    match &found.source {
        Source::Typed => {}
        Source::Procfile(entry) => lines.say(&format!("Taken from the Procfile: {entry}.")),
        Source::PackageJson => lines.say("Taken from package.json: scripts.start."),
        Source::Executable => lines.say("The only executable file here."),
    }
    let words: Vec<String> = found.command.iter().map(|word| quoted(&ported(word, listeners))).collect();
    lines.set("command", &format!("[{}]", words.join(", ")));
}

/// A word of the command in which a port is named as the listener's: members may listen elsewhere.
fn ported(word: &str, listeners: &[Listener<'_>]) -> String {
    for listener in listeners {
        let port = listener.address.port().to_string();
        let before = word.strip_suffix(&port);
        if let Some(before) = before.filter(|before| before.is_empty() || before.ends_with([':', '='])) {
            return format!("{before}{{port:{}}}", listener.name);
        }
    }
    word.to_string()
}

fn ready(lines: &mut Lines, found: &Found) {
    if found.listening.is_empty() {
        lines.say("A worker: it listens nowhere.");
    }
    if found.notifies {
        lines.say("It sent READY=1 to $NOTIFY_SOCKET.");
        lines.set("ready", "\"notify\"");
    }
}

fn stop(lines: &mut Lines, kind: &Kind, seen: Option<&Seen>) {
    if kind.stop_signal != Signal::TERM {
        lines.say(&format!(
            "{} finishes what it has at {}, and cuts it at SIGTERM.",
            kind.name, kind.stop_signal
        ));
        lines.set("stop_signal", &quoted(&short(kind.stop_signal)));
    }
    if let Some(stop) = seen.and_then(|seen| seen.stop.as_ref()) {
        for seen in seen_at_stop(stop) {
            lines.say(&seen);
        }
    }
    lines.set("drain", &quoted(DRAIN));
    let drops = seen.and_then(Seen::drops);
    let drops = drops.or_else(|| kind.asked_alone.then(|| "the processes that do its work".to_string()));
    if let Some(names) = drops {
        lines.say(&format!(
            "As long as the drain: the stop signal ends {names} at once, and the main process lets them finish."
        ));
        lines.set("stop_tree_after", &quoted(DRAIN));
    }
}

fn seen_at_stop(stop: &Stop) -> Vec<String> {
    let mut seen = Vec::new();
    if let Some((request, became)) = &stop.running {
        let what = match request {
            Request::Slow(_) => "a request that ran",
            Request::HalfSent(_) => "a request whose body was still on its way",
        };
        seen.push(match became {
            Running::Finished(_) => format!("When it was stopped, {what} was finished."),
            Running::Cut => format!("When it was stopped, {what} was cut: see `baton doctor`."),
            Running::Unanswered => {
                format!("When it was stopped, {what} was not answered in time: see `baton doctor`.")
            }
            Running::AnsweredBefore => {
                "Whether it finishes a running request is not known: `baton doctor --slow PATH` finds out."
                    .into()
            }
        });
    }
    let idle = match stop.idle {
        Some(Idle::Closed) => Some("An idle connection was closed at once."),
        Some(Idle::LastRequest { .. }) => Some("An idle connection had a last request answered."),
        Some(Idle::NotAnswered) => Some("The next request on an idle connection was not answered."),
        Some(Idle::NotKept) | None => None,
    };
    seen.extend(idle.map(String::from));
    seen.push(format!("It ended {} after the stop signal, with {}.", stop.after, stop.code));
    seen
}

fn listen(lines: &mut Lines, found: &Found, listener: &Listener<'_>) {
    if let Some(after) = found.after {
        lines.say(&format!("It listened there {after} after its start."));
    }
    if listener.address.ip().is_loopback() {
        lines.say("Only this machine reaches it: for others let it bind 0.0.0.0, and write that here.");
    }
    lines.set("name", &quoted(&listener.name));
    lines.set("address", &quoted(&listener.address.to_string()));
}

fn unlisted(lines: &mut Lines, found: &Found, listeners: &[Listener<'_>]) {
    for (place, _) in &found.listening {
        let why = match place {
            Place::Tcp(address) if listeners.iter().any(|listener| listener.address == *address) => continue,
            Place::Tcp(_) => "a port that the system chose",
            Place::Unix(path) if path.starts_with('@') => "a socket without a file cannot be handed over",
            Place::Unix(_) => {
                "as a run.listen with this address it is handed over too (handover: see the settings)"
            }
        };
        lines.blank();
        lines.say(&format!("It also listens on {}: {why}.", readable(&place.to_string())));
    }
}

fn health(lines: &mut Lines, found: &Found, listeners: &[Listener<'_>], seen: Option<&Seen>) {
    let started = match seen.map(|seen| &seen.start) {
        Some(Start::Healthy(after)) => Some(*after),
        Some(Start::Failed { .. }) | None => None,
    };
    match listeners.first() {
        None if !found.notifies => return,
        None => lines.table("[run.health]"),
        Some(listener) => {
            lines.table("[run.health]");
            match listener.answers {
                Some((path, status)) => {
                    lines.say(&format!("GET {path} answered {status}."));
                    lines.set("http", &quoted(path));
                }
                None => {
                    lines.say("None of the usual paths answered GET with success: healthy when it accepts a connection.");
                    lines.set("tcp", "true");
                }
            }
        }
    }
    if let Some(after) = started {
        lines.say(&format!("Under Baton it was healthy {after} after its launch."));
    }
    let limit = startup_timeout(started.or(found.after).unwrap_or_default());
    lines.set("startup_timeout", &quoted(&limit));
}

/// Git ignores them as a rule, and the interpreter is not in them.
fn environments(lines: &mut Lines, environments: &[Environment]) {
    if environments.is_empty() {
        return;
    }
    let list = |words: Vec<String>| format!("[{}]", words.join(", "));
    let folders = environments.iter().map(|one| quoted(&format!("/{}/", one.folder))).collect();
    let mut links: Vec<&String> = environments.iter().flat_map(|one| &one.interpreters).collect();
    links.sort_unstable();
    links.dedup();
    lines.table("[push]");
    lines.say("What Python imports is pushed too; its interpreter must be at the same path on every member.");
    lines.set("include", &list(folders));
    lines.set("external_links", &list(links.into_iter().map(|link| quoted(link)).collect()));
}

/// A name for the service, of what the directory is called.
fn service(directory: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = directory.chars().map(fit).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(NAME_BYTES_MAX).collect();
    if name.is_empty() { "service".into() } else { name }
}

/// A text that may stand in a comment.
fn readable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// A settings file while it is written.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn say(&mut self, comment: &str) {
        self.0.push_str(&format!("# {}\n", readable(comment)));
    }

    fn set(&mut self, key: &str, value: &str) {
        self.0.push_str(&format!("{key} = {value}\n"));
    }

    fn table(&mut self, heading: &str) {
        self.0.push_str(&format!("\n{heading}\n"));
    }

    fn blank(&mut self) {
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Reaction;
    use crate::run::{Probe, Ready};
    use crate::settings::{self, Settings};
    use alloc::vec;
    use proptest::prelude::*;

    fn found(command: &[&str], listening: &[(&str, Option<(&str, u16)>)]) -> Found {
        let words: Vec<String> = command.iter().map(|word| (*word).into()).collect();
        let place = |text: &str| text.parse().map_or_else(|_| Place::Unix(text.into()), Place::Tcp);
        Found {
            service: "my shop".into(),
            processes: vec![Process { name: "x".into(), words: words.clone() }],
            command: words,
            source: Source::Typed,
            listening: listening
                .iter()
                .map(|(at, answers)| (place(at), answers.map(|(path, status)| (path.into(), status))))
                .collect(),
            after: Some(Millis(180)),
            notifies: false,
            environments: vec![],
        }
    }

    fn read(proposal: &Proposal) -> Settings {
        settings::parse("baton.toml", &proposal.text)
            .unwrap_or_else(|wrong| panic!("{wrong}\n{}", proposal.text))
    }

    #[test]
    fn what_listens_and_answers_is_written_down_with_its_reasons() {
        let proposal =
            propose(&found(&["node", "server.js"], &[("127.0.0.1:8080", Some(("/health", 200)))]), None);
        assert_eq!(
            proposal.text,
            "\
# Written by `baton init` from what it saw when it ran the program on this machine.
# `baton doctor` runs it as Baton does, reloads it under load, and tells what it loses.
service = \"my-shop\"

[run]
command = [\"node\", \"server.js\"]
drain = \"30s\"

[[run.listen]]
# It listened there 180 ms after its start.
# Only this machine reaches it: for others let it bind 0.0.0.0, and write that here.
name = \"http\"
address = \"127.0.0.1:8080\"

[run.health]
# GET /health answered 200.
http = \"/health\"
startup_timeout = \"60s\"
"
        );
        read(&proposal);
    }

    #[test]
    fn the_listener_that_answers_comes_first_and_ports_that_nobody_can_know_are_left_out() {
        let listening = [
            ("[::]:9090", None),
            ("0.0.0.0:8080", Some(("/", 200))),
            ("127.0.0.1:41234", None),
            ("/run/shop.sock", None),
        ];
        let settings = read(&propose(&found(&["./shop"], &listening), None));
        let names: Vec<(&str, u16)> =
            settings.run.listen.iter().map(|one| (one.name.as_str(), one.address.port().unwrap())).collect();
        assert_eq!(names, [("http", 8080), ("listener-2", 9090)]);
        assert!(matches!(settings.run.health.unwrap().probe, Probe::Http(_)));
    }

    #[test]
    fn a_port_in_the_command_becomes_the_listeners() {
        for (word, expected) in [
            ("8080", "{port:http}"),
            ("127.0.0.1:8080", "127.0.0.1:{port:http}"),
            ("--port=8080", "--port={port:http}"),
            ("18080", "18080"),
            ("8080x", "8080x"),
        ] {
            let found = found(&["web", word], &[("127.0.0.1:8080", Some(("/", 200)))]);
            assert_eq!(read(&propose(&found, None)).run.command[1], expected);
        }
    }

    #[test]
    fn the_kind_of_server_and_what_it_says_decide_the_rest() {
        let nginx = read(&propose(&found(&["nginx"], &[("0.0.0.0:80", Some(("/", 404)))]), None));
        assert_eq!(nginx.run.stop_signal, Signal::QUIT);
        let fcgi = read(&propose(&found(&["php-fpm8.2"], &[("127.0.0.1:9000", None)]), None));
        assert_eq!((fcgi.run.stop_signal, fcgi.run.health.unwrap().probe), (Signal::QUIT, Probe::Tcp));
        let worker = read(&propose(&Found { notifies: true, ..found(&["./worker"], &[]) }, None));
        assert_eq!((worker.run.ready, worker.run.health), (Ready::Notify, None));
        let celery = read(&propose(&found(&["celery", "worker"], &[]), None));
        assert_eq!(celery.run.stop_tree_after, Some(celery.run.drain));
        let silent = read(&propose(&found(&["./worker"], &[]), None));
        assert_eq!(silent.run.stop_tree_after, None);
        assert_eq!((silent.run.ready, silent.run.listen), (Ready::Probe, Vec::new()));
    }

    #[test]
    fn what_was_seen_at_a_stop_is_told_and_a_slow_start_gets_its_time() {
        let found = found(&["./shop"], &[("127.0.0.1:8080", Some(("/", 200)))]);
        let stop = Stop {
            code: 0,
            after: Millis(1200),
            running: Some((Request::HalfSent("/".into()), Running::Finished(200))),
            idle: Some(Idle::Closed),
            held_by_silent: None,
            left: (Vec::new(), Millis::ZERO),
        };
        let seen = Seen { stop: Some(stop), ..Seen::of(Start::Healthy(Millis::from_secs(25))) };
        let proposal = propose(&found, Some(&seen));
        for said in
            ["was finished", "closed at once", "ended 1.2 s after the stop signal, with 0", "healthy 25 s"]
        {
            assert!(proposal.text.contains(said), "{said}\n{}", proposal.text);
        }
        assert_eq!(read(&proposal).run.startup_timeout, Millis::from_secs(90));
    }

    #[test]
    fn processes_that_drop_their_work_are_asked_last_where_their_main_process_lets_them_finish() {
        let found = found(&["./crew"], &[]);
        let seen = Seen {
            reaction: Some(Reaction::Handles),
            dropping: vec!["hand".into()],
            ..Seen::of(Start::Healthy(Millis(1000)))
        };
        let proposal = propose(&found, Some(&seen));
        assert!(proposal.text.contains("ends hand at once"), "{}", proposal.text);
        let settings = read(&proposal);
        assert_eq!(settings.run.stop_tree_after, Some(settings.run.drain));
        let shell = Seen { reaction: Some(Reaction::Ends), ..seen };
        assert_eq!(read(&propose(&found, Some(&shell))).run.stop_tree_after, None);
    }

    #[test]
    fn a_virtual_environment_is_pushed_with_a_link_to_its_interpreter() {
        let one = |folder: &str, interpreter: &str| Environment {
            folder: folder.into(),
            interpreters: vec![interpreter.into()],
        };
        let environments = vec![one(".venv", "/usr/bin/python3"), one("tools", "/usr/bin/python3")];
        let found = Found { environments, ..found(&[".venv/bin/python", "app.py"], &[]) };
        let push = read(&propose(&found, None)).push;
        assert_eq!(push.include, ["/.venv/", "/tools/"]);
        assert_eq!(push.external_links.iter().collect::<Vec<_>>(), ["/usr/bin/python3"]);
    }

    proptest! {
        #[test]
        fn whatever_a_command_and_a_directory_are_called_the_settings_can_be_read(
            service in any::<String>(),
            command in proptest::collection::vec("[^{}\0]+", 1..4),
            path in any::<String>(),
        ) {
            let base = found(&["x"], &[("127.0.0.1:8080", Some(("/", 200)))]);
            let mut listening = base.listening.clone();
            listening.push((Place::Unix(path), None));
            let source = Source::Procfile(service.clone());
            let found = Found { service, command: command.clone(), source, listening, ..base };
            let proposal = propose(&found, None);
            let settings = settings::parse("baton.toml", &proposal.text);
            prop_assert!(settings.is_ok(), "{:?}\n{}", settings.err(), proposal.text);
            prop_assert_eq!(settings.unwrap().run.command.len(), command.len());
        }
    }
}
