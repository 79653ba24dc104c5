//! `baton.toml` as people write it.

mod any_text;
mod bad;
mod reference;

use baton_core::deploy::{Phase, PhaseSize, Policy};
use baton_core::run::secrets::{Keep, Pinned, Reference};
use baton_core::run::{
    Format, Handover, HealthCheck, HttpProbe, Inherited, Listen, MODE_DEFAULT, OnExit, Output, Probe,
    Process, Progress, Proxy, Ready, Recycle, RunSettings, Secrets, SizeLimit, SocketOptions, Stdin,
};
use baton_core::settings::{Settings, parse, parse_with_command};
use baton_core::signal::Signal;
use baton_core::units::{Bytes, Millis, Share};

/// The smallest file there is, for tests that add to it.
const SMALL: &str = "service = \"web\"\nrun.command = [\"serve\"]\n";

/// Every table and every kind of value.
const FULL: &str = r#"
service = "web"

[run]
command = ["node", "server.js"]
drain = "1m30s"
stop_signal = "QUIT"
stop_tree_after = "10s"
ready = "notify"
on_exit = "exit"
max_restarts = 3
relaunch_exit_code = 75
user = "app"
group = 1000
umask = "027"
nice = -5
nofile = 65536
nproc = 100
core = "unlimited"
memlock = "64MiB"
stack = "16MiB"
oom_score_adj = 0
stdin = "http"
mount = "/app"
watchdog = "20s"
keep_warm = "15m"
split = "5%"
progress = { file = "beat", within = "30s" }
memory = { recycle = "80%", needs = "300MiB" }
environment.inherit = ["PATH", "LC_*", "HOME", "PATH"]

[[run.listen]]
name = "http"
address = "0.0.0.0:8080"
handover = "inherit"
backlog = 128
[[run.listen]]
name = "admin"
address = "[::1]:8081"
handover = "proxy"
max_connections = 10
proxy_protocol = true
close_hint = true

[run.health]
http = "/health"
status = ["200-299", 401]
headers = { X-Probe = "1" }
host = "web.test"
body = "ok"
listener = "admin"
startup_timeout = "10m"
interval = "500ms"
timeout = "250ms"
failures = 5
successes = 2

[run.output]
format = "json"
line_max = "16KiB"
stall = "250ms"

[[build]]
name = "deps"
inputs = ["package.json", "package-lock.json"]
run = ["npm", "ci"]
outputs = ["node_modules/"]
env = ["NODE_ENV"]

[push]
include = ["node_modules/"]
exclude = ["*.map"]
external_links = ["/usr/bin/python3", "/opt/tool"]
portable = true

[rollout]
policy = "careful"
target = "10%"
max_unhealthy = "0.5%"
phases = ["1", "50%"]
failure_limit = "0%"
auto_rollback = false

[env]
NODE_ENV = "production"
_x1 = ""

[secrets]
from = ["s3://acme/web.json", "file:/run/secrets/web.json"]
keep = "disk"

[secrets.env]
DB = "aws-secretsmanager:prod/db#password"
TOKEN = "env:TOKEN"

[flavor.taskworker]
run.command = ["node", "worker.js"]
run.listen = []
run.overlap = false
run.quiesce_signal = "USR1"
run.quiesce = "3h"
run.output.stall = "0s"
run.memory.recycle = "512MiB"
run.environment.inherit = []
run.progress.within = "1h"
rollout.policy = "fast"
rollout.bake = "4s"
env.NODE_ENV = "staging"
env.QUEUE = "mail"
env.TOKEN = "of a worker"
secrets.from = []
secrets.env.DB = "aws-ssm:/worker/db"
"#;

fn good(text: &str) -> Settings {
    parse("baton.toml", text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn listener(name: &str, address: &str, handover: Handover, backlog: u16) -> Listen {
    Listen {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        mode: MODE_DEFAULT,
        handover,
        backlog,
        options: SocketOptions::default(),
        per_worker: false,
    }
}

fn reference(text: &str) -> Pinned {
    text.parse::<Reference>().unwrap().into()
}

#[test]
fn two_lines_are_enough_and_the_rest_is_default() {
    let settings = good(SMALL);
    assert_eq!(settings.service.as_str(), "web");
    assert_eq!(settings.run, RunSettings::for_command(strings(&["serve"])));
    assert_eq!(settings.policy, Policy::safe());
    assert!(settings.flavors.is_empty());
}

#[test]
fn every_setting_arrives_where_it_belongs() {
    let settings = good(FULL);
    let process = Process {
        user: Some("app".to_owned()),
        group: Some("1000".to_owned()),
        umask: Some(0o027),
        nice: Some(-5),
        nofile: Some(65536),
        nproc: Some(100),
        core: Some(SizeLimit::Unlimited),
        memlock: Some(SizeLimit::Bytes(Bytes::from_kib(64 << 10))),
        stack: Some(SizeLimit::Bytes(Bytes::from_kib(16 << 10))),
        oom_score_adj: 0,
        stdin: Stdin::Listener("http".to_owned()),
        mount: Some("/app".to_owned()),
    };
    let proxy = Handover::Proxy(Proxy { max_connections: Some(10), proxy_protocol: true, close_hint: true });
    let run = RunSettings {
        command: strings(&["node", "server.js"]),
        workers: 1,
        listen: vec![
            listener("http", "0.0.0.0:8080", Handover::Inherit, 128),
            listener("admin", "[::1]:8081", proxy, 4096),
        ],
        overlap: true,
        ready: Ready::Notify,
        health: Some(HealthCheck {
            probe: Probe::Http(HttpProbe {
                status: ["200-299", "401"].map(|text| text.parse().unwrap()).to_vec(),
                headers: vec![("X-Probe".to_owned(), "1".to_owned())],
                host: Some("web.test".to_owned()),
                body: Some("ok".to_owned()),
                ..HttpProbe::get("/health".to_owned())
            }),
            listener: Some("admin".to_owned()),
            interval: Millis(500),
            timeout: Millis(250),
            failures: 5,
            successes: 2,
        }),
        startup_timeout: Millis::from_secs(600),
        drain: Millis::from_secs(90),
        stop_tree_after: Some(Millis::from_secs(10)),
        stop_signal: Signal::QUIT,
        quiesce_signal: None,
        quiesce: None,
        watchdog: Some(Millis::from_secs(20)),
        keep_warm: Some(Millis::from_secs(900)),
        split: Some(Share::from_percent(5)),
        progress: Some(Progress { file: "beat".to_owned(), within: Millis::from_secs(30) }),
        on_exit: OnExit::Exit,
        max_restarts: 3,
        relaunch_exit_code: 75,
        recycle: Some(Recycle::Share(Share::from_percent(80))),
        needs: Some(Bytes::from_kib(300 << 10)),
        process,
        inherited: Inherited { only: Some(strings(&["HOME", "LC_*", "PATH"])) },
        output: Output { format: Format::Json, line_max: Bytes::from_kib(16), stall: Millis(250) },
        secrets: Secrets {
            from: ["s3://acme/web.json", "file:/run/secrets/web.json"].map(reference).to_vec(),
            env: vec![
                ("DB".to_owned(), reference("aws-secretsmanager:prod/db#password")),
                ("TOKEN".to_owned(), reference("env:TOKEN")),
            ],
            keep: Keep::Disk,
        },
        env: vec![("NODE_ENV".to_owned(), "production".to_owned()), ("_x1".to_owned(), String::new())],
    };
    let bake = Millis::from_secs(60);
    let policy = Policy {
        target: Share::from_percent(10).into(),
        max_unhealthy: Share::from_ppm(5000).unwrap(),
        phases: vec![
            Phase { size: PhaseSize::One, bake },
            Phase { size: PhaseSize::Share(Share::from_percent(50)), bake },
        ],
        failure_limit: Share::NONE,
        auto_rollback: false,
        ..Policy::safe()
    };
    assert_eq!((&settings.run, &settings.policy), (&run, &policy));

    let (name, worker) = settings.flavors.first_key_value().unwrap();
    assert_eq!(name.as_str(), "taskworker");
    let env = [("NODE_ENV", "staging"), ("QUEUE", "mail"), ("TOKEN", "of a worker"), ("_x1", "")];
    // What it sets itself takes the place of a secret.
    let secrets = Secrets {
        from: Vec::new(),
        env: vec![("DB".to_owned(), reference("aws-ssm:/worker/db"))],
        keep: Keep::Disk,
    };
    let differs = RunSettings {
        command: strings(&["node", "worker.js"]),
        listen: Vec::new(),
        overlap: false,
        quiesce_signal: Some(Signal::USR1),
        quiesce: Some(Millis::from_secs(3 * 3600)),
        keep_warm: None,
        split: None,
        health: None,
        recycle: Some(Recycle::Bytes(Bytes::from_kib(512 << 10))),
        inherited: Inherited { only: Some(Vec::new()) },
        progress: Some(Progress { file: "beat".to_owned(), within: Millis::from_secs(3600) }),
        process: Process { stdin: Stdin::Null, ..run.process.clone() },
        output: Output { stall: Millis::ZERO, ..run.output },
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        secrets,
        ..run
    };
    assert_eq!(worker.run, differs);
    // A named policy stands for its phases; what limits the rollout stays.
    let mut fast = Policy { phases: Policy::fast().phases, ..settings.policy.clone() };
    fast.phases[0].bake = Millis::from_secs(4);
    assert_eq!(worker.policy, fast);
}

#[test]
fn phases_keep_the_bakes_of_the_policy_unless_bake_is_set() {
    let bakes = |text: &str| -> Vec<u64> {
        let phases = good(&format!("{SMALL}{text}")).policy.phases;
        phases.iter().map(|phase| phase.bake.0).collect()
    };
    let phases = "rollout.phases = [\"1\", \"2%\", \"3%\", \"4%\"]\n";
    assert_eq!(bakes(phases), [10_000, 5_000, 5_000, 5_000]);
    assert_eq!(bakes(&format!("{phases}rollout.bake = \"0s\"")), [0; 4]);
    assert_eq!(bakes("rollout.bake = \"1h\""), [3_600_000; 3]);
}

#[test]
fn a_flavor_with_other_listeners_is_probed_there_when_the_name_is_the_same() {
    let text = "run.listen = [{ name = \"http\", address = \"0.0.0.0:80\" }]\nrun.health.tcp = true\n";
    let flavor = "flavor.b.run.listen = [{ name = \"http\", address = \"0.0.0.0:81\" }]";
    let settings = good(&format!("{SMALL}{text}{flavor}"));
    let flavor = settings.flavors.values().next().unwrap();
    assert_eq!(flavor.run.health, settings.run.health);
    assert_eq!(flavor.run.listen[0].address.port(), Some(81));
}

#[test]
fn a_command_that_the_caller_has_takes_the_place_of_the_one_in_the_file() {
    let typed = || strings(&["typed"]);
    for text in ["service = \"web\"", SMALL] {
        let settings = parse_with_command("baton.toml", text, typed()).unwrap();
        assert_eq!(settings.run.command, typed(), "{text}");
    }
    let flavor = parse_with_command(
        "f",
        &format!("{SMALL}flavor.a.run.command = [\"own\"]\nflavor.b = {{}}"),
        typed(),
    );
    let commands: Vec<_> = flavor.unwrap().flavors.into_values().map(|flavor| flavor.run.command).collect();
    assert_eq!(commands, [strings(&["own"]), typed()]);
}

#[test]
fn a_flavor_takes_over_the_probe_and_says_what_differs() {
    let base = "run.listen = [{ name = \"http\", address = \"0.0.0.0:80\" }]\nrun.health.http = \"/a\"\nrun.health.body = \"ok\"\n";
    let probe = |flavor: &str| {
        let settings = good(&format!("{SMALL}{base}{flavor}"));
        settings.flavors.into_values().next().unwrap().run.health.map(|check| (check.probe, check.listener))
    };
    let http = |path: &str, body: Option<&str>| {
        let body = body.map(str::to_owned);
        Probe::Http(HttpProbe { body, ..HttpProbe::get(path.to_owned()) })
    };
    let listener = Some("http".to_owned());
    assert_eq!(probe("flavor.b.run.health.http = \"/b\""), Some((http("/b", Some("ok")), listener.clone())));
    assert_eq!(
        probe("flavor.b.run.health.body = \"yes\""),
        Some((http("/a", Some("yes")), listener.clone()))
    );
    assert_eq!(probe("flavor.b.run.health.tcp = true"), Some((Probe::Tcp, listener)));
    let exec = "flavor.b.run.health.exec = [\"./check\"]";
    let check = Probe::Exec { command: strings(&["./check"]) };
    assert_eq!(probe(exec), Some((check.clone(), None)));
    // Without listeners only a question that needs none is left.
    assert_eq!(probe("flavor.b.run.listen = []"), None);
    assert_eq!(probe(&format!("flavor.b.run.listen = []\n{exec}")), Some((check, None)));
}

#[test]
fn other_good_files() {
    for text in [
        "run.ready = \"notify\"\nrun.health.startup_timeout = \"5m\"",
        "run.stop_signal = \"SIGUSR1\"",
        "run.stop_signal = \"RTMIN+3\"",
        "run.max_restarts = 0",
        "run.drain = \"0s\"",
        "run.overlap = true",
        "run.overlap = false",
        "run.quiesce_signal = \"TSTP\"",
        "run.health.exec = [\"./check\"]",
        "run.health = { exec = [\"sh\", \"-c\", \"true\"], timeout = \"5s\" }",
        "run.listen = [{ name = \"a\", address = \"0.0.0.0:80\" }]\nrun.health.grpc = \"\"",
        "rollout = {}",
        "env = { PORTS = \"80\", LISTEN = \"\" }",
        "flavor.b.run.listen = [{ name = \"a\", address = \"0.0.0.0:80\" }]\nflavor.b.run.health.tcp = true",
        "run.health.http = '/a?b=c%20d'\r\n[[run.listen]] # a comment\r\nname = 'x'\r\naddress = '[::]:80'\r\n",
    ] {
        good(&format!("{SMALL}{text}"));
    }
}
