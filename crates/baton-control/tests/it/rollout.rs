//! Whole rollouts over light members.

use std::collections::BTreeSet;

use baton_core::ids::ReleaseId;
use baton_wire::api::{LockView, Locking, MemberStatus, Propose, Refused, ServiceStatus, Wanted};

use crate::light::{Fleet, names};
use crate::running::{Running, rollout, wanted};

/// A server and a fleet that runs its first release.
pub async fn settled(count: usize) -> (Running, Fleet, ReleaseId) {
    let server = Running::start();
    let fleet = Fleet::start(server.address, names(count));
    server.wait_for("all are here", |status| status.counts.live as usize == count).await;
    let first = server.push(1).await;
    server.deploy(&rollout(first, 0)).await;
    server.wait_until_switched(first).await;
    (server, fleet, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_a_deploy_is_switched_when_every_member_has_proven_it_within_its_slots() {
    let (server, fleet, first) = settled(5).await;
    let second = server.push(2).await;
    let deploy = server.deploy(&rollout(second, 100)).await;
    assert_eq!((deploy.epoch, deploy.fallback), (2, Some(first.to_string())));

    let status = server.wait_until_switched(second).await;
    assert_eq!((status.counts.live, status.counts.proven), (5, 5));
    assert_eq!(status.committed, Some(second.to_string()));
    assert!(fleet.world.most_at_once(second) <= 2, "{}", fleet.world.most_at_once(second));
    let members: Vec<MemberStatus> = server.get("/v1/services/web/members").await;
    for member in &members {
        assert_eq!(member.running, Some(second.to_string()), "{member:?}");
        assert_eq!((member.standing.as_str(), member.presence.as_str()), ("proven", "live"), "{member:?}");
        assert_eq!(member.listens, ["http=127.0.0.1:8080"]);
    }
    server.wait_for("drained", |status| status.state == "drained").await;
    let events = server.events().await;
    let kinds: BTreeSet<_> = events.iter().map(|event| event.kind.as_str()).collect();
    for kind in [
        "pushed",
        "joined",
        "deployed",
        "granted",
        "handed-over",
        "proven",
        "phase-began",
        "switched",
        "drained",
    ] {
        assert!(kinds.contains(kind), "{kind}: {events:#?}");
    }
    assert!(events.is_sorted_by(|a, b| a.sequence < b.sequence));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_p9_p46_a_release_that_fails_at_start_goes_back_by_itself_and_touches_one_member() {
    let (server, fleet, first) = settled(5).await;
    let bad = server.push(2).await;
    fleet.world.spoil(bad);
    let deploy = server.deploy(&rollout(bad, 100)).await;

    let status = server.wait_until_switched(first).await;
    let back = status.deploy.unwrap();
    assert_eq!((back.kind.as_str(), back.actor.as_str()), ("rollback", "baton"));
    assert_eq!((back.of, back.epoch), (Some(deploy.id), 3));
    assert!(back.reason.contains("the first member failed"), "{}", back.reason);
    assert_eq!(fleet.world.tries(bad).len(), 1, "it touches one slot");
    let failure = status.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.member.clone().unwrap()),
        ("exit", fleet.world.tries(bad)[0].to_string())
    );
    assert_eq!(failure.rule.as_deref(), Some("first-member-failed"));
    assert!(failure.detail.ends_with("fatal: no such table"), "{}", failure.detail);
    let events = server.events().await;
    for kind in ["refused", "rolled-back"] {
        assert!(events.iter().any(|event| event.kind == kind), "{kind}: {events:#?}");
    }

    // What was taken back is not deployed again by mistake.
    let again = server.propose(&rollout(bad, 100)).await;
    assert_eq!((again.status, again.json::<serde_json::Value>()["code"].as_str()), (422, Some("marked")));

    let address = server.address;
    let dir = server.stop().await;
    let server = Running::start_in(dir, address);
    let status: ServiceStatus = server.get("/v1/services/web").await;
    assert_eq!(status.failure, Some(failure), "a server that starts anew can say why");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f92_p46_a_way_back_that_fails_too_tells_that_it_needs_a_person_until_one_decides() {
    let (server, fleet, first) = settled(3).await;
    let second = server.push(2).await;
    server.deploy(&rollout(second, 0)).await;
    server.wait_until_switched(second).await;
    let alarm = "baton_rollout_needs_person{service=\"web\"} 1";
    let is_alarmed = async || server.call("GET", "/metrics", None).await.text().contains(alarm);
    assert!(!is_alarmed().await);
    fleet.world.spoil(first);
    server.deploy(&wanted(Wanted::Rollback)).await;
    let halted = server.wait_for("it is halted", |status| status.state == "halted").await;
    let why = halted.needs_person.unwrap();
    assert!(why.contains(&first.short()) && why.contains("baton rollback --to"), "{why}");
    assert!(is_alarmed().await);
    let address = server.address;
    let dir = server.stop().await;

    let server = Running::start_in(dir, address);
    server.wait_for("all are back", |status| status.counts.live == 3).await;
    let is_alarmed = async || server.call("GET", "/metrics", None).await.text().contains(alarm);
    assert!(is_alarmed().await, "it stays so");
    let third = server.push(3).await;
    server.deploy(&rollout(third, 0)).await;
    let status = server.wait_until_switched(third).await;
    assert_eq!(status.needs_person, None);
    assert!(!is_alarmed().await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_halts_resumes_and_rolls_back() {
    let (server, fleet, first) = settled(3).await;
    let second = server.push(2).await;
    fleet.world.allow_proofs(0);
    server.deploy(&rollout(second, 50)).await;
    server.wait_for("one is on trial", |status| status.counts.proving == 1).await;
    server.deploy(&wanted(Wanted::Halt)).await;
    fleet.world.allow_proofs(usize::MAX);
    // A person's halt lets the running bake finish and starts nothing new.
    let halted = server.wait_for("the bake is over", |status| status.counts.proven == 1).await;
    assert_eq!((halted.state.as_str(), halted.waits_code.as_deref()), ("halted", Some("halted")));
    assert_eq!(fleet.world.tries(second).len(), 1);
    server.deploy(&wanted(Wanted::Resume)).await;
    server.wait_until_switched(second).await;
    server.deploy(&wanted(Wanted::Rollback)).await;
    let status = server.wait_until_switched(first).await;
    assert_eq!(status.counts.proven, 3);
    let events = server.events().await;
    for kind in ["halted", "resumed", "rolled-back"] {
        assert!(events.iter().any(|event| event.kind == kind && event.text.starts_with("alice ")), "{kind}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_p17_fifty_members_that_join_at_once_open_no_slots_and_start_what_is_committed() {
    let (server, mut fleet, first) = settled(4).await;
    let second = server.push(2).await;
    server.deploy(&rollout(second, 20)).await;
    fleet.join((4..54).map(|number| format!("web-{number}")));
    server.wait_for("all are here", |status| status.counts.live == 54).await;
    // Two fifths of the four that were there, however many come.
    let status = server.wait_until_switched(second).await;
    assert_eq!(status.counts.proven, 54);
    assert_eq!(fleet.world.most_at_once(second), 1);
    assert_eq!(fleet.world.tries(first).len(), 4, "who joins later starts it without a slot");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_service_takes_no_release_until_it_is_unlocked_and_a_rollback_passes() {
    let (server, _fleet, first) = settled(3).await;
    let second = server.push(2).await;
    server.deploy(&rollout(second, 0)).await;
    server.wait_until_switched(second).await;
    let why = |reason: &str| Locking { reason: reason.to_owned(), actor: "kim".to_owned() };
    let nameless = server.post("/v1/services/web/lock", &why(" ")).await;
    assert_eq!(nameless.status, 400, "{}", nameless.text());
    let locked: LockView = server.post("/v1/services/web/lock", &why("freeze")).await.json();
    assert_eq!((locked.reason.as_str(), locked.actor.as_str()), ("freeze", "kim"));

    let refused = server.propose(&rollout(first, 0)).await;
    assert_eq!((refused.status, refused.json::<Refused>().code.as_str()), (423, "locked"));
    assert!(refused.json::<Refused>().message.contains("locked by kim: freeze"), "{}", refused.text());
    let other = server.post("/v1/services/web/lock", &why("mine")).await;
    assert_eq!(other.status, 423, "{}", other.text());
    server.deploy(&wanted(Wanted::Rollback)).await;
    let status = server.wait_until_switched(first).await;
    assert_eq!(status.lock.map(|lock| lock.reason), Some("freeze".to_owned()));

    let was: Option<LockView> = server.post("/v1/services/web/unlock", &why("")).await.json();
    assert_eq!(was, Some(locked));
    assert_eq!(server.post("/v1/services/web/unlock", &why("")).await.status, 422);
    server.deploy(&Propose { again: true, ..rollout(second, 0) }).await;
    server.wait_until_switched(second).await;
    let events = server.events().await;
    for kind in ["locked", "unlocked"] {
        assert!(events.iter().any(|event| event.kind == kind && event.text.contains("freeze")), "{kind}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_takes_back_what_is_under_way_and_locks_where_the_policy_says_so() {
    let (server, fleet, first) = settled(3).await;
    let nothing = server.propose(&wanted(Wanted::Abort)).await;
    assert_eq!((nothing.status, nothing.json::<Refused>().code.as_str()), (422, "nothing-to-do"));
    let second = server.push(2).await;
    fleet.world.allow_proofs(0);
    let mut asked = rollout(second, 50);
    asked.policy.as_mut().unwrap().lock_after_rollback = true;
    let deploy = server.deploy(&asked).await;
    server.wait_for("one is on trial", |status| status.counts.proving == 1).await;
    let back = server.deploy(&wanted(Wanted::Abort)).await;
    assert_eq!((back.kind.as_str(), back.of, back.release), ("rollback", Some(deploy.id), first.to_string()));
    fleet.world.allow_proofs(usize::MAX);
    let status = server.wait_until_switched(first).await;
    assert_eq!(status.lock.map(|lock| lock.reason), Some("a release was rolled back".to_owned()));
    assert_eq!(server.propose(&rollout(first, 0)).await.status, 423);
    server.stop().await;
}
