//! Several servers of control over one Redis, and the releases in a bucket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use baton_e2e::load::Plan;
use serde_json::{Value, json};

use crate::boot::{Folder, binary};
use crate::fleet::Fleet;
use crate::load::Load;
use crate::moto::Moto;
use crate::redis_server::Redis;
use crate::wait::wait_for;

/// Half of the fleet at a time, with a short bake: for deploys that a test is not about.
const QUICK: [&str; 6] = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];

/// Control as several servers, its stores, and members that are split over them.
struct Servers {
    fleet: Fleet,
    redis: Redis,
    _moto: Moto,
}

impl Servers {
    fn start(servers: usize, members: usize) -> Self {
        let redis = Redis::start();
        let state = redis.address();
        Self::over(redis, state, servers, members)
    }

    /// The same, and the servers find the node at this address.
    fn over(redis: Redis, state: String, servers: usize, members: usize) -> Self {
        let mut moto = Moto::start();
        moto.call("s3", "create_bucket", &json!({ "Bucket": "releases" }));
        let mut variables = moto.variables();
        variables.push(("BATON_STORE".to_owned(), "s3://releases/web".to_owned()));
        variables.push(("BATON_STATE".to_owned(), state));
        Self { fleet: Fleet::over(servers, members, variables), redis, _moto: moto }
    }

    /// The members that are live, as a server knows them.
    fn live(&self) -> usize {
        self.fleet.members_now().iter().filter(|member| member["presence"] == "live").count()
    }

    /// What was told of this kind.
    fn told(&self, kind: &str) -> Vec<Value> {
        let events = self.fleet.json(&["events", "--service", "web"]);
        events.as_array().unwrap().iter().filter(|event| event["kind"] == kind).cloned().collect()
    }
}

fn load_on(fleet: &Fleet) -> Load {
    let targets = fleet.addresses.iter().map(|address| address.to_string().parse().unwrap());
    Load::start(Plan { rate: 40, ..Plan::mixed(targets.collect()) })
}

#[test]
fn p30_p31_f49_a_server_that_is_killed_in_mid_rollout_is_taken_over_by_the_others() {
    let mut servers = Servers::start(3, 6);
    for server in 0..3 {
        servers.fleet.ask(server);
        wait_for("every server to know all members", || (servers.live() == 6).then_some(()));
    }
    let folder = Folder::with_example("python");
    servers.fleet.ask(0);
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    let load = load_on(&servers.fleet);
    folder.write("VERSION", "2");
    let slowly = ["--policy", "fast", "--max-unhealthy", "20%", "--bake", "1s", "--detach"];
    assert_eq!(servers.fleet.deploy(&folder, &slowly), Some(0));
    let second = servers.fleet.release();
    wait_for("the first members", || (servers.fleet.status()["counts"]["proven"] == 2).then_some(()));
    servers.fleet.kill_control();

    servers.fleet.ask(1);
    wait_for("the rollout to go on", || (servers.fleet.status()["state"] == "drained").then_some(()));
    assert_eq!(servers.live(), 6);
    for member in 0..6 {
        assert_eq!(servers.fleet.answers(member), Some(second.clone()));
    }
    let deploy = servers.fleet.status()["deploy"]["id"].clone();
    let mut granted: Vec<_> =
        servers.told("granted").into_iter().filter(|event| event["deploy"] == deploy).collect();
    granted.sort_by_key(|event| event["member"].to_string());
    granted.dedup_by_key(|event| event["member"].to_string());
    assert_eq!(granted.len(), 6, "nobody got it without a slot: {granted:#?}");
    assert_eq!(servers.told("refused"), [] as [Value; 0]);
    servers.fleet.ask(2);
    assert_eq!(servers.fleet.status()["state"], "drained", "every server says so");
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn a_server_stops_when_it_is_asked_to_whether_or_not_redis_is_there() {
    let mut servers = Servers::start(2, 1);
    wait_for("the member", || (servers.live() == 1).then_some(()));
    assert_eq!(servers.fleet.stop_control(), Some(0));
    servers.fleet.ask(1);
    servers.redis.kill();
    assert_eq!(servers.fleet.stop_control(), Some(0));
}

#[test]
fn p12_f51_a_server_that_wakes_up_late_undoes_nothing() {
    let mut servers = Servers::start(2, 4);
    let folder = Folder::with_example("python");
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    folder.write("VERSION", "2");
    let slowly = ["--policy", "fast", "--max-unhealthy", "30%", "--bake", "1s", "--detach"];
    assert_eq!(servers.fleet.deploy(&folder, &slowly), Some(0));
    wait_for("the first member", || (servers.fleet.status()["counts"]["proven"] == 1).then_some(()));
    servers.fleet.freeze_control();

    servers.fleet.ask(1);
    folder.write("VERSION", "3");
    wait_for("the members to come over", || (servers.live() == 4).then_some(()));
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    let third = servers.fleet.status()["deploy"].clone();
    servers.fleet.ask(0);
    servers.fleet.thaw_control();
    wait_for("the late one to know", || {
        (servers.fleet.status()["deploy"]["id"] == third["id"]).then_some(())
    });
    for server in 0..2 {
        servers.fleet.ask(server);
        for member in 0..4 {
            assert_eq!(servers.fleet.answers(member), third["release"].as_str().map(str::to_owned));
        }
        let deploys = servers.fleet.json(&["deploys", "--service", "web"]);
        assert_eq!(deploys.as_array().unwrap().len(), 3, "{deploys:#?}");
    }
    assert_eq!(servers.told("contradicted"), [] as [Value; 0]);
}

/// Proposes a deploy at a server by hand, and returns the status and what is answered.
fn propose(server: SocketAddr, proposal: &Value) -> (u16, Value) {
    let body = proposal.to_string();
    let mut stream = TcpStream::connect(server).unwrap();
    write!(
        stream,
        "POST /v1/services/web/deploys HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(&body[body.find('{').unwrap()..=body.rfind('}').unwrap()]).unwrap())
}

#[test]
fn p12_p16_f110_of_two_deploys_that_race_at_two_servers_one_wins() {
    let mut servers = Servers::start(2, 2);
    let folder = Folder::with_example("python");
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    let first = servers.fleet.status()["deploy"].clone();
    servers.fleet.ask(1);
    wait_for("the other server to know", || {
        (servers.fleet.status()["deploy"]["id"] == first["id"]).then_some(())
    });
    let proposal = |actor: &str| {
        json!({ "wanted": "rollout", "release": first["release"], "policy": first["policy"], "actor": actor,
                "parent": first["id"], "again": true })
    };
    let addresses = [0, 1].map(|server| {
        servers.fleet.ask(server);
        servers.fleet.control()
    });
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| propose(addresses[0], &proposal("ann")));
        let two = scope.spawn(|| propose(addresses[1], &proposal("bob")));
        (one.join().unwrap(), two.join().unwrap())
    });
    let (won, lost) = if one.0 == 201 { (one, two) } else { (two, one) };
    assert_eq!((won.0, lost.0, &lost.1["code"]), (201, 409, &json!("conflict")), "{won:?} {lost:?}");
    assert_eq!(won.1["accepted"], "1 copy");
    for server in 0..2 {
        servers.fleet.ask(server);
        wait_for("both to know", || (servers.fleet.status()["deploy"]["id"] == won.1["id"]).then_some(()));
        assert_eq!(servers.fleet.json(&["deploys", "--service", "web"]).as_array().unwrap().len(), 2);
    }
}

/// What a server says of its health: the status, and why.
fn health(server: SocketAddr) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(server).ok()?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[test]
fn p30_f65_a_server_that_starts_while_redis_is_away_waits_for_it_and_changes_nothing() {
    let mut servers = Servers::start(1, 2);
    let folder = Folder::with_example("python");
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    let first = servers.fleet.release();
    let load = load_on(&servers.fleet);
    servers.redis.cli(&["SAVE"]);
    servers.fleet.kill_control();
    servers.redis.kill();
    servers.fleet.spawn_control();
    let (status, why) = wait_for("it to tell how it is", || health(servers.fleet.control()));
    assert!(status == 503 && why.contains("the state store is not available"), "{status}: {why}");
    // What it does not know is not told as if there were nothing.
    for asked in [&["status"][..], &["members", "--service", "web"], &["events"], &["releases", "prune"]] {
        let refused = servers.fleet.baton(asked);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(7), "{asked:?}: {why}");
        assert!(why.contains("the state store is not available"), "{asked:?}: {why}");
    }
    folder.write("VERSION", "2");
    let refused = servers.fleet.baton_in(folder.path(), &["deploy", "--detach"]);
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    assert_eq!(servers.fleet.stop_control(), Some(0), "it stops when it is asked to");

    servers.fleet.spawn_control();
    wait_for("it to be there again", || health(servers.fleet.control()));
    servers.redis.start_again();
    wait_for("the members", || (servers.live() == 2).then_some(()));
    assert_eq!(health(servers.fleet.control()).unwrap().0, 200);
    assert_eq!(servers.fleet.release(), first, "it has read what was there");
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    let second = servers.fleet.release();
    for member in 0..2 {
        assert_eq!(servers.fleet.answers(member), Some(second.clone()));
    }
    assert_eq!(servers.told("deployed").len(), 2, "each is told once");
    let log = servers.fleet.log("control");
    assert_eq!(log.matches("the state store was not read yet").count(), 2, "once for each start: {log}");
    assert!(log.contains("the state store can be written again"), "{log}");
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
}

#[test]
fn a_server_that_its_redis_will_never_let_in_ends_and_says_why() {
    let redis = Redis::start();
    redis.cli(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let data = Folder::empty();
    let ended = Command::new(binary("baton"))
        .args(["server", "--dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .args(["--state", &redis.address().replace("//", "//:s3cret@")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{why}");
    assert!(why.contains("password") && !why.contains("s3cret"), "{why}");
}

#[test]
fn f65_a_redis_that_is_gone_freezes_the_rollout_and_nothing_else() {
    let mut servers = Servers::start(2, 2);
    let folder = Folder::with_example("python");
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    let first = servers.fleet.release();
    let load = load_on(&servers.fleet);
    servers.redis.kill();
    folder.write("VERSION", "2");
    let refused = servers.fleet.baton_in(folder.path(), &["deploy", "--detach"]);
    assert_ne!(refused.status.code(), Some(0), "{refused:?}");
    assert_eq!(servers.fleet.release(), first, "what is known can be asked");
    // It comes back with nothing at all; the servers write back what they know.
    servers.redis.start_again();
    wait_for("the store to be whole", || (!servers.told("store-restored").is_empty()).then_some(()));
    let log = servers.fleet.log("control");
    // Refused, cut off, and once more each with the deploy.
    let complaints = log.lines().filter(|line| line.contains("is not available")).count();
    assert!((1..=4).contains(&complaints), "what is wrong is told, and not every second: {log}");
    servers.fleet.ask(1);
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    assert_eq!(servers.fleet.status()["deploy"]["epoch"], 2);
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
}

#[test]
fn p30_p31_f63_a_failover_in_mid_rollout_goes_on_with_the_deploy_and_loses_nothing() {
    let primary = Redis::start();
    let port = primary.port().to_string();
    let replica = Redis::start_with(&["--port", "PORT", "--replicaof", "127.0.0.1", &port], &[]);
    let sentinel = Redis::sentinel_of(&primary);
    wait_for("the Sentinel to know the replica", || {
        let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", "main"]);
        replicas.contains(&replica.port().to_string()).then_some(())
    });
    let state = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port());
    let mut servers = Servers::over(primary, state, 2, 4);
    let folder = Folder::with_example("python");
    assert_eq!(servers.fleet.deploy(&folder, &QUICK), Some(0));
    let load = load_on(&servers.fleet);
    folder.write("VERSION", "2");
    let slowly = ["--policy", "fast", "--max-unhealthy", "30%", "--bake", "1s", "--detach"];
    assert_eq!(servers.fleet.deploy(&folder, &slowly), Some(0));
    let second = servers.fleet.status()["deploy"].clone();
    wait_for("the first member", || (servers.fleet.status()["counts"]["proven"] == 1).then_some(()));
    servers.redis.kill();
    wait_for("the rollout to go on", || (servers.fleet.status()["state"] == "drained").then_some(()));
    for server in 0..2 {
        servers.fleet.ask(server);
        wait_for("every server to say so", || (servers.fleet.status()["state"] == "drained").then_some(()));
        assert_eq!(servers.fleet.status()["deploy"]["id"], second["id"]);
    }
    assert!(replica.cli(&["ROLE"]).starts_with("master"));
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn p31_a_state_that_was_exported_is_brought_back_and_to_a_redis() {
    let mut fleet = Fleet::start("web", 2);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let deploy = fleet.status()["deploy"].clone();
    fleet.kill_control();
    let (data, file) = (fleet.path("control"), fleet.path("state.backup"));
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    let exported = fleet.baton(&["server", "export", "--data", data, file]);
    assert!(exported.status.success(), "{exported:?}");
    assert!(String::from_utf8_lossy(&exported.stdout).contains("1 services"), "{exported:?}");

    let import = |arguments: &[&str]| fleet.baton(&[&["server", "import", file], arguments].concat());
    let refused = import(&["--data", data]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a state store already"), "{refused:?}");
    std::fs::remove_file(fleet.path("control/state.redb")).unwrap();
    let none = fleet.baton(&["server", "export", "--data", data, &format!("{file}.none")]);
    assert_eq!(none.status.code(), Some(1), "there is nothing to export: {none:?}");
    let imported = import(&["--data", data]);
    assert!(imported.status.success(), "{imported:?}");

    let redis = Redis::start();
    assert!(import(&["--state", &redis.address()]).status.success());
    let copy = format!("{file}.copy");
    assert!(fleet.baton(&["server", "export", "--state", &redis.address(), &copy]).status.success());
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(file).unwrap(), "it is the same in a Redis");
    let cut = std::fs::read(file).unwrap();
    std::fs::write(&copy, &cut[..cut.len() - 1]).unwrap();
    let damaged = fleet.baton(&["server", "import", &copy, "--state", &redis.address()]);
    assert!(String::from_utf8_lossy(&damaged.stderr).contains("damaged or cut off"), "{damaged:?}");

    fleet.start_control();
    assert_eq!(fleet.status()["deploy"], deploy);
    wait_for("the members to be back", || {
        let live = fleet.members_now().iter().filter(|member| member["presence"] == "live").count();
        (live == 2).then_some(())
    });
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert_eq!(fleet.status()["deploy"]["epoch"], 2);
}
