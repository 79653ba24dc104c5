//! How a server hears that another one has changed something.

use std::thread;

use super::*;

/// Only a store that forgets to look takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether one server comes to know of a deploy by another while it waits.
fn waits_for_another(a: &RedisStore, b: &RedisStore) {
    let before = b.changed(0, LIMIT).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut seen = before;
            while in_force(b).is_none() {
                let next = b.changed(seen, LIMIT).unwrap();
                assert!(next > seen, "nothing changes any more");
                seen = next;
            }
        });
        deploy(a, 1).unwrap();
        waiter.join().unwrap();
    });
    assert_eq!(in_force(b), in_force(a));
}

#[test]
fn a_server_is_told_of_what_another_one_has_changed() {
    let redis = Redis::start();
    waits_for_another(&open(&redis.address()), &open(&redis.address()));
}

#[test]
fn p33_f62_a_server_that_is_told_nothing_finds_what_another_one_has_changed() {
    let redis = Redis::start();
    redis
        .cli(&[&["ACL", "SETUSER", "baton"], ALLOWED, &["resetchannels", "-publish", "-subscribe"]].concat());
    let address = format!("redis://baton:hunter2@127.0.0.1:{}", redis.port());
    waits_for_another(&open(&address), &open(&address));
}

#[test]
fn p33_f62_hints_that_come_twice_in_any_order_or_an_hour_late_change_nothing() {
    let redis = Redis::start();
    let (a, b) = (open(&redis.address()), open(&redis.address()));
    // What other servers publish says only that something has changed: the hint of an hour ago is the one of now.
    let hints = || (0..20).for_each(|_| drop(redis.cli(&["PUBLISH", "{baton}:hints", ""])));
    hints();
    let first = deploy(&a, 1).unwrap();
    hints();
    look(&b);
    let second = deploy(&b, 2).unwrap();
    assert_eq!(second.parent, Some(first.id));
    look(&a);
    let before = [&a, &b].map(|store| (in_force(store), store.changed(0, Duration::ZERO).unwrap()));
    hints();
    let after = [&a, &b].map(|store| (in_force(store), store.changed(0, Duration::ZERO).unwrap()));
    assert_eq!(after, before);
    assert!(after.iter().all(|(deploy, _)| *deploy == Some(second.id)));
}
