//! Releases that are healthy to every probe and fail at their work, with a real Prometheus that measures them.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::boot::{Folder, free_address};
use crate::fleet::Fleet;
use crate::wait::wait_for;

/// A Prometheus server that looks at members every second, as Debian has it. It ends with the value.
struct Prometheus {
    folder: Folder,
    address: SocketAddr,
    child: Option<Child>,
    /// Whether it wants to know who asks.
    is_closed: bool,
}

impl Prometheus {
    fn new() -> Self {
        Self { folder: Folder::empty(), address: free_address(), child: None, is_closed: false }
    }

    /// One that lets in `admin` with the password `test` and nobody else, as in its own guide.
    fn closed() -> Self {
        let mut closed = Self::new();
        closed.is_closed = true;
        closed.folder.write(
            "web.yml",
            "basic_auth_users:\n  admin: $2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay\n",
        );
        closed
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn start(&mut self, targets: &[SocketAddr]) {
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        self.folder.write(
            "prometheus.yml",
            &format!(
                "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
                 scrape_configs:\n- job_name: web\n  static_configs: [{{ targets: [{}] }}]\n",
                targets.join(", ")
            ),
        );
        let (config, data) = (self.folder.path().join("prometheus.yml"), self.folder.path().join("data"));
        let web = self.folder.path().join("web.yml");
        let child = Command::new("prometheus")
            .args(self.is_closed.then(|| format!("--web.config.file={}", web.display())))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={}", self.address))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed, by scripts/setup test");
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Does jobs, counts how they end, and tells that at `/metrics`. Whoever asks whether it is healthy hears that it is.
const PROGRAM: &str = r#"
import http.server, os, socket, threading, time

RELEASE = os.environ["BATON_RELEASE"]
FAILS = open("FAILS").read().strip() == "yes"
done = {"ok": 0, "error": 0}

def work():
    for job in range(10**9):
        done["error" if FAILS and job % 20 == 0 else "ok"] += 1
        time.sleep(0.01)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        lines = ['jobs_total{release="%s",outcome="%s"} %d' % (RELEASE, *one) for one in done.items()]
        body = ("\n".join(lines) + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

threading.Thread(target=work, daemon=True).start()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
"#;

const SETTINGS: &str = r#"
service = "web"

[run]
command = ["python3", "program.py"]
drain   = "1s"

[[run.listen]]
name    = "http"
address = "127.0.0.1:8080"

[run.health]
http     = "/"
interval = "1s"

[rollout]
policy        = "fast"
max_unhealthy = "50%"
phases        = ["50%"]
bake          = "1s"

[rollout.metric]
query    = 'sum(rate(jobs_total{release="$release",outcome="error"}[5s])) / sum(rate(jobs_total{release="$release"}[5s]))'
max      = 0.01
interval = "1s"
failures = 2
"#;

fn release(folder: &Folder, version: &str, fails: bool) {
    folder.write("program.py", PROGRAM);
    folder.write("baton.toml", SETTINGS);
    folder.write("VERSION", version);
    folder.write("FAILS", if fails { "yes" } else { "no" });
}

/// How many members have got a slot in the deploy of a release.
fn granted(fleet: &Fleet, release: &Value) -> usize {
    let deploys = fleet.json(&["deploys", "--service", "web"]);
    let deploy = deploys
        .as_array()
        .unwrap()
        .iter()
        .find(|deploy| deploy["release"] == *release && deploy["kind"] == "rollout");
    let id = &deploy.unwrap()["id"];
    let events = fleet.json(&["events", "--service", "web"]);
    events.as_array().unwrap().iter().filter(|one| one["kind"] == "granted" && one["deploy"] == *id).count()
}

#[test]
fn f81_a_release_that_is_healthy_and_fails_at_its_work_is_taken_back_by_what_is_measured() {
    let mut prometheus = Prometheus::new();
    let fleet = Fleet::start_with("web", 4, vec![("BATON_PROMETHEUS".to_owned(), prometheus.url())]);
    prometheus.start(&fleet.addresses);
    let folder = Folder::empty();
    release(&folder, "1", false);
    assert_eq!(fleet.deploy(&folder, &[]), Some(0));
    let good = fleet.release();

    release(&folder, "2", true);
    assert_eq!(fleet.deploy(&folder, &[]), Some(3), "it is taken back");
    let status = fleet.status();
    assert_eq!(status["failure"]["code"], "metric-failed", "{status:#}");
    assert_eq!(status["failure"]["member"], Value::Null);
    let detail = status["failure"]["detail"].as_str().unwrap();
    assert!(detail.contains("0.01 at most is allowed"), "{detail}");
    assert_eq!(status["deploy"]["kind"], "rollback");
    assert_eq!(fleet.release(), good);
    let deploys = fleet.json(&["deploys", "--service", "web"]);
    let bad = deploys.as_array().unwrap().iter().map(|deploy| &deploy["release"]);
    let bad = bad.into_iter().find(|release| **release != good.as_str()).unwrap();
    let had = granted(&fleet, bad);
    assert!((1..=2).contains(&had), "half of the fleet never had it: {had}");

    // Whoever measures is away: nobody new gets a slot, and nothing is taken back.
    prometheus.kill();
    release(&folder, "3", false);
    assert_eq!(fleet.deploy(&folder, &["--detach"]), Some(0));
    let third = Value::from(fleet.release());
    let waiting = wait_for("the rollout to wait", || {
        let status = fleet.status();
        let tried = status["counts"]["proven"].as_u64() >= Some(1);
        (tried && status["waits_code"] == "metric-unknown").then_some(status)
    });
    assert!(waiting["waits"].as_str().unwrap().contains("does not answer"), "{waiting:#}");
    assert_eq!(waiting["state"], "rolling-out");
    assert!(granted(&fleet, &third) <= 2);
    prometheus.start(&fleet.addresses);
    wait_for("the rollout to go on", || {
        let status = fleet.status();
        assert_eq!(status["deploy"]["release"], third);
        (status["state"] == "drained").then_some(())
    });
    assert_eq!(granted(&fleet, &third), 4);
}

#[test]
fn f81_a_server_that_knows_no_prometheus_takes_no_release_that_waits_for_one() {
    let fleet = Fleet::start("web", 1);
    let folder = Folder::empty();
    release(&folder, "1", false);
    let refused = fleet.baton_in(folder.path(), &["deploy", "--detach", "--output", "json"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said.contains("no-metrics") && said.contains("--prometheus"), "{said}");
}

/// Waits until the rollout waits since nothing is measured, and says so in these words.
fn wait_until_unknown(fleet: &Fleet, says: &str) -> Value {
    wait_for(says, || {
        let status = fleet.status();
        let waits = status["waits"].as_str().is_some_and(|waits| waits.contains(says));
        (status["waits_code"] == "metric-unknown" && waits).then_some(status)
    })
}

#[test]
fn f81_a_prometheus_that_wants_to_know_who_asks_is_shown_what_is_in_a_file() {
    let mut prometheus = Prometheus::closed();
    let folder = Folder::empty();
    release(&folder, "1", false);
    let address = ("BATON_PROMETHEUS".to_owned(), prometheus.url());
    let stranger = Fleet::start_with("web", 1, vec![address.clone()]);
    let login = Folder::empty();
    login.write("login", "admin:hunter2\n");
    let file = login.path().join("login");
    let shown = ("BATON_PROMETHEUS_PASSWORD_FILE".to_owned(), file.display().to_string());
    let fleet = Fleet::start_with("web", 1, vec![address, shown]);
    prometheus.start(&fleet.addresses);

    assert_eq!(stranger.deploy(&folder, &["--detach"]), Some(0));
    wait_until_unknown(
        &stranger,
        "start this server with --prometheus-token-file or --prometheus-password-file",
    );
    assert_eq!(fleet.deploy(&folder, &["--detach"]), Some(0));
    let waiting = wait_until_unknown(&fleet, "does not let this server in");
    let waits = waiting["waits"].as_str().unwrap();
    assert!(waits.contains("(401)") && waits.contains("login"), "{waits}");
    assert!(!waiting.to_string().contains("hunter2"), "p43: {waiting:#}");

    // Who replaces it need not restart the server.
    login.write("login", "admin:test\n");
    wait_for("the rollout to go on", || (fleet.status()["state"] == "drained").then_some(()));
    assert_eq!(stranger.status()["waits_code"], "metric-unknown");
}
