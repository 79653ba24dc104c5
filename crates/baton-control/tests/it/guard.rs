//! Who is not served at all, and what guards a server that does.

use std::fs;

use std::sync::Arc;

use baton_control::{Artefacts, Callers, Config, Server, ServerError, State};
use baton_core::units::Millis;
use baton_store::state::{RedisStore, StateStore};
use baton_wire::access::GuardView;
use baton_wire::api::Refused;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::redis_server::Redis;
use crate::running::{LIMIT, Running, config, rollout};

#[test]
fn p37_an_address_that_others_can_reach_needs_tokens_and_tls() {
    let addresses = ["0.0.0.0:0", "[::]:0", "192.0.2.1:7400"];
    let open = [(Callers::Anybody, "--dev: everybody"), (Callers::KnownInPlain, "read the tokens")];
    for (address, (callers, says)) in
        addresses.iter().flat_map(|address| open.clone().map(|open| (address, open)))
    {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let config = Config {
            listen: address.parse().unwrap(),
            callers,
            data_dir: data_dir.clone(),
            state: State::File,
            artefacts: Artefacts::Folder,
            seal_key: None,
            prometheus: None,
            prometheus_login: None,
            secrets: Vec::new(),
            allowed_secrets: None,
        };
        let error = Server::bind(config).err().expect("it is refused");
        assert!(matches!(error, ServerError::NotLoopback { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(says), "{text}");
        assert!(!data_dir.exists(), "nothing is left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_does_not_get_the_same_directory_whatever_keeps_the_state() {
    // Nobody has to be there yet.
    let redis = State::Redis(Box::new("redis://127.0.0.1:1".parse().unwrap()));
    for state in [State::File, redis] {
        let dir = tempfile::tempdir().unwrap();
        let bind = || Server::bind(Config { state: state.clone(), ..config(dir.path()) });
        let first = bind().expect("nobody has it");
        let error = bind().err().expect("it is refused");
        assert!(matches!(error, ServerError::Claim(_)), "{error}");
        assert!(error.to_string().contains("another server has it open"), "{error}");
        drop(first);
        assert!(bind().is_ok(), "it is free again");
    }
}

/// A server that asks nobody who they are, over this Redis.
fn open_over(redis: &Redis, dir: &TempDir) -> Config {
    let state = State::Redis(Box::new(redis.address().parse().unwrap()));
    Config { state, ..config(dir.path()) }
}

fn write_a_list(redis: &Redis) {
    let store = RedisStore::new(redis.address().parse().unwrap(), Millis::ZERO).unwrap();
    assert!(store.set_access(None, b"sealed").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn p37_a_server_that_asks_nobody_does_not_join_servers_that_ask_everybody() {
    let (redis, dir) = (Redis::start(), TempDir::new().unwrap());
    drop(Server::bind(open_over(&redis, &dir)).expect("among its own it is welcome"));
    write_a_list(&redis);
    let error = Server::bind(open_over(&redis, &dir)).err().expect("it is refused");
    let text = error.to_string();
    assert!(matches!(error, ServerError::ClosedFleet { .. }) && text.contains("leave --dev out"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p37_a_server_that_asks_nobody_ends_as_soon_as_the_others_ask() {
    let (redis, dir) = (Arc::new(Redis::start()), TempDir::new().unwrap());
    let server = Server::bind(open_over(&redis, &dir)).unwrap();
    let running = tokio::spawn(server.run(std::future::pending()));
    let there = Arc::clone(&redis);
    spawn_blocking(move || write_a_list(&there)).await.unwrap();
    let ended = timeout(LIMIT, running).await.expect("it ends").unwrap();
    assert!(matches!(ended, Err(ServerError::ClosedFleet { .. })), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_other_hosts_and_from_other_pages_are_refused() {
    let server = Running::start();
    let port = server.address.port();
    for (headers, status) in [
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        ("Host: localhost\r\n".to_owned(), 200),
        (format!("Host: evil.example:{port}\r\n"), 421),
        (format!("Host: localhost:{port}\r\nOrigin: http://evil.example\r\n"), 403),
        (format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"), 200),
    ] {
        let answer = server.raw("GET", "/v1/services", &headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        if status != 200 {
            let refused: Refused = serde_json::from_str(body).unwrap();
            assert!(refused.code.starts_with("wrong-"), "{refused:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p29_space_that_is_not_kept_for_who_stops_harm_is_a_guard_that_is_off() {
    let server = Running::start();
    let off = async || {
        let off: Vec<GuardView> = server.get("/v1/guards").await;
        off.into_iter().find(|off| off.guard == "space").map(|off| off.text)
    };
    assert_eq!(off().await, None);
    fs::remove_file(server.data_dir().join("state.reserve")).unwrap();
    let said = off().await.unwrap();
    assert!(said.contains("state.reserve needs"), "{said}");
    // There is space again with the next change.
    let release = server.push(1).await;
    server.deploy(&rollout(release, 0)).await;
    assert_eq!(off().await, None);
    server.stop().await;
}
