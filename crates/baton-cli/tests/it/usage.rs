//! What is said to who types something wrong, or asks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::program::run;

/// An address where nobody is: port 1 is for root, and for a service that nobody runs.
const NOBODY: &str = "http://127.0.0.1:1";

const COMMANDS: [&str; 24] = [
    "demo", "dev", "simulate", "abort", "lock", "unlock", "init", "doctor", "server", "push", "deploy",
    "wait", "rollback", "halt", "resume", "status", "members", "deploys", "releases", "events", "token",
    "audit", "pending", "guards",
];

#[test]
fn every_command_can_be_learnt_from_its_help() {
    let dir = tempfile::tempdir().unwrap();
    let all = run(dir.path(), NOBODY, &["--help"]);
    assert_eq!(all.code, 0);
    for command in COMMANDS {
        assert!(all.stdout.contains(&format!("\n  {command} ")), "{command} in {}", all.stdout);
        let one = run(dir.path(), NOBODY, &[command, "--help"]);
        assert_eq!(one.code, 0);
        assert!(one.stdout.contains("Example"), "{}", one.stdout);
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, says) in [
        (&["deplyo"][..], "deploy"),
        (&["deploy", "--target", "some"], "such as 3"),
        (&["deploy", "--timeout", "15"], "such as 250ms"),
        (&["deploy", "--policy", "reckless"], "careful"),
        (&["deploy", "9f3a", "--service", "a b"], "starting with a letter or digit"),
        (&["deploy", "9f3a", "--service", "web", "--max-unhealthy", "100%"], "choose 50 %"),
        (&["deploy", "9f3a", "--service", "web", "--target", "0%"], "choose more, such as 10%"),
        (&["status", "web", "--service", "web"], "cannot be used with"),
        (&["deploy"], "there is no baton.toml"),
        (&["deploy", "./hello"], "there is no baton.toml in ./hello"),
        (&["deploy", "a b"], "no release and no directory with a baton.toml"),
        (&["push", "nowhere"], "there is no baton.toml"),
        (&["push", "/dev/null"], "there is no baton.toml"),
        (&["doctor"], "let `baton init` write one"),
        (&["doctor", "--slow", "report"], "begins with a slash"),
        (&["init"], "baton init -- node server.js"),
        (&["init", "--wait", "10"], "such as 250ms"),
        (&["status", "--server", "ftp://control"], "http://HOST:PORT"),
        (&["token", "create", "ada", "--role", "root"], "write viewer, deployer"),
        (&["token", "revoke"], "<ID|--member <NAME>>"),
        (&["members", "forget"], "--silent"),
        (&["init", "--server", "http://control"], "leave out --server"),
        (&["server", "--server", "http://foo:1"], "leave out --server"),
        (&["server", "--cert", "chain.pem"], "--cert-key"),
        (&["status", "--server", "http://127.0.0.1:99999"], "from 1 to 65535"),
        (&["status", "--server", "http://kim:pw@127.0.0.1:1"], "not supported"),
        (&["server", "--listen", "localhost:7401"], "write 127.0.0.1:7401"),
        (&["status", "--token-file", "nowhere"], "cannot read the token in nowhere"),
        (&["status", "--ca", "nowhere"], "cannot use the certificates in nowhere"),
        (&["server", "--dev", "--listen", "0.0.0.0:0", "--data", "data"], "--dev"),
        (&[], "Usage"),
    ] {
        let ran = run(dir.path(), NOBODY, arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn what_a_server_cannot_use_is_told_with_what_it_could_and_is_one_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let server = ["server", "--listen", "127.0.0.1:0"];
    fs::write(dir.path().join("open"), "rW3JbOtmCWl2ql0xmLZqRg==").unwrap();
    fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o644)).unwrap();
    for (arguments, says) in [
        (&["--dev", "--data", "/dev/null"][..], "choose another directory with --data"),
        (&["--dev", "--data", "/proc/x"], "choose another directory with --data"),
        // Nobody can make a file there, whoever it is.
        (&["--dev", "--data", "/sys/kernel"], "cannot keep data in /sys/kernel: choose another directory"),
        (&["--dev", "--state", "x"], "write redis://"),
        (&["--dev", "--store", "x"], "write s3://"),
        (&["--dev", "--prometheus", "x"], "write http://HOST:PORT"),
        (&["--dev", "--allowed-secrets", "nowhere"], "which service may have which secret"),
        (&["--cert", "nowhere", "--cert-key", "nowhere"], "nowhere"),
        (&["--state", "redis://127.0.0.1:1"], "--seal-key-file"),
        (&["--state", "redis://127.0.0.1:1", "--seal-key-file", "nowhere"], "--store"),
        (
            &["--state", "redis://127.0.0.1:1", "--seal-key-file", "nowhere", "--store", "s3://a/b"],
            "cannot use the key in nowhere",
        ),
        (
            &["--state", "redis://127.0.0.1:1", "--seal-key-file", "open", "--store", "s3://a/b"],
            "others may read or change it",
        ),
    ] {
        let ran = run(dir.path(), NOBODY, &[&server, arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains(".state-"), "{}", ran.stderr);
    }
}

#[test]
fn every_mistake_in_the_settings_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("baton.toml"), "servise = \"web\"\n[run]\ncommand = 3\n").unwrap();
    let ran = run(dir.path(), NOBODY, &["deploy"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("baton.toml:1:1: servise"), "{}", ran.stderr);
    assert!(ran.stderr.contains("baton.toml:3:"), "{}", ran.stderr);
}

#[test]
fn p36_settings_that_are_no_text_file_are_refused_at_once() {
    type Make = fn(&Path);
    let makes: [(Make, &str); 3] = [
        (
            |path| fs::write(path, b"service = \"web\"\nrun.command = [\"\xff\"]\n").unwrap(),
            "baton.toml:2:17: ",
        ),
        (|path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(), "baton.toml is not a file"),
        (|path| fs::create_dir(path).unwrap(), "baton.toml is not a file"),
    ];
    for (make, says) in makes {
        let dir = tempfile::tempdir().unwrap();
        make(&dir.path().join("baton.toml"));
        for arguments in [&["push"][..], &["deploy"], &["deploy", "9f3a"], &["status"], &["halt"]] {
            let ran = run(dir.path(), NOBODY, arguments);
            assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
            assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_server_that_is_not_there_is_exit_code_7() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("baton.toml"), "service = \"web\"\nrun.command = [\"./start\"]\n").unwrap();
    for arguments in [
        &["status"][..],
        &["status", "--watch"],
        &["push"],
        &["deploy"],
        &["deploy", "9f3a", "--service", "web"],
        &["wait"],
        &["rollback"],
        &["halt"],
        &["resume"],
        &["members"],
        &["deploys"],
        &["releases"],
        &["events"],
        &["events", "-f"],
    ] {
        let ran = run(dir.path(), NOBODY, arguments);
        assert_eq!(ran.code, 7, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("control is unreachable at http://127.0.0.1:1"), "{}", ran.stderr);
        assert!(ran.stderr.contains("`baton server --dev --listen 127.0.0.1:1`"), "{}", ran.stderr);
    }
    let ran = run(dir.path(), NOBODY, &["status", "--output", "json"]);
    assert_eq!((ran.code, ran.error_code().as_str(), ran.stdout.as_str()), (7, "unreachable", ""));
}
