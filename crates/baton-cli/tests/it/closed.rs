//! The commands against a server that asks who is there.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use baton_control::Certificates;

use crate::control::Control;
use crate::program::{Ran, baton};
use crate::story::sample_project;

/// Runs a command that shows this.
fn run(dir: &Path, control: &Control, token: &str, arguments: &[&str]) -> Ran {
    baton(dir, &control.url, arguments).env("BATON_TOKEN", token).output().unwrap().into()
}

/// A new token of this role.
fn create(dir: &Path, control: &Control, admin: &str, name: &str, role: &str, more: &[&str]) -> String {
    let ran = run(dir, control, admin, &[&["token", "create", name, "--role", role], more].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.trim().to_owned()
}

fn start(dir: &Path) -> (Control, String) {
    let control = Control::start_closed(&dir.join("data"), Certificates::Own { names: Vec::new() });
    assert!(control.url.starts_with("https://"), "{}", control.url);
    (control, fs::read_to_string(dir.join("data/admin.token")).unwrap())
}

#[test]
fn p37_commands_need_a_token_and_do_what_its_role_may() {
    let dir = tempfile::tempdir().unwrap();
    sample_project(dir.path());
    let (control, admin) = start(dir.path());
    let json = ["--output", "json"];
    let create =
        |name: &str, role: &str, more: &[&str]| create(dir.path(), &control, &admin, name, role, more);
    let (viewer, ci) =
        (create("eve", "viewer", &[]), create("ci", "deployer", &["--service", "web", "--ttl", "1h"]));

    let nobody = run(dir.path(), &control, "", &["status"]);
    assert_eq!(nobody.code, 7, "without a token it is not even known whom to believe: {nobody:?}");
    let ca = dir.path().join("data/ca.pem");
    let nobody = run(dir.path(), &control, "", &["status", "--ca", ca.to_str().unwrap()]);
    assert!(nobody.code == 6 && nobody.stderr.contains("baton token create"), "{nobody:?}");
    assert!(nobody.stderr.contains("--token-file FILE"), "{nobody:?}");
    assert_eq!(run(dir.path(), &control, &viewer, &["releases"]).code, 0);
    assert_eq!(run(dir.path(), &control, &viewer, &["push"]).code, 6);
    let pushed = run(dir.path(), &control, &ci, &[&["deploy", "--detach"], &json[..]].concat());
    assert_eq!(pushed.code, 0, "{pushed:?}");
    assert_eq!(pushed.json()["actor"], "ci");
    assert_eq!(run(dir.path(), &control, &ci, &["token", "list"]).code, 6);

    let list = run(dir.path(), &control, &admin, &[&["token", "list"], &json[..]].concat()).json();
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|token| token["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{list}");
    let held = list.as_array().unwrap().iter().find(|token| token["holder"] == "ci").unwrap();
    assert_eq!((&held["services"][0], held["expires_ms"].is_u64()), (&"web".into(), true));
    let revoked = run(dir.path(), &control, &admin, &["token", "revoke", held["id"].as_str().unwrap()]);
    assert!(revoked.code == 0 && revoked.stdout.contains("of ci"), "{revoked:?}");
    assert_eq!(run(dir.path(), &control, &ci, &["status"]).code, 6);

    // As programs give it: in a file, which a variable or a flag names.
    let file = dir.path().join("viewer.token");
    fs::write(&file, format!("{viewer}\n")).unwrap();
    let from_file = run(dir.path(), &control, "", &["status", "--token-file", file.to_str().unwrap()]);
    assert_eq!(from_file.code, 0, "{from_file:?}");
    let bad = run(dir.path(), &control, "hunter2", &["status"]);
    assert!(bad.code == 2 && !bad.stderr.contains("hunter2"), "p43: {bad:?}");
}

#[test]
fn who_gets_no_answer_is_told_what_is_wrong_and_not_to_start_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let (control, admin) = start(dir.path());
    let open = Control::start(&dir.path().join("open"));
    let another = dir.path().join("another");
    let other = Control::start_closed(&another, Certificates::Own { names: Vec::new() });
    drop(other);
    let wrong_ca = another.join("ca.pem");
    let wrong_ca = wrong_ca.to_str().unwrap();
    let strangers_token = fs::read_to_string(another.join("admin.token")).unwrap();
    let unknown = format!("https://{}:7400", "a".repeat(64));
    let web = stranger();
    let (plain, over_tls) = (control.url.replace("https", "http"), open.url.replace("http", "https"));
    for (url, token, more, code, says) in [
        (control.url.as_str(), "", &[][..], 7, "--ca FILE, which is ca.pem"),
        (&control.url, "", &["--ca", wrong_ca], 7, "vouches for it: name the right file with --ca"),
        (&control.url, &strangers_token, &[], 6, "by now: show a token that it has made"),
        (&plain, "", &[], 7, plain.replace("http", "write https").as_str()),
        (&plain, &admin, &[], 7, plain.replace("http", "write https").as_str()),
        (&over_tls, "", &[], 7, over_tls.replace("https", "write http").as_str()),
        (&over_tls, &admin, &[], 7, over_tls.replace("https", "write http").as_str()),
        (&unknown, "", &[], 7, "nothing is known by this name"),
        (&web, "", &[], 1, "does not answer like control, but with 404 (<!DOCTYPE HTML>)"),
    ] {
        let ran = baton(dir.path(), url, &[&["status"], more].concat()).env("BATON_TOKEN", token).output();
        let ran = Ran::from(ran.unwrap());
        assert!(ran.code == code && ran.stderr.contains(says), "{url} {more:?}: {ran:?}");
        assert!(!ran.stderr.contains("start it with"), "{ran:?}");
    }
    // Whether a token says whom to believe or not.
    for token in ["", &admin] {
        let away = baton(dir.path(), "https://127.0.0.1:1", &["status"]).env("BATON_TOKEN", token).output();
        let away = Ran::from(away.unwrap());
        assert!(away.code == 7, "{away:?}");
        assert!(away.stderr.contains("start it with `baton server --listen 127.0.0.1:1`"), "{away:?}");
    }
}

/// A server of web pages, which has none.
fn stranger() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let page = "<!DOCTYPE HTML>\n<title>no</title>\n";
            let head = format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n", page.len());
            stream.write_all((head + page).as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn p40_a_deploy_of_a_protected_service_begins_when_a_second_person_lets_it() {
    let dir = tempfile::tempdir().unwrap();
    sample_project(dir.path());
    let (control, admin) = start(dir.path());
    let create = |name: &str, role: &str| create(dir.path(), &control, &admin, name, role, &[]);
    let (ci, ada) = (create("ci", "deployer"), create("ada", "approver"));
    let protected = run(dir.path(), &control, &admin, &["pending", "protect", "--service", "web"]);
    assert!(protected.code == 0 && protected.stdout.contains("wait for a second person"), "{protected:?}");
    assert_eq!(run(dir.path(), &control, &ci, &["pending", "protect", "--service", "web", "--off"]).code, 6);

    let flavor = |how: &[&str]| {
        run(dir.path(), &control, &admin, &[&["pending", "protect", "--service", "web.beat"], how].concat())
    };
    assert!(flavor(&[]).stdout.contains("of web.beat wait for a second person"));
    let off = flavor(&["--off"]);
    assert!(
        off.stdout.contains("all the same, since web is: `baton pending protect --service web --off`"),
        "{off:?}"
    );
    assert_eq!(flavor(&["--off", "--output", "json"]).json()["by"], "web");

    let held = run(dir.path(), &control, &ci, &["deploy", "--detach", "--output", "json"]);
    assert_eq!((held.code, held.error_code()), (9, "needs-approval".to_owned()), "{held:?}");
    let waits = run(dir.path(), &control, &ada, &["pending", "--output", "json"]).json();
    let id = waits[0]["id"].as_str().unwrap().to_owned();
    assert_eq!((&waits[0]["asked_by"], waits.as_array().unwrap().len()), (&"ci".into(), 1));
    assert_eq!(run(dir.path(), &control, &ci, &["pending", "approve", &id]).code, 6);
    let begun = run(dir.path(), &control, &ada, &["pending", "approve", &id[..6], "--output", "json"]).json();
    assert_eq!(begun["actor"], "ci, approved by ada");
    let waits = run(dir.path(), &control, &ada, &["pending"]);
    assert!(waits.stdout.contains("nothing waits"), "{waits:?}");

    // Who lets it begin may wait for its end, like who has asked for it.
    assert_eq!(run(dir.path(), &control, &ci, &["deploy"]).code, 9);
    let waits = run(dir.path(), &control, &ada, &["pending", "--output", "json"]).json();
    let approve = ["pending", "approve", waits[0]["id"].as_str().unwrap(), "--wait", "--timeout", "1ms"];
    let waited = run(dir.path(), &control, &ada, &approve);
    assert!(waited.code == 4 && waited.stdout.contains("not done after"), "{waited:?}");
}

#[test]
fn p40_two_people_at_two_machines_sign_one_deploy() {
    let dir = tempfile::tempdir().unwrap();
    sample_project(dir.path());
    let (control, admin) = start(dir.path());
    let create = |name: &str, role: &str| create(dir.path(), &control, &admin, name, role, &[]);
    let (ada, grace) = (create("ada", "deployer"), create("grace", "approver"));
    for name in ["ada", "grace"] {
        let made = run(dir.path(), &control, &admin, &["key", "generate", name]);
        assert_eq!(made.code, 0, "{made:?}");
    }
    assert_eq!(run(dir.path(), &control, &admin, &["pending", "protect", "--service", "web"]).code, 0);
    let pushed = run(dir.path(), &control, &ada, &["push", "--key", "ada.key", "--output", "json"]).json();
    let release = pushed["id"].as_str().unwrap();
    let held = run(dir.path(), &control, &ada, &["deploy", release, "--detach", "--key", "ada.key"]);
    assert_eq!(held.code, 9, "{held:?}");
    let waits = run(dir.path(), &control, &grace, &["pending", "--output", "json"]).json();
    let approve = ["pending", "approve", waits[0]["id"].as_str().unwrap(), "--key", "grace.key"];
    let with = |more: &[&str]| run(dir.path(), &control, &grace, &[&approve[..], more].concat());
    let other = with(&["--release", "00000000"]);
    assert!(other.code != 0 && other.stderr.contains("instead of 00000000"), "{other:?}");
    let begun = with(&["--release", &release[..8], "--output", "json"]).json();
    let warrant = begun["warrant"].as_str().unwrap();
    assert_eq!(warrant.lines().filter(|line| line.starts_with("signed ")).count(), 2, "{warrant}");
    assert!(warrant.contains(&format!("release {release}")), "{warrant}");
}

#[test]
fn p47_a_guard_that_is_switched_off_is_told_and_is_an_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    sample_project(dir.path());
    let (control, admin) = start(dir.path());
    let all = run(dir.path(), &control, &admin, &["guards"]);
    assert!(all.code == 0 && all.stdout.contains("no guard is switched off"), "{all:?}");
    let join = run(dir.path(), &control, &admin, &["token", "join", "--service", "web", "--reusable"]);
    assert_eq!(join.code, 0, "{join:?}");
    let off = run(dir.path(), &control, &admin, &["guards", "--output", "json"]);
    assert_eq!(
        (off.code, off.error_code(), &off.json()[0]["guard"]),
        (8, "unguarded".to_owned(), &"single-use".into())
    );
    assert_eq!(run(dir.path(), &control, &admin, &["deploy", "--detach"]).code, 0);
    let status = run(dir.path(), &control, &admin, &["status"]);
    assert!(status.code == 0 && status.stderr.contains("switched off: single-use"), "{status:?}");
    drop(control);

    let open = Control::start(&dir.path().join("open"));
    let off = run(dir.path(), &open, "", &["guards"]);
    assert!(off.code == 8 && off.stdout.contains("credentials") && off.stdout.contains("tls"), "{off:?}");
}

#[test]
fn p42_the_audit_log_is_shown_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    sample_project(dir.path());
    let (control, admin) = start(dir.path());
    assert_eq!(run(dir.path(), &control, &admin, &["push"]).code, 0);
    let head = run(dir.path(), &control, &admin, &["audit", "verify", "--output", "json"]).json();
    let head = head["head"].as_str().unwrap().to_owned();
    assert_eq!(run(dir.path(), &control, &admin, &["token", "join", "--service", "web"]).code, 0);
    let whole = run(dir.path(), &control, &admin, &["audit", "verify", "--head", &head]);
    assert!(whole.code == 0 && whole.stdout.contains("all as written"), "{whole:?}");
    let shown = run(dir.path(), &control, &admin, &["audit", "--last", "1"]);
    assert!(shown.stdout.contains("with role join for web"), "{shown:?}");
    assert_eq!(shown.stdout.lines().count(), 1);

    let missing = run(dir.path(), &control, &admin, &["audit", "verify", "--head", &"0".repeat(64)]);
    assert!(missing.code == 1 && missing.stderr.contains("is gone"), "{missing:?}");
    let copy = dir.path().join("copy.log");
    let text = fs::read_to_string(dir.path().join("data/audit.log")).unwrap();
    let verify = |text: &str| {
        fs::write(&copy, text).unwrap();
        run(
            dir.path(),
            &control,
            "",
            &["audit", "verify", "--file", copy.to_str().unwrap(), "--output", "json"],
        )
    };
    assert_eq!(verify(&text).code, 0);
    let forged = verify(&text.replacen("first-admin", "other-admin", 1));
    assert_eq!((forged.code, forged.error_code()), (1, "tampered".to_owned()));
}
