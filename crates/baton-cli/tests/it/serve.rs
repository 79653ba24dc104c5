//! `baton server` as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{baton, run};
use crate::story::sample_project;

/// Starts the server and reads its address from its first line.
fn start(dir: &Path) -> (Child, String) {
    let arguments = ["server", "--dev", "--listen", "127.0.0.1:0", "--data", "data"];
    let mut server = baton(dir, "", &arguments).env_remove("BATON_SERVER").spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    (server, url.to_owned())
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
