//! A data directory on a disk that is really full.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use baton_core::ids::PackId;
use baton_core::ids::ReleaseId;
use baton_release::pack;
use baton_wire::api::{Refused, ServiceStatus, Wanted};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::light::{Fleet, names};
use crate::running::{Answer, LIMIT, Running, rollout, wanted};
use crate::small_disk::{again, disk};

/// Room for the state of a server, and little more.
const SMALL: &str = "size=8m";

#[tokio::test(flavor = "multi_thread")]
async fn p29_p30_control_refuses_on_a_full_disk_says_why_and_goes_on_once_there_is_space() {
    if let Some(disk) = disk() {
        return on_small_disk(&disk).await;
    }
    let test = "full_disk::p29_p30_control_refuses_on_a_full_disk_says_why_and_goes_on_once_there_is_space";
    let errors = again(test, SMALL);
    assert!(errors.contains("baton server: cannot write the state store"), "{errors}");
    assert!(errors.contains("baton server: the state store can be written again"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p29_a_rollout_is_halted_on_a_disk_that_is_full() {
    let Some(disk) = disk() else {
        again("full_disk::p29_a_rollout_is_halted_on_a_disk_that_is_full", SMALL);
        return;
    };
    let (server, _fleet, [_, second]) = settled(&disk).await;
    let hour = 60 * 60 * 1000;
    let epoch = server.deploy(&rollout(second, hour)).await.epoch;
    fill(&disk.join("filler"));
    let refused = unlock_until_refused(&server).await;
    assert!(refused.text().contains("its disk is full"), "{}", refused.text());
    let halted = server.propose(&wanted(Wanted::Halt)).await;
    assert_eq!(halted.status, 201, "{}", halted.text());
    let status: ServiceStatus = server.get("/v1/services/web").await;
    assert_eq!((status.state.as_str(), status.deploy.unwrap().epoch), ("halted", epoch + 1));
    assert!(status.lock.is_some(), "who could not unlock it has not");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p29_a_release_that_fails_is_taken_back_on_a_disk_that_is_full() {
    let Some(disk) = disk() else {
        again("full_disk::p29_a_release_that_fails_is_taken_back_on_a_disk_that_is_full", SMALL);
        return;
    };
    let (server, fleet, [first, second]) = settled(&disk).await;
    fleet.world.allow_proofs(0);
    let epoch = server.deploy(&rollout(second, 0)).await.epoch;
    server.wait_for("one bakes it", |status| status.counts.proving == 1).await;
    fill(&disk.join("filler"));
    let refused = unlock_until_refused(&server).await;
    assert!(refused.text().contains("its disk is full"), "{}", refused.text());

    fleet.world.spoil(second);
    let is_back = |status: &ServiceStatus| {
        status
            .deploy
            .as_ref()
            .is_some_and(|deploy| deploy.kind == "rollback" && deploy.release == first.to_string())
    };
    let back = server.wait_for("taken back", is_back).await.deploy.unwrap();
    assert_eq!((back.epoch, back.actor.as_str()), (epoch + 1, "baton"), "nobody was needed for it");
    assert_eq!(fleet.world.tries(second).len(), 1);
    server.stop().await;
}

/// A server whose data is on this disk, with three members that run the first of two releases.
async fn settled(disk: &Path) -> (Running, Fleet, [ReleaseId; 2]) {
    let dir = Arc::new(TempDir::new_in(disk).unwrap());
    let server = Running::start_in(dir, "127.0.0.1:0".parse().unwrap());
    let fleet = Fleet::start(server.address, names(3));
    server.wait_for("all are here", |status| status.counts.live == 3).await;
    let releases = [server.push(1).await, server.push(2).await];
    server.deploy(&rollout(releases[0], 0)).await;
    server.wait_until_switched(releases[0]).await;
    (server, fleet, releases)
}

async fn on_small_disk(disk: &Path) {
    let (server, fleet, [first, second]) = settled(disk).await;

    let filler = disk.join("filler");
    fill(&filler);
    let refused = deploy_until_refused(&server, first).await;
    let says =
        |text: &str| text.contains("its disk is full, free some space there") && text.contains("state.redb");
    assert!(refused.code == "unavailable" && says(&refused.message), "{refused:?}");
    let health = server.call("GET", "/healthz", None).await;
    assert!(health.status == 503 && says(&health.text()), "{}", health.text());
    let held: ServiceStatus = server.get("/v1/services/web").await;
    let epoch = held.deploy.as_ref().unwrap().epoch;
    assert_eq!(server.propose(&rollout(second, 0)).await.status, 503);
    let status: ServiceStatus = server.get("/v1/services/web").await;
    assert_eq!((status.counts.live, status.deploy.unwrap().epoch), (3, epoch), "nobody was told anything");
    assert_eq!(fleet.world.tries(second), []);

    let put = put_pack(&server).await;
    assert!(put.status == 507 && put.text().contains("No space left"), "{} {}", put.status, put.text());

    fs::remove_file(&filler).unwrap();
    let deadline = Instant::now() + LIMIT;
    while server.call("GET", "/healthz", None).await.status != 200 {
        assert!(Instant::now() < deadline, "it never recovers");
    }
    let deploy = server.deploy(&rollout(second, 0)).await;
    assert_eq!(deploy.epoch, epoch + 1);
    server.wait_until_switched(second).await;
    let told = server.events().await.iter().filter(|event| event.kind == "deployed").count();
    assert_eq!(told as u64, deploy.epoch, "also of those that could not be told of at once");
    let dir = server.stop().await;

    let server = Running::start_in(dir, "127.0.0.1:0".parse().unwrap());
    let status: ServiceStatus = server.get("/v1/services/web").await;
    assert_eq!(status.deploy.unwrap().id, deploy.id, "and so says the file");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p29_a_push_that_could_not_be_stored_is_told_at_healthz_until_one_could_be() {
    let dir = Arc::new(TempDir::new().unwrap());
    let (tmp, away) = (dir.path().join("data/artefacts/tmp"), dir.path().join("away"));
    let server = Running::start_in(Arc::clone(&dir), "127.0.0.1:0".parse().unwrap());
    fs::rename(&tmp, &away).unwrap();
    fs::write(&tmp, "").unwrap();
    assert_eq!(server.call("GET", "/healthz", None).await.status, 200, "nobody has pushed yet");
    assert_eq!(put_pack(&server).await.status, 503);
    let health = server.call("GET", "/healthz", None).await;
    assert!(health.status == 503 && health.text().contains("cannot keep a pack"), "{}", health.text());

    fs::remove_file(&tmp).unwrap();
    fs::rename(&away, &tmp).unwrap();
    assert_eq!(server.call("GET", "/healthz", None).await.status, 200);
    assert_eq!(put_pack(&server).await.status, 200);
    server.stop().await;
}

/// Sends a pack that takes several blocks of a disk.
async fn put_pack(server: &Running) -> Answer {
    let content: Vec<u8> = (0..65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let pack = pack::of(&content).unwrap();
    server.call("PUT", &format!("/v1/packs/{}", PackId::of(&pack)), Some(pack)).await
}

/// Takes all the space that there is.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let error = loop {
        if let Err(error) = file.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

/// Locks and unlocks until nothing can be written any more. It may be locked afterwards.
async fn unlock_until_refused(server: &Running) -> Answer {
    let deadline = Instant::now() + LIMIT;
    let said = serde_json::json!({ "reason": "because", "actor": "ada" });
    loop {
        // What stops harm is done all the same.
        let locked = server.post("/v1/services/web/lock", &said).await;
        assert_eq!(locked.status, 200, "{}", locked.text());
        let unlocked = server.post("/v1/services/web/unlock", &said).await;
        if unlocked.status == 503 {
            return unlocked;
        }
        assert!(unlocked.status == 200 && Instant::now() < deadline, "{}", unlocked.text());
    }
}

/// There may be room left within the file, but not for ever.
async fn deploy_until_refused(server: &Running, release: ReleaseId) -> Refused {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = server.propose(&rollout(release, 0)).await;
        if answer.status == 503 {
            return answer.json();
        }
        assert!(answer.status == 201 && Instant::now() < deadline, "{}", answer.text());
    }
}
