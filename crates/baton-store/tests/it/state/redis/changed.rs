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
