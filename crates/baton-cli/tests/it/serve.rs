//! `baton server` as a process of its own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{baton, run};
use crate::story::sample_project;

const ARGUMENTS: [&str; 6] = ["server", "--dev", "--listen", "127.0.0.1:0", "--data", "data"];

/// Starts the server and reads its address from its first line.
fn start(dir: &Path) -> (Child, String) {
    heard(baton(dir, "", &ARGUMENTS).env_remove("BATON_SERVER"))
}

fn heard(server: &mut Command) -> (Child, String) {
    let mut server = server.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    (server, url.to_owned())
}

#[test]
fn p43_a_server_that_crashes_leaves_no_secrets_in_a_core_file() {
    let dir = tempfile::tempdir().unwrap();
    let server = baton(dir.path(), "", &ARGUMENTS);
    // As large a core file as there may be.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -c $(ulimit -H -c) && exec \"$0\" \"$@\""]);
    limited.arg(server.get_program()).args(server.get_args()).current_dir(dir.path()).stdout(Stdio::piped());
    let (mut server, _) = heard(limited.env_remove("BATON_SERVER"));
    kill_process(Pid::from_child(&server), Signal::ABORT).unwrap();
    let ended = server.wait().unwrap();
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!ended.core_dumped(), "{ended:?}");
}

#[test]
fn p31_an_accepted_deploy_survives_a_kill_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    sample_project(dir.path());
    let (mut server, url) = start(dir.path());
    let ran = run(dir.path(), &url, &["deploy", "--detach", "--output", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let accepted = ran.json();
    assert_eq!(accepted["accepted"], "durable");
    server.kill().unwrap();
    server.wait().unwrap();

    let (mut server, url) = start(dir.path());
    let deploys = run(dir.path(), &url, &["deploys", "--output", "json"]).json();
    assert_eq!(deploys[0]["id"], accepted["id"]);
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0), "a server that is told to stop ends well");
}
