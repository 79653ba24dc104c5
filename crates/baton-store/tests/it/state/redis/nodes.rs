//! Several nodes of Redis: replicas, Sentinels, a cluster.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use baton_core::event::{Event, What};
use baton_core::turn::Why;
use baton_store::state::{Kept, Kind};

use super::lost::{stop, tales, wait_until_ready};
use super::several::{Arrives, cut_at};
use super::*;

/// A replica of a node.
pub fn replica_of(primary: &Redis) -> Redis {
    let port = primary.port().to_string();
    let replica = Redis::start_with(&["--port", "PORT", "--replicaof", "127.0.0.1", &port], &[]);
    wait("the replica to be connected", || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
    });
    wait("the primary to know of it", || primary.cli(&["ROLE"]).contains(&replica.port().to_string()));
    replica
}

pub(super) fn wait(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "gave up waiting for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn p31_how_many_copies_there_are_of_what_was_accepted_is_told_and_too_few_are_none() {
    let redis = Redis::start();
    let accept = |store: &RedisStore, number| {
        store.propose(&web(), rollout(number, in_force(store)), NOW).map(|accepted| accepted.kept)
    };
    assert_eq!(accept(&open(&redis.address()), 1).unwrap(), Kept::Copies(1));
    let mut replica = replica_of(&redis);
    let store = open(&format!("{}?copies=2", redis.address()));
    assert_eq!(accept(&store, 2).unwrap(), Kept::Copies(2));
    replica.kill();
    let error = accept(&store, 3).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("1 of 2 copies"), "{cause}");
    assert_eq!(service(&store, NOW).history().past().len(), 2);
    replica.start_again();
    wait_until_ready(&store);
    assert_eq!(accept(&store, 3).unwrap(), Kept::Copies(2));
}

#[test]
fn p31_what_one_node_alone_has_is_taken_over_by_nobody_who_wants_two_copies() {
    let redis = Redis::start();
    let replica = Arc::new(replica_of(&redis));
    let (other, cut_off) = (open(&redis.address()), Arc::clone(&replica));
    // The look has shown that there is something. Before that is read there is more, of which the replica hears nothing.
    let more = move || {
        look(&other);
        cut_off.freeze();
        deploy(&other, 2).unwrap();
    };
    let port = cut_at(&redis, b"HGETALL", Arrives::Whole, more);
    let store = open(&format!("redis://127.0.0.1:{port}?copies=2"));
    let first = deploy(&open(&redis.address()), 1).unwrap();
    let error = store.append(Vec::new()).unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("1 of 2 copies"), "{cause}");
    assert_eq!(in_force(&store), None, "nothing of it is told");
    replica.thaw();
    wait("the replica to have it", || store.append(Vec::new()).is_ok());
    let known = service(&store, NOW);
    assert_eq!(known.history().in_force().and_then(|deploy| deploy.parent), Some(first.id));
}

#[test]
fn f63_the_lease_after_a_failover_begins_when_the_others_can_say_something_again() {
    let mut redis = Redis::start();
    let mut replica = replica_of(&redis);
    let opened = Instant::now();
    let now = || Millis(u64::try_from(opened.elapsed().as_millis()).unwrap());
    let store = open(&format!("{}?copies=2", redis.address()));
    deploy(&store, 1).unwrap();
    hear(&store, report(&member(1), 1, None, Standing::Behind), NOW);
    look(&store);
    redis.cli(&["SAVE"]);
    replica.kill();
    redis.kill();
    redis.start_again();
    wait("it is asked, and has too few nodes", || {
        let why = store.changed(0, Duration::ZERO).err().and_then(|error| Some(error.source()?.to_string()));
        why.is_some_and(|why| why.contains("1 of 2 copies"))
    });
    let asked = now();
    wait("it is long asked in vain", || {
        let _ = store.changed(0, Duration::ZERO);
        now() >= asked + Millis::from_secs(2)
    });
    replica.start_again();
    wait_until_ready(&store);
    let within = asked + LEASE + Millis::from_secs(1);
    hear(&store, report(&member(1), 2, None, Standing::Behind), within);
    assert!(matches!(stop(&store, within), Some(Why::Listening { .. })));
}

#[test]
fn p31_f63_what_was_accepted_is_written_back_also_after_something_else_was_not() {
    let mut redis = Redis::start();
    let mut replica = replica_of(&redis);
    let store = open(&format!("{}?copies=2", redis.address()));
    deploy(&store, 1).unwrap();
    redis.cli(&["SAVE"]);
    let second = deploy(&store, 2).unwrap();
    replica.kill();
    deploy(&store, 3).unwrap_err();
    // It comes back as it was before the second, and its replica follows it.
    redis.kill();
    redis.start_again();
    replica.start_again();
    wait_until_ready(&store);
    assert_eq!(in_force(&store), Some(second.id), "never silently older");
    assert_eq!(tales(&store), [What::StoreRestored]);
    assert_eq!(in_force(&open(&redis.address())), Some(second.id), "it is written back");
}

#[test]
fn what_is_told_while_there_are_too_few_copies_is_there_once() {
    let redis = Redis::start();
    let mut replica = replica_of(&redis);
    let store = open(&format!("{}?copies=2", redis.address()));
    deploy(&store, 1).unwrap();
    let told = Event {
        at: 7,
        service: web(),
        deploy: None,
        member: None,
        what: What::Switched,
        text: "it happened".to_owned(),
    };
    replica.kill();
    for _ in 0..3 {
        assert_eq!(store.append(vec![told.clone()]).unwrap_err().kind(), Kind::Unavailable);
    }
    replica.start_again();
    wait_until_ready(&store);
    store.append(vec![told]).unwrap();
    assert_eq!(store.events(None, 0, usize::MAX).unwrap().len(), 1);
}

#[test]
fn f63_a_failover_to_a_replica_that_has_missed_something_is_noticed_and_made_good() {
    let mut primary = Redis::start();
    let replica = replica_of(&primary);
    let sentinel = Redis::sentinel_of(&primary);
    let known = replica.port().to_string();
    wait("the Sentinel to know the replica", || {
        sentinel.cli(&["SENTINEL", "REPLICAS", "main"]).contains(&known)
    });

    let address = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port());
    let store = open(&address);
    let first = store.propose(&web(), rollout(1, None), NOW).unwrap();
    assert_eq!(first.kept, Kept::Copies(2));
    // The replica hears nothing any more, and is not away for long enough to be no choice.
    primary.cli(&["ACL", "SETUSER", "default", "-psync"]);
    primary.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    let second = store.propose(&web(), rollout(2, Some(first.deploy.id)), NOW).unwrap();
    assert_eq!(second.kept, Kept::Copies(1), "it is told that one node has it");
    assert_eq!(replica.cli(&["HLEN", "{baton}:deploys:web"]).trim(), "1", "the replica has missed it");
    primary.kill();

    wait_until_ready(&store);
    assert!(replica.cli(&["ROLE"]).starts_with("master"), "the replica has taken over");
    assert_eq!(in_force(&store), Some(second.deploy.id), "never silently older");
    assert_eq!(tales(&store), [What::StoreRestored]);
    assert!(matches!(stop(&store, NOW), Some(Why::Listening { .. })), "slots may be lost");
    assert_eq!(in_force(&open(&address)), Some(second.deploy.id), "it is written back");
}

#[test]
fn sentinels_that_ask_for_a_password_are_shown_one_of_their_own() {
    let primary = Redis::start();
    let sentinel = Redis::sentinel_of(&primary);
    let plain = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port());
    sentinel.cli(&["ACL", "SETUSER", "control", "on", ">s3 cret/@", "+@all"]);
    sentinel.cli(&["ACL", "SETUSER", "default", "off"]);
    let error = RedisStore::open(plain.parse().unwrap(), NOW).map(drop).unwrap_err();
    assert!(!error.may_heal(), "{error}");
    let store = open(&format!("{plain}?sentinel_user=control&sentinel_password=s3+cret%2F%40"));
    assert_eq!(store.propose(&web(), rollout(1, None), NOW).unwrap().kept, Kept::Copies(1));
}

#[test]
fn a_cluster_is_found_by_any_of_its_nodes() {
    let settings = [
        "--port",
        "PORT",
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        "BUS",
        "--cluster-node-timeout",
        "2000",
    ];
    let nodes: Vec<_> = (0..3).map(|_| Redis::start_with(&settings, &[])).collect();
    let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let create: Vec<_> =
        ["--cluster", "create"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    nodes[0].cli(&[&create[..], &["--cluster-yes"]].concat());
    for node in &nodes {
        wait("the cluster", || node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    }
    // The keys of the suite's stores lie on all nodes.
    conformance::run(apart(&nodes[0].address(), "")).unwrap();
    let held: Vec<_> = nodes.iter().map(|node| node.cli(&["DBSIZE"])).collect();
    assert!(held.iter().all(|size| size.trim() != "0"), "{held:?}");
    let by_another = open(&format!("redis://127.0.0.1:1,{}?prefix=baton3", addresses[2]));
    assert!(!by_another.services().unwrap().is_empty());
}
