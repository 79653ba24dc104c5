use axum::http::StatusCode;
use baton_core::deploy::Policy;
use baton_core::fleet::{Fleet, LEASE, Presence};
use baton_core::history::Lock;
use baton_core::ids::ReleaseId;
use baton_core::report::Standing;
use baton_store::state::{Fault, MemoryStore};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::*;
use crate::sample::report;

/// A keeper over this store, and where it is asked.
fn keeper(store: &Arc<MemoryStore>, clock: Clock, heartbeats: Heartbeats) -> (Inbox, Keeper) {
    let (inbox, asked) = inbox();
    let (post, _) = watch::channel(Arc::default());
    let key = PeerKey::new().unwrap();
    (inbox, Keeper::new(store.clone(), clock, asked, heartbeats, post, key).unwrap())
}

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
    let (_inbox, mut keeper) = keeper(&store, clock, heartbeats);

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
fn nobody_is_forgotten_while_the_store_is_out_of_reach() {
    let store = Arc::new(MemoryStore::new(Millis::ZERO));
    let web: ServiceName = "web".parse().unwrap();
    let _ = store.hear(&web, report("a", 1, None, Standing::Behind), Millis::ZERO).unwrap();
    let (_inbox, mut keeper) = keeper(&store, Clock::start(), Heartbeats::default());
    let all: fn(&Fleet) -> Vec<MemberId> = |fleet| fleet.members().map(|(id, _)| id.clone()).collect();
    let mut forget =
        || keeper.forget(&web, Box::new(move |fleet, _, _| Ok(all(fleet))), &mut Round::default());
    store.fail_call(1, Fault::Unreached);
    let refused = forget().unwrap_err();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(store.service(&web, Millis::ZERO).unwrap().fleet().members().count(), 1);
    assert_eq!(forget().unwrap().len(), 1);
}

#[test]
fn p30_a_server_that_has_read_its_store_has_no_trouble_with_it_any_more() {
    let store = Arc::new(MemoryStore::new(Millis::ZERO));
    let (inbox, mut keeper) = keeper(&store, Clock::start(), Heartbeats::default());
    let board = keeper.board.subscribe();
    let attempted = "read the store".to_owned();
    keeper.tell_unread(&StateError::Unavailable { attempted, source: "it is away".into() });
    assert!(board.borrow().unread && board.borrow().trouble.is_some());

    let runtime = Runtime::new().unwrap();
    runtime.block_on(inbox.send(Ask::LookAgain)).ok().unwrap();
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

#[test]
fn nothing_is_carried_out_before_the_store_was_read_also_where_it_answers_again() {
    let store = Arc::new(MemoryStore::new(Millis::ZERO));
    let (web, member) = ("web".parse::<ServiceName>().unwrap(), "web-1".parse::<MemberId>().unwrap());
    let _ = store.hear(&web, report("web-1", 1, None, Standing::Behind), Millis::ZERO).unwrap();
    // It is away at the start, and when the keeper looks again.
    for call in [1, 2] {
        store.fail_call(call, Fault::Unreached);
    }
    let (inbox, keeper) = keeper(&store, Clock::start(), Heartbeats::default());

    let (propose, mut proposed) = oneshot::channel();
    let (lock, mut locked) = oneshot::channel();
    let (forget, mut forgotten) = oneshot::channel();
    let proposal = Proposal {
        id: DeployId::from_bytes([1; 16]),
        parent: None,
        wish: Wish::Rollout { release: ReleaseId::from_bytes([1; 32]), policy: Policy::safe(), again: false },
        reason: String::new(),
        actor: "ada".to_owned(),
        created: 1,
        backing: Backing::Nobody,
        blame: None,
    };
    let why = Lock { reason: "frozen".to_owned(), actor: "ada".to_owned(), since: 1 };
    let choose: Choose = Box::new(|_, _, _| Ok(vec![member]));
    let runtime = Runtime::new().unwrap();
    for ask in [
        Ask::Propose { service: web.clone(), proposal, begun: None, reply: propose },
        Ask::Lock { service: web.clone(), lock: Some(why), reply: lock },
        Ask::Forget { service: web.clone(), choose, reply: forget },
    ] {
        runtime.block_on(inbox.send(ask)).ok().unwrap();
    }
    drop(inbox);
    keeper.run(runtime.handle());

    let refused = [
        proposed.try_recv().unwrap().err(),
        locked.try_recv().unwrap().err(),
        forgotten.try_recv().unwrap().err(),
    ];
    let codes = refused.each_ref().map(|refused| refused.as_ref().map(|refusal| refusal.code));
    assert_eq!(codes, [Some("unavailable"); 3], "{refused:?}");
    let service = store.service(&web, Millis::ZERO).unwrap();
    assert!(service.history().past().is_empty() && service.history().lock().is_none());
    assert_eq!(service.fleet().members().count(), 1);
}
