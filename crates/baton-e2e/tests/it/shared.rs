//! Several servers that ask who is there and share who may do what, over one Redis that is not trusted.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::boot::{Folder, binary, free_address};
use crate::moto::Moto;
use crate::redis_server::Redis;
use crate::wait::wait_for;

/// Servers, what they share, and members. All end with the value.
struct Shared {
    folder: Folder,
    redis: Redis,
    moto: Moto,
    servers: Vec<(SocketAddr, Option<Child>)>,
    members: Vec<Child>,
}

impl Shared {
    fn start(servers: usize) -> Self {
        let mut moto = Moto::start();
        moto.call("s3", "create_bucket", &json!({ "Bucket": "releases" }));
        let folder = Folder::empty();
        folder.write("seal.key", "rW3JbOtmCWl2ql0xmLZqRg==\n");
        let only_ours = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(folder.path().join("seal.key"), only_ours).unwrap();
        let mut shared =
            Self { folder, redis: Redis::start(), moto, servers: Vec::new(), members: Vec::new() };
        for server in 0..servers {
            shared.servers.push((free_address(), None));
            shared.start_server(server);
        }
        shared
    }

    fn start_server(&mut self, server: usize) {
        self.spawn_server(server);
        wait_for("control to answer", || {
            let token = self.path("control-0/admin.token");
            (token.exists() && self.admin(server, &["status"]).status.success()).then_some(())
        });
    }

    /// The same, and nobody waits until it can do its work.
    fn spawn_server(&mut self, server: usize) {
        let said = std::fs::File::create(self.path(&format!("control-{server}.log"))).unwrap();
        let child = Command::new(binary("baton"))
            .args([
                "server",
                "--listen",
                &self.servers[server].0.to_string(),
                "--store",
                "s3://releases/web",
                "--data",
            ])
            .arg(self.path(&format!("control-{server}")))
            .args(["--state", &self.redis.address(), "--seal-key-file"])
            .arg(self.path("seal.key"))
            .envs(self.moto.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        self.servers[server].1 = Some(child);
    }

    fn kill_server(&mut self, server: usize) {
        let mut child = self.servers[server].1.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self, server: usize) -> String {
        format!("https://{}", self.servers[server].0)
    }

    /// What the command line says to a server with the token in a file.
    fn baton(&self, server: usize, token: &Path, directory: &Path, arguments: &[&str]) -> Output {
        Command::new(binary("baton"))
            .args(arguments)
            .current_dir(directory)
            .env("BATON_SERVER", self.url(server))
            .env("BATON_TOKEN_FILE", token)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same with the first token.
    fn admin(&self, server: usize, arguments: &[&str]) -> Output {
        self.baton(server, &self.path("control-0/admin.token"), self.folder.path(), arguments)
    }

    fn must(&self, server: usize, arguments: &[&str]) -> String {
        let output = self.admin(server, arguments);
        assert!(output.status.success(), "{arguments:?} at {server}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, server: usize, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.must(server, &[arguments, &["--output", "json"]].concat())).unwrap()
    }

    /// A token that was made at a server, in a file of its name.
    fn token(&self, server: usize, holder: &str, role: &str) -> PathBuf {
        self.folder.write(holder, &self.must(server, &["token", "create", holder, "--role", role]));
        self.path(holder)
    }

    /// Whether a server lets a token look.
    fn knows(&self, server: usize, token: &Path) -> bool {
        self.baton(server, token, self.folder.path(), &["status"]).status.success()
    }

    fn revoke(&self, server: usize, holder: &str) {
        let tokens = self.json(server, &["token", "list"]);
        let token = tokens.as_array().unwrap().iter().find(|token| token["holder"] == holder).unwrap();
        self.must(server, &["token", "revoke", token["id"].as_str().unwrap()]);
    }

    /// A member that comes to one server, with its own directory, and a file with what it says.
    fn start_member(&mut self, server: usize, name: &str, token: &str) -> PathBuf {
        let said = self.path(&format!("{name}.log"));
        let log = std::fs::File::create(&said).unwrap();
        let child = Command::new(binary("baton-boot"))
            .env("BATON_SERVER", self.url(server))
            .env("BATON_SERVICE", "web")
            .env("BATON_MEMBER", name)
            .env("BATON_STATE_DIR", self.path(name))
            .env("BATON_TOKEN", token.trim())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members.push(child);
        said
    }

    fn wait_for_live(&self, server: usize, members: usize) {
        wait_for("the members to be live", || {
            let output = self.admin(server, &["members", "--service", "web", "--output", "json"]);
            let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let live = found.as_array()?.iter().filter(|member| member["presence"] == "live").count();
            (live == members).then_some(())
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let servers = self.servers.iter_mut().filter_map(|(_, child)| child.as_mut());
        for child in self.members.iter_mut().chain(servers) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A worker in a folder.
fn worker(folder: &Folder, version: &str) {
    folder.write("VERSION", version);
    folder.write("baton.toml", "service = \"web\"\n[run]\ncommand = [\"sleep\", \"1000\"]\n");
}

#[test]
fn p37_p39_p40_what_one_server_is_told_of_who_may_do_what_holds_on_all() {
    let mut shared = Shared::start(3);
    // One authority: who has a token of one server believes the others.
    let viewer = shared.token(0, "viewer", "viewer");
    for server in 0..3 {
        wait_for("every server to know the token", || shared.knows(server, &viewer).then_some(()));
    }
    shared.revoke(2, "viewer");
    for server in 0..3 {
        wait_for("every server to refuse it", || (!shared.knows(server, &viewer)).then_some(()));
    }

    // A token for one member makes one, whichever server it comes to.
    let join = shared.must(0, &["token", "join", "--service", "web"]);
    shared.start_member(1, "web-1", &join);
    shared.wait_for_live(0, 1);
    let said = shared.start_member(2, "web-2", &join);
    wait_for("the second one to be refused", || {
        std::fs::read_to_string(&said).unwrap().contains("token was used already").then_some(())
    });

    // What is protected at one server is protected at all, and waits at all.
    let (deployer, approver) = (shared.token(0, "ada", "deployer"), shared.token(1, "grace", "approver"));
    let code = Folder::empty();
    worker(&code, "1");
    shared.must(0, &["pending", "protect", "--service", "web"]);
    let protected = || {
        let deployed = shared.baton(1, &deployer, code.path(), &["deploy", "--bake", "0s"]);
        (deployed.status.code() == Some(9)).then_some(())
    };
    wait_for("the deploy to wait", protected);
    let pending = {
        let mut found = Value::Null;
        wait_for("another server to know", || {
            found = shared.json(2, &["pending"]);
            (!found.as_array().unwrap().is_empty()).then_some(())
        });
        found[0]["id"].as_str().unwrap().to_owned()
    };
    let own = shared.baton(2, &deployer, code.path(), &["pending", "approve", &pending]);
    assert_eq!(own.status.code(), Some(6), "{own:?}");
    let approve = |server| shared.baton(server, &approver, code.path(), &["pending", "approve", &pending]);
    let begun = approve(2);
    assert!(begun.status.success(), "{begun:?}");
    wait_for("the deploy to be in force everywhere", || {
        let status = shared.json(0, &["status", "--service", "web"]);
        let actor = status[0]["deploy"]["actor"].as_str().or_else(|| status["deploy"]["actor"].as_str());
        (actor == Some("ada, approved by grace")).then_some(())
    });
    wait_for("the other server to know that it has begun", || {
        shared.json(0, &["pending"]).as_array().unwrap().is_empty().then_some(())
    });
    assert!(!approve(0).status.success(), "it begins once");
    assert_eq!(shared.json(1, &["deploys", "--service", "web"]).as_array().unwrap().len(), 1);

    // Each has written down what it was asked, and all of it comes in one list.
    let all = (0..3).map(|server| shared.url(server)).collect::<Vec<_>>().join(",");
    let records = shared.json(0, &["audit", "--server", &all]);
    let at = |server: usize, what: &str| {
        let of = |one: &&Value| {
            one["server"] == shared.url(server) && one["what"].as_str().unwrap().contains(what)
        };
        records.as_array().unwrap().iter().position(|one| of(&one)).expect(what)
    };
    assert!(at(0, "POST /v1/tokens") < at(2, "DELETE /v1/tokens"), "p42: {records:#}");
    assert!(at(1, "/deploys") < at(2, "/pending"), "p42: {records:#}");
    let whole = shared.json(0, &["audit", "verify", "--server", &all]);
    assert_eq!(whole.as_array().unwrap().len(), 3, "p42: {whole}");

    // Whoever names all of them is answered while one is dead.
    shared.kill_server(0);
    let status = shared.json(1, &["status", "--service", "web", "--server", &all]);
    assert_eq!(status["service"], "web", "{status}");
    shared.start_server(0);

    // A member that is revoked at one server is shut out of its session with another.
    shared.must(0, &["token", "revoke", "--member", "web-1", "--service", "web"]);
    shared.wait_for_live(2, 0);
}

#[test]
fn p38_f64_f67_a_redis_that_goes_back_does_not_bring_back_who_was_shut_out() {
    let mut shared = Shared::start(2);
    let ada = shared.token(0, "ada", "admin");
    wait_for("the other server to know", || shared.knows(1, &ada).then_some(()));
    // Its owner keeps what it was, and puts that back after a revocation.
    shared.redis.cli(&["COPY", "{baton}:access", "{baton}:kept"]);
    shared.revoke(0, "ada");
    wait_for("the other server to refuse it", || (!shared.knows(1, &ada)).then_some(()));
    let before = shared.redis.cli(&["--raw", "HGET", "{baton}:access", "mark"]);
    shared.redis.cli(&["COPY", "{baton}:kept", "{baton}:access", "REPLACE"]);
    wait_for("it to be brought forward", || {
        let old = shared.redis.cli(&["--raw", "HGET", "{baton}:kept", "mark"]);
        let mark = shared.redis.cli(&["--raw", "HGET", "{baton}:access", "mark"]);
        assert!(!shared.knows(0, &ada) && !shared.knows(1, &ada));
        (mark != old && mark != before).then_some(())
    });

    // All servers are down, and it goes back again: what they have seen is on their disks.
    shared.kill_server(0);
    shared.kill_server(1);
    shared.redis.cli(&["COPY", "{baton}:kept", "{baton}:access", "REPLACE"]);
    shared.start_server(1);
    assert!(!shared.knows(1, &ada));
    // It is empty: the list is there all the same, with the first token, and the deploys begin anew.
    shared.kill_server(1);
    shared.redis.cli(&["FLUSHALL"]);
    shared.start_server(0);
    assert!(!shared.knows(0, &ada));
    assert!(shared.redis.cli(&["--raw", "HGET", "{baton}:access", "mark"]).trim().len() == 64);

    // Somebody else's list is not believed, and nothing of it is read aloud.
    shared.redis.cli(&["HSET", "{baton}:access", "mark", "x", "list", "{}"]);
    let refused = shared.admin(0, &["token", "create", "eve", "--role", "viewer"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("changed by somebody"), "{why}");
    shared.redis.cli(&["DEL", "{baton}:access"]);
    wait_for("it to be written back", || {
        shared.admin(0, &["token", "create", "grace", "--role", "viewer"]).status.success().then_some(())
    });
}

#[test]
fn p37_f65_while_redis_is_away_a_server_starts_with_what_it_knew_and_one_that_knew_nothing_waits() {
    let mut shared = Shared::start(1);
    let ada = shared.token(0, "ada", "viewer");
    shared.kill_server(0);
    shared.redis.cli(&["SAVE"]);
    shared.redis.kill();
    shared.servers.push((free_address(), None));
    (0..2).for_each(|server| shared.spawn_server(server));
    let code = |shared: &Shared, server, token: &Path| {
        shared.baton(server, token, shared.folder.path(), &["status"]).status.code()
    };
    // It knows who asks, by the certificate that its clients know it by, and cannot tell how anything stands.
    let why = wait_for("it to answer", || {
        let refused = shared.baton(0, &ada, shared.folder.path(), &["status"]);
        let why = String::from_utf8(refused.stderr).unwrap();
        why.contains("has not read its state store yet").then_some(why)
    });
    assert_eq!(code(&shared, 0, &ada), Some(7), "{why}");
    shared.folder.write("nobody", "btn_none");
    assert_ne!(code(&shared, 0, &shared.path("nobody")), Some(7));
    // Nobody has told the other one yet who may ask.
    wait_for("it to say that it waits", || {
        let said = std::fs::read_to_string(shared.path("control-1.log")).unwrap();
        said.contains("it is waited for").then_some(())
    });
    shared.redis.start_again();
    for server in 0..2 {
        wait_for("it to know all", || (code(&shared, server, &ada) == Some(0)).then_some(()));
    }
}
