use baton_core::fleet::{LEASE, Presence};
use baton_core::report::Standing;
use baton_store::state::MemoryStore;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::*;
use crate::sample::report;

/// Who is left of two silent members, of which one was heard again, when those are let go that were not: also `in_tick`,
/// where what was heard is taken in at the end of the same round.
fn left_of_two(in_tick: bool) -> Vec<MemberId> {
    let store = Arc::new(MemoryStore::new(Millis::ZERO));
    let web = "web".parse().unwrap();
    for member in ["back", "away"] {
        let _ = store.hear(&web, report(member, 1, None, Standing::Behind), Millis::ZERO).unwrap();
    }
    let clock = Clock::started_ago(LEASE);
    let heartbeats = Heartbeats::default();
    heartbeats.add(&web, &"back".parse().unwrap(), Stamp { life: 1, sequence: 2 }, clock.now());
    let (_inbox, asked) = mpsc::channel(1);
    let (post, _board) = watch::channel(Arc::default());
    let key = PeerKey::new().unwrap();
    let mut keeper = Keeper::new(store.clone(), clock, asked, heartbeats, post, key).unwrap();

    let (reply, mut answer) = oneshot::channel();
    let choose: Choose = Box::new(|fleet, now, is_heard| {
        let silent = |presence| matches!(presence, Presence::Silent { .. });
        let members = fleet.members().filter(|(_, member)| silent(member.presence(now)));
        Ok(members.map(|(id, _)| id.clone()).filter(|id| !is_heard(id)).collect())
    });
    let heard = if in_tick { keeper.heartbeats.take() } else { Heard::new() };
    let mut round = Round { heard, ..Round::default() };
    keeper.take_in(Ask::Forget { service: web.clone(), choose, reply }, &mut round);
    keeper.finish(&mut round);
    let forgotten = answer.try_recv().unwrap().unwrap();
    let known = store.service(&web, clock.now()).unwrap();
    let left: Vec<MemberId> = known.fleet().members().map(|(id, _)| id.clone()).collect();
    assert!(forgotten.len() + left.len() == 2 && !left.contains(&forgotten[0]));
    left
}

#[test]
fn p30_a_server_that_has_read_its_store_has_no_trouble_with_it_any_more() {
    let (inbox, asked) = mpsc::channel(1);
    let (post, board) = watch::channel(Arc::default());
    let store = Arc::new(MemoryStore::new(Millis::ZERO));
    let clock = Clock::start();
    let key = PeerKey::new().unwrap();
    let mut keeper = Keeper::new(store, clock, asked, Heartbeats::default(), post, key).unwrap();
    let attempted = "read the store".to_owned();
    keeper.tell_unread(&StateError::Unavailable { attempted, source: "it is away".into() });
    assert!(board.borrow().unread && board.borrow().trouble.is_some());

    inbox.try_send(Ask::LookAgain).ok().unwrap();
    let runtime = Runtime::new().unwrap();
    assert!(keeper.wait_for_store(runtime.handle()).is_some());
    assert!(!board.borrow().unread);
    assert_eq!(board.borrow().trouble, None);
}

#[test]
fn who_was_heard_since_somebody_looked_is_not_forgotten() {
    for in_tick in [false, true] {
        assert_eq!(left_of_two(in_tick), ["back".parse().unwrap()], "in a tick: {in_tick}");
    }
}
