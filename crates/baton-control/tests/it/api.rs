//! The API in detail, and whatever is not a proper request.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::spawn;

use baton_control::{Artefacts, Config};
use baton_core::ids::{ChunkId, PackId, ReleaseId};
use baton_core::release::grant::Grant;
use baton_release::manifest::{self, Known};
use baton_release::pack;
use baton_release::remote::Remote;
use baton_release::store::{ArtefactStore, Kind};
use baton_wire::api::{
    DeployName, DeployView, EventView, Preview, Propose, Refused, ReleaseView, ServiceStatus, Wanted,
};
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant};

use crate::light::{Fleet, names};
use crate::rollout::settled;
use crate::running::{Running, rollout, wanted};

#[tokio::test(flavor = "multi_thread")]
async fn p32_a_proposal_that_is_sent_again_with_its_key_is_made_once() {
    let server = Running::start();
    let (first, second) = (server.push(1).await, server.push(2).await);
    let mut asked = rollout(first, 0);
    asked.idempotency_key = Some("build-17".into());
    let deploy = server.deploy(&asked).await;
    assert_eq!(server.deploy(&asked).await, deploy);
    server.deploy(&rollout(second, 0)).await;
    // A late replay does not come into force again either.
    assert_eq!(server.deploy(&asked).await, deploy);
    let deploys: Vec<DeployView> = server.get("/v1/services/web/deploys").await;
    assert_eq!(deploys.iter().map(|deploy| deploy.epoch).collect::<Vec<_>>(), [2, 1]);
    // The same key for something else is a mistake.
    let mut other = rollout(second, 0);
    other.idempotency_key = Some("build-17".into());
    let answer = server.propose(&other).await;
    assert_eq!((answer.status, answer.json::<Refused>().code.as_str()), (422, "key-taken"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_a_deploy_names_the_one_whose_place_it_takes() {
    let server = Running::start();
    let (one, two) = (server.push(1).await, server.push(2).await);
    let first = server.deploy(&rollout(one, 0)).await;
    assert_eq!(first.replaces, None);
    let second = server.deploy(&rollout(two, 0)).await;
    let DeployView { id, epoch, kind, release, actor, .. } = first;
    let replaces = Some(DeployName { id, epoch, kind, release, actor });
    assert_eq!(second.replaces, replaces);
    let is_second =
        |status: &ServiceStatus| status.deploy.as_ref().is_some_and(|deploy| deploy.id == second.id);
    let status = server.wait_for("the second", is_second).await;
    assert_eq!(status.deploy.unwrap().replaces, replaces);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_who_looked_at_an_old_state_gets_a_conflict() {
    let server = Running::start();
    let release = server.push(1).await;
    let first = server.deploy(&rollout(release, 0)).await;
    let second = server.deploy(&rollout(release, 1)).await;
    assert_eq!(second.parent, Some(first.id.clone()));
    let mut late = rollout(release, 2);
    late.parent = Some(first.id);
    let answer = server.propose(&late).await;
    assert_eq!((answer.status, answer.json::<Refused>().code.as_str()), (409, "conflict"));
    server.stop().await;
}

/// Deploys ten times, each after what it finds in force; whoever was faster is looked at first. Tells what was accepted, and
/// how often somebody was faster.
async fn deploy_ten_times(server: &Running, release: ReleaseId, client: usize) -> (Vec<DeployView>, usize) {
    let (mut accepted, mut overtaken) = (Vec::new(), 0);
    while accepted.len() < 10 {
        let known: Vec<DeployView> = server.get("/v1/services/web/deploys").await;
        let mut asked = rollout(release, 0);
        (asked.parent, asked.actor) = (Some(known[0].id.clone()), format!("client-{client}"));
        let answer = server.propose(&asked).await;
        match answer.status {
            201 => accepted.push(answer.json()),
            409 => overtaken += 1,
            other => panic!("{other}: {}", answer.text()),
        }
    }
    (accepted, overtaken)
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_f110_a_hundred_deploys_by_ten_clients_at_once_are_one_order_and_the_log_shows_it() {
    let server = Arc::new(Running::start());
    let release = server.push(1).await;
    let first = server.deploy(&rollout(release, 0)).await;
    let clients: Vec<_> = (0..10)
        .map(|client| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { deploy_ten_times(&server, release, client).await })
        })
        .collect();
    let (mut accepted, mut overtaken) = (vec![first], 0);
    for client in clients {
        let (deploys, conflicts) = client.await.unwrap();
        accepted.extend(deploys);
        overtaken += conflicts;
    }
    accepted.sort_by_key(|deploy| deploy.epoch);
    assert!(accepted.iter().map(|deploy| deploy.epoch).eq(1..=101), "one number each");
    let follows = |pair: &[DeployView]| pair[1].parent.as_ref() == Some(&pair[0].id);
    assert!(accepted.windows(2).all(follows), "each follows the one before");
    let mut known: Vec<DeployView> = server.get("/v1/services/web/deploys").await;
    known.reverse();
    assert_eq!(ids(&known), ids(&accepted), "what clients were told is what there is");

    let Ok(server) = Arc::try_unwrap(server) else { panic!("somebody asks still") };
    let dir = server.stop().await;
    let log = fs::read_to_string(dir.path().join("data/audit.log")).unwrap();
    let asked: Vec<_> = log.lines().filter(|line| line.contains("POST /v1/services/web/deploys")).collect();
    // After its number, the time, who, from where, and what: how it went.
    let begun: Vec<_> = asked.iter().filter(|line| line.split('\t').nth(5) == Some("201")).collect();
    assert_eq!((begun.len(), asked.len() - begun.len()), (101, overtaken));
    for deploy in &accepted {
        let told = format!("deploy {} {}: ", deploy.epoch, deploy.id);
        assert_eq!(begun.iter().filter(|line| line.contains(&told)).count(), 1, "{told}");
    }
}

fn ids(deploys: &[DeployView]) -> Vec<&str> {
    deploys.iter().map(|deploy| deploy.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_would_happen_and_changes_nothing() {
    let (server, _fleet, first) = settled(5).await;
    let second = server.push(2).await;
    let mut asked = rollout(second, 100);
    asked.dry_run = true;
    let answer = server.propose(&asked).await;
    assert_eq!(answer.status, 200);
    let preview: Preview = answer.json();
    assert_eq!((preview.members, preview.order.len()), (5, 5));
    assert_eq!(preview.phases.iter().map(|phase| phase.slots).collect::<Vec<_>>(), [1, 2]);
    let status: ServiceStatus = server.get("/v1/services/web").await;
    assert_eq!(status.deploy.unwrap().release, first.to_string());
    // A service that nobody has heard of may be looked at too, but not with another's release.
    let other = server.post("/v1/services/other/deploys", &asked).await;
    assert_eq!(other.status, 400, "{}", other.text());
    // What would be refused is refused.
    let mut halt = wanted(Wanted::Halt);
    halt.dry_run = true;
    let answer = server.propose(&halt).await;
    assert_eq!((answer.status, answer.json::<Refused>().code.as_str()), (422, "nothing-to-do"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p33_a_long_poll_returns_when_something_has_changed() {
    let server = Running::start();
    let release = server.push(1).await;
    server.deploy(&rollout(release, 0)).await;
    let status: ServiceStatus = server.get("/v1/services/web").await;
    assert_eq!((status.state.as_str(), status.counts.live), ("rolling-out", 0));
    let last = server.events().await.last().unwrap().sequence;
    let path = format!("/v1/services/web?after={}&wait_ms=30000", status.version);
    let events_path = format!("/v1/events?after={last}&wait_ms=30000");
    let (newer, events, _fleet) =
        tokio::join!(server.get::<ServiceStatus>(&path), server.get::<Vec<EventView>>(&events_path), async {
            Fleet::start(server.address, names(1))
        },);
    assert!(newer.version > status.version);
    assert!(events.iter().all(|event| event.sequence > last) && !events.is_empty());
    // Without a change it returns what is known, after the time that was asked for.
    let asked = Instant::now();
    let none: Vec<EventView> = server.get("/v1/events?after=1000000&wait_ms=50").await;
    assert!(none.is_empty() && asked.elapsed() >= Duration::from_millis(50));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_are_named_by_enough_digits_and_must_be_there() {
    let server = Running::start();
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(server.push(number).await);
    }
    let views: Vec<ReleaseView> = server.get("/v1/releases").await;
    let newest_first: Vec<_> = ids.iter().rev().map(ToString::to_string).collect();
    assert_eq!(views.iter().map(|view| view.id.clone()).collect::<Vec<_>>(), newest_first);

    let mut asked = rollout(ids[1], 0);
    asked.release = Some(ids[1].short());
    assert_eq!(server.deploy(&asked).await.release, ids[1].to_string());
    for (release, status, code) in [
        ("abc", 400, "invalid"),
        // It may be a tag, of which there is none.
        ("ABCDEF", 404, "not-found"),
        ("../../etc/passwd", 400, "invalid"),
        ("00000000", 404, "not-found"),
        (&"0".repeat(64), 404, "not-found"),
    ] {
        asked.release = Some(release.to_owned());
        let answer = server.propose(&asked).await;
        let refused: Refused = answer.json();
        assert_eq!((answer.status, refused.code.as_str()), (status, code), "{release}: {refused:?}");
        if release.len() == 64 {
            assert!(refused.message.contains("baton push"), "{refused:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f71_what_deploys_name_is_deployed_again_while_the_artefact_store_is_away() {
    let server = Running::start();
    let [deployed, other] = [server.push(0).await, server.push(1).await];
    server.deploy(&rollout(deployed, 0)).await;
    // It can neither be listed nor read.
    let manifests = server.data_dir().join("artefacts/manifests");
    fs::rename(&manifests, manifests.with_extension("away")).unwrap();
    fs::write(&manifests, "").unwrap();
    let again = |named: String| Propose { release: Some(named), again: true, ..rollout(deployed, 0) };
    for named in [deployed.to_string(), deployed.short()] {
        assert_eq!(server.deploy(&again(named)).await.release, deployed.to_string());
    }
    // What nobody has deployed no member need have.
    for named in [other.to_string(), other.short()] {
        let answer = server.propose(&again(named.clone())).await;
        assert_eq!(answer.status, 503, "{named}: {}", answer.text());
    }
    // Whether it runs beside what it replaces cannot be looked up.
    let mut alone = again(deployed.to_string());
    alone.policy.as_mut().unwrap().limits.singleton = true;
    let answer = server.propose(&alone).await;
    assert!(answer.status == 503 && answer.text().contains("singleton"), "{}", answer.text());
    server.stop().await;
}

/// Where a bucket should be and takes connections, which answers nobody before it is dropped, and then refuses everybody.
struct Mute {
    address: SocketAddr,
    refuses: Option<Sender<()>>,
}

impl Mute {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (refuses, refused) = channel::<()>();
        let (connected, connections) = channel();
        spawn(move || listener.incoming().flatten().try_for_each(|stream| connected.send(stream)));
        spawn(move || {
            let _ = refused.recv();
            while let Ok(mut stream) = connections.recv() {
                let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, refuses: Some(refuses) }
    }

    fn artefacts(&self) -> Artefacts {
        let variables = [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "eu-west-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
        Artefacts::Bucket { url: "s3://releases".to_owned(), variables }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        drop(self.refuses.take());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f71_what_deploys_name_is_deployed_again_while_the_artefact_store_answers_nobody() {
    let server = Running::start();
    let deployed = server.push(0).await;
    server.deploy(&rollout(deployed, 0)).await;
    let (dir, mute) = (server.stop().await, Mute::listen());
    let server = Running::start_so(dir, |config| Config { artefacts: mute.artefacts(), ..config });
    for named in [deployed.to_string(), deployed.short()] {
        let again = Propose { release: Some(named), again: true, ..rollout(deployed, 0) };
        assert_eq!(server.deploy(&again).await.release, deployed.to_string());
    }
    drop(mute);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_artefact_store_is_there_for_the_remote_client() {
    let server = Running::start();
    let remote = Remote::new(&format!("http://{}", server.address));
    let id = server.push(7).await;
    spawn_blocking(move || {
        let content = b"some content".as_slice();
        let (chunk, pack) = (ChunkId::of(content), pack::of(content).unwrap());
        assert_eq!(remote.missing(&[chunk]).unwrap(), [chunk]);
        assert_eq!(remote.get(&[chunk]).unwrap_err().kind, Kind::Missing);
        remote.put(&pack).unwrap();
        remote.put(&pack).unwrap();
        assert_eq!(remote.missing(&[chunk]).unwrap(), []);
        assert_eq!(remote.get(&[chunk]).unwrap(), pack);
        assert_eq!(remote.put(&pack[1..]).unwrap_err().kind, Kind::Corrupt);
        assert_eq!(remote.list().unwrap(), [id]);
        assert_eq!(manifest::read(id, &remote, Known::default()).unwrap().service.as_str(), "web");
    })
    .await
    .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_is_read_by_range_with_the_pass_of_a_grant_and_with_no_other() {
    let server = Running::start();
    let base = format!("http://{}", server.address);
    spawn_blocking(move || {
        let content = b"some content".as_slice();
        let bytes = pack::of(content).unwrap();
        Remote::new(&base).put(&bytes).unwrap();
        let agent =
            ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        let asked = format!("{}\n", ChunkId::of(content));
        let mut answer = agent.post(format!("{base}/v1/chunks/grant")).send(asked).unwrap();
        let grant = Grant::parse(&answer.body_mut().read_to_string().unwrap()).unwrap();
        let [granted] = grant.packs.as_slice() else { panic!("{grant:?}") };
        let (_, place) = &granted.frames[0];
        let get = |url: &str, range: &str| {
            let mut answer = agent.get(format!("{base}{url}")).header("Range", range).call().unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap())
        };
        let (start, end) = (place.start as usize, place.end as usize);
        let range = format!("bytes={start}-{}", end - 1);
        assert_eq!(get(&granted.url, &range), (206, bytes[start..end].to_vec()));
        assert_eq!(get(&granted.url, "bytes=0-999999"), (206, bytes.clone()), "what there is of it");
        assert_eq!(get(&granted.url, "bytes=0-1,3-4"), (200, bytes.clone()), "not one range");
        assert_eq!(get(&granted.url, &format!("bytes={end}-")), (200, bytes));
        assert_eq!(get(&granted.url, &format!("bytes={end}-{end}")).0, 416);
        let (path, _) = granted.url.split_once('?').unwrap();
        let other = granted.url.replace(path, &format!("/v1/packs/{}", PackId::of(b"other")));
        let longer = granted.url.replace("until=", "until=9");
        for (url, status) in
            [(other, 403), (longer, 403), (format!("{path}?until=1&pass=x"), 403), (path.into(), 400)]
        {
            assert_eq!(get(&url, &range).0, status, "{url}");
        }
    })
    .await
    .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p36_whatever_is_sent_is_refused_in_json_and_the_server_goes_on() {
    let server = Running::start();
    let release = server.push(1).await;
    let deploys = "/v1/services/web/deploys";
    let body = |text: &str| Some(text.as_bytes().to_vec());
    let long = format!(r#"{{"wanted":"halt","reason":"{}"}}"#, "x".repeat(5000));
    let key = |key: &str| format!(r#"{{"wanted":"halt","idempotency_key":"{key}"}}"#);
    let policy = format!(
        r#"{{"wanted":"rollout","release":"{release}","policy":{{"target_ppm":1,"max_unhealthy_ppm":1,
        "phases":[],"failure_limit_ppm":1,"auto_rollback":true}}}}"#
    );
    for (method, path, body, status) in [
        ("GET", "/", None, 404),
        ("GET", "/v2/services", None, 404),
        ("GET", "/v1/services/web/nothing", None, 404),
        ("GET", "/v1/services/web", None, 404),
        ("GET", "/v1/services/-web", None, 400),
        ("GET", "/v1/services/%FF", None, 400),
        ("GET", "/v1/services/a%2Fb", None, 400),
        ("GET", "/v1/services/web?after=x", None, 400),
        ("GET", "/v1/services/web?after=-1", None, 400),
        ("GET", "/v1/events?service=../x", None, 400),
        ("GET", "/v1/events?wait_ms=99999999999999999999999", None, 400),
        ("DELETE", "/v1/services", None, 405),
        ("POST", deploys, body(""), 400),
        ("POST", deploys, body("{"), 400),
        ("POST", deploys, body("\u{0}\u{1}"), 400),
        ("POST", deploys, body("[]"), 400),
        ("POST", deploys, body(r#"{"wanted":"everything"}"#), 400),
        ("POST", deploys, body(r#"{"wanted":"rollout"}"#), 400),
        ("POST", deploys, body(r#"{"wanted":"halt","parent":"x"}"#), 400),
        ("POST", deploys, body(&key("")), 400),
        ("POST", deploys, body(&key("a b")), 400),
        ("POST", deploys, body(&key(&"x".repeat(129))), 400),
        ("POST", deploys, body(&long), 400),
        ("POST", deploys, body(&policy), 400),
        ("POST", deploys, body(r#"{"wanted":"halt"}"#), 404),
        ("POST", deploys, body(r#"{"wanted":"resume"}"#), 404),
        ("POST", deploys, body(r#"{"wanted":"rollback"}"#), 404),
    ] {
        let answer = server.call(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        let refused: Refused = answer.json();
        assert!(!refused.message.is_empty() && !refused.code.is_empty(), "{path}");
    }
    // The artefact store refuses in one line of text.
    for (method, path, body, status) in [
        ("PUT", "/v1/packs/xyz", body("x"), 400),
        ("PUT", &format!("/v1/packs/{release}"), body("x"), 422),
        ("PUT", &format!("/v1/packs/{}", PackId::of(b"x")), body("x"), 422),
        ("POST", "/v1/chunks/pack", body("xyz\n"), 400),
        ("POST", "/v1/chunks/pack", body(&format!("{}\n", "7".repeat(64))), 404),
        ("POST", "/v1/chunks/missing", body("xyz\n"), 400),
        ("PUT", &format!("/v1/releases/{release}/outline"), body("x"), 422),
        ("GET", "/v1/releases/xyz/outline", None, 400),
    ] {
        let answer = server.call(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    let nothing = server.call("GET", "/nothing", None).await.json::<Refused>();
    assert!(nothing.message.contains("/v1/services"), "it lists what there is: {nothing:?}");
    assert_eq!(server.call("GET", "/healthz", None).await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p36_a_body_that_is_too_long_is_refused_before_it_is_read() {
    let server = Running::start();
    let id = "7".repeat(64);
    for (method, path, length) in [
        ("POST", "/v1/services/web/deploys".to_owned(), 1 << 20),
        ("POST", "/v1/chunks/missing".to_owned(), 4 << 20),
        ("POST", "/v1/chunks/pack".to_owned(), 4 << 20),
        ("PUT", format!("/v1/packs/{id}"), 7 << 20),
        ("PUT", format!("/v1/releases/{id}/outline"), usize::MAX >> 1),
    ] {
        let head = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        let answer = server.raw(method, &path, &format!("Host: localhost\r\n{head}")).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{method} {path}: {answer}");
    }
    server.stop().await;
}
