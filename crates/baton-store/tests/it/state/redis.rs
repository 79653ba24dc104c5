//! The state store in Redis: it conforms, for one server and for several, and what it forgets is not believed.

mod changed;
mod late;
mod lost;
mod nodes;
mod numbers;
mod several;

use std::cell::Cell;
use std::time::Duration;

use baton_core::deploy::Deploy;
use baton_core::fleet::{Heard, LEASE};
use baton_core::ids::{DeployId, MemberId};
use baton_core::report::{Report, Seen, Stamp, Standing};
use baton_core::units::Millis;
use baton_store::state::{News, RedisStore, Service, StateError, StateStore, conformance};

use super::{rollout, web};
use crate::redis_server::{Redis, certify};

/// What a user of Redis must be allowed, as docs/how-to/several-servers.md has it.
const ALLOWED: &[&str] = &[
    "on",
    ">hunter2",
    "resetkeys",
    "~{baton*}:*",
    "resetchannels",
    "&{baton*}:hints",
    "-@all",
    "+get",
    "+set",
    "+del",
    "+sadd",
    "+smembers",
    "+hget",
    "+hmget",
    "+hset",
    "+hdel",
    "+hlen",
    "+hgetall",
    "+zadd",
    "+zrem",
    "+zrange",
    "+zrangebyscore",
    "+pexpire",
    "+xadd",
    "+xrange",
    "+xrevrange",
    "+watch",
    "+unwatch",
    "+multi",
    "+exec",
    "+subscribe",
    "+unsubscribe",
    "+punsubscribe",
    "+publish",
    "+time",
    "+info",
    "+role",
    "+wait",
];

/// A server's store, opened at the moment 0.
fn open(address: &str) -> RedisStore {
    RedisStore::open(address.parse().unwrap(), Millis::ZERO).unwrap()
}

/// Opens stores on a node that have nothing to do with each other.
fn apart(address: &str, options: &str) -> impl Fn() -> RedisStore {
    let stores = Cell::new(0);
    move || {
        stores.set(stores.get() + 1);
        open(&format!("{address}?prefix=baton{}{options}", stores.get()))
    }
}

/// Lets a server see what others have changed.
fn look(store: &RedisStore) {
    store.changed(0, Duration::ZERO).unwrap();
}

/// When a store that was opened at the moment 0 has listened for a lease.
const NOW: Millis = LEASE;

fn report(member: &MemberId, sequence: u64, deploy: Option<&Deploy>, standing: Standing) -> News {
    let seen = deploy.map(|deploy| Seen { epoch: deploy.epoch, deploy: deploy.id });
    News::Report(Report { seen, ..Report::plain(member.clone(), Stamp { life: 1, sequence }, standing) })
}

/// The same report, but for something.
fn with(news: News, change: impl FnOnce(&mut Report)) -> News {
    match news {
        News::Report(mut report) => {
            change(&mut report);
            News::Report(report)
        }
        other => other,
    }
}

fn member(number: usize) -> MemberId {
    format!("m-{number:02}").parse().unwrap()
}

fn hear(store: &RedisStore, news: News, now: Millis) {
    assert_eq!(store.hear(&web(), news, now).unwrap(), Heard::News);
}

fn service(store: &RedisStore, now: Millis) -> Service {
    store.service(&web(), now).unwrap()
}

fn in_force(store: &RedisStore) -> Option<DeployId> {
    service(store, NOW).history().in_force().map(|deploy| deploy.id)
}

/// Deploys the release of this number after what this server believes to be in force.
fn deploy(store: &RedisStore, number: u64) -> Result<Deploy, StateError> {
    Ok(store.propose(&web(), rollout(number, in_force(store)), NOW)?.deploy)
}

#[test]
fn the_redis_store_conforms() {
    let redis = Redis::start();
    conformance::run(apart(&redis.address(), "")).unwrap();
}

#[test]
fn p43_the_redis_store_conforms_over_tls_as_a_user_who_may_do_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let tls = [
        "--port",
        "0",
        "--tls-port",
        "PORT",
        "--tls-cert-file",
        "DIR/cert.pem",
        "--tls-key-file",
        "DIR/key.pem",
        "--tls-ca-cert-file",
        "DIR/ca.pem",
        "--tls-auth-clients",
        "no",
    ];
    let redis = Redis::start_in(folder, &tls, &["--tls", "--cacert", "DIR/ca.pem"]);
    redis.cli(&[&["ACL", "SETUSER", "baton"], ALLOWED].concat());
    redis.cli(&["ACL", "SETUSER", "default", "off"]);
    let ca = redis.folder().join("ca.pem");
    let options = format!("&ca={}", ca.display());
    let address = |password: &str| format!("rediss://baton:{password}@127.0.0.1:{}", redis.port());
    conformance::run(apart(&address("hunter2"), &options)).unwrap();

    let refused = |address: String| {
        let error = RedisStore::open(address.parse().unwrap(), Millis::ZERO).err().expect("it is refused");
        assert!(matches!(error, StateError::Shut { .. }), "{error:?}");
        let mut text = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &cause.to_string();
            source = cause.source();
        }
        text
    };
    let wrong = refused(format!("{}?ca={}", address("s3cret"), ca.display()));
    assert!(!wrong.contains("s3cret") && wrong.contains("does not answer"), "{wrong}");
    let stranger = refused(address("hunter2"));
    assert!(!stranger.contains("hunter2") && stranger.to_lowercase().contains("certificate"), "{stranger}");
}
