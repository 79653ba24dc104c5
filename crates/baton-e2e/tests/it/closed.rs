//! Control that asks who is there, over TLS, with real members.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::boot::{Folder, binary, free_address};
use crate::wait::wait_for;

/// Control with TLS of its own, and one member at the most. Both end with the value.
struct Closed {
    folder: Folder,
    address: SocketAddr,
    server: Option<Child>,
    member: Option<Child>,
}

impl Closed {
    fn start() -> Self {
        let mut closed =
            Self { folder: Folder::empty(), address: free_address(), server: None, member: None };
        closed.start_control();
        closed
    }

    fn start_control(&mut self) {
        let child = Command::new(binary("baton"))
            .args(["server", "--listen", &self.address.to_string(), "--data"])
            .arg(self.path("control"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(child);
        wait_for("control to answer", || {
            let token = self.path("control/admin.token");
            (token.exists() && self.baton(&["status"]).status.success()).then_some(())
        });
    }

    fn stop_control(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn baton_in(&self, directory: &Path, arguments: &[&str]) -> Output {
        Command::new(binary("baton"))
            .args(arguments)
            .current_dir(directory)
            .env("BATON_SERVER", format!("https://{}", self.address))
            .env("BATON_TOKEN_FILE", self.path("control/admin.token"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn baton(&self, arguments: &[&str]) -> Output {
        self.baton_in(self.folder.path(), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.baton(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A token for a member.
    fn token(&self, more: &[&str]) -> String {
        let output = self.baton(&[&["token", "join", "--service", "web"], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn start_member(&mut self, token: &str) {
        let log = fs::File::options().create(true).append(true).open(self.path("member.log")).unwrap();
        let child = Command::new(binary("baton-boot"))
            .env("BATON_SERVER", format!("https://{}", self.address))
            .env("BATON_SERVICE", "web")
            .env("BATON_MEMBER", "web-1")
            .env("BATON_STATE_DIR", self.path("member"))
            .env("BATON_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.member = Some(child);
    }

    fn stop_member(&mut self) {
        let mut member = self.member.take().unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&member),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        member.wait().unwrap();
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("member.log")).unwrap_or_default()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        wait_for(&format!("{what}: {}", self.said()), || {
            let output = self.baton(&["members", "--service", "web", "--output", "json"]);
            let members: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let first = |members: &Vec<Value>| is_so(members.first().unwrap_or(&Value::Null));
            members.as_array().is_some_and(first).then_some(())
        });
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        for child in [self.member.take(), self.server.take()].iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A worker that writes down its environment.
fn worker(folder: &Path, told: &Path) {
    let script = format!("env > {}; exec sleep 1000", told.display());
    fs::create_dir(folder).unwrap();
    let settings = format!("service = \"web\"\n[run]\ncommand = [\"sh\", \"-c\", \"{script}\"]\n");
    fs::write(folder.join("baton.toml"), settings).unwrap();
}

#[test]
fn p37_p39_a_member_joins_with_a_token_and_comes_back_without_it() {
    let mut closed = Closed::start();
    let (code, told) = (closed.path("code"), closed.path("told"));
    worker(&code, &told);
    let token = closed.token(&[]);
    closed.start_member(&token);
    closed.wait_until("the member to join", |member| member["presence"] == "live");
    let deployed = closed.baton_in(&code, &["deploy", "--bake", "0s"]);
    assert!(deployed.status.success(), "{deployed:?} {}", closed.said());
    let told = fs::read_to_string(&told).unwrap();
    assert!(!told.contains("BATON_TOKEN") && told.contains("BATON_RELEASE"), "p43: {told}");
    assert!(!closed.said().contains(&token[6..]), "p43: {}", closed.said());

    // The token is used up, and the member has what it needs on its disk.
    closed.stop_member();
    closed.stop_control();
    closed.start_control();
    closed.start_member(&token);
    closed.wait_until("the member to come back", |member| member["presence"] == "live");
    closed.stop_member();

    // Without its disk it is somebody else, who has to have a token of its own.
    fs::remove_dir_all(closed.path("member")).unwrap();
    closed.start_member(&token);
    wait_for("the member to be refused", || closed.said().contains("token was used already").then_some(()));
    let tokens = closed.json(&["token", "list"]);
    let join = tokens.as_array().unwrap().iter().find(|token| token["role"] == "join").unwrap();
    assert_eq!(join["joined"], "web/web-1");
}

#[test]
fn p39_a_member_that_is_revoked_needs_a_new_token() {
    let mut closed = Closed::start();
    let token = closed.token(&["--reusable"]);
    closed.start_member(&token);
    closed.wait_until("the member to join", |member| member["presence"] == "live");
    let tokens = closed.json(&["token", "list"]);
    let join = tokens.as_array().unwrap().iter().find(|token| token["role"] == "join").unwrap();
    assert!(closed.baton(&["token", "revoke", join["id"].as_str().unwrap()]).status.success());
    assert!(closed.baton(&["token", "revoke", "--member", "web-1", "--service", "web"]).status.success());
    closed.wait_until("nobody to wait for the member", Value::is_null);
    wait_for("the member to be told", || closed.said().contains("without control").then_some(()));
    closed.stop_member();
    let token = closed.token(&["--member", "web-1"]);
    closed.start_member(&token);
    closed.wait_until("the member to come back", |member| member["presence"] == "live");
}
