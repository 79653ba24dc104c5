//! A Redis that is away when a server starts, or will not let it in.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use baton_core::turn::Why;
use baton_store::state::Kind;

use super::lost::{stop, wait_until_ready};
use super::nodes::{replica_of, wait};
use super::*;

/// A server's store of which nothing is known at the moment 0.
fn unread(address: &str) -> RedisStore {
    RedisStore::new(address.parse().unwrap(), Millis::ZERO).unwrap()
}

/// Whatever is asked of it fails, and may be asked again: nobody takes what was not read for nothing.
fn assert_is_away(store: &RedisStore) {
    let failures = [
        store.ready().err(),
        store.services().err(),
        store.service(&web(), NOW).err(),
        store.events(None, 0, 1).err(),
        store.hear(&web(), report(&member(0), 1, None, Standing::Behind), NOW).err(),
        store.propose(&web(), rollout(9, None), NOW).err(),
        store.access().err(),
    ];
    for failure in failures {
        let failure = failure.expect("it cannot be known");
        assert!(failure.may_heal() && failure.kind() == Kind::Unavailable, "{failure}");
    }
}

#[test]
fn f65_a_redis_that_is_away_at_the_start_is_read_once_it_is_there_and_nothing_is_granted_for_a_lease() {
    let mut redis = Redis::start();
    let before = open(&redis.address());
    deploy(&before, 1).unwrap();
    let second = deploy(&before, 2).unwrap();
    hear(&before, report(&member(0), 1, Some(&second), Standing::Staged), NOW);
    look(&before);
    redis.cli(&["SAVE"]);
    redis.kill();
    drop(before);
    let store = unread(&redis.address());
    assert_is_away(&store);
    redis.start_again();
    wait_until_ready(&store);
    assert_eq!(in_force(&store), Some(second.id));
    // It has been up for as long as a lease: what counts is when it could read who has slots.
    hear(&store, report(&member(0), 2, Some(&second), Standing::Staged), NOW);
    assert!(matches!(stop(&store, NOW), Some(Why::Listening { .. })), "{:?}", stop(&store, NOW));
    let refused = store.grant(&web(), second.epoch, &[member(0)], NOW).unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    let later = NOW + LEASE + LEASE;
    hear(&store, report(&member(0), 3, Some(&second), Standing::Staged), later);
    store.grant(&web(), second.epoch, &[member(0)], later).unwrap();
}

#[test]
fn f65_a_redis_that_hangs_or_has_too_few_nodes_at_the_start_is_waited_for() {
    let redis = Redis::start();
    redis.freeze();
    let store = unread(&redis.address());
    assert!(store.ready().unwrap_err().may_heal());
    redis.thaw();
    wait_until_ready(&store);
    deploy(&store, 1).unwrap();

    let store = unread(&format!("{}?copies=2", redis.address()));
    assert!(store.ready().unwrap_err().may_heal());
    assert!(store.services().is_err(), "what too few nodes have does not count");
    let _replica = replica_of(&redis);
    wait_until_ready(&store);
    assert_eq!(store.services().unwrap(), [web()]);
    assert!(matches!(stop(&store, NOW), Some(Why::Listening { .. })), "{:?}", stop(&store, NOW));
}

#[test]
fn what_does_not_heal_is_told_as_such_and_not_waited_for() {
    let redis = Redis::start();
    let refused = |address: &str| {
        let error = unread(address).ready().unwrap_err();
        assert!(matches!(error, StateError::Shut { .. }) && !error.may_heal(), "{error}: {error:?}");
        assert_eq!(error.kind(), Kind::Unavailable, "a server that runs goes on");
        std::error::Error::source(&error).unwrap().to_string()
    };
    redis.cli(&["ACL", "SETUSER", "baton", "on", ">hunter2", "~*", "&*", "-@all", "+ping"]);
    redis.cli(&["CONFIG", "SET", "requirepass", "s3cret"]);
    let wrong = refused(&format!("redis://:hunter3@127.0.0.1:{}", redis.port()));
    assert!(wrong.contains("authentication failed") && !wrong.contains("hunter3"), "{wrong}");
    assert!(refused(&redis.address()).contains("NOAUTH"));
    assert!(refused(&format!("redis://baton:hunter2@127.0.0.1:{}", redis.port())).contains("permissions"));

    // Somebody else listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("redis://{}", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 64]).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    refused(&address);
    answering.join().unwrap();

    // Nobody listens at one node, and the other knows better.
    let nobody = free_address();
    let both = format!("redis://:hunter3@{nobody},127.0.0.1:{}", redis.port());
    assert!(refused(&both).contains("authentication failed"));
    assert!(unread(&format!("redis://{nobody}")).ready().unwrap_err().may_heal());
    assert!(unread("redis://nobody.invalid").ready().unwrap_err().may_heal(), "a name that is not known yet");
}

#[test]
fn f68_a_node_of_which_a_byte_comes_now_and_then_is_given_up_and_asked_anew() {
    let redis = Redis::start();
    deploy(&open(&redis.address()), 1).unwrap();
    let (port, is_over) = trickle_at(&redis, b"SMEMBERS");
    let store = unread(&format!("redis://127.0.0.1:{port}"));
    let error = store.ready().unwrap_err();
    assert!(error.may_heal() && !is_over.load(Relaxed), "{error}: {error:?}");
    wait("it to be asked anew", || store.ready().is_ok());
    assert_eq!(store.services().unwrap(), [web()]);
    assert!(!is_over.load(Relaxed), "nobody has waited for the rest");
}

/// The port of a way to a node, on which the first command of this name is answered byte by byte, for a minute; and whether that
/// is over.
fn trickle_at(redis: &Redis, name: &'static [u8]) -> (u16, Arc<AtomicBool>) {
    let (to, listener) = (redis.port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let (is_begun, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&is_over);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (is_begun, over) = (Arc::clone(&is_begun), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut client = client.unwrap();
                let mut node = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let (mut answers, mut back) = (node.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || io::copy(&mut answers, &mut back));
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = client.read(&mut bytes) {
                    let asked = &bytes[..length];
                    if asked.windows(name.len()).any(|word| word == name) && !is_begun.swap(true, Relaxed) {
                        return trickle(&mut client, &over);
                    }
                    node.write_all(asked).unwrap();
                }
            });
        }
    });
    (port, is_over)
}

/// An answer of six hundred bytes, ten of them in a second.
fn trickle(client: &mut TcpStream, over: &AtomicBool) {
    let answer = format!("$600\r\n{}\r\n", "x".repeat(600));
    for byte in answer.as_bytes() {
        if client.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    over.store(true, Relaxed);
}

fn free_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
