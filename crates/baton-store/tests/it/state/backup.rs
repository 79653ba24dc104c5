//! A state store as a file: brought to another store it is the same, and what is not whole is not brought anywhere.

use baton_core::event::{Event, What};
use baton_core::report::{Report, Stamp, Standing};
use baton_store::state::{
    Backup, BackupError, EmbeddedStore, Milestone, News, RedisStore, StateError, StateStore,
};

use super::*;
use crate::redis_server::Redis;

/// A store with two deploys, a member and events.
fn fill(store: &dyn StateStore) {
    let first = store.propose(&web(), rollout(1, None), NOW).unwrap().deploy;
    store.reach(&web(), first.id, Milestone::Switched, 10).unwrap();
    let stamp = Stamp { life: 1, sequence: 1 };
    let report = Report::plain("web-1".parse().unwrap(), stamp, Standing::Behind);
    let _ = store.hear(&web(), News::Report(report), NOW).unwrap();
    store.propose(&web(), rollout(2, Some(first.id)), NOW).unwrap();
    let (service, text) = (web(), "it happened".to_owned());
    let event = Event { at: 7, service, deploy: Some(first.id), member: None, what: What::Deployed, text };
    store.append(vec![event.clone(), event]).unwrap();
    assert!(store.set_access(None, b"sealed").unwrap());
}

#[test]
fn a_backup_of_a_file_is_the_same_store_in_a_redis_and_in_another_file() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let embedded = EmbeddedStore::open(&file("a.redb"), Millis::ZERO).unwrap();
    fill(&embedded);
    let backup = Backup::of(&embedded, NOW).unwrap();
    assert_eq!(backup.size(), (1, 2));
    let bytes = backup.to_bytes();
    assert_eq!(Backup::from_bytes(&bytes).unwrap(), backup);

    let redis = Redis::start();
    let open = || RedisStore::open(redis.address().parse().unwrap(), Millis::ZERO).unwrap();
    open().import(backup.clone(), Millis::ZERO).unwrap();
    let shared = open();
    assert_eq!(Backup::of(&shared, NOW).unwrap(), backup);
    let again = shared.import(backup.clone(), Millis::ZERO).unwrap_err();
    assert!(matches!(again, StateError::NotEmpty { .. }), "{again}");

    EmbeddedStore::import(&file("b.redb"), Backup::of(&shared, NOW).unwrap(), Millis::ZERO).unwrap();
    let brought = EmbeddedStore::open(&file("b.redb"), Millis::ZERO).unwrap();
    assert_eq!(Backup::of(&brought, NOW).unwrap(), backup);
    assert_eq!(brought.propose(&web(), rollout(3, Some(id(2))), NOW).unwrap().deploy.epoch.0, 3);
    drop(brought);
    let again = EmbeddedStore::import(&file("b.redb"), backup, Millis::ZERO).unwrap_err();
    assert!(matches!(again, StateError::NotEmpty { .. }), "{again}");
}

#[test]
fn p36_what_is_no_backup_or_not_whole_is_not_taken_for_one() {
    let folder = TempDir::new().unwrap();
    let store = EmbeddedStore::open(&folder.path().join("a.redb"), Millis::ZERO).unwrap();
    fill(&store);
    let bytes = Backup::of(&store, NOW).unwrap().to_bytes();
    for length in 0..bytes.len() {
        assert!(Backup::from_bytes(&bytes[..length]).is_err(), "cut off after {length} bytes");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Backup::from_bytes(&damaged).is_err(), "byte {at} is another one");
    }
    assert!(matches!(Backup::from_bytes(b"PK\x03\x04"), Err(BackupError::Foreign)));
}
