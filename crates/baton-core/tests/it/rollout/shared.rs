//! What a server takes over that another one has written to the store they share.

use baton_core::deploy::Policy;
use baton_core::fleet::{Fleet, GONE_AFTER, InForce, LEASE, Presence, Tie};
use baton_core::ids::{DeployId, Epoch};
use baton_core::report::{Report, Standing};
use baton_core::turn::Why;
use baton_core::units::Millis;
use baton_core::verdict::Verdict;

use super::{NEW, NOW, Scene, id, report};

/// The fleet of a scene as a store has it: who has slots, and what is in force; nothing of what members say.
fn stored(scene: &Scene) -> Fleet {
    let members = scene.fleet.members().map(|(id, member)| match member.tie() {
        Tie::Found | Tie::Nothing => (id.clone(), Tie::Nothing),
        tie => (id.clone(), tie),
    });
    Fleet::restore(members, scene.fleet.in_force().cloned(), Epoch(2), scene.now)
}

#[test]
fn p10_what_members_have_said_here_counts_for_slots_that_another_server_gave() {
    let mut scene = Scene::of(5, Policy::fast());
    let before = stored(&scene);
    let granted = scene.grant();
    let theirs = stored(&scene);
    // This server has seen no slot, and then sees the other's; its members go on meanwhile.
    let mut here = Scene::of(5, Policy::fast());
    here.fleet.adopt(&theirs, None, NOW);
    for &index in &granted {
        assert!(matches!(here.fleet.member(&id(index)).unwrap().tie(), Tie::Slot(grant) if !grant.proven));
        here.sequence = 1000;
        here.stands(index, Standing::Proven);
    }
    here.fleet.adopt(&theirs, None, NOW);
    for &index in &granted {
        let tie = here.fleet.member(&id(index)).unwrap().tie();
        assert!(matches!(tie, Tie::Slot(grant) if grant.proven), "the store lags behind: {tie:?}");
    }
    assert_eq!(here.rollout().counts().proven as usize, granted.len());
    // A store that has lost the slots does not make the members run something else.
    here.fleet.adopt(&before, None, NOW);
    assert_eq!(here.rollout().counts().proven as usize, granted.len());
    assert_eq!(here.fleet.grants().count(), 0);
}

#[test]
fn p10_a_proof_that_another_server_has_heard_of_before_is_no_relapse_here() {
    let mut there = Scene::of(20, Policy::fast());
    let granted = there.grant();
    let mut here = Scene::of(20, Policy::fast());
    here.fleet.adopt(&stored(&there), None, NOW);
    for &index in &granted {
        here.stands(index, Standing::Proving);
        there.stands(index, Standing::Proven);
    }
    // The proofs come with the store before what the members have said there.
    here.fleet.adopt(&stored(&there), None, NOW);
    let rollout = here.rollout();
    let counts = rollout.counts();
    assert_eq!((counts.failed, counts.proven, counts.open as usize), (0, 0, granted.len()));
    assert_eq!(here.verdict(), Verdict::Continue);
    // Who has committed to it and does not run it has relapsed, whoever heard of the proof.
    here.sequence = 1000;
    for &index in &granted {
        here.says(index, |report| {
            (report.standing, report.healthy) = (Standing::Proven, false);
            report.committed = Some((NEW, Epoch(2)));
        });
    }
    assert_eq!(here.rollout().counts().failed as usize, granted.len());
}

#[test]
fn a_proof_that_was_heard_here_stays_with_its_slot_whoever_writes_that_slot_anew() {
    let mut scene = Scene::of(5, Policy::fast());
    let granted = scene.grant();
    let theirs = stored(&scene);
    scene.stands(granted[0], Standing::Proven);
    let proven = report(granted[0], 0, &scene.deploy, Standing::Proven);
    scene.says(granted[0], |said| *said = Report { stamp: said.stamp, healthy: false, ..proven });
    assert_eq!(scene.rollout().counts().failed, 1, "it has lost its health since");
    scene.fleet.adopt(&theirs, None, NOW);
    let tie = scene.fleet.member(&id(granted[0])).unwrap().tie();
    assert!(matches!(tie, Tie::Slot(grant) if grant.proven), "the store has not heard of the proof: {tie:?}");
}

#[test]
fn what_another_server_has_found_is_found_here_by_what_its_member_says_here() {
    let mut there = Scene::of(5, Policy::fast());
    // The sixth has come there, and nothing was heard of it here.
    [0, 5].into_iter().for_each(|index| there.stands(index, Standing::Proven));
    let mut here = Scene::of(5, Policy::fast());
    let tie = |here: &Scene, index| here.fleet.member(&id(index)).unwrap().tie();
    here.fleet.adopt(&there.fleet, None, NOW);
    assert_eq!([0, 5].map(|index| tie(&here, index)), [Tie::Nothing; 2]);
    here.stands(5, Standing::Proven);
    here.fleet.adopt(&there.fleet, None, NOW);
    assert_eq!([0, 5].map(|index| tie(&here, index)), [Tie::Nothing, Tie::Found]);
}

#[test]
fn p12_another_deploy_ends_the_slots_and_members_come_and_go_with_the_store() {
    let mut scene = Scene::of(4, Policy::fast());
    scene.grant();
    let next = baton_core::deploy::Deploy {
        id: DeployId::from_bytes([3; 16]),
        epoch: Epoch(3),
        parent: Some(scene.deploy.id),
        ..scene.deploy.clone()
    };
    let in_force = InForce { deploy: next.clone(), members_at_start: 4, switched: false };
    let known = (0..3).chain([7]).map(|index| (id(index), Tie::Nothing));
    let theirs = Fleet::restore(known, Some(in_force), Epoch(9), NOW);
    scene.fleet.adopt(&theirs, None, NOW);
    assert_eq!(scene.fleet.in_force().unwrap().deploy, next);
    assert_eq!(scene.fleet.grants().count(), 0);
    assert_eq!(scene.fleet.highest_epoch(), Epoch(9), "somebody has seen more");
    assert!(scene.fleet.member(&id(3)).is_some(), "who is live here has only just come");
    assert!(scene.fleet.member(&id(7)).unwrap().report().is_none(), "who came elsewhere is known");
    scene.fleet.adopt(&theirs, None, NOW + LEASE);
    assert!(scene.fleet.member(&id(3)).is_none(), "who is silent here was let go elsewhere");
}

#[test]
fn who_has_left_here_does_not_come_back_with_what_another_server_wrote_before_it_knew() {
    let mut scene = Scene::of(4, Policy::fast());
    let before = stored(&scene);
    scene.grant();
    let theirs = stored(&scene);
    let mut here = Scene::of(4, Policy::fast());
    here.fleet.leave(&id(3), here.now);
    here.fleet.adopt(&theirs, Some(&before), NOW);
    assert!(here.fleet.member(&id(3)).is_none(), "it said goodbye to this server");
    assert_eq!(here.fleet.grants().count(), scene.fleet.grants().count());
    here.fleet.adopt(&theirs, None, NOW);
    assert!(here.fleet.member(&id(3)).is_some(), "who was in no state before has come elsewhere");
}

#[test]
fn who_is_gone_by_what_another_server_wrote_is_gone_here_unless_it_is_heard() {
    let mut here = Scene::of(5, Policy::fast());
    here.grant();
    let theirs = stored(&here).without([id(0), id(1)]);
    here.now = NOW + LEASE;
    (1..5).for_each(|index| here.stands(index, Standing::Staged));
    here.fleet.adopt(&theirs, None, here.now);
    let presence = |index: usize| here.fleet.member(&id(index)).unwrap().presence(here.now);
    assert_eq!([0, 1, 2].map(presence), [Presence::Gone, Presence::Live, Presence::Live]);
}

#[test]
fn p10_f50_nobody_is_blamed_for_a_silence_in_which_nobody_could_be_heard() {
    let mut scene = Scene::of(20, Policy::fast());
    let granted = scene.grant();
    let gone = |scene: &Scene, now| {
        let gone = |(_, member): &(_, &baton_core::fleet::Member)| member.presence(now) == Presence::Gone;
        scene.fleet.members().filter(gone).count()
    };
    // Most of the others are heard, so it is no mass silence.
    let late = NOW + GONE_AFTER;
    scene.now = late;
    (0..20).filter(|index| !granted.contains(index)).for_each(|index| scene.stands(index, Standing::Staged));
    let mut blamed = scene.fleet.clone();
    blamed.sweep(late);
    assert!(
        blamed.members().any(|(_, member)| member.presence(late) == Presence::Gone),
        "as a rule they are gone"
    );

    assert_eq!(scene.rollout().counts().overdue as usize, granted.len());
    scene.fleet.excuse(late);
    assert_eq!(scene.rollout().counts().overdue, 0);
    scene.fleet.sweep(late);
    assert_eq!(gone(&scene, late), 0);
    assert!(matches!(scene.verdict(), Verdict::Continue));
}

#[test]
fn a_lease_that_another_server_renews_is_renewed_here_and_never_shortened() {
    let mut scene = Scene::of(2, Policy::fast());
    let later = NOW + LEASE;
    scene.fleet.renew(&id(0), NOW + Millis(5000));
    scene.fleet.renew(&id(0), NOW);
    let presence = |index: usize| scene.fleet.member(&id(index)).unwrap().presence(later);
    assert_eq!((presence(0), presence(1)), (Presence::Live, Presence::Silent { since: NOW }));
    scene.fleet.renew(&id(9), later);
    assert!(scene.fleet.member(&id(9)).is_none(), "of whom nothing is known");
}

#[test]
fn p10_what_was_heard_elsewhere_long_ago_makes_nobody_gone_at_a_server_that_has_just_started() {
    let mut scene = Scene::of(5, Policy::fast());
    scene.grant();
    let start = NOW + Millis::from_secs(3600);
    let members = (0..5).map(|index| (id(index), scene.fleet.member(&id(index)).unwrap().tie()));
    let mut fleet = Fleet::restore(members, scene.fleet.in_force().cloned(), Epoch(2), start);
    // A server that has ended had heard them all, two of them an hour ago.
    for index in 0..5 {
        let report = scene.fleet.member(&id(index)).unwrap().report().unwrap().clone();
        let _ = fleet.apply(report, if index < 2 { NOW } else { start });
    }
    assert!(fleet.sweep(start).is_empty());
    assert_eq!(fleet.member(&id(0)).unwrap().presence(start), Presence::Live);
    assert_eq!(fleet.sweep(start + GONE_AFTER).len(), 0, "all of them are silent by now");
}

#[test]
fn p10_a_server_that_doubts_its_store_gives_nothing_for_a_lease() {
    let mut scene = Scene::of(5, Policy::fast());
    scene.fleet.listen_anew(NOW);
    assert_eq!(scene.grant(), [0; 0]);
    let why = scene.rollout().stop().unwrap();
    assert_eq!(why, Why::Listening { unheard: 0, anew: true });
    let says = "the state store was away or has lost something: members are listened to for 10 s before any gets a slot";
    assert_eq!(why.to_string(), says);
    scene.now = NOW + LEASE;
    (0..5).for_each(|index| scene.stands(index, Standing::Staged));
    assert!(!scene.grant().is_empty());
}
