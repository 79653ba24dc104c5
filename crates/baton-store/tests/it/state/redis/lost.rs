//! A Redis that forgets, lies or does not answer.

use std::error::Error;
use std::time::Instant;

use baton_core::event::{Event, What};
use baton_core::history::{Lock, Tag, TagName};
use baton_core::rollout::Rollout;
use baton_core::turn::Why;
use baton_store::state::{Kind, Milestone};

use super::*;

/// One server with two members that have staged the release of its second deploy.
fn settled(redis: &Redis) -> (RedisStore, Deploy) {
    let store = open(&redis.address());
    deploy(&store, 1).unwrap();
    let second = deploy(&store, 2).unwrap();
    for number in 0..2 {
        hear(&store, report(&member(number), 1, Some(&second), Standing::Staged), NOW);
    }
    look(&store);
    (store, second)
}

/// Why nobody gets a slot at this moment. At [`NOW`] the lease is over for which a store listens after it was opened, and one
/// that has doubted since listens still.
pub(super) fn stop(store: &RedisStore, now: Millis) -> Option<Why> {
    Rollout::of(service(store, now).fleet(), now).unwrap().stop()
}

/// What was told, of what has happened to the store itself.
pub(super) fn tales(store: &RedisStore) -> Vec<What> {
    store.append(Vec::new()).unwrap();
    let events = store.events(None, 0, usize::MAX).unwrap();
    events.into_iter().map(|event| event.event.what).collect()
}

fn grant(store: &RedisStore, deploy: &Deploy, now: Millis) -> Result<(), StateError> {
    store.grant(&web(), deploy.epoch, &[member(0)], now).map(drop)
}

fn event(what: What) -> Event {
    let (service, text) = (web(), "it happened".to_owned());
    Event { at: 7, service, deploy: None, member: None, what, text }
}

/// Waits until the store can be used again.
pub(super) fn wait_until_ready(store: &RedisStore) {
    let start = Instant::now();
    while let Err(error) = store.changed(0, Duration::ZERO) {
        assert!(start.elapsed() < Duration::from_secs(60), "{error}: {:?}", error.source());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn f64_a_store_that_was_flushed_is_written_back_and_nothing_is_granted_for_a_lease() {
    let redis = Redis::start();
    let (store, second) = settled(&redis);
    let before = service(&store, NOW);
    redis.cli(&["FLUSHALL"]);
    let refused = grant(&store, &second, NOW).unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    assert!(matches!(stop(&store, NOW), Some(Why::Listening { .. })));
    assert_eq!(tales(&store), [What::StoreRestored]);
    let other = open(&redis.address());
    let found = service(&other, Millis::ZERO);
    assert_eq!(found.history(), before.history(), "all is there again");
    assert_eq!(found.fleet().members().count(), 2, "and who said what");
    let later = NOW + LEASE;
    for number in 0..2 {
        hear(&store, report(&member(number), 50, Some(&second), Standing::Staged), later);
    }
    grant(&store, &second, later).unwrap();
    assert_eq!(deploy(&store, 3).unwrap().epoch.0, 3, "above any that was seen");
}

#[test]
fn f64_a_store_that_starts_empty_is_written_back() {
    let mut redis = Redis::start();
    let (store, second) = settled(&redis);
    redis.kill();
    let error = grant(&store, &second, NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    redis.start_again();
    wait_until_ready(&store);
    assert!(matches!(stop(&store, NOW), Some(Why::Listening { .. })));
    assert_eq!(tales(&store), [What::StoreRestored]);
    assert_eq!(in_force(&open(&redis.address())), Some(second.id));
}

#[test]
fn p31_f63_f64_what_was_accepted_on_either_side_of_a_loss_is_there_afterwards() {
    let mut redis = Redis::start();
    let (store, second) = settled(&redis);
    let other = open(&redis.address());
    redis.cli(&["SAVE"]);
    let old: TagName = "v1".parse().unwrap();
    let tag = Tag { release: second.release, actor: "kim".to_owned(), since: 7 };
    store.set_tag(&web(), &old, Some(tag)).unwrap();
    grant(&store, &second, NOW).unwrap();
    store.reach(&web(), second.id, Milestone::Incomplete, 7).unwrap();
    redis.kill();
    redis.start_again();
    // What it has lost this one has never seen.
    wait_until_ready(&other);
    assert_eq!(service(&other, NOW).fleet().grants().count(), 0);
    let lock = Lock { reason: "Christmas".to_owned(), actor: "ada".to_owned(), since: 7 };
    other.set_lock(&web(), Some(lock.clone())).unwrap();
    let tag = |actor: &str, since| Tag { release: second.release, actor: actor.to_owned(), since };
    let name: TagName = "production".parse().unwrap();
    other.set_tag(&web(), &name, Some(tag("ada", 8))).unwrap();

    wait_until_ready(&store);
    look(&other);
    for store in [&store, &other, &open(&redis.address())] {
        let known = service(store, NOW);
        assert_eq!(known.history().lock(), Some(&lock));
        let tags = known.history().tags();
        assert_eq!((&tags[&old], &tags[&name]), (&tag("kim", 7), &tag("ada", 8)));
        assert_eq!(known.fleet().grants().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [member(0)]);
        assert_eq!(known.milestones(second.id).incomplete, Some(7));
    }
    for store in [&store, &other] {
        assert!(matches!(stop(store, NOW), Some(Why::Listening { .. })));
    }
}

#[test]
fn f63_nothing_is_told_to_be_lost_where_others_have_gone_on_and_all_of_it_is_there() {
    let mut redis = Redis::start();
    let (store, second) = settled(&redis);
    let other = open(&redis.address());
    redis.cli(&["SAVE"]);
    redis.kill();
    redis.start_again();
    wait_until_ready(&other);
    other.reach(&web(), second.id, Milestone::Incomplete, 7).unwrap();
    // Nobody has saved yet that it is there.
    hear(&store, report(&member(7), 1, None, Standing::Behind), NOW);
    wait_until_ready(&store);
    assert_eq!(service(&store, NOW).milestones(second.id).incomplete, Some(7));
    assert!(service(&store, NOW).fleet().member(&member(7)).is_some());
    assert_eq!(tales(&store), [] as [What; 0]);
    assert!(matches!(stop(&store, NOW), Some(Why::Listening { .. })), "it may be, all the same");
}

#[test]
fn f64_whoever_sees_that_another_server_has_written_back_what_was_lost_listens_for_a_lease() {
    let redis = Redis::start();
    let (store, _) = settled(&redis);
    let other = open(&redis.address());
    assert!(!matches!(stop(&other, NOW), Some(Why::Listening { .. })));
    redis.cli(&["FLUSHALL"]);
    look(&store);
    look(&other);
    assert!(matches!(stop(&other, NOW), Some(Why::Listening { .. })), "it may have had slots that are gone");
    // That is over once.
    look(&other);
    assert!(!matches!(stop(&other, NOW + LEASE), Some(Why::Listening { .. })));
}

#[test]
fn f63_f64_another_process_may_have_missed_something_even_where_nothing_is_seen_to_be_lost() {
    let mut redis = Redis::start();
    let (store, second) = settled(&redis);
    redis.cli(&["SAVE"]);
    redis.kill();
    redis.start_again();
    wait_until_ready(&store);
    assert_eq!(in_force(&store), Some(second.id));
    assert_eq!(tales(&store), [] as [What; 0], "all of it is there");
    assert!(matches!(stop(&store, NOW), Some(Why::Listening { .. })));
    assert_eq!(grant(&store, &second, NOW).unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn p31_f64_a_store_that_was_restored_from_an_old_backup_is_brought_forward() {
    let mut redis = Redis::start();
    let store = open(&redis.address());
    let first = deploy(&store, 1).unwrap();
    redis.cli(&["SAVE"]);
    let newest = deploy(&store, 2).unwrap();
    redis.kill();
    redis.start_again();
    assert_eq!(in_force(&open(&redis.address())), Some(first.id), "the backup is that of the first");
    wait_until_ready(&store);
    assert_eq!(tales(&store), [What::StoreRestored]);
    assert_eq!(in_force(&open(&redis.address())), Some(newest.id));
}

#[test]
fn p12_f64_servers_that_know_nothing_number_above_what_members_obey_and_grant_nothing_before() {
    let mut redis = Redis::start();
    let (store, second) = settled(&redis);
    redis.cli(&["SAVE"]);
    let third = deploy(&store, 3).unwrap();
    // All servers are lost with what the store has accepted last.
    drop(store);
    redis.kill();
    redis.start_again();
    let store = open(&redis.address());
    assert_eq!(in_force(&store), Some(second.id));
    hear(&store, report(&member(0), 9, Some(&third), Standing::Staged), NOW);
    assert_eq!(stop(&store, NOW), Some(Why::Outranked { epoch: third.epoch }));
    assert_eq!(grant(&store, &second, NOW).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(deploy(&store, 4).unwrap().epoch, third.epoch.next());
}

#[test]
fn f69_of_two_deploys_that_two_halves_have_accepted_one_goes_on_and_the_other_is_told() {
    // The other half has accepted as much, or more.
    for others in 1..=2 {
        let mut redis = Redis::start();
        let (a, b) = (open(&redis.address()), open(&redis.address()));
        let first = deploy(&a, 1).unwrap();
        look(&b);
        redis.cli(&["SAVE"]);
        // One half accepts a deploy, and is lost with it.
        let lost = deploy(&a, 2).unwrap();
        redis.kill();
        redis.start_again();
        wait_until_ready(&b);
        let goes_on: Vec<_> = (0..others).map(|number| deploy(&b, 3 + number).unwrap()).collect();
        assert_eq!((goes_on[0].epoch, goes_on[0].parent), (lost.epoch, Some(first.id)));
        let last = goes_on.last().unwrap();
        wait_until_ready(&a);
        assert_eq!(in_force(&a), Some(last.id));
        assert!(matches!(stop(&a, NOW), Some(Why::Listening { .. })));
        assert_eq!(tales(&a), [What::DeployLost]);
        let text = &a.events(None, 0, 1).unwrap()[0].event.text;
        assert!(text.contains(&lost.release.short()) && text.contains("deploy again"), "{text}");
        assert_eq!(deploy(&a, 9).unwrap().epoch, last.epoch.next());
    }
}

#[test]
fn f65_a_store_that_hangs_freezes_the_rollout_and_nobody_who_reads() {
    let redis = Redis::start();
    let (store, second) = settled(&redis);
    redis.freeze();
    let error = grant(&store, &second, NOW).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(in_force(&store), Some(second.id), "what is known can be read");
    assert!(store.changed(0, Duration::ZERO).is_err());
    redis.thaw();
    wait_until_ready(&store);
    grant(&store, &second, NOW).unwrap();
}

#[test]
fn f65_a_store_that_is_full_or_takes_no_writes_accepts_nothing() {
    let redis = Redis::start();
    let (store, second) = settled(&redis);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(grant(&store, &second, NOW).unwrap_err().kind(), Kind::Unavailable);
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    wait_until_ready(&store);

    let primary = Redis::start();
    redis.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    assert_eq!(grant(&store, &second, NOW).unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(service(&store, NOW).fleet().grants().count(), 0);
}

#[test]
fn f65_what_was_evicted_is_written_back() {
    let redis = Redis::start();
    let (store, second) = settled(&redis);
    // Who the members are becomes durable with the next write.
    store.append(vec![event(What::Pushed)]).unwrap();
    for key in ["deploys:web", "members:web", "service:web"] {
        redis.cli(&["DEL", &format!("{{baton}}:{key}")]);
        look(&store);
        let found = open(&redis.address());
        assert_eq!(in_force(&found), Some(second.id), "{key}");
        assert_eq!(service(&found, Millis::ZERO).fleet().members().count(), 2, "{key}");
    }
}

#[test]
fn p36_f66_what_is_not_what_it_should_be_is_named_and_the_last_good_state_stays() {
    let redis = Redis::start();
    let (store, second) = settled(&redis);
    let spoil: &[&[&str]] = &[
        &["SET", "{baton}:service:web", "somebody else's"],
        &["HSET", "{baton}:service:web", "version", "{\"hostile\":[[[["],
        &["HSET", "{baton}:service:web", "version", "9999 x", "epoch", "-1"],
        &["HSET", "{baton}:service:web", "version", "9999 x", "record", "\u{1b}[2J"],
        &["SET", "{baton}:deploys:web", "x"],
        &["HSET", "{baton}:deploys:web", "99", "garbage"],
        &["HSET", "{baton}:members:web", "m 1", "garbage"],
        &["SADD", "{baton}:services", "../etc"],
        &["SET", "{baton}:schema", "old"],
        &["SET", "{baton}:events", "x"],
        &["XADD", "{baton}:events", "18446744073709551615-0", "a", "b"],
        &["SET", "{baton}:servers", "x"],
        &["SET", "{baton}:access", "x"],
    ];
    for command in spoil {
        let key = command[1];
        if command[0] == "SET" {
            redis.cli(&["DEL", key]);
        }
        redis.cli(command);
        let error = store.changed(0, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{command:?}: {error}");
        assert!(error.to_string().contains("delete it"), "{error}");
        wait_for_rest();
        assert_eq!(grant(&store, &second, NOW).unwrap_err().kind(), Kind::Corrupt, "{command:?}");
        assert_eq!(in_force(&store), Some(second.id), "{command:?}");
        redis.cli(&["DEL", key]);
        // It is written back, as the error says.
        wait_until_ready(&store);
        assert_eq!(in_force(&open(&redis.address())), Some(second.id), "{command:?}");
    }
}

/// For a moment after a failure nobody is asked again.
fn wait_for_rest() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(600) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn p36_f66_what_is_nobodys_is_left_out() {
    let redis = Redis::start();
    let (_store, second) = settled(&redis);
    let other = open(&redis.address());
    let said = redis.cli(&["--raw", "KEYS", "{baton}:said:*"]);
    let changed = said.trim().replace("said", "changed");
    redis.cli(&["HSET", said.trim(), "web m-77", "garbage"]);
    redis.cli(&["ZADD", &changed, "90", "web m-77"]);
    redis.cli(&["ZADD", &changed, "91", "no name at all"]);
    redis.cli(&["XADD", "{baton}:events", "7-0", "colour", "red"]);
    look(&other);
    assert_eq!(service(&other, Millis::ZERO).fleet().members().count(), 2);
    assert_eq!(in_force(&other), Some(second.id));
    other.append(vec![event(What::Pushed)]).unwrap();
    assert_eq!(other.events(None, 0, 9).unwrap()[0].number, 8, "the number of what is no event is used up");
}

#[test]
fn a_store_that_a_newer_version_has_written_is_left_alone() {
    let redis = Redis::start();
    let (store, second) = settled(&redis);
    redis.cli(&["SET", "{baton}:schema", "99"]);
    let error = grant(&store, &second, NOW).unwrap_err();
    assert!(matches!(error, StateError::Newer { found: 99, .. }), "{error}");
    assert!(RedisStore::open(redis.address().parse().unwrap(), NOW).is_err());
}
