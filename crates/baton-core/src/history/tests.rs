//! What may be proposed, and what follows.

use super::*;
use crate::limits::Limits;
use crate::trust::Bounds;
use crate::units::Share;
use alloc::vec;
use proptest::collection::vec;
use proptest::prelude::*;

const A: ReleaseId = ReleaseId::from_bytes([0xa; 32]);
const B: ReleaseId = ReleaseId::from_bytes([0xb; 32]);
const C: ReleaseId = ReleaseId::from_bytes([0xc; 32]);

fn history() -> History {
    History::new("web".parse().unwrap(), Vec::new())
}

fn proposal(history: &History, wish: Wish) -> Proposal {
    Proposal {
        id: DeployId::from_bytes([history.past().len() as u8 + 1; 16]),
        parent: history.in_force().map(|deploy| deploy.id),
        wish,
        reason: String::new(),
        actor: "ada".into(),
        created: 0,
        backing: Backing::InForce,
        blame: None,
    }
}

fn rollout(release: ReleaseId) -> Wish {
    Wish::Rollout { release, policy: Policy::safe(), again: false }
}

/// Proposes, adds, and returns the new deploy.
fn deploy(history: &mut History, wish: Wish) -> Result<Deploy, ProposeError> {
    let deploy = history.propose(proposal(history, wish), Epoch(0))?;
    history.add(deploy.clone());
    Ok(deploy)
}

fn switch(history: &mut History, wish: Wish) -> Deploy {
    let deploy = deploy(history, wish).unwrap();
    history.note_switched(deploy.id);
    deploy
}

#[test]
fn p12_every_deploy_has_a_greater_epoch_than_the_log_and_any_member() {
    let mut history = history();
    assert_eq!(deploy(&mut history, rollout(A)).unwrap().epoch, Epoch(1));
    let next = history.propose(proposal(&history, rollout(B)), Epoch(41)).unwrap();
    assert_eq!(next.epoch, Epoch(42));
    history.add(next);
    assert_eq!(deploy(&mut history, rollout(C)).unwrap().epoch, Epoch(43));
}

#[test]
fn p12_a_proposal_that_looked_at_an_old_state_is_refused() {
    let mut history = history();
    let late = proposal(&history, rollout(B));
    let first = deploy(&mut history, rollout(A)).unwrap();
    let refused = history.propose(late, Epoch(0));
    assert_eq!(refused, Err(ProposeError::Conflict { in_force: Some(first.id) }));
}

#[test]
fn a_rollback_goes_to_the_fallback_and_from_there_to_the_one_before() {
    let mut history = history();
    for release in [A, B, C] {
        switch(&mut history, rollout(release));
    }
    let back = deploy(&mut history, Wish::RollBack { to: None }).unwrap();
    assert_eq!((back.release, back.fallback), (B, Some(A)));
    let further = deploy(&mut history, Wish::RollBack { to: None }).unwrap();
    assert_eq!((further.release, further.fallback), (A, None));
    let refused = deploy(&mut history, Wish::RollBack { to: None });
    assert_eq!(refused, Err(ProposeError::NoFallback { choices: vec![] }));
}

#[test]
fn f92_what_control_has_stopped_is_stuck_until_a_person_decides() {
    // By what it is stopped, and what a person does then.
    let (by_control, by_a_person) = (Wish::Halt { hand_back: true }, Wish::Halt { hand_back: false });
    let decided = [rollout(C), Wish::RollBack { to: Some(A) }, Wish::Resume, Wish::Abort];
    for (stopped, wish) in decided
        .into_iter()
        .map(|wish| (rollout(B), wish))
        .chain([(Wish::RollBack { to: None }, rollout(C)), (Wish::RollBack { to: None }, Wish::Resume)])
    {
        let mut history = history();
        switch(&mut history, rollout(A));
        switch(&mut history, rollout(B));
        let stopped = deploy(&mut history, stopped).unwrap();
        assert_eq!(history.stuck(), None, "it is under way");
        let mut by_hand = history.clone();
        deploy(&mut by_hand, by_a_person.clone()).unwrap();
        assert_eq!(by_hand.stuck(), None, "who halts it knows");
        deploy(&mut history, by_control.clone()).unwrap();
        assert_eq!(history.stuck().map(|stuck| stuck.id), Some(stopped.id));
        deploy(&mut history, wish.clone()).unwrap();
        assert_eq!(history.stuck(), None, "{wish:?}");
    }
}

#[test]
fn a_rollback_goes_only_where_the_whole_fleet_has_been() {
    let mut history = history();
    assert_eq!(deploy(&mut history, Wish::RollBack { to: None }), Err(ProposeError::NothingToRollBack));
    switch(&mut history, rollout(A));
    let part = Policy { target: Share::from_percent(10).into(), ..Policy::safe() };
    switch(&mut history, Wish::Rollout { release: B, policy: part, again: false });
    deploy(&mut history, rollout(C)).unwrap();
    let refused = history.propose(proposal(&history, Wish::RollBack { to: Some(B) }), Epoch(0));
    assert_eq!(refused, Err(ProposeError::NeverSwitched { release: B, choices: vec![A] }));
    assert_eq!(deploy(&mut history, Wish::RollBack { to: None }).unwrap().release, A);
}

#[test]
fn a_refused_rollback_says_where_to_go_instead() {
    let (some, none) = (vec![A, B], Vec::new());
    for (error, text) in [
        (
            ProposeError::NoFallback { choices: some.clone() },
            "there is no release to fall back to: name one with --to (0a0a0a0a0a0a, 0b0b0b0b0b0b)",
        ),
        (
            ProposeError::NoFallback { choices: none.clone() },
            "there is no release to fall back to: no other one has reached its whole target here, \
             so deploy one that works",
        ),
        (
            ProposeError::NeverSwitched { release: C, choices: some },
            "release 0c0c0c0c0c0c never reached its whole target here: deploy it, or roll back to one \
             that did (0a0a0a0a0a0a, 0b0b0b0b0b0b)",
        ),
        (
            ProposeError::NeverSwitched { release: C, choices: none },
            "release 0c0c0c0c0c0c never reached its whole target here: deploy it",
        ),
    ] {
        assert_eq!(alloc::string::ToString::to_string(&error), text);
    }
}

#[test]
fn a_release_that_was_rolled_back_is_marked_until_it_is_asked_for_again() {
    let mut history = history();
    switch(&mut history, rollout(A));
    deploy(&mut history, rollout(B)).unwrap();
    deploy(&mut history, Wish::RollBack { to: None }).unwrap();
    assert!(history.is_marked(B));
    assert_eq!(deploy(&mut history, rollout(B)), Err(ProposeError::Marked { release: B }));
    let again = Wish::Rollout { release: B, policy: Policy::safe(), again: true };
    deploy(&mut history, again).unwrap();
    assert!(!history.is_marked(B));
}

#[test]
fn a_rollback_never_goes_to_what_was_rolled_back_not_even_where_that_was_everywhere() {
    let mut history = history();
    switch(&mut history, rollout(A));
    switch(&mut history, rollout(B));
    switch(&mut history, Wish::RollBack { to: None });
    let third = deploy(&mut history, rollout(C)).unwrap();
    assert_eq!(third.fallback, Some(A), "B is newer, and was rolled back");
    let to_marked = history.propose(proposal(&history, Wish::RollBack { to: Some(B) }), Epoch(0));
    assert_eq!(to_marked, Err(ProposeError::Marked { release: B }));
    assert_eq!(deploy(&mut history, Wish::RollBack { to: None }).unwrap().release, A);
}

proptest! {
    #[test]
    fn what_is_marked_is_the_same_one_by_one_and_in_one_pass(steps in vec((0..4usize, 0..3u8), 0..30)) {
        let mut history = history();
        for (kind, release) in steps {
            let release = ReleaseId::from_bytes([release; 32]);
            let wish = match kind {
                0 | 1 => Wish::Rollout { release, policy: Policy::safe(), again: true },
                2 => Wish::RollBack { to: None },
                _ => Wish::Halt { hand_back: false },
            };
            let refused = deploy(&mut history, wish).is_err();
            if kind == 0 && !refused {
                history.note_switched(history.in_force().unwrap().id);
            }
            let one_by_one = history.past().iter().map(|past| past.deploy.release);
            let one_by_one: BTreeSet<_> = one_by_one.filter(|release| history.is_marked(*release)).collect();
            prop_assert_eq!(history.marked(), one_by_one);
        }
    }
}

#[test]
fn halting_and_resuming_keep_release_policy_and_kind() {
    let mut history = history();
    assert_eq!(deploy(&mut history, Wish::Halt { hand_back: false }), Err(ProposeError::NothingToHalt));
    switch(&mut history, rollout(A));
    assert_eq!(deploy(&mut history, Wish::Halt { hand_back: false }), Err(ProposeError::NothingToHalt));
    let first = deploy(&mut history, rollout(B)).unwrap();
    assert_eq!(deploy(&mut history, Wish::Resume), Err(ProposeError::NothingToResume));
    let halt = deploy(&mut history, Wish::Halt { hand_back: false }).unwrap();
    assert_eq!(halt.kind, Kind::Halt { of: first.id, hand_back: false });
    let halted = Err(ProposeError::HaltedAlready { by: "ada".into() });
    assert_eq!(deploy(&mut history, Wish::Halt { hand_back: true }), halted);
    let resumed = deploy(&mut history, Wish::Resume).unwrap();
    assert_eq!((resumed.kind, resumed.release, resumed.policy), (Kind::Rollout, B, first.policy));
    let back = deploy(&mut history, Wish::RollBack { to: None }).unwrap();
    deploy(&mut history, Wish::Halt { hand_back: false }).unwrap();
    let resumed = deploy(&mut history, Wish::Resume).unwrap();
    assert_eq!((resumed.kind, resumed.release), (back.kind, A));
}

#[test]
fn p17_a_new_member_starts_what_the_whole_fleet_last_reached() {
    let mut history = history();
    assert_eq!(history.release_for_new_member(), None);
    switch(&mut history, rollout(A));
    deploy(&mut history, rollout(B)).unwrap();
    assert_eq!(history.release_for_new_member(), Some(A), "B is still on trial");
    let part = Policy { target: Share::from_percent(10).into(), ..Policy::safe() };
    switch(&mut history, Wish::Rollout { release: C, policy: part, again: false });
    assert_eq!(history.release_for_new_member(), Some(A), "C is for a part of the fleet");
    switch(&mut history, rollout(C));
    assert_eq!(history.release_for_new_member(), Some(C));
    deploy(&mut history, Wish::RollBack { to: None }).unwrap();
    assert_eq!(history.release_for_new_member(), Some(A), "C is being taken back");
}

/// A warrant for what a wish would come to.
fn warrant_for(history: &History, wish: Wish) -> Signed<Warrant> {
    let proposal = Proposal { backing: Backing::Nobody, ..proposal(history, wish) };
    let deploy = history.propose(proposal, Epoch(0)).unwrap();
    Signed::new(Warrant {
        service: deploy.service,
        epoch: deploy.epoch,
        release: deploy.release,
        fallback: deploy.fallback,
        bounds: Bounds::of(&deploy.policy),
        expires: 0,
    })
}

fn signed(history: &mut History, wish: Wish) -> Result<Deploy, ProposeError> {
    let backing = Backing::Signed(warrant_for(history, wish.clone()));
    let deploy = history.propose(Proposal { backing, ..proposal(history, wish) }, Epoch(0))?;
    history.add(deploy.clone());
    Ok(deploy)
}

#[test]
fn p38_control_goes_on_from_a_signed_deploy_as_far_as_it_was_signed() {
    let mut history = history();
    let first = signed(&mut history, rollout(A)).unwrap();
    history.note_switched(first.id);
    let second = signed(&mut history, rollout(B)).unwrap();
    assert_eq!(second.fallback, Some(A));
    assert_eq!(deploy(&mut history, rollout(C)), Err(ProposeError::Unsigned));
    let halt = deploy(&mut history, Wish::Halt { hand_back: true }).unwrap();
    assert_eq!((halt.warrant, halt.fallback), (second.warrant.clone(), Some(A)));
    assert_eq!(deploy(&mut history, Wish::Resume), Err(ProposeError::Unsigned));
    let back = deploy(&mut history, Wish::RollBack { to: None }).unwrap();
    assert_eq!((back.release, back.warrant, back.fallback), (A, second.warrant, None));
    let halt = deploy(&mut history, Wish::Halt { hand_back: false }).unwrap();
    assert_eq!(halt.release, A);
    let resumed = signed(&mut history, Wish::Resume).unwrap();
    assert_eq!((resumed.release, resumed.kind), (A, back.kind));
    let unsigned = Proposal { backing: Backing::Nobody, ..proposal(&history, rollout(C)) };
    assert_eq!(history.propose(unsigned, Epoch(0)).unwrap().warrant, None);
}

#[test]
fn p38_a_warrant_is_for_one_deploy_and_no_other() {
    let mut history = history();
    switch(&mut history, rollout(A));
    let right = warrant_for(&history, rollout(B));
    let propose = |change: fn(&mut Warrant)| {
        let mut signed = right.clone();
        change(&mut signed.of);
        let proposal = Proposal { backing: Backing::Signed(signed), ..proposal(&history, rollout(B)) };
        history.propose(proposal, Epoch(0)).map(|deploy| deploy.fallback)
    };
    assert_eq!(propose(|_| {}), Ok(Some(A)));
    assert_eq!(propose(|warrant| warrant.fallback = None), Ok(None), "no return is allowed");
    let other = |what| Err(ProposeError::OtherWarrant { what });
    assert_eq!(propose(|warrant| warrant.service = "api".parse().unwrap()), other("service"));
    assert_eq!(propose(|warrant| warrant.epoch = Epoch(1)), other("epoch"));
    assert_eq!(propose(|warrant| warrant.release = C), other("release"));
    assert_eq!(propose(|warrant| warrant.fallback = Some(C)), other("fallback"));
    assert_eq!(propose(|warrant| warrant.bounds.target = Share::from_percent(1)), other("policy"));
}

#[test]
fn p11_no_policy_tries_the_whole_fleet_at_once() {
    let all = Policy { max_unhealthy: Share::ALL, ..Policy::fast() };
    let wish = Wish::Rollout { release: A, policy: all, again: false };
    assert_eq!(deploy(&mut history(), wish), Err(InvalidPolicy::AllAtOnce(Share::ALL).into()));
}

#[test]
fn p11_a_release_that_went_everywhere_at_once_is_taken_back_in_turns() {
    let mut history = history();
    switch(&mut history, rollout(A));
    let wish = Wish::Rollout { release: B, policy: Policy::fast().at_once(), again: false };
    deploy(&mut history, wish).unwrap();
    let back = deploy(&mut history, Wish::RollBack { to: None }).unwrap().policy;
    assert_eq!((back.all_at_once, back.max_unhealthy), (false, Policy::fast().max_unhealthy));
    assert_eq!(back.check(), Ok(()));
}

fn locked(reason: &str) -> Lock {
    Lock { reason: reason.into(), actor: "kim".into(), since: 7 }
}

fn locked_by(service: &ServiceName) -> ProposeError {
    ProposeError::Locked { service: service.clone(), reason: "freeze".into(), actor: "kim".into() }
}

#[test]
fn a_lock_refuses_what_goes_forward_and_lets_the_way_back_pass() {
    let mut history = history();
    switch(&mut history, rollout(A));
    deploy(&mut history, rollout(B)).unwrap();
    history.set_lock(Some(locked("freeze"))).unwrap();
    let refused = locked_by(history.service());
    assert_eq!(deploy(&mut history, rollout(C)), Err(refused.clone()));
    deploy(&mut history, Wish::Halt { hand_back: false }).unwrap();
    assert_eq!(deploy(&mut history, Wish::Resume), Err(refused.clone()), "it would go on with a rollout");
    assert_eq!(deploy(&mut history, Wish::RollBack { to: None }).unwrap().release, A);
    deploy(&mut history, Wish::Halt { hand_back: false }).unwrap();
    assert_eq!(deploy(&mut history, Wish::Resume).unwrap().release, A, "a rollback goes on");

    assert_eq!(history.set_lock(Some(locked("another"))), Err(refused));
    assert_eq!(history.set_lock(Some(locked("freeze"))), Ok(()), "the same call again");
    history.set_lock(None).unwrap();
    assert_eq!(history.set_lock(None), Err(ProposeError::NotLocked));
    deploy(&mut history, rollout(C)).unwrap();
}

#[test]
fn a_tag_is_one_release_s_until_it_is_given_to_another_or_taken_away() {
    let mut history = History::new("web".parse().unwrap(), vec![]);
    let tag = |release| Tag { release, actor: "kim".into(), since: 7 };
    let [production, old] = ["production", "v1.0"].map(|name| name.parse::<TagName>().unwrap());
    history.set_tag(&production, Some(tag(A))).unwrap();
    history.set_tag(&old, Some(tag(A))).unwrap();
    history.set_tag(&production, Some(tag(B))).unwrap();
    assert_eq!(
        ["production", "v1.0", "staging", "."].map(|name| history.tagged(name)),
        [Some(B), Some(A), None, None]
    );
    history.set_tag(&old, None).unwrap();
    assert_eq!(history.set_tag(&old, None), Err(ProposeError::NoSuchTag { tag: old.clone() }));
    for number in 1..TAGS_MAX {
        history.set_tag(&format!("v{number}").parse().unwrap(), Some(tag(A))).unwrap();
    }
    assert_eq!(history.set_tag(&old, Some(tag(A))), Err(ProposeError::TooManyTags));
    history.set_tag(&production, Some(tag(C))).unwrap();
    for odd in ["", "cafe", "0123", "a b", "-x", "a/b", &"x".repeat(64)] {
        assert!(odd.parse::<TagName>().is_err(), "{odd}");
    }
}

#[test]
fn a_lock_of_the_service_that_one_is_a_flavor_of_refuses_what_goes_forward_there() {
    let mut history = history();
    switch(&mut history, rollout(A));
    let base = "shop".parse().unwrap();
    let check = |history: &History, wish: Wish| history.check_lock(&base, &locked("freeze"), &wish);
    assert_eq!(check(&history, rollout(B)), Err(locked_by(&base)));
    for wish in [Wish::Halt { hand_back: false }, Wish::Abort, Wish::RollBack { to: None }] {
        assert_eq!(check(&history, wish), Ok(()));
    }
}

#[test]
fn a_rollback_locks_the_service_where_the_policy_says_so() {
    for (locks, wish) in [
        (true, Wish::RollBack { to: None }),
        (true, Wish::Abort),
        (false, Wish::RollBack { to: None }),
        (false, Wish::Abort),
    ] {
        let mut history = history();
        switch(&mut history, rollout(A));
        let policy = Policy { lock_after_rollback: locks, ..Policy::safe() };
        deploy(&mut history, Wish::Rollout { release: B, policy, again: false }).unwrap();
        assert_eq!(history.lock(), None);
        deploy(&mut history, wish).unwrap();
        let reason = history.lock().map(|lock| lock.reason.as_str());
        assert_eq!(reason, locks.then_some("a release was rolled back"));
        let next = deploy(&mut history, rollout(C)).map(|deploy| deploy.release);
        assert_eq!(next.ok(), (!locks).then_some(C));
    }
}

#[test]
fn a_lock_by_hand_is_not_replaced_by_that_of_a_rollback() {
    let mut history = history();
    switch(&mut history, rollout(A));
    let policy = Policy { lock_after_rollback: true, ..Policy::safe() };
    deploy(&mut history, Wish::Rollout { release: B, policy, again: false }).unwrap();
    history.set_lock(Some(locked("freeze"))).unwrap();
    deploy(&mut history, Wish::RollBack { to: None }).unwrap();
    assert_eq!(history.lock(), Some(&locked("freeze")));
}

#[test]
fn f112_an_abort_takes_back_what_is_under_way_and_nothing_else() {
    let mut history = history();
    assert_eq!(deploy(&mut history, Wish::Abort), Err(ProposeError::NothingToAbort));
    deploy(&mut history, rollout(A)).unwrap();
    assert_eq!(deploy(&mut history, Wish::Abort), Err(ProposeError::NoFallback { choices: vec![] }));
    history.note_switched(history.in_force().unwrap().id);
    assert_eq!(deploy(&mut history, Wish::Abort), Err(ProposeError::NothingToAbort), "it is everywhere");

    let second = deploy(&mut history, rollout(B)).unwrap();
    deploy(&mut history, Wish::Halt { hand_back: false }).unwrap();
    let back = deploy(&mut history, Wish::Abort).unwrap();
    assert_eq!((back.kind, back.release), (Kind::Rollback { of: second.id }, A));
    assert_eq!(deploy(&mut history, Wish::Abort), Err(ProposeError::NothingToAbort), "it goes back already");
    assert_eq!(deploy(&mut history, rollout(B)), Err(ProposeError::Marked { release: B }));
    let again = Wish::Rollout { release: B, policy: Policy::safe(), again: true };
    deploy(&mut history, again).unwrap();
}

#[test]
fn under_singleton_a_rollback_goes_only_to_what_was_deployed_so() {
    let alone = || Policy { limits: Limits { singleton: true, ..Limits::default() }, ..Policy::safe() };
    let mut history = history();
    switch(&mut history, Wish::Rollout { release: A, policy: alone(), again: false });
    switch(&mut history, rollout(B));
    let third = switch(&mut history, Wish::Rollout { release: C, policy: alone(), again: false });
    assert_eq!(third.fallback, Some(A), "B may run beside what it replaces");
    let refused = history.propose(proposal(&history, Wish::RollBack { to: Some(B) }), Epoch(0));
    assert_eq!(refused, Err(ProposeError::NeverSwitched { release: B, choices: vec![A] }));
    assert_eq!(deploy(&mut history, Wish::RollBack { to: None }).unwrap().release, A);
}
