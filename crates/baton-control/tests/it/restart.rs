//! Servers that end in the middle of things.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use crate::rollout::settled;
use crate::running::{Running, rollout};

#[tokio::test(flavor = "multi_thread")]
async fn p31_p12_a_server_that_starts_again_in_mid_rollout_goes_on_where_it_was() {
    let (server, fleet, _) = settled(5).await;
    let second = server.push(2).await;
    fleet.world.allow_proofs(2);
    let deploy = server.deploy(&rollout(second, 20)).await;
    server.wait_for("some have it", |status| status.counts.proven == 2).await;
    let address = server.address;
    let dir = server.stop().await;

    let server = Running::start_in(dir, address);
    server
        .wait_for("all are back", |status| {
            status.counts.live == 5 && status.waits_code.as_deref() != Some("listening")
        })
        .await;
    fleet.world.allow_proofs(usize::MAX);
    let status = server.wait_until_switched(second).await;
    assert_eq!(status.deploy.unwrap().id, deploy.id, "it is the same deploy");
    assert_eq!(status.counts.proven, 5);
    let tries = fleet.world.tries(second);
    let members: BTreeSet<_> = tries.iter().collect();
    assert_eq!(tries.len(), members.len(), "nobody tries it twice: {tries:?}");
    assert!(fleet.world.most_at_once(second) <= 2);
    let events = server.events().await;
    assert!(events.iter().any(|event| event.kind == "took-over"), "{events:#?}");

    let third = server.push(3).await;
    assert_eq!(server.deploy(&rollout(third, 0)).await.epoch, deploy.epoch + 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p12_a_server_that_lost_its_store_numbers_above_what_members_obey() {
    let (server, _fleet, _) = settled(3).await;
    let second = server.push(2).await;
    server.deploy(&rollout(second, 0)).await;
    server.wait_until_switched(second).await;
    let address = server.address;
    server.stop().await;

    let server = Running::start_in(Arc::new(TempDir::new().unwrap()), address);
    server.wait_for("all are back", |status| status.counts.live == 3).await;
    let events = server.events().await;
    assert!(events.iter().any(|event| event.kind == "contradicted"), "{events:#?}");
    let third = server.push(3).await;
    let deploy = server.deploy(&rollout(third, 0)).await;
    assert_eq!(deploy.epoch, 3, "the members have seen 2");
    let status = server.wait_until_switched(third).await;
    assert_eq!(status.counts.proven, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p12_f64_a_server_with_an_old_state_does_not_call_done_what_nobody_runs_any_more() {
    let (server, _fleet, first) = settled(3).await;
    server.wait_for("drained", |status| status.state == "drained").await;
    let address = server.address;
    let dir = server.stop().await;
    let (state, copy) = (dir.path().join("data/state.redb"), dir.path().join("state.copy"));
    fs::copy(&state, &copy).unwrap();
    let server = Running::start_in(dir, address);
    let second = server.push(2).await;
    server.deploy(&rollout(second, 0)).await;
    server.wait_until_switched(second).await;
    let dir = server.stop().await;

    fs::copy(&copy, &state).unwrap();
    let server = Running::start_in(dir, address);
    let told = server.wait_for("outranked", |status| status.state == "outranked").await;
    assert_eq!(told.deploy.unwrap().release, first.to_string(), "the state is the old one");
    assert_eq!(told.counts.proven, 0);
    assert_eq!(told.waits_code.as_deref(), Some("outranked"), "{:?}", told.waits);
    assert_eq!(told.laggards_count, 0);

    server.deploy(&rollout(second, 0)).await;
    let status = server.wait_until_switched(second).await;
    assert_eq!(status.counts.proven, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p31_an_accepted_deploy_and_its_key_outlive_the_server() {
    let server = Running::start();
    let release = server.push(1).await;
    let mut asked = rollout(release, 0);
    asked.idempotency_key = Some("build-17".into());
    let deploy = server.deploy(&asked).await;
    let address = server.address;
    let dir = server.stop().await;

    let server = Running::start_in(dir, address);
    assert_eq!(server.deploy(&asked).await.id, deploy.id);
    let deploys: Vec<baton_wire::api::DeployView> = server.get("/v1/services/web/deploys").await;
    assert_eq!(deploys, [deploy]);
    server.stop().await;
}
