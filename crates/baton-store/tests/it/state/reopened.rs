//! What a server finds that starts again.

use baton_core::event::{Event, What};
use baton_core::fleet::{Grant, Heard, LEASE, Presence, Tie};
use baton_core::history::Wish;
use baton_core::ids::{Epoch, MemberId};
use baton_core::report::{Cause, Refusal, Report, Seen, Stamp, Standing};
use baton_core::rollout::Rollout;
use baton_core::turn::Why;
use baton_core::units::Millis;
use baton_store::state::{EmbeddedStore, Milestone, News, StateStore};
use tempfile::TempDir;

use super::{NOW, id, rollout, web};

fn member(number: usize) -> MemberId {
    format!("m-{number}").parse().unwrap()
}

pub fn report(number: usize, sequence: u64, seen: Option<Seen>, standing: Standing) -> News {
    News::Report(Report { seen, ..Report::plain(member(number), Stamp { life: 1, sequence }, standing) })
}

#[test]
fn p31_a_server_that_starts_again_finds_everything_that_was_accepted() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    for number in 0..8 {
        assert_eq!(store.hear(&web(), report(number, 1, None, Standing::Behind), NOW).unwrap(), Heard::News);
    }
    let first = store.propose(&web(), rollout(1, None), NOW).unwrap().deploy;
    let seen = Some(Seen { epoch: first.epoch, deploy: first.id });
    for number in 0..8 {
        assert_eq!(store.hear(&web(), report(number, 2, seen, Standing::Staged), NOW).unwrap(), Heard::News);
    }
    let grant = store.grant(&web(), first.epoch, &[member(1), member(2)], NOW).unwrap();
    store.reach(&web(), first.id, Milestone::Incomplete, 11).unwrap();
    let event = Event {
        at: 12,
        service: web(),
        deploy: Some(first.id),
        member: Some(member(1)),
        what: What::Granted,
        text: "m-1 has a slot".into(),
    };
    store.append(vec![event]).unwrap();
    let before = store.service(&web(), NOW).unwrap();
    let events = store.events(None, 0, 9).unwrap();
    drop(store);

    let store = EmbeddedStore::open(&path, Millis(500)).unwrap();
    let after = store.service(&web(), Millis(500)).unwrap();
    assert_eq!(after.history(), before.history());
    assert_eq!(after.fleet().in_force(), before.fleet().in_force());
    assert_eq!(after.milestones(first.id), before.milestones(first.id));
    let grants: Vec<_> = after.fleet().grants().collect();
    assert_eq!(grants, [(&member(1), grant), (&member(2), grant)]);
    assert_eq!(after.fleet().members().count(), 8);
    assert_eq!(store.events(None, 0, 9).unwrap(), events);
    assert_eq!(store.services().unwrap(), [web()]);
    let stop = Rollout::of(after.fleet(), Millis(500)).unwrap().stop();
    assert_eq!(stop, Some(Why::Listening { unheard: 8, anew: false }), "it listens before it grants");
}

#[test]
fn p12_what_members_obey_is_remembered_with_the_next_durable_write() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let first = store.propose(&web(), rollout(1, None), NOW).unwrap().deploy;
    let seen = Some(Seen { epoch: Epoch(41), deploy: id(41) });
    assert_eq!(store.hear(&web(), report(1, 1, seen, Standing::Behind), NOW).unwrap(), Heard::News);
    let joined = Event {
        at: 1,
        service: web(),
        deploy: None,
        member: Some(member(1)),
        what: What::Joined,
        text: "m-1 is new".into(),
    };
    store.append(vec![joined]).unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let next = store.propose(&web(), rollout(2, Some(first.id)), NOW).unwrap().deploy;
    assert_eq!(next.epoch, Epoch(42));
}

#[test]
fn who_left_after_the_release_had_failed_on_it_is_gone_after_a_restart_and_holds_up_no_deploy() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let first = store.propose(&web(), rollout(1, None), NOW).unwrap().deploy;
    let seen = Some(Seen { epoch: first.epoch, deploy: first.id });
    for number in 0..4 {
        assert_eq!(store.hear(&web(), report(number, 1, seen, Standing::Staged), NOW).unwrap(), Heard::News);
    }
    store.grant(&web(), first.epoch, &[member(1)], NOW).unwrap();
    let refusal = Refusal { cause: Cause::Exit, detail: "exit 1 after 0.8 s".to_owned() };
    let refused = report(1, 2, seen, Standing::Refused(refusal));
    assert_eq!(store.hear(&web(), refused, NOW).unwrap(), Heard::News);
    assert_eq!(store.hear(&web(), News::Left(member(1)), NOW).unwrap(), Heard::News);
    let text = "m-1 has left".to_owned();
    let left = Event { at: 0, service: web(), deploy: None, member: None, what: What::Left, text };
    store.append(vec![left]).unwrap();
    drop(store);

    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let known = store.service(&web(), Millis::ZERO).unwrap();
    let gone = known.fleet().member(&member(1)).unwrap();
    assert_eq!(gone.presence(Millis::ZERO), Presence::Gone);
    assert!(matches!(gone.tie(), Tie::Slot(_)), "in its deploy it has failed");
    store.propose(&web(), rollout(2, Some(first.id)), Millis::ZERO).unwrap();
    assert!(store.service(&web(), Millis::ZERO).unwrap().fleet().member(&member(1)).is_none());
}

#[test]
fn who_proved_or_kept_a_slot_or_left_is_remembered() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let first = store.propose(&web(), rollout(1, None), NOW).unwrap().deploy;
    let seen = Some(Seen { epoch: first.epoch, deploy: first.id });
    for number in 0..12 {
        assert_eq!(store.hear(&web(), report(number, 1, seen, Standing::Staged), NOW).unwrap(), Heard::News);
    }
    let grant = store.grant(&web(), first.epoch, &[member(1), member(2), member(3)], NOW).unwrap();
    let News::Report(proven) = report(1, 2, seen, Standing::Proven) else { unreachable!() };
    let proven =
        Report { running: Some(first.release), committed: Some((first.release, first.epoch)), ..proven };
    assert_eq!(store.hear(&web(), News::Report(proven), NOW).unwrap(), Heard::News);
    assert_eq!(store.hear(&web(), News::Left(member(9)), NOW).unwrap(), Heard::News);
    store.reach(&web(), first.id, Milestone::Incomplete, 1).unwrap();
    drop(store);

    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let known = store.service(&web(), Millis::ZERO).unwrap();
    let proofs: Vec<_> = known.fleet().grants().map(|(id, grant)| (id.clone(), grant.proven)).collect();
    assert_eq!(proofs, [(member(1), true), (member(2), false), (member(3), false)]);
    assert!(known.fleet().member(&member(9)).is_none());
    let halt =
        baton_core::history::Proposal { wish: Wish::Halt { hand_back: false }, ..rollout(2, Some(first.id)) };
    let halt = store.propose(&web(), halt, NOW).unwrap().deploy;
    drop(store);

    let store = EmbeddedStore::open(&path, Millis::ZERO).unwrap();
    let next = store.propose(&web(), rollout(3, Some(halt.id)), LEASE).unwrap().deploy;
    let known = store.service(&web(), LEASE).unwrap();
    for number in [2, 3] {
        let tie = known.fleet().member(&member(number)).unwrap().tie();
        assert_eq!(tie, Tie::Leftover, "it may still be trying, whatever came since");
    }
    assert_eq!((grant, next.epoch), (Grant { proven: false, ..grant }, Epoch(3)));
}
