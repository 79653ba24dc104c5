//! What every state store must do, as tests that each implementation runs.

mod members;
mod sample;

use std::error::Error;
use std::thread;
use std::time::Duration;

use baton_core::event::What;
use baton_core::history::{Lock, ProposeError, Tag, TagName, Wish};
use baton_core::ids::{DeployId, Epoch};

use super::{EVENTS_MAX, Kind, Milestone, StateError, StateStore};
use sample::{NOW, deploy, event, halt, id, release, rollout, service, wish};

/// Why a store does not conform, where it is not an assertion that says so.
pub type Failure = Box<dyn Error>;

/// How many callers there are at once: more than slots and CPUs.
const CALLERS: usize = 8;

/// Checks an implementation; `make` makes a store that is empty and was opened at the moment 0.
pub fn run<S: StateStore>(make: impl Fn() -> S) -> Result<(), Failure> {
    nothing_is_known_of_an_unknown_service(&make())?;
    p12_every_deploy_is_numbered_above_all_others(&make())?;
    p12_a_proposal_that_looked_at_an_old_state_is_refused(&make())?;
    p12_of_many_proposals_at_once_exactly_one_wins(&make())?;
    p32_a_proposal_made_again_is_the_same_deploy(&make())?;
    p32_a_proposal_made_by_many_at_once_is_one_deploy(&make())?;
    the_first_time_of_a_milestone_counts(&make())?;
    a_lock_refuses_deploys_until_it_is_gone(&make())?;
    a_lock_is_one_of_the_flavors_as_well(&make())?;
    a_tag_is_kept_until_it_is_taken_away(&make())?;
    events_are_numbered_and_read_from_a_number(&make())?;
    the_oldest_events_make_room(&make())?;
    whoever_waits_for_a_change_sees_it(&make())?;
    p37_who_may_do_what_is_changed_by_who_has_seen_it(&make())?;
    p37_of_many_that_change_who_may_do_what_one_wins(&make())?;
    members::run(make)
}

fn nothing_is_known_of_an_unknown_service(store: &dyn StateStore) -> Result<(), Failure> {
    store.ready()?;
    let service = store.service(&service("web")?, NOW)?;
    assert_eq!(service.history().past(), []);
    assert_eq!(service.fleet().members().count(), 0);
    assert_eq!(store.services()?, [], "asking does not make it known");
    assert_eq!(store.events(None, 0, usize::MAX)?, []);
    Ok(())
}

fn p12_every_deploy_is_numbered_above_all_others(store: &dyn StateStore) -> Result<(), Failure> {
    let (web, api) = (service("web")?, service("api")?);
    assert_eq!(deploy(store, &web, 1)?.epoch, Epoch(1));
    assert_eq!(deploy(store, &web, 2)?.epoch, Epoch(2));
    assert_eq!(deploy(store, &api, 3)?.epoch, Epoch(1), "each service counts for itself");
    members::hear_of_epoch(store, &web, Epoch(41))?;
    assert_eq!(deploy(store, &web, 4)?.epoch, Epoch(42), "above what a member has reported");
    let known = store.service(&web, NOW)?;
    let log: Vec<_> = known.history().past().iter().map(|past| past.deploy.epoch.0).collect();
    assert_eq!(log, [1, 2, 42]);
    assert_eq!(known.fleet().in_force().map(|in_force| in_force.deploy.id), Some(id(4)));
    assert_eq!(store.services()?, [api, web]);
    Ok(())
}

fn p12_a_proposal_that_looked_at_an_old_state_is_refused(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    let first = deploy(store, &web, 1)?;
    let second = deploy(store, &web, 2)?;
    for parent in [None, Some(first.id), Some(id(9))] {
        let refused = store.propose(&web, rollout(3, parent), NOW).err();
        assert_eq!(refused.as_ref().map(StateError::kind), Some(Kind::Conflict));
        assert_eq!(in_force(refused.as_ref()), Some(second.id), "the error names the deploy in force");
    }
    assert_eq!(store.service(&web, NOW)?.history().in_force(), Some(&second));
    Ok(())
}

fn in_force(refused: Option<&StateError>) -> Option<DeployId> {
    match refused {
        Some(StateError::Refused { source: ProposeError::Conflict { in_force }, .. }) => *in_force,
        _ => None,
    }
}

fn p12_of_many_proposals_at_once_exactly_one_wins(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    let mut parent = None;
    for round in 1..=10 {
        let propose = |caller: usize| {
            let number = (round * CALLERS + caller) as u8;
            store.propose(&web, rollout(number, parent), NOW)
        };
        let results = all_at_once(propose);
        let lost = |result: &Result<_, StateError>| {
            result.as_ref().is_err_and(|error| error.kind() == Kind::Conflict)
        };
        assert_eq!(results.iter().filter(|result| lost(result)).count(), CALLERS - 1);
        let won: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
        let [accepted] = &won[..] else { return Err(format!("{} proposals have won", won.len()).into()) };
        assert_eq!(accepted.deploy.epoch, Epoch(round as u64));
        parent = Some(accepted.deploy.id);
    }
    assert_eq!(store.service(&web, NOW)?.history().past().len(), 10);
    Ok(())
}

fn p32_a_proposal_made_again_is_the_same_deploy(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    let first = store.propose(&web, rollout(1, None), NOW)?;
    assert!(!first.again);
    let again = store.propose(&web, rollout(1, None), NOW)?;
    assert!(again.again && again.deploy == first.deploy);
    deploy(store, &web, 2)?;
    let late = store.propose(&web, rollout(1, None), NOW)?;
    assert!(late.again && late.deploy == first.deploy, "also once another deploy is in force");
    assert_eq!(store.service(&web, NOW)?.history().past().len(), 2);

    let other =
        wish(2, Some(id(1)), Wish::Rollout { release: release(3), policy: sample::policy(), again: true });
    for other in [other, halt(1, None)] {
        let refused = store.propose(&web, other, NOW);
        assert!(
            matches!(refused, Err(StateError::IdTaken { .. })),
            "another wish under a used id: {refused:?}"
        );
    }
    Ok(())
}

fn p32_a_proposal_made_by_many_at_once_is_one_deploy(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    let results = all_at_once(|_| store.propose(&web, rollout(1, None), NOW));
    let accepted = results.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert!(accepted.iter().all(|answer| answer.deploy == accepted[0].deploy));
    assert_eq!(accepted.iter().filter(|accepted| !accepted.again).count(), 1);
    assert_eq!(store.service(&web, NOW)?.history().past().len(), 1);
    Ok(())
}

fn the_first_time_of_a_milestone_counts(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    let missing = store.reach(&web, id(1), Milestone::Switched, 10);
    assert_eq!(missing.err().map(|error| error.kind()), Some(Kind::Missing));
    let first = deploy(store, &web, 1)?.id;
    store.reach(&web, first, Milestone::Incomplete, 10)?;
    store.reach(&web, first, Milestone::Switched, 20)?;
    store.reach(&web, first, Milestone::Switched, 30)?;
    let known = store.service(&web, NOW)?;
    let reached = known.milestones(first);
    assert_eq!((reached.incomplete, reached.switched, reached.drained), (Some(10), Some(20), None));
    assert_eq!(known.history().release_for_new_member(), Some(release(1)));
    assert!(known.fleet().in_force().is_some_and(|in_force| in_force.switched));

    let second = deploy(store, &web, 2)?;
    assert_eq!(second.fallback, Some(release(1)));
    store.reach(&web, first, Milestone::Switched, 40)?;
    let late = store.reach(&web, first, Milestone::Drained, 40);
    assert_eq!(late.err().map(|error| error.kind()), Some(Kind::Conflict), "it is not in force any more");
    assert_eq!(store.service(&web, NOW)?.milestones(first), reached);
    Ok(())
}

fn a_lock_refuses_deploys_until_it_is_gone(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    let first = deploy(store, &web, 1)?;
    let lock = Lock { reason: "freeze".to_owned(), actor: "kim".to_owned(), since: 7 };
    store.set_lock(&web, Some(lock.clone()))?;
    store.set_lock(&web, Some(lock.clone()))?;
    assert_eq!(store.service(&web, NOW)?.history().lock(), Some(&lock));
    let other = Lock { actor: "ada".to_owned(), ..lock };
    for refused in
        [store.set_lock(&web, Some(other)), store.propose(&web, rollout(2, Some(first.id)), NOW).map(drop)]
    {
        let locked = |error: &StateError| {
            matches!(error, StateError::Refused { source: ProposeError::Locked { .. }, .. })
        };
        assert!(refused.as_ref().is_err_and(locked), "{refused:?}");
    }
    let again = store.propose(&web, rollout(1, None), NOW)?;
    assert!(again.again, "what was accepted before it was locked stays accepted");
    store.set_lock(&web, None)?;
    assert!(store.set_lock(&web, None).is_err());
    assert_eq!(store.service(&web, NOW)?.history().lock(), None);
    deploy(store, &web, 2)?;
    Ok(())
}

fn a_tag_is_kept_until_it_is_taken_away(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    let [production, old]: [TagName; 2] = ["production".parse()?, "v1".parse()?];
    let tag = |number| Tag { release: release(number), actor: "kim".to_owned(), since: 7 };
    let tagged = |name: &str| store.service(&web, NOW).map(|known| known.history().tagged(name));
    store.set_tag(&web, &production, Some(tag(1)))?;
    assert_eq!(store.services()?, std::slice::from_ref(&web), "what nobody has deployed can have a name");
    store.set_tag(&web, &old, Some(tag(1)))?;
    deploy(store, &web, 2)?;
    store.set_tag(&web, &production, Some(tag(2)))?;
    assert_eq!([tagged("production")?, tagged("v1")?], [Some(release(2)), Some(release(1))]);
    store.set_tag(&web, &old, None)?;
    assert!(store.set_tag(&web, &old, None).is_err());
    assert_eq!([tagged("production")?, tagged("v1")?], [Some(release(2)), None]);
    Ok(())
}

fn a_lock_is_one_of_the_flavors_as_well(store: &dyn StateStore) -> Result<(), Failure> {
    let (web, beat) = (service("web")?, service("web.beat")?);
    let (webs, first) = (service("webs")?, deploy(store, &beat, 1)?);
    deploy(store, &web, 2)?;
    let lock = Lock { reason: "freeze".to_owned(), actor: "kim".to_owned(), since: 7 };
    store.set_lock(&web, Some(lock))?;
    for flavor in [&beat, &service("web.new")?, &service("web.beat.a")?] {
        let parent = store.service(flavor, NOW)?.history().in_force().map(|deploy| deploy.id);
        match store.propose(flavor, rollout(3, parent), NOW) {
            Err(StateError::Refused { source: ProposeError::Locked { service, .. }, .. }) => {
                assert_eq!(service, web, "the error names what is locked");
            }
            other => return Err(format!("{flavor}: {other:?}").into()),
        }
    }
    assert!(store.propose(&beat, rollout(1, None), NOW)?.again, "what was accepted before stays accepted");
    store.propose(&beat, halt(4, Some(first.id)), NOW)?;
    deploy(store, &webs, 1)?;
    store.set_lock(&web, None)?;
    deploy(store, &beat, 5)?;
    Ok(())
}

fn events_are_numbered_and_read_from_a_number(store: &dyn StateStore) -> Result<(), Failure> {
    let (web, api) = (service("web")?, service("api")?);
    store.append(vec![event(&web, What::Deployed), event(&api, What::Deployed)])?;
    store.append(Vec::new())?;
    store.append(vec![event(&web, What::Switched)])?;
    let numbers = |service, from, max| -> Result<Vec<u64>, StateError> {
        Ok(store.events(service, from, max)?.iter().map(|event| event.number).collect())
    };
    assert_eq!(numbers(None, 0, 10)?, [1, 2, 3]);
    assert_eq!(numbers(None, 2, 10)?, [2, 3]);
    assert_eq!(numbers(None, 0, 2)?, [1, 2]);
    assert_eq!(numbers(Some(&web), 0, 10)?, [1, 3]);
    assert_eq!(numbers(Some(&web), 2, 1)?, [3]);
    assert!(numbers(None, 4, 10)?.is_empty());
    assert_eq!(store.events(None, 3, 1)?[0].event, event(&web, What::Switched));
    Ok(())
}

fn the_oldest_events_make_room(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    store.append(vec![event(&web, What::Deployed)])?;
    store.append(vec![event(&web, What::Granted); EVENTS_MAX - 1])?;
    assert_eq!(store.events(None, 0, 1)?[0].number, 1);
    store.append(vec![event(&web, What::Switched); 2])?;
    let kept = store.events(None, 0, usize::MAX)?;
    assert_eq!(kept.len(), EVENTS_MAX);
    assert_eq!((kept[0].number, kept[EVENTS_MAX - 1].number), (3, EVENTS_MAX as u64 + 2));
    Ok(())
}

fn whoever_waits_for_a_change_sees_it(store: &dyn StateStore) -> Result<(), Failure> {
    /// Only a store that forgets to wake its waiters takes this long.
    const LIMIT: Duration = Duration::from_secs(60);
    let web = service("web")?;
    let before = store.changed(0, LIMIT)?;
    assert_eq!(store.changed(before, Duration::ZERO)?, before);
    let changed = thread::scope(|scope| {
        let waiter = scope.spawn(|| store.changed(before, LIMIT));
        deploy(store, &web, 1).map(|_| waiter.join())
    })?;
    let changed = changed.map_err(|_| "the waiter panicked")??;
    assert!(changed > before);
    store.append(vec![event(&web, What::Deployed)])?;
    assert!(store.changed(changed, LIMIT)? > changed);
    Ok(())
}

fn p37_who_may_do_what_is_changed_by_who_has_seen_it(store: &dyn StateStore) -> Result<(), Failure> {
    assert_eq!(store.access()?, None);
    assert!(!store.set_access(Some(b"first"), b"second")?, "nobody has written that");
    let before = store.changed(0, Duration::ZERO)?;
    // Any bytes, also those that are no text.
    let first = [0, 255, b'\n', 13];
    assert!(store.set_access(None, &first)?);
    assert!(store.changed(before, Duration::ZERO)? > before, "whoever waits for a change sees it");
    assert_eq!(store.access()?.as_deref(), Some(&first[..]));
    assert!(!store.set_access(None, b"second")?, "it is there by now");
    assert!(store.set_access(Some(&first), b"second")?);
    assert!(!store.set_access(Some(&first), b"second")?, "a second call is too late");
    assert_eq!(store.access()?.as_deref(), Some(&b"second"[..]));
    // It is a list of its own: what is written for a service leaves it as it is.
    deploy(store, &service("web")?, 1)?;
    assert_eq!(store.access()?.as_deref(), Some(&b"second"[..]));
    Ok(())
}

fn p37_of_many_that_change_who_may_do_what_one_wins(store: &dyn StateStore) -> Result<(), Failure> {
    let mut seen: Option<Vec<u8>> = None;
    for round in 0..10 {
        let change = |caller: usize| {
            let next = format!("{round} by {caller}").into_bytes();
            store.set_access(seen.as_deref(), &next).map(|won| won.then_some(next))
        };
        let won: Vec<_> =
            all_at_once(change).into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(store.access()?.as_ref(), won.first());
        seen = won.into_iter().next();
    }
    Ok(())
}

/// What [`CALLERS`] threads get that act at the same time.
fn all_at_once<T: Send>(act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = std::sync::Barrier::new(CALLERS);
    let caller = |number| {
        start.wait();
        act(number)
    };
    let (caller, mut results) = (&caller, Vec::new());
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|number| scope.spawn(move || caller(number))).collect();
        results.extend(callers.into_iter().filter_map(|caller| caller.join().ok()));
    });
    assert_eq!(results.len(), CALLERS, "no caller panics");
    results
}
