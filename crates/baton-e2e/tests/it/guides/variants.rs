//! What else the guides tell of their programs: with other settings, and what each loses without what its guide asks for.

use std::fs;

use baton_e2e::load::{Loss, Plan, Report};

use super::{ENDED_BY_TERM, app, build_go, command, compile, link_modules, measured, reloads, relocate};
use crate::boot::Folder;
use crate::handover::assert_nothing_lost;

/// Each forwarded connection goes to the port of one generation.
const BY_PROXY: Change = ("baton.toml", "[[run.listen]]", "[[run.listen]]\nhandover = \"proxy\"");
const INHERITED: Change = ("baton.toml", "[[run.listen]]", "[[run.listen]]\nhandover = \"inherit\"");

/// In this file, this text becomes that one.
type Change = (&'static str, &'static str, &'static str);

/// What a program loses by itself, whoever asks it to stop.
#[derive(Clone, Copy)]
enum Loses {
    Nothing,
    /// What runs, and what it has already accepted.
    WhatRuns,
    /// What comes while it stops: it says 503 to that.
    WhatComes,
}

impl Loses {
    fn assert(self, report: &Report) {
        let only = |kinds: &[Loss]| {
            assert!(
                report.losses.iter().all(|(loss, lost)| lost.count == 0 || kinds.contains(loss)),
                "{report:#?}"
            );
            assert_eq!(report.answered + report.lost, report.sent, "{report:#?}");
        };
        match self {
            Self::Nothing => assert_nothing_lost(report),
            Self::WhatRuns => {
                only(&[Loss::ResetBeforeFirstByte, Loss::ResetAfterFirstByte]);
                // A client has one request at a time.
                assert!(report.lost <= (clients() * reloads()) as u64, "{report:#?}");
            }
            Self::WhatComes => {
                only(&[Loss::Mismatched]);
                let first = report.losses[&Loss::Mismatched].example.as_ref();
                assert!(first.is_none_or(|first| first.detail.contains("503")), "{report:#?}");
            }
        }
    }
}

fn clients() -> usize {
    Plan::mixed(Vec::new()).clients()
}

/// The program of a guide, changed, reloaded under load and stopped. Returns how it ended.
fn variant(
    name: &str,
    program: &str,
    prepare: impl FnOnce(&Folder),
    changes: &[Change],
    loses: Loses,
) -> Option<i32> {
    let folder = app(program);
    for (file, from, to) in changes {
        folder.change(file, from, to);
    }
    let address = relocate(&folder, 8080);
    prepare(&folder);
    let (report, ended) = measured(name, &folder, &address.to_string());
    loses.assert(&report);
    ended
}

fn as_it_is(_: &Folder) {}

#[test]
fn gunicorn() {
    let sync = (
        "baton.toml",
        "\"gthread\", \"--workers\", \"2\", \"--threads\", \"8\"",
        "\"sync\", \"--workers\", \"8\"",
    );
    for (name, change) in
        [("gunicorn, sync", sync), ("gunicorn, inherit", INHERITED), ("gunicorn, proxy", BY_PROXY)]
    {
        assert_eq!(variant(name, "gunicorn", as_it_is, &[change], Loses::Nothing), Some(0), "{name}");
    }
}

#[test]
fn uvicorn() {
    let workers = ("baton.toml", "\"app:app\"", "\"--workers\", \"2\", \"app:app\"");
    assert_eq!(variant("uvicorn, --workers 2", "uvicorn", as_it_is, &[workers], Loses::Nothing), Some(0));
    let port = "\"--host\", \"127.0.0.1\", \"--port\", \"{port:http}\"";
    let open = [INHERITED, ("baton.toml", port, "\"--fd\", \"{fd:http}\"")];
    assert_eq!(variant("uvicorn, --fd", "uvicorn", as_it_is, &open, Loses::Nothing), Some(ENDED_BY_TERM));
}

#[test]
fn flask_s_development_server() {
    let gunicorn = "\"gunicorn\", \"--worker-class\", \"gthread\", \"--workers\", \"2\", \"--threads\", \"8\",\n    \
        \"--bind\", \"127.0.0.1:{port:http}\", \"--no-control-socket\", \"app:app\",";
    let flask = ("baton.toml", gunicorn, "\"flask\", \"run\", \"--port\", \"{port:http}\",");
    let ended = variant("flask, development server", "flask", as_it_is, &[flask], Loses::WhatRuns);
    assert_eq!(ended, Some(ENDED_BY_TERM));
}

#[test]
fn node_with_nothing_but_close() {
    let close = "const drain = (server) => process.on('SIGTERM', () => server.close());";
    let change = ("server.js", DRAIN, close);
    for (name, program) in [("node, close()", "node"), ("express, close()", "express")] {
        assert_eq!(variant(name, program, link_modules, &[change], Loses::Nothing), Some(0), "{name}");
    }
    let close = ("server.js", DRAIN, "const drain = () => process.on('SIGTERM', () => fastify.close());");
    let serve = ("server.js", "require('fastify')()", "require('fastify')({ return503OnClosing: false })");
    let ended =
        variant("fastify, close() without 503", "fastify", link_modules, &[close, serve], Loses::Nothing);
    assert_eq!(ended, Some(0));
    let ended = variant("fastify, close()", "fastify", link_modules, &[close], Loses::WhatComes);
    assert_eq!(ended, Some(0));
}

const DRAIN: &str = "const drain = require('./drain');";

#[test]
fn node_without_a_handler() {
    let none = ("server.js", DRAIN, "const drain = () => {};");
    for (name, program, changes) in [
        ("node, no handler", "node", vec![none]),
        ("express, no handler", "express", vec![none]),
        ("fastify, no handler", "fastify", vec![none]),
        ("node, no handler, proxy", "node", vec![none, BY_PROXY]),
    ] {
        let ended = variant(name, program, link_modules, &changes, Loses::WhatRuns);
        assert_eq!(ended, Some(ENDED_BY_TERM), "{name}");
    }
}

#[test]
fn puma() {
    for (name, change) in [
        ("puma, workers 2", ("puma.rb", "threads 8, 8", "threads 8, 8\nworkers 2")),
        ("puma, inherit", INHERITED),
        ("puma, proxy", BY_PROXY),
    ] {
        assert_eq!(variant(name, "puma", as_it_is, &[change], Loses::Nothing), Some(ENDED_BY_TERM), "{name}");
    }
}

/// Its calls pass by any library that could be put between.
#[test]
fn go_static() {
    let build_static = |folder: &Folder| {
        let mut build = command("go", &["build", "-o", "server", "main.go"], folder);
        assert!(build.env("CGO_ENABLED", "0").status().unwrap().success());
        let server = fs::read(folder.path().join("server")).unwrap();
        let asks = |interpreter: &[u8]| server.windows(interpreter.len()).any(|bytes| bytes == interpreter);
        assert!(!asks(b"ld-linux-x86-64.so"), "it is not static");
    };
    assert_eq!(variant("go, static", "go", build_static, &[], Loses::Nothing), Some(0));
}

#[test]
fn go_without_shutdown() {
    let none = (
        "main.go",
        "signal.NotifyContext(context.Background(), syscall.SIGTERM)",
        "signal.NotifyContext(context.Background(), syscall.SIGUSR1)",
    );
    let ended = variant("go, no Shutdown", "go", build_go, &[none], Loses::WhatRuns);
    assert_eq!(ended, Some(ENDED_BY_TERM));
}

#[test]
fn java() {
    let hook = "Runtime.getRuntime().addShutdownHook(new Thread(() -> drain(server)));";
    let none = ("Server.java", hook, "");
    let stop = ("Server.java", "-> drain(server)", "-> server.stop(DRAIN_SECONDS)");
    for (name, changes, loses) in [
        ("java, proxy", vec![BY_PROXY], Loses::Nothing),
        ("java, stop(5) alone", vec![stop], Loses::Nothing),
        ("java, no hook", vec![none], Loses::WhatRuns),
        ("java, no hook, proxy", vec![none, BY_PROXY], Loses::WhatRuns),
    ] {
        assert_eq!(variant(name, "java", compile, &changes, loses), Some(ENDED_BY_TERM), "{name}");
    }
}

#[test]
fn php() {
    let short = ("baton.toml", "bake = \"1s\"", "bake = \"50ms\"");
    let alone = ("baton.toml", "PHP_CLI_SERVER_WORKERS = \"8\"", "");
    let interrupt = ("baton.toml", "drain   = \"10s\"", "drain   = \"10s\"\nstop_signal = \"INT\"");
    for (name, changes, loses) in [
        ("php, proxy", vec![BY_PROXY], Loses::Nothing),
        ("php, short bake", vec![short], Loses::WhatRuns),
        ("php, short bake, one process", vec![short, alone], Loses::WhatRuns),
        ("php, short bake, INT", vec![short, interrupt], Loses::WhatRuns),
        ("php, short bake, one process, proxy", vec![short, alone, BY_PROXY], Loses::WhatRuns),
    ] {
        let ended = variant(name, "php", as_it_is, &changes, loses);
        let end = if changes.contains(&interrupt) { 0 } else { ENDED_BY_TERM };
        assert_eq!(ended, Some(end), "{name}");
    }
}
