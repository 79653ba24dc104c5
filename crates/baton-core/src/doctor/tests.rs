//! What follows from what was seen: tables.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::run::{BACKLOG_DEFAULT, Handover, Listen, RunSettings};
use crate::signal::Signal;
use crate::units::Millis;

fn web() -> RunSettings {
    let mut run = RunSettings::for_command(vec!["web".into()]);
    run.listen.push(Listen {
        name: "http".into(),
        address: "0.0.0.0:8080".parse().unwrap(),
        mode: crate::run::MODE_DEFAULT,
        handover: Handover::Auto,
        backlog: BACKLOG_DEFAULT,
        options: crate::run::SocketOptions::default(),
        per_worker: false,
    });
    run
}

fn process(line: &str) -> Process {
    let words: Vec<String> = line.split(' ').map(String::from).collect();
    Process { name: words[0].clone(), words }
}

/// A program that does everything as it should.
fn good() -> Seen {
    Seen {
        start: Start::Healthy(Millis(200)),
        processes: vec![process("web")],
        reaction: Some(Reaction::Handles),
        dropping: Vec::new(),
        given: vec![("http".into(), Given::Bound("0.0.0.0:8080".into()))],
        listening: vec![Place::Tcp("0.0.0.0:8080".parse().unwrap())],
        follows_port: Some(Ok(())),
        reload: Some(Reload {
            end: ReloadEnd::Proven,
            traffic: Some(Traffic { answered: 900, ..Traffic::default() }),
        }),
        stop: Some(Stop {
            code: 0,
            after: Millis(600),
            running: Some((Request::Slow("/slow".into()), Running::Finished(200))),
            idle: Some(Idle::LastRequest { told: true }),
            held_by_silent: None,
            left: (Vec::new(), Millis::ZERO),
        }),
    }
}

fn failed(why: &str) -> Seen {
    Seen::of(Start::Failed { why: why.into(), left_behind: Vec::new() })
}

fn with_stop(change: impl FnOnce(&mut Stop)) -> Seen {
    let mut seen = good();
    change(seen.stop.as_mut().unwrap());
    seen
}

fn lost(traffic: Traffic) -> Seen {
    Seen { reload: Some(Reload { end: ReloadEnd::Proven, traffic: Some(traffic) }), ..good() }
}

/// The only findings that are not fine, as `topic verdict: set`.
fn told(run: &RunSettings, seen: &Seen) -> Vec<String> {
    let all = findings(run, seen);
    let topics: Vec<Topic> = all.iter().map(|finding| finding.topic).collect();
    assert!(topics.is_sorted(), "{topics:?}");
    let wrong = all.iter().filter(|finding| finding.verdict != Verdict::Fine);
    wrong
        .map(|finding| {
            let set = finding.set.as_deref().unwrap_or("nothing");
            alloc::format!("{} {}: {set}", finding.topic.word(), finding.verdict.word())
        })
        .collect()
}

#[test]
fn a_program_that_does_as_it_should_is_fine_in_everything() {
    let all = findings(&web(), &good());
    assert!(all.iter().all(|finding| finding.verdict == Verdict::Fine && finding.set.is_none()), "{all:#?}");
    let topics = all.iter().map(|finding| finding.topic.word()).collect::<Vec<_>>().join(" ");
    assert_eq!(topics, "start socket port reload stop-signal running-request idle-connection end");
}

#[test]
fn what_is_wrong_with_a_start_is_told_with_what_to_do_and_nothing_else_is() {
    let nginx = vec![process("nginx: master process nginx")];
    let listening = vec![Place::Tcp("127.0.0.1:3000".parse().unwrap())];
    let daemon = Start::Failed { why: "exit 0 after 20 ms".into(), left_behind: vec!["nginx".into()] };
    for (seen, expected) in [
        (failed("could not start: there is no program \"web\" in PATH"), "start bad: run.command"),
        (failed("exit 1 after 0.8 s"), "start bad: look at what it wrote last"),
        (failed("killed by SIGSEGV after 1 s"), "start bad: look at what it wrote last"),
        (failed("not healthy within 1 min: GET / answered 503"), "start bad: a path that answers 200"),
        (
            Seen { listening, ..failed("not healthy within 1 min: the program listens on 127.0.0.1:3000") },
            "start bad: address = \"127.0.0.1:3000\" of listener \"http\"",
        ),
        (Seen { processes: nginx, ..Seen::of(daemon) }, "start bad: write `daemon off;`"),
        (
            Seen { start: Start::Healthy(Millis::from_secs(59)), ..good() },
            "start note: startup_timeout = \"180s\"",
        ),
    ] {
        let told = told(&web(), &seen);
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}, not {expected:?}");
    }
    let denied = vec![("http".into(), Given::Refused("it opened an IPv4 socket".into()))];
    let both = told(&web(), &Seen { given: denied, ..failed("exit 1 after 0.8 s") });
    assert!(both.len() == 2 && both[1].starts_with("socket bad: the address"), "{both:?}");
    let worker = RunSettings::for_command(vec!["work".into()]);
    let told = told(&worker, &failed("not ready within 1 min"));
    assert!(told[0].contains("READY=1"), "{told:?}");
}

#[test]
fn how_it_listens_is_judged() {
    let given = |given| Seen { given: vec![("http".into(), given)], ..good() };
    let listening = |place: Place| Seen { listening: vec![good().listening.remove(0), place], ..good() };
    for (seen, expected) in [
        (given(Given::Took), None),
        (given(Given::Proxied), None),
        (given(Given::Relayed), Some("socket note: nothing")),
        (
            given(Given::Refused("it opened an IPv4 socket".into())),
            Some("socket bad: the address of the listener"),
        ),
        (given(Given::Nobody), Some("socket bad: leave the listener out")),
        (
            listening(Place::Tcp("127.0.0.1:9090".parse().unwrap())),
            Some(
                "other-listeners note: [[run.listen]] with name = \"other\" and address = \"127.0.0.1:9090\"",
            ),
        ),
        // The same port on another address is what a wildcard or a second family looks like.
        (listening(Place::Tcp("[::]:8080".parse().unwrap())), None),
        (
            listening(Place::Unix("/run/web.sock".into())),
            Some(
                "other-listeners note: [[run.listen]] with name = \"other\" and address = \"unix:/run/web.sock\"",
            ),
        ),
        (Seen { follows_port: Some(Err("exit 1".into())), ..good() }, Some("port note: let it bind $PORT")),
    ] {
        let told = told(&web(), &seen);
        assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}, not {expected:?}");
        assert!(told.iter().all(|told| told.starts_with(expected.unwrap())), "{told:?}, not {expected:?}");
    }
}

#[test]
fn a_reload_is_judged_by_what_it_loses() {
    let first = Some("answered with 503".to_string());
    let some = Traffic { answered: 90, lost: 3, idle_closes: 1, first_lost: first };
    let idle = Traffic { answered: 90, idle_closes: 2, ..Traffic::default() };
    let refused = |seen: Seen| Seen {
        reload: Some(Reload { end: ReloadEnd::Refused("exit 1 after 1 s".into()), traffic: None }),
        ..seen
    };
    let other = Place::Unix("/run/web.sock".into());
    for (seen, expected) in [
        (lost(some), "reload bad: let it stop accepting"),
        (lost(idle), "reload note: answer a last request"),
        (refused(good()), "reload bad: no pid file"),
        (
            refused(Seen { listening: vec![other], ..good() }),
            "reload bad: /run/web.sock must not be the same",
        ),
    ] {
        let told = told(&web(), &seen);
        assert!(told.iter().any(|told| told.starts_with(expected)), "{told:?}, not {expected:?}");
    }
}

#[test]
fn a_stop_is_judged_by_what_becomes_of_requests_and_by_its_end() {
    let running = |became| with_stop(|stop| stop.running = Some((Request::Slow("/slow".into()), became)));
    let idle = |idle| with_stop(|stop| stop.idle = Some(idle));
    let code = |code| with_stop(|stop| stop.code = code);
    let left = |ms| with_stop(|stop| stop.left = (vec!["child".into()], Millis(ms)));
    let reacts = |reaction| Seen { reaction: Some(reaction), ..good() };
    let shell = Seen { processes: vec![process("sh -c web"), process("web")], ..reacts(Reaction::Ends) };
    for (seen, expected) in [
        (running(Running::Finished(404)), None),
        (running(Running::Finished(503)), Some("running-request bad: let it stop accepting")),
        (running(Running::Cut), Some("running-request bad: let it stop accepting")),
        (running(Running::Unanswered), Some("running-request bad: drain")),
        (running(Running::AnsweredBefore), Some("running-request note: try again with --slow PATH")),
        (idle(Idle::NotKept), None),
        (idle(Idle::LastRequest { told: false }), None),
        (idle(Idle::Closed), Some("idle-connection note: answer a last request")),
        (idle(Idle::NotAnswered), Some("idle-connection note: answer a last request")),
        (code(143), None),
        (code(1), Some("end note: exit code 0")),
        (code(137), Some("end bad: let it exit")),
        (with_stop(|stop| stop.held_by_silent = Some(Millis(8000))), Some("end note: close connections")),
        (left(100), None),
        (left(2000), Some("processes note: let the main process")),
        (reacts(Reaction::Ends), Some("stop-signal bad: let it stop accepting")),
        (reacts(Reaction::Ignores), Some("stop-signal bad: another stop_signal")),
        (shell, Some("stop-signal bad: `exec`")),
    ] {
        let told = told(&web(), &seen);
        assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}, not {expected:?}");
        assert!(told.iter().all(|told| told.starts_with(expected.unwrap())), "{told:?}, not {expected:?}");
    }
    let worker = RunSettings::for_command(vec!["work".into()]);
    let told = told(&worker, &Seen { given: Vec::new(), listening: Vec::new(), ..reacts(Reaction::Ends) });
    assert!(told[0].starts_with("stop-signal note: a handler for SIGTERM"), "{told:?}");
}

#[test]
fn who_has_processes_that_a_stop_ends_at_once_is_told_to_ask_them_last() {
    let told_to = "processes note: stop_tree_after = \"30s\" under [run]";
    let quiet = || Seen { given: Vec::new(), listening: Vec::new(), follows_port: None, ..good() };
    let crew = || Seen { dropping: vec!["hand".into()], ..quiet() };
    let celery = Seen { processes: vec![process("celery worker")], ..quiet() };
    let worker = RunSettings::for_command(vec!["work".into()]);
    for (seen, expected) in [
        (quiet(), None),
        (crew(), Some(told_to)),
        // Its children may have come later than anybody looked.
        (celery.clone(), Some(told_to)),
        // Nobody waits for them in any case.
        (Seen { reaction: Some(Reaction::Ignores), ..crew() }, None),
    ] {
        let all = told(&worker, &seen);
        let found = all.iter().find(|told| told.starts_with("processes"));
        assert_eq!(found.is_some(), expected.is_some(), "{all:?}");
        assert!(found.is_none_or(|told| told.starts_with(expected.unwrap())), "{all:?}");
    }
    let settled = RunSettings { stop_tree_after: Some(worker.drain), ..worker };
    assert!(told(&settled, &crew()).is_empty() && told(&settled, &celery).is_empty());
}

#[test]
fn a_server_that_finishes_at_another_signal_is_told_which() {
    for (line, set) in [
        ("nginx: master process", Some("stop_signal = \"QUIT\" under [run]")),
        ("php-fpm: master process", Some("stop_signal = \"QUIT\" under [run]")),
        ("haproxy -f x", Some("stop_signal = \"USR1\" under [run]")),
        ("gunicorn: master", None),
    ] {
        let seen = Seen { processes: vec![process(line)], ..good() };
        let found = findings(&web(), &seen);
        let signal = found.iter().find(|finding| finding.topic == Topic::StopSignal).unwrap();
        assert_eq!(signal.set.as_deref(), set, "{line}");
        let settled = RunSettings { stop_signal: Signal::QUIT, ..web() };
        assert!(told(&settled, &seen).is_empty(), "{line}");
    }
}
