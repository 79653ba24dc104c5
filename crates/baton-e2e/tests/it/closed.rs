//! Control that asks who is there, over TLS, with real members.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::boot::{Folder, binary, free_address};
use crate::wait::wait_for;

/// Control with TLS, of its own if nothing else is said, and one member, and one more at the most. All end with the value.
struct Closed {
    folder: Folder,
    address: SocketAddr,
    server: Option<Child>,
    member: Option<Child>,
    another: Option<Child>,
    issued: Option<Issued>,
}

impl Closed {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(issued: Option<Issued>) -> Self {
        let (folder, address) = (Folder::empty(), free_address());
        let mut closed = Self { folder, address, server: None, member: None, another: None, issued };
        closed.start_control();
        closed
    }

    fn start_control(&mut self) {
        let child = Command::new(binary("baton"))
            .args(["server", "--listen", &self.address.to_string(), "--data"])
            .arg(self.path("control"))
            .args(self.issued.iter().flat_map(Issued::arguments))
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
            .envs(self.issued.iter().map(Issued::variable))
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
        self.member = Some(self.spawn_member("web-1", "member", token));
    }

    fn start_another(&mut self, token: &str) {
        self.another = Some(self.spawn_member("web-2", "another", token));
    }

    fn spawn_member(&self, name: &str, state: &str, token: &str) -> Child {
        let log = self.path(&format!("{state}.log"));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        Command::new(binary("baton-boot"))
            .env("BATON_SERVER", format!("https://{}", self.address))
            .env("BATON_SERVICE", "web")
            .env("BATON_MEMBER", name)
            .env("BATON_STATE_DIR", self.path(state))
            .env("BATON_TOKEN", token)
            .envs(self.issued.iter().map(Issued::variable))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
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
        for child in [self.member.take(), self.another.take(), self.server.take()].iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An authority, and the certificate that it has made for control.
struct Issued(Folder);

impl Issued {
    fn by_an_authority() -> Self {
        let issued = Self(Folder::empty());
        issued.0.write("names", "subjectAltName=IP:127.0.0.1\n");
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let authority =
            ["req", "-x509", "-days", "400", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"];
        issued.openssl("-200d", &[&authority[..], &new_key].concat());
        let request = ["req", "-subj", "/CN=control", "-keyout", "key.pem", "-out", "request.pem"];
        issued.openssl("+0", &[&request[..], &new_key].concat());
        issued.renew("-1d");
        issued
    }

    /// One for 90 days that was made at this time, put in the place of the one before.
    fn renew(&self, made: &str) {
        let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"];
        let request = ["x509", "-req", "-days", "90", "-in", "request.pem", "-out", "next.pem"];
        self.openssl(made, &[&request[..], &signed].concat());
        fs::rename(self.0.path().join("next.pem"), self.0.path().join("chain.pem")).unwrap();
    }

    /// Runs it by a clock that is so far from the right time.
    fn openssl(&self, clock: &str, arguments: &[&str]) {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
        assert!(Path::new(&library).exists(), "this test needs libfaketime: scripts/setup test");
        let done = Command::new("openssl")
            .args(arguments)
            .current_dir(self.0.path())
            .envs([("LD_PRELOAD", library.as_str()), ("FAKETIME", clock)])
            .output()
            .expect("this test needs openssl: scripts/setup");
        assert!(done.status.success(), "{arguments:?}: {done:?}");
    }

    /// What control is told.
    fn arguments(&self) -> [PathBuf; 4] {
        let path = |name: &str| self.0.path().join(name);
        ["--cert".into(), path("chain.pem"), "--cert-key".into(), path("key.pem")]
    }

    /// What its clients are told.
    fn variable(&self) -> (&'static str, PathBuf) {
        ("BATON_CA", self.0.path().join("ca.pem"))
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

#[test]
fn f60_a_certificate_that_ends_in_mid_rollout_disturbs_no_program_and_once_renewed_the_rollout_goes_on() {
    let mut closed = Closed::start_with(Some(Issued::by_an_authority()));
    let (code, told) = (closed.path("code"), closed.path("told"));
    fs::create_dir(&code).unwrap();
    let write = |version: &str| {
        let script = format!("echo {version} $$ >> {}; exec sleep 1000", told.display());
        let settings = format!("service = \"web\"\n[run]\ncommand = [\"sh\", \"-c\", \"{script}\"]\n");
        fs::write(code.join("baton.toml"), settings).unwrap();
    };
    // What has been started, by versions.
    let started = |version: &str| -> Vec<String> {
        let told = fs::read_to_string(&told).unwrap_or_default();
        told.lines().filter_map(|line| line.strip_prefix(version)).map(|pid| pid.trim().to_owned()).collect()
    };
    let [one, two] = ["web-1", "web-2"].map(|member| closed.token(&["--member", member]));
    closed.start_member(&one);
    closed.wait_until("the member to join", |member| member["presence"] == "live");
    write("first");
    let deployed = closed.baton_in(&code, &["deploy", "--bake", "0s"]);
    assert!(deployed.status.success(), "{deployed:?} {}", closed.said());
    write("second");
    let begun = closed.baton_in(&code, &["deploy", "--bake", "20s", "--detach"]);
    assert!(begun.status.success(), "{begun:?} {}", closed.said());
    closed.wait_until("the member to bake", |member| member["standing"] == "proving");

    let issued = closed.issued.as_ref().unwrap();
    issued.renew("-100d");
    let ended = |text: &str| text.to_lowercase().contains("expired").then_some(());
    wait_for("clients to refuse control", || {
        let refused = closed.baton(&["status"]);
        ended(&String::from_utf8_lossy(&refused.stderr)).filter(|()| !refused.status.success())
    });
    closed.start_another(&two);
    let another = || fs::read_to_string(closed.path("another.log")).unwrap_or_default();
    wait_for("the other member to refuse control", || ended(&another()));
    let [pid] = &started("second")[..] else { panic!("{:?}", started("second")) };
    assert!(Path::new("/proc").join(pid).exists(), "what runs is not disturbed");

    closed.issued.as_ref().unwrap().renew("-1d");
    wait_for(&format!("both to be there: {}", another()), || {
        let members = closed.baton(&["members", "--service", "web", "--output", "json"]);
        let members: Value = serde_json::from_slice(&members.stdout).unwrap_or_default();
        let is_live = |member: usize| members[member]["presence"] == "live";
        (is_live(0) && is_live(1)).then_some(())
    });
    let done = closed.baton(&["wait", "--service", "web"]);
    assert!(done.status.success(), "{done:?} {} {}", closed.said(), another());
    // The session has outlived it: what was on trial then has proven itself.
    let events = closed.json(&["events", "--service", "web"]);
    let lost = |event: &&Value| event["member"] == "web-1" && event["kind"] == "silent";
    assert_eq!(events.as_array().unwrap().iter().find(lost), None);
    assert_eq!((started("second").first(), started("second").len()), (Some(pid), 2), "by both, by each once");
}
