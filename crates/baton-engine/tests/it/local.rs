//! In place of the bootloader stands a shell script: what is tested is the process, not what it does.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use baton_engine::local::{LocalError, LocalMember, Spec};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);
/// Set in the copy of this test binary that is killed.
const STARTER_DIR: &str = "BATON_TEST_STARTER_DIR";

fn spec(dir: &Path, script: &str) -> Spec {
    let boot = dir.join("boot");
    // Another process writes it: a child that a test beside this one forks just then would hold it open for
    // writing, and it could not be run.
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let written = Command::new("sh").args(["-c", write]).arg(&boot).arg(script).status().unwrap();
    assert!(written.success());
    Spec {
        boot,
        server: "http://127.0.0.1:7400".to_owned(),
        service: "web".parse().unwrap(),
        member: "web-1".parse().unwrap(),
        state_dir: dir.join("state"),
        listen: vec![("http".to_owned(), "127.0.0.1:9001".parse().unwrap())],
        env: vec![("COLOUR".to_owned(), "blue".to_owned())],
        output: dir.join("output"),
    }
}

/// Waits until the file has this line.
fn wait_for_line(path: &Path, line: &str) {
    let deadline = Instant::now() + LIMIT;
    while !fs::read_to_string(path).unwrap_or_default().lines().any(|found| found == line) {
        assert!(Instant::now() < deadline, "no line {line:?} in {}", path.display());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Says so when it is asked to end, and then does.
const POLITE: &str = "trap 'echo ending; exit 7' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn a_member_finds_its_settings_in_its_environment_and_its_output_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo $BATON_SERVER $BATON_SERVICE $BATON_MEMBER $BATON_LISTEN $COLOUR\n\
                  echo $BATON_STATE_DIR >&2";
    let spec = spec(dir.path(), script);
    let mut member = LocalMember::start(&spec).unwrap();
    assert!(member.wait(LIMIT).unwrap().unwrap().success());
    let output = fs::read_to_string(&spec.output).unwrap();
    let state = spec.state_dir.display();
    assert_eq!(output, format!("http://127.0.0.1:7400 web web-1 http=127.0.0.1:9001 blue\n{state}\n"));
    // Ended members take every call.
    member.terminate().unwrap();
    member.kill().unwrap();
}

#[test]
fn a_member_is_asked_to_end_and_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), POLITE);
    let mut member = LocalMember::start(&spec).unwrap();
    wait_for_line(&spec.output, "ready");
    assert_eq!(member.wait(Duration::ZERO).unwrap(), None);
    member.terminate().unwrap();
    assert_eq!(member.wait(LIMIT).unwrap().unwrap().code(), Some(7));
}

#[test]
fn a_killed_member_has_no_time_for_words() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), POLITE);
    let mut member = LocalMember::start(&spec).unwrap();
    wait_for_line(&spec.output, "ready");
    member.kill().unwrap();
    assert_eq!(member.wait(LIMIT).unwrap().unwrap().signal(), Some(9));
    assert_eq!(fs::read_to_string(&spec.output).unwrap(), "ready\n");
}

#[test]
fn a_dropped_member_ends() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), POLITE);
    let member = LocalMember::start(&spec).unwrap();
    wait_for_line(&spec.output, "ready");
    let process = format!("/proc/{}", member.pid());
    drop(member);
    assert!(!Path::new(&process).exists());
    wait_for_line(&spec.output, "ending");
}

#[test]
fn what_cannot_start_says_which_binary_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(dir.path(), "");
    spec.boot = dir.path().join("nothing-here");
    let error = LocalMember::start(&spec).unwrap_err();
    assert!(matches!(error, LocalError::Start { .. }));
    assert!(error.to_string().contains("nothing-here"), "{error}");
}

#[test]
fn members_end_when_their_starter_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let output = spec(dir.path(), POLITE).output;
    let this = std::env::current_exe().unwrap();
    let mut starter = Command::new(this)
        .args(["--exact", "local::starter", "--nocapture"])
        .env(STARTER_DIR, dir.path())
        .spawn()
        .unwrap();
    wait_for_line(&output, "ready");
    starter.kill().unwrap();
    starter.wait().unwrap();
    wait_for_line(&output, "ending");
}

/// Not a test of its own: the process that [`members_end_when_their_starter_is_killed`] kills.
#[test]
fn starter() {
    if let Some(dir) = std::env::var_os(STARTER_DIR) {
        let mut member = LocalMember::start(&spec(Path::new(&dir), POLITE)).unwrap();
        member.wait(LIMIT).unwrap();
    }
}
