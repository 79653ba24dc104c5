//! The numbers of events, where the store loses some of them: none is ever used for two.

use std::collections::BTreeMap;

use baton_core::event::{Event, What};
use baton_store::state::{Backup, EmbeddedStore, Numbered};

use super::lost::wait_until_ready;
use super::*;

/// What readers of all servers have seen under which number.
#[derive(Default)]
struct Seen(BTreeMap<u64, Event>);

impl Seen {
    /// Reads all that a server tells.
    fn read(&mut self, store: &RedisStore) -> Vec<Numbered> {
        let events = store.events(None, 0, usize::MAX).unwrap();
        for Numbered { number, event } in &events {
            let before = self.0.insert(*number, event.clone());
            assert!(before.is_none_or(|before| before == *event), "{number} was another one: {event:?}");
        }
        assert!(events.is_sorted_by_key(|event| event.number));
        events
    }

    /// Where all servers come to tell the same, and all of `texts`, after whatever readers have seen before.
    fn read_all(&mut self, servers: &[&RedisStore], texts: &[&str]) -> Vec<Numbered> {
        for _ in 0..3 {
            for server in servers {
                look(server);
                server.append(Vec::new()).unwrap();
            }
        }
        servers.iter().for_each(|server| look(server));
        let told: Vec<_> = servers.iter().map(|server| self.read(server)).collect();
        assert!(told.iter().all(|events| *events == told[0]), "{told:#?}");
        for text in texts {
            assert!(told[0].iter().any(|event| event.event.text == *text), "{text} is missing: {told:#?}");
        }
        told.into_iter().next().unwrap()
    }
}

/// A server tells something that no other one sees.
fn tell(store: &RedisStore, text: &str) {
    store.append(vec![event(text)]).unwrap();
}

fn event(text: &str) -> Event {
    let (service, text) = (web(), text.to_owned());
    Event { at: 7, service, deploy: None, member: None, what: What::Pushed, text }
}

fn is_restored(event: &Numbered) -> bool {
    event.event.what == What::StoreRestored
}

#[test]
fn f64_events_that_are_lost_with_the_store_are_there_again_and_no_number_is_used_twice() {
    let redis = Redis::start();
    let (a, b) = (open(&redis.address()), open(&redis.address()));
    let mut seen = Seen::default();
    tell(&a, "one");
    tell(&a, "two");
    look(&b);
    tell(&a, "three");
    tell(&a, "four");
    seen.read(&a);
    redis.cli(&["FLUSHALL"]);
    // It has not heard of the last two.
    tell(&b, "five");
    seen.read(&b);
    let fresh = open(&redis.address());
    let told = seen.read_all(&[&a, &b, &fresh], &["one", "two", "three", "four", "five"]);
    assert!(told.iter().any(is_restored), "{told:#?}");

    // They are brought to another store as they are.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    EmbeddedStore::import(&path, Backup::of(&a, NOW).unwrap(), NOW).unwrap();
    let copy = EmbeddedStore::open(&path, NOW).unwrap();
    assert_eq!(copy.events(None, 0, usize::MAX).unwrap(), told);
    let other = open(&format!("{}?prefix=other", redis.address()));
    other.import(Backup::of(&a, NOW).unwrap(), NOW).unwrap();
    look(&other);
    assert_eq!(other.events(None, 0, usize::MAX).unwrap(), told);
    let fresh = open(&format!("{}?prefix=other", redis.address()));
    assert_eq!(fresh.events(None, 0, usize::MAX).unwrap(), told);
}

#[test]
fn f64_no_number_is_used_twice_after_an_older_backup() {
    let mut redis = Redis::start();
    let (a, b) = (open(&redis.address()), open(&redis.address()));
    let mut seen = Seen::default();
    tell(&a, "one");
    look(&b);
    redis.cli(&["SAVE"]);
    tell(&a, "two");
    tell(&a, "three");
    seen.read(&a);
    redis.kill();
    redis.start_again();
    // It knows no more than the backup has.
    wait_until_ready(&b);
    tell(&b, "four");
    seen.read(&b);
    wait_until_ready(&a);
    seen.read_all(&[&a, &b, &open(&redis.address())], &["one", "two", "three", "four"]);
}

#[test]
fn f64_a_number_that_a_server_has_told_is_not_used_by_who_knows_nothing_of_the_loss() {
    let redis = Redis::start();
    let servers: Vec<_> = (0..3).map(|_| open(&redis.address())).collect();
    let [a, b, c] = &servers[..] else { panic!("three") };
    let mut seen = Seen::default();
    tell(a, "one");
    [b, c].into_iter().for_each(look);
    // Only one knows of this when the events are lost, and another one writes the rest back.
    tell(c, "two");
    seen.read(c);
    redis.cli(&["DEL", "{baton}:events"]);
    look(a);
    tell(b, "three");
    seen.read(b);
    seen.read_all(&[a, b, c], &["one", "two", "three"]);
}

#[test]
fn f65_events_that_were_taken_out_by_hand_hold_up_nothing() {
    let takes: [&[&str]; 3] = [
        &["DEL", "{baton}:events"],
        &["XTRIM", "{baton}:events", "MAXLEN", "0"],
        &["XDEL", "{baton}:events", "2-0", "3-0"],
    ];
    for take in takes {
        // Whoever comes later does not know what was there.
        for is_known in [true, false] {
            let redis = Redis::start();
            let store = open(&redis.address());
            let mut seen = Seen::default();
            ["one", "two", "three"].iter().for_each(|text| tell(&store, text));
            seen.read(&store);
            redis.cli(take);
            let store = if is_known { store } else { open(&redis.address()) };
            let begun = deploy(&store, 1).unwrap();
            tell(&store, "four");
            let all: &[&str] = if is_known { &["one", "two", "three", "four"] } else { &["four"] };
            let nobody_knows = take[0] == "DEL" && !is_known;
            if nobody_knows {
                seen = Seen::default();
            }
            let told = seen.read_all(&[&store, &open(&redis.address())], all);
            assert_eq!(told.iter().any(is_restored), !nobody_knows, "{take:?}: {told:#?}");
            if is_known && take[0] != "XDEL" {
                let of = |event: &Numbered| (event.number, event.event.text.clone());
                let first: Vec<_> = told.iter().take(3).map(of).collect();
                let known: Vec<_> = (1..).zip(["one", "two", "three"].map(str::to_owned)).collect();
                assert_eq!(first, known, "{take:?}");
            }
            assert_eq!(in_force(&store), Some(begun.id));
        }
    }
}
