//! `baton init`, and that what it writes works.

use std::net::SocketAddr;
use std::process::Output;

use rustix::process::Signal;

use super::{PATH, baton};
use crate::boot::{Boot, Folder, free_address};
use crate::demo::assert_nothing_left;
use crate::program::Client;

/// The program of an example, without its settings.
fn program(name: &str) -> Folder {
    let folder = Folder::with_example(name);
    std::fs::remove_file(folder.path().join("baton.toml")).unwrap();
    folder
}

/// `baton init` for a program that listens here.
fn init(folder: &Folder, address: SocketAddr, arguments: &[&str]) -> Output {
    let port = address.port().to_string();
    let ran = baton(folder, PATH, &[&["init"], arguments].concat()).env("PORT", port).output().unwrap();
    assert_nothing_left(folder);
    ran
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_written_for_the_examples_starts_reloads_and_answers() {
    for (name, command) in [("python", ["python3", "server.py"]), ("node", ["node", "server.js"])] {
        let (folder, address) = (program(name), free_address());
        let ran = init(&folder, address, &["--", command[0], command[1]]);
        let written = folder.read("baton.toml");
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        assert!(text(&ran.stdout).starts_with(&written) && !written.is_empty(), "{ran:?}");
        for line in [
            format!("address = \"{address}\""),
            "http = \"/health\"".to_owned(),
            "# GET /health answered 200.".to_owned(),
            "# An idle connection had a last request answered.".to_owned(),
        ] {
            assert!(written.lines().any(|one| one == line), "{line:?} is not in\n{written}");
        }
        // Node cannot speak the protocol.
        assert_eq!(written.contains("ready = \"notify\""), name == "python", "{written}");
        let boot = Boot::start(&folder, &[], &[]);
        boot.wait_for("generation 1 (image) serves", 1);
        boot.signal(Signal::HUP);
        boot.wait_for("generation 2 (image) serves", 1);
        let answer = Client::connect(address).unwrap().get("/").unwrap();
        assert_eq!((answer.status, answer.generation()), (200, "2"));
        assert!(boot.stop().success());
    }
}

#[test]
fn a_worker_is_written_down_as_one_and_reloads() {
    let folder = program("worker");
    assert_eq!(init(&folder, free_address(), &["--", "python3", "worker.py"]).status.code(), Some(0));
    let written = folder.read("baton.toml");
    assert!(written.contains("ready = \"notify\"") && !written.contains("[[run.listen]]"), "{written}");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for("generation 1 (image) serves", 1);
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) serves", 1);
    assert!(boot.stop().success());
}

#[test]
fn the_command_is_found_where_platforms_look_for_it() {
    let (folder, address) = (program("node"), free_address());
    folder.write("package.json", "{\"scripts\":{\"start\":\"node server.js\"}}");
    let ran = init(&folder, address, &["--print"]);
    assert!(
        text(&ran.stdout)
            .contains("# Taken from package.json: scripts.start.\ncommand = [\"node\", \"server.js\"]")
    );
    folder.write("Procfile", "web: node server.js $PORT\n");
    let ran = init(&folder, address, &["--print"]);
    assert!(
        text(&ran.stdout).contains("command = [\"sh\", \"-c\", \"exec node server.js $PORT\"]"),
        "{ran:?}"
    );
    assert_eq!(folder.read("baton.toml"), "", "--print writes nothing");
}

#[test]
fn a_port_in_the_command_becomes_the_listeners_and_every_family_is_told() {
    let (folder, address) = (Folder::empty(), free_address());
    folder.write("index.html", "hello");
    let port = address.port().to_string();
    let ran = init(&folder, address, &["--", "python3", "-m", "http.server", &port, "--bind", "::"]);
    let written = folder.read("baton.toml");
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert!(
        written.contains("\"{port:http}\"") && written.contains(&format!("address = \"[::]:{port}\"")),
        "{written}"
    );
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for("generation 1 (image) serves", 1);
}

#[test]
fn settings_that_are_there_are_left_as_they_are_unless_that_is_said() {
    let (folder, address) = (program("python"), free_address());
    folder.write("baton.toml", "# mine\n");
    let command = ["--", "python3", "server.py"];
    let ran = init(&folder, address, &command);
    assert_eq!((ran.status.code(), folder.read("baton.toml").as_str()), (Some(2), "# mine\n"));
    assert!(text(&ran.stderr).contains("--force"), "{ran:?}");
    let ran = init(&folder, address, &[&["--force"], &command[..]].concat());
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert!(folder.read("baton.toml").contains(&address.to_string()));
}

#[test]
fn for_a_program_that_does_not_go_on_nothing_is_written() {
    for (command, says) in
        [("exit 3", "exit 3"), ("setsid sleep 60 & exit 0", "left sleep behind: run it in the foreground")]
    {
        let folder = Folder::empty();
        let ran = init(&folder, free_address(), &["--", "sh", "-c", command]);
        assert_eq!((ran.status.code(), folder.read("baton.toml").as_str()), (Some(1), ""), "{ran:?}");
        assert!(text(&ran.stderr).contains(says), "{ran:?}");
    }
}
