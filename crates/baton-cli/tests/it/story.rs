//! What people do, one after the other, with a server that has no members.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use crate::control::Control;
use crate::program::{Ran, baton, run};
use crate::wait::wait_for;

/// A project whose program is one script.
pub fn sample_project(dir: &Path) {
    fs::write(
        dir.join("baton.toml"),
        "service = \"web\"\n[run]\ncommand = [\"./start\"]\n[rollout]\nmax_unhealthy = \"20%\"\n",
    )
    .unwrap();
    fs::write(dir.join(".batonignore"), "data\n").unwrap();
    let start = dir.join("start");
    fs::write(&start, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755)).unwrap();
}

struct Place {
    dir: tempfile::TempDir,
    _data: tempfile::TempDir,
    control: Control,
}

impl Place {
    fn new() -> Self {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample_project(dir.path());
        Self { control: Control::start(data.path()), dir, _data: data }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(self.dir.path(), &self.control.url, arguments)
    }

    /// Runs a command that must succeed.
    fn must(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran
    }

    /// Starts a command that waits, until its first line of output.
    fn start(&self, arguments: &[&str]) -> Child {
        let mut child = baton(self.dir.path(), &self.control.url, arguments).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("no members") {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "{arguments:?} ended early");
        }
        // The rest is read, so that nothing blocks.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        child
    }
}

#[test]
fn a_release_is_pushed_deployed_seen_and_stopped() {
    let place = Place::new();
    let pushed = place.must(&["push", "--output", "json"]).json();
    let release = pushed["id"].as_str().unwrap().to_owned();
    assert_eq!((pushed["service"].as_str(), release.len()), (Some("web"), 64));
    let again = place.must(&["push"]).stdout;
    assert!(again.contains(&format!("pushed release {} of web", &release[..12])), "{again}");
    assert!(again.contains("of which 0 B were new"), "{again}");

    let accepted = place.must(&["deploy", &release[..8], "--detach", "-m", "first\x1b[2J"]).stdout;
    assert!(accepted.starts_with(&format!("web goes to release {}: deploy ", &release[..12])), "{accepted}");
    assert!(accepted.contains("(epoch 1, durable)") && accepted.contains("--watch"), "{accepted}");

    let preview = place.must(&["deploy", &release[..8], "--dry-run"]).stdout;
    assert!(
        preview.starts_with(&format!("release {} would go to 0 members:\n", &release[..12])),
        "{preview}"
    );

    let status = place.must(&["status", "web", "--output", "json"]).json();
    assert_eq!(status["deploy"]["release"], release.as_str());
    assert_eq!(status["deploy"]["policy"]["max_unhealthy_ppm"], 200_000, "as baton.toml says");
    let shown = place.must(&["status"]).stdout;
    assert!(shown.contains("first\\x1b[2J") && !shown.contains('\x1b'), "{shown:?}");
    assert_eq!(place.must(&["status", "--output", "json"]).json()[0]["service"], "web");
    assert_eq!(place.must(&["status", "--service", "web", "--output", "json"]).json()["service"], "web");

    assert!(place.must(&["halt", "-m", "wait"]).stdout.starts_with("web halts at release"));
    assert_eq!(place.must(&["status", "web", "--output", "json"]).json()["state"], "halted");
    place.must(&["resume", "--detach"]);
    let deploys = place.must(&["deploys", "--output", "json"]).json();
    let epochs: Vec<_> = deploys.as_array().unwrap().iter().map(|deploy| deploy["epoch"].as_u64()).collect();
    assert_eq!(epochs, [Some(3), Some(2), Some(1)]);
    assert!(place.must(&["deploys"]).stdout.contains("halt"));

    assert!(place.must(&["releases"]).stdout.contains(&release[..12]));
    assert_eq!(place.must(&["members"]).stdout, "no members yet: start one with baton-boot\n");
    let events = wait_for("the events", || {
        let events = place.must(&["events", "--output", "json"]).json();
        let kinds: Vec<_> = events.as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
        ["deployed", "halted", "resumed"].iter().all(|kind| kinds.contains(&(*kind).into())).then_some(events)
    });
    let last = place.must(&["events", "--last", "1", "--output", "json"]).json();
    assert_eq!(last[0], events[events.as_array().unwrap().len() - 1]);
    assert_eq!(place.must(&["events", "--last", "2"]).stdout.lines().count(), 2);
}

#[test]
fn what_limits_the_rollouts_of_a_service_does_so_from_wherever_one_is_deployed() {
    let place = Place::new();
    let settings = "service = \"web\"\n[run]\ncommand = [\"./start\"]\n\
                    [rollout]\npolicy = \"careful\"\nmin_available = 10\nauto_rollback = false\n";
    fs::write(place.dir.path().join("baton.toml"), settings).unwrap();
    place.must(&["deploy", "--all-at-once", "--detach"]);
    let release = place.must(&["status", "web", "--output", "json"]).json()["deploy"]["release"].clone();
    let release = release.as_str().unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    for deploy in [
        &["deploy", release, "--service", "web"][..],
        &["deploy", &format!("web={release}"), "then", "api=0"],
    ] {
        let typed: Vec<_> = deploy.iter().copied().chain(["--dry-run"]).collect();
        let ran = run(elsewhere.path(), &place.control.url, &typed);
        assert!(ran.stderr.contains("web is rolled out as its last deploy was"), "{ran:?}");
    }
    let ran = run(
        elsewhere.path(),
        &place.control.url,
        &["deploy", release, "--service", "web", "--bake", "2m", "--detach"],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let deploy = place.must(&["status", "web", "--output", "json"]).json()["deploy"].clone();
    let policy = &deploy["policy"];
    assert_eq!(policy["limits"]["min_available"], 10);
    assert_eq!(
        (policy["auto_rollback"].as_bool(), policy["all_at_once"].as_bool()),
        (Some(false), Some(false))
    );
    assert_eq!(policy["phases"][0]["bake_ms"], 120_000, "what was typed goes over it");
}

#[test]
fn a_directory_that_is_named_is_pushed_and_rolled_out() {
    let place = Place::new();
    let above = tempfile::tempdir().unwrap();
    fs::create_dir(above.path().join("shop")).unwrap();
    sample_project(&above.path().join("shop"));
    let run = |arguments: &[&str]| run(above.path(), &place.control.url, arguments);
    for (epoch, named) in [(1, "./shop"), (2, "shop")] {
        let ran = run(&["deploy", named, "--detach", "--output", "json"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let deployed = ran.json();
        assert_eq!((&deployed["service"], &deployed["epoch"]), (&"web".into(), &epoch.into()), "{named}");
        assert_eq!(deployed["policy"]["max_unhealthy_ppm"], 200_000, "as its baton.toml says");
    }
}

/// A native library whose file does not say which version it is.
fn library(place: &Place, version: &str) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("answer.c");
    fs::write(&source, "int answer(void) { return 42; }\n").unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-nostdlib", "-fPIC", &format!("-Wl,-soname,libanswer.so.{version}"), "-o"]);
    let done = compiler.args([&place.dir.path().join("libanswer.so"), &source]).status();
    assert!(done.is_ok_and(|done| done.success()), "this test needs a C compiler: scripts/setup");
}

#[test]
fn a_push_tells_what_changes_and_a_dry_one_uploads_nothing() {
    let place = Place::new();
    let write = |name: &str, text: &str| fs::write(place.dir.path().join(name), text).unwrap();
    let lock = |version: &str| {
        format!("{{\"packages\": {{\"node_modules/express\": {{\"version\": \"{version}\"}}}}}}")
    };
    write("package-lock.json", &lock("4.18.2"));
    write("libpq.so.5.9", "one");
    library(&place, "1");
    let tried = place.must(&["push", "--dry-run", "--output", "json"]).json();
    assert_eq!((&tried["pushed"], &tried["difference"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(place.must(&["releases", "--output", "json"]).json().as_array().unwrap().len(), 0);
    let pushed = place.must(&["push", "--output", "json"]).json();
    assert_eq!((&pushed["id"], &pushed["bytes_new"]), (&tried["id"], &tried["bytes_new"]));
    place.must(&["deploy", pushed["id"].as_str().unwrap(), "--detach"]);
    let same = place.must(&["push"]).stdout;
    assert!(same.contains("nothing changes since release"), "{same}");

    write("package-lock.json", &lock("4.19.0"));
    write("libpq.so.5.17", "two");
    library(&place, "2");
    fs::remove_file(place.dir.path().join("libpq.so.5.9")).unwrap();
    let toml = fs::read_to_string(place.dir.path().join("baton.toml")).unwrap();
    write("baton.toml", &toml.replace("[run]", "[push]\nexclude = [\"*.map\"]\n[run]\ndrain = \"5s\""));
    write("app.map", "");
    let told = place.must(&["push", "--dry-run"]).stdout;
    for line in [
        "would push release",
        "  3 paths changed: baton.toml, libanswer.so, package-lock.json\n",
        "  1 path added: libpq.so.5.17\n",
        "  1 path removed: libpq.so.5.9\n",
        "  run.drain 30000 → 5000\n",
        "  package-lock.json: express 4.18.2 → 4.19.0\n",
        "  native libraries: libanswer 1 → 2, libpq 5.9 → 5.17\n",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let difference = place.must(&["push", "--output", "json"]).json()["difference"].take();
    assert_eq!(difference["since"], pushed["id"]);
    assert_eq!(difference["locks"][0]["packages"][0]["name"], "express");

    write("Start", "");
    let told = place.must(&["push"]);
    assert!(told.stderr.contains("Start and start are one path"), "{told:?}");
    write("baton.toml", &toml.replace("[run]", "push.portable = true\n[run]"));
    let refused = place.run(&["push"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("Start and start are the same"), "{refused:?}");
}

#[test]
fn refusals_have_the_exit_code_of_their_kind() {
    let place = Place::new();
    let ran = place.run(&["status", "api"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no service api"), "{}", ran.stderr);
    let ran = place.run(&["deploy", "0000000000", "--output", "json"]);
    assert_eq!((ran.code, ran.error_code().as_str()), (1, "not-found"), "{ran:?}");
    place.must(&["deploy", "--detach"]);
    let ran = place.run(&["resume"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("nothing to resume"), "{}", ran.stderr);
    assert_eq!(place.run(&["rollback"]).code, 1, "there is no way back");
}

#[test]
fn a_service_that_nobody_knows_is_told_by_every_command() {
    let place = Place::new();
    place.must(&["deploy", "--detach"]);
    for arguments in [
        &["status", "--watch"][..],
        &["status"],
        &["members"],
        &["deploys"],
        &["releases"],
        &["events"],
        &["events", "--follow"],
        &["halt"],
        &["resume"],
        &["rollback"],
    ] {
        let ran = place.run(&[arguments, &["--service", "nosuch"]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("no service nosuch here: known are web"), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn who_waits_longer_than_the_limit_is_told_that_it_goes_on() {
    let place = Place::new();
    let ran = place.run(&["deploy", "--timeout", "1ms"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stdout.contains("it goes on: see `baton status web --watch`"), "{}", ran.stdout);
    let ran = place.run(&["deploy", "--timeout", "1ms", "--output", "json"]);
    assert_eq!((ran.code, ran.error_code().as_str()), (4, "timed-out"));
    assert_eq!(ran.json()["service"], "web");
}

#[test]
fn a_halt_ends_the_waiting() {
    let place = Place::new();
    let mut waiting = place.start(&["deploy"]);
    place.must(&["halt", "-m", "no"]);
    assert_eq!(waiting.wait().unwrap().code(), Some(3));
}

#[test]
fn another_deploy_ends_the_waiting() {
    let place = Place::new();
    let mut waiting = place.start(&["deploy"]);
    place.must(&["deploy", "--detach", "-m", "me too"]);
    assert_eq!(waiting.wait().unwrap().code(), Some(5));
}

#[test]
fn a_rollout_that_began_before_is_waited_for_as_by_who_began_it() {
    let place = Place::new();
    let nothing = place.run(&["wait", "--service", "web"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (1, ""), "nobody knows the service: {nothing:?}");
    let deploy = place.must(&["deploy", "--detach", "--output", "json"]).json();
    let deploy = deploy["id"].as_str().unwrap();
    let over = place.run(&["wait", "--timeout", "1ms", "--output", "json"]);
    assert_eq!((over.code, over.error_code().as_str()), (4, "timed-out"), "{over:?}");
    assert_eq!(over.json()["deploy"]["id"], deploy);
    let unknown = place.run(&["wait", "zz"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("`baton deploys`"), "{unknown:?}");
    let mut waiting = [place.start(&["wait", &deploy[..6]]), place.start(&["wait", "--for", "drained"])];
    place.must(&["halt", "-m", "no"]);
    for waiting in &mut waiting {
        assert_eq!(waiting.wait().unwrap().code(), Some(3));
    }
    // Also who comes later.
    let late = place.run(&["wait"]);
    assert!(late.code == 3 && late.stdout.contains("halted: release"), "{late:?}");
    place.must(&["deploy", "--detach"]);
    let gone = place.run(&["wait", deploy]);
    assert!(gone.code == 5 && gone.stdout.contains("another deploy took over (deploy"), "{gone:?}");
}

#[test]
fn ctrl_c_detaches_and_never_aborts() {
    let place = Place::new();
    let waiting = place.start(&["deploy"]);
    kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
    let ended = Ran::from(waiting.wait_with_output().unwrap());
    assert_eq!(ended.code, 130);
    assert!(
        ended.stderr.contains("detached: the rollout goes on; see `baton status web --watch`"),
        "{ended:?}"
    );
    assert_eq!(place.must(&["status", "web", "--output", "json"]).json()["deploy"]["kind"], "rollout");
}

#[test]
fn new_events_and_changes_are_printed_as_they_come() {
    let place = Place::new();
    place.must(&["deploy", "--detach"]);
    for arguments in [&["events", "-f", "--output", "json"][..], &["status", "--watch", "--output", "json"]] {
        let mut following = baton(place.dir.path(), &place.control.url, arguments).spawn().unwrap();
        let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        let first = next();
        serde_json::from_str::<serde_json::Value>(&first).unwrap();
        place.must(&["deploy", "--detach", "-m", arguments[0]]);
        while !next().contains("\"web\"") {}
        kill_process(Pid::from_child(&following), Signal::INT).unwrap();
        assert_eq!(following.wait().unwrap().code(), Some(130));
    }
}

#[test]
fn a_push_of_nothing_is_warned_of_and_has_no_age() {
    let place = Place::new();
    fs::write(place.dir.path().join("baton.toml"), "service = \"web\"\nrun.command = [\"true\"]\n").unwrap();
    fs::write(place.dir.path().join(".batonignore"), "*\n").unwrap();
    let ran = place.must(&["push"]);
    assert!(ran.stderr.contains("the release has no files"), "{ran:?}");
    assert!(!place.must(&["releases"]).stdout.contains("ago"));
}
