//! Releases that nobody needs are removed, and no others.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_control::State;
use baton_core::ids::{BuildKey, ReleaseId};
use baton_core::run::RunSettings;
use baton_core::units::Millis;
use baton_release::manifest::{self, Known, unpack_outline};
use baton_release::record::Record;
use baton_release::remote::Remote;
use baton_release::store::{ArtefactStore, Kind};
use baton_store::state::{RedisStore, StateStore};
use baton_wire::api::{EventView, Prune, Pruned, ReleaseView, ServiceStatus};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::redis_server::Redis;
use crate::running::{Running, rollout};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Everything goes that nobody names.
const ALL: Prune = Prune { dry_run: false, keep: Some(0), grace_ms: Some(0) };

async fn prune(server: &Running, asked: &Prune) -> Pruned {
    let answer = server.post("/v1/releases/prune", asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn going(pruned: &Pruned) -> Vec<String> {
    pruned.releases.iter().filter(|release| release.goes).map(|release| release.id.clone()).collect()
}

async fn stored(server: &Running) -> Vec<String> {
    let views: Vec<ReleaseView> = server.get("/v1/releases").await;
    views.into_iter().map(|view| view.id).collect()
}

/// Waits until so many removals were told.
async fn told(server: &Running, count: usize) {
    let (mut found, mut after) = (0, 0);
    while found < count {
        let events: Vec<EventView> = server.get(&format!("/v1/events?after={after}&wait_ms=1000")).await;
        after = events.last().map_or(after, |event| event.sequence);
        found += events.iter().filter(|event| event.kind == "pruned").count();
    }
}

/// Something that a client of the store does.
async fn with<T: Send + 'static>(server: &Running, act: impl FnOnce(&Remote) -> T + Send + 'static) -> T {
    let remote = Remote::new(&format!("http://{}", server.address));
    spawn_blocking(move || act(&remote)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p28_what_is_in_force_and_what_was_before_stays_and_what_nobody_names_goes() {
    let server = Running::start();
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(server.push(number).await);
    }
    for id in &ids[..3] {
        server.deploy(&rollout(*id, 0)).await;
    }
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let usual = prune(&server, &Prune::default()).await;
    assert_eq!((going(&usual).len(), usual.packs.len()), (0, 0), "a day has not gone by");
    assert!(usual.releases.iter().any(|release| release.why == "pushed or deployed within the grace period"));

    let dry = prune(&server, &Prune { dry_run: true, ..ALL }).await;
    let why = |id: &str| dry.releases.iter().find(|release| release.id == id).unwrap().why.clone();
    assert_eq!(why(&texts[2]), "in force in web");
    assert_eq!(why(&texts[1]), "was in force in web before");
    assert_eq!(why(&texts[4]), "nobody names it");
    let mut expected = vec![texts[0].clone(), texts[3].clone(), texts[4].clone()];
    let mut found = going(&dry);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(dry.bytes_freed > 0 && dry.bytes_freed < dry.bytes);
    assert_eq!(stored(&server).await.len(), 5, "nothing was removed");

    let done = prune(&server, &ALL).await;
    assert_eq!((going(&done).len(), done.bytes_freed), (3, dry.bytes_freed));
    assert_eq!(stored(&server).await, [texts[2].clone(), texts[1].clone()]);
    tokio::time::timeout(LIMIT, told(&server, 3)).await.expect("each is told");
    for id in [ids[1], ids[2]] {
        with(&server, move |remote| manifest::read(id, remote, Known::default()).unwrap()).await;
    }
    let again = prune(&server, &ALL).await;
    assert_eq!((going(&again).len(), again.packs.len(), again.bytes_freed), (0, 0, 0));
    assert_eq!(server.propose(&rollout(ids[3], 0)).await.status, 404);
    // Pushed again it is there again.
    assert_eq!(server.push(3).await, ids[3]);
    server.deploy(&rollout(ids[3], 0)).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p28_pushes_deploys_and_prunes_at_once_leave_all_that_is_named() {
    let server = Running::start();
    let first = server.push(0).await;
    server.deploy(&rollout(first, 0)).await;
    let pushes = async {
        let mut deployed = 0;
        for number in 1..25 {
            let id = push_until_there(&server, number).await;
            let answer = server.propose(&rollout(id, 0)).await;
            // Nobody names a release between its push and its deploy, and there is no grace here.
            assert!([201, 404].contains(&answer.status), "{}", answer.text());
            deployed += usize::from(answer.status == 201);
            let status: ServiceStatus = server.get("/v1/services/web").await;
            let in_force: ReleaseId = status.deploy.unwrap().release.parse().unwrap();
            with(&server, move |remote| manifest::read(in_force, remote, Known::default()).unwrap()).await;
        }
        deployed
    };
    // Two at once.
    let prunes = async {
        for _ in 0..20 {
            tokio::join!(prune(&server, &ALL), prune(&server, &ALL));
        }
    };
    let (deployed, ()) = tokio::join!(pushes, prunes);
    prune(&server, &ALL).await;
    assert_eq!(stored(&server).await.len(), if deployed == 0 { 1 } else { 2 });
    server.stop().await;
}

/// Makes something that blocks whoever reads it of a file, until it is written into what this returns; then it is the file again.
fn hold(path: PathBuf) -> oneshot::Receiver<impl FnOnce()> {
    let (aside, content) = (path.with_extension("aside"), fs::read(&path).unwrap());
    fs::rename(&path, &aside).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let (reached, is_read) = oneshot::channel();
    std::thread::spawn(move || {
        let mut fifo = File::options().write(true).open(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        let let_go = move || fifo.write_all(&content).unwrap();
        let _ = reached.send(let_go);
    });
    is_read
}

#[tokio::test(flavor = "multi_thread")]
async fn p28_what_is_deployed_between_the_look_and_the_removal_stays() {
    let server = Running::start();
    let (deployed, other) = (server.push(1).await, server.push(2).await);
    let held = hold(server.data_dir().join(format!("artefacts/manifests/{other}")));
    let pruned = prune(&server, &ALL);
    let meanwhile = async {
        let let_go = tokio::time::timeout(LIMIT, held).await.expect("the prune looks").unwrap();
        // It has been found out that nobody names it.
        server.deploy(&rollout(deployed, 0)).await;
        let_go();
    };
    let (done, ()) = tokio::join!(pruned, meanwhile);
    assert_eq!(going(&done), [other.to_string()]);
    assert_eq!(stored(&server).await, [deployed.to_string()]);
    with(&server, move |remote| manifest::read(deployed, remote, Known::default()).unwrap()).await;
    server.stop().await;
}

/// Two servers that share a Redis and a folder of releases.
fn two_servers(redis: &Redis) -> [Running; 2] {
    let dirs = [(); 2].map(|()| Arc::new(TempDir::new().unwrap()));
    let [first, second] = [0, 1].map(|at| dirs[at].path().join("data"));
    fs::create_dir_all(first.join("artefacts")).unwrap();
    fs::create_dir_all(&second).unwrap();
    symlink(first.join("artefacts"), second.join("artefacts")).unwrap();
    dirs.map(|dir| {
        let state = State::Redis(Box::new(redis.address().parse().unwrap()));
        Running::start_over(state, dir, "127.0.0.1:0".parse().unwrap(), Vec::new())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn p28_what_another_server_removes_is_not_deployed_tagged_or_counted_on_meanwhile() {
    let redis = Redis::start();
    let [one, other] = two_servers(&redis);
    let (deployed, tagged, pushed) = (one.push(1).await, one.push(2).await, one.push(3).await);
    let address = redis.address().parse().unwrap();
    // Somebody has a turn, has looked what is needed, and is about to remove all of it.
    let third = Arc::new(RedisStore::new(address, Millis::ZERO).unwrap());
    let begin = Arc::clone(&third);
    let turn = spawn_blocking(move || begin.begin_prune(LIMIT).unwrap().unwrap()).await.unwrap();
    let refused = one.post("/v1/releases/prune", &ALL).await;
    assert!(refused.status == 503 && refused.text().contains("another server"), "{}", refused.text());
    let tag = serde_json::json!({ "release": tagged.to_string() });
    let remove = async {
        // Long enough for whoever does not wait.
        let _: Vec<ServiceStatus> = other.get("/v1/services").await;
        let _: Vec<ReleaseView> = other.get("/v1/releases").await;
        let artefacts = one.data_dir().join("artefacts");
        for release in [deployed, tagged] {
            fs::remove_file(artefacts.join(format!("manifests/{release}"))).unwrap();
        }
        for pack in fs::read_dir(artefacts.join("packs")).unwrap() {
            fs::remove_file(pack.unwrap().path()).unwrap();
        }
        spawn_blocking(move || third.end_prune(turn).unwrap()).await.unwrap();
    };
    let put = other.call("PUT", "/v1/services/web/tags/v1", Some(serde_json::to_vec(&tag).unwrap()));
    let wish = rollout(deployed, 0);
    let publish = with(&other, move |remote| {
        let outline = remote.outline(pushed).unwrap();
        remote.publish(pushed, &outline).map_err(|error| error.kind)
    });
    let (deploy, put, publish, ()) = tokio::join!(other.propose(&wish), put, publish, remove);
    assert_eq!((deploy.status, put.status), (404, 404), "{} {}", deploy.text(), put.text());
    assert_eq!(publish, Err(Kind::Missing), "and is brought again");
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p28_pushes_and_deploys_at_one_server_and_prunes_at_another_leave_all_that_is_named() {
    let redis = Redis::start();
    let [one, other] = two_servers(&redis);
    let first = push_until_there(&other, 0).await;
    other.deploy(&rollout(first, 0)).await;
    let done = AtomicBool::new(false);
    let pushes = async {
        let mut deployed = 0;
        for number in 1..15 {
            let id = push_until_there(&other, number).await;
            let answer = other.propose(&rollout(id, 0)).await;
            assert!([201, 404, 503].contains(&answer.status), "{}", answer.text());
            deployed += usize::from(answer.status == 201);
            let status: ServiceStatus = other.get("/v1/services/web").await;
            let in_force: ReleaseId = status.deploy.unwrap().release.parse().unwrap();
            with(&other, move |remote| manifest::read(in_force, remote, Known::default()).unwrap()).await;
        }
        done.store(true, Ordering::Relaxed);
        deployed
    };
    let prunes = async {
        while !done.load(Ordering::Relaxed) {
            prune(&one, &ALL).await;
        }
    };
    let (deployed, ()) = tokio::join!(pushes, prunes);
    prune(&one, &ALL).await;
    assert_eq!(stored(&one).await.len(), if deployed == 0 { 1 } else { 2 });
    one.stop().await;
    other.stop().await;
}

/// Pushes as `baton push` does: what is not there any more when the release is published is brought again.
async fn push_until_there(server: &Running, number: u64) -> ReleaseId {
    loop {
        match server.try_push(number, RunSettings::for_command(vec!["true".into()])).await {
            Ok(id) => return id,
            Err(error) => assert_eq!(error.kind, Kind::Missing),
        }
    }
}

/// Keeps a small release as what a build step has made, too. Returns the path of its record, and what the release is made known by.
async fn keep_outputs(server: &Running, id: ReleaseId) -> (String, Vec<u8>) {
    let outline = with(server, move |remote| remote.outline(id).unwrap()).await;
    let record = Record { id, outline: unpack_outline(id, &outline).unwrap() };
    let path = format!("/v1/builds/{}", BuildKey::from_bytes([7; 32]));
    let text = record.to_text().into_bytes();
    assert_eq!(server.call("PUT", &path, Some(text)).await.status, 200);
    (path, outline)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_build_steps_have_made_at_another_server_is_had_and_stays_here_too() {
    let redis = Redis::start();
    let [one, other] = two_servers(&redis);
    let id = push_until_there(&other, 1).await;
    let (path, outline) = keep_outputs(&other, id).await;
    assert_eq!(one.call("GET", &path, None).await.status, 200, "one builds, and all others have it");
    let done = prune(&one, &ALL).await;
    assert_eq!((going(&done).len(), done.packs.len()), (1, 0));
    with(&other, move |remote| remote.publish(id, &outline).unwrap()).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_build_steps_have_made_stays() {
    let server = Running::start();
    let id = server.push(1).await;
    let (_, outline) = keep_outputs(&server, id).await;
    let done = prune(&server, &ALL).await;
    assert_eq!((going(&done).len(), done.packs.len()), (1, 0));
    // All of it is there: only its name is gone.
    with(&server, move |remote| remote.publish(id, &outline).unwrap()).await;
    fs::remove_dir_all(server.data_dir().join("artefacts/builds")).unwrap();
    let refused = server.post("/v1/releases/prune", &ALL).await;
    assert_eq!(refused.status, 503, "nobody knows what the records lead to: {}", refused.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_release_that_is_needed_is_damaged_nothing_is_removed() {
    let server = Running::start();
    let (first, second) = (server.push(1).await, server.push(2).await);
    server.deploy(&rollout(first, 0)).await;
    let packs = server.data_dir().join("artefacts/packs");
    let text = with(&server, move |remote| remote.get(&[part_of(first, remote)]).unwrap()).await;
    let pack = packs.join(baton_core::ids::PackId::of(&text).to_string());
    let mut damaged = fs::read(&pack).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&pack, damaged).unwrap();
    let refused = server.post("/v1/releases/prune", &ALL).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.text().contains(&first.short()) && refused.text().contains("push it again"),
        "{}",
        refused.text()
    );
    let there = with(&server, |remote| remote.list().unwrap()).await;
    assert!(there.contains(&second), "nothing was removed");
    server.push(1).await;
    assert_eq!(going(&prune(&server, &ALL).await), [second.to_string()]);
    server.stop().await;
}

/// The chunk that is the manifest of a small release.
fn part_of(id: ReleaseId, remote: &Remote) -> baton_core::ids::ChunkId {
    unpack_outline(id, &remote.outline(id).unwrap()).unwrap().chunks()[0].id
}
