//! `baton doctor` says of the programs of the guides what their pages say.

use super::{app, build_go, compile, link_modules, path, relocate, replace, start};
use crate::boot::Folder;
use crate::doctor::Found;

/// A path that each of the programs answers after this time.
const SLOW: [&str; 2] = ["--slow", "/slow?ms=1500"];

const FINISHED: (&str, &str) = ("fine", "finished, with 200");
const CUT: (&str, &str) = ("bad", "cut");
const LAST_REQUEST: (&str, &str) = ("fine", "a last request is answered");
const CLOSED: (&str, &str) = ("note", "closed at once");
const NOT_KEPT: (&str, &str) = ("fine", "it closes after every answer");

/// A program, whether it takes the open socket, and what becomes of a running request and of an idle connection.
type Row = (
    &'static str,
    fn(&Folder),
    bool,
    (&'static str, &'static str),
    (&'static str, &'static str),
    &'static str,
);

fn as_it_is(_: &Folder) {}

#[test]
fn doctor_says_what_the_guides_say() {
    let rows: [Row; 9] = [
        ("gunicorn", as_it_is, true, FINISHED, LAST_REQUEST, "with 0"),
        ("uvicorn", as_it_is, false, FINISHED, CLOSED, "with 143"),
        ("puma", as_it_is, true, FINISHED, CLOSED, "with 143"),
        ("go", build_go, false, FINISHED, CLOSED, "with 0"),
        ("java", compile, false, FINISHED, LAST_REQUEST, "with 143"),
        ("node", as_it_is, false, FINISHED, LAST_REQUEST, "with 0"),
        ("express", link_modules, false, FINISHED, LAST_REQUEST, "with 0"),
        ("fastify", link_modules, false, FINISHED, LAST_REQUEST, "with 0"),
        ("php", as_it_is, false, CUT, NOT_KEPT, "with 143"),
    ];
    for (name, prepare, takes, running, idle, end) in rows {
        println!("{name}");
        let folder = app(name);
        relocate(&folder, 8080);
        prepare(&folder);
        let found = Found::of(&folder, &path(), &SLOW);
        found.says(
            "socket",
            "fine",
            if takes { "it took the open socket" } else { "and was given the socket" },
        );
        found.says("running-request", running.0, running.1);
        found.says("idle-connection", idle.0, idle.1);
        found.says("end", "fine", end);
    }
}

#[test]
fn doctor_knows_which_signal_nginx_and_php_fpm_need() {
    let backend = app("node");
    let behind = relocate(&backend, 8080);
    let _backend = start(&backend);
    for name in ["nginx", "php-fpm"] {
        let folder = app(name);
        relocate(&folder, 8080);
        relocate(&folder, 9000);
        replace(&folder, "127.0.0.1:8081", &behind.to_string());
        let settings = folder.read("baton.toml");
        assert!(settings.contains("stop_signal = \"QUIT\""), "{settings}");
        Found::of(&folder, &path(), &SLOW).says("stop-signal", "fine", "SIGQUIT");
        folder.write("baton.toml", &settings.replace("stop_signal = \"QUIT\"", ""));
        Found::of(&folder, &path(), &SLOW).says("stop-signal", "bad", "stop_signal = \\\"QUIT\\\"");
    }
}
