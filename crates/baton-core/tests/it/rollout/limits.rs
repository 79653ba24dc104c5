//! Limits that are numbers, and members that are chosen.

use baton_core::deploy::{InvalidPolicy, Kind, MOST_UNHEALTHY, Phase, PhaseSize, Policy};
use baton_core::fleet::LEASE;
use baton_core::ids::DeployId;
use baton_core::limits::{Connections, Limit, Limits};
use baton_core::report::Standing;
use baton_core::rollout::Inadmissible;
use baton_core::target::{Amount, Target};
use baton_core::turn::{Turn, Why};
use baton_core::units::{Millis, Share};
use baton_core::verdict::{Rule, Verdict};

use super::{OLD, Scene, deploy, id, refused};

fn limited(limits: Limits) -> Policy {
    Policy { limits, ..Policy::fast() }
}

fn never_more_than(most: u32) -> Policy {
    limited(Limits { never_more_than: Some(most), ..Limits::default() })
}

#[test]
fn never_more_than_counts_candidates_and_old_generations_until_they_have_drained() {
    let mut scene = Scene::of(20, never_more_than(23));
    let first = scene.grant();
    assert_eq!((first.len(), scene.rollout().slots()), (3, 3), "20 run, and 3 more may");
    assert_eq!(scene.grant(), []);
    let why = Why::Limited(Limit::NeverMoreThan { most: 23, run: 23 });
    let waits = |scene: &Scene, index| scene.rollout().turn(&id(index));
    let other = (0..20).find(|index| !first.contains(index)).unwrap();
    assert!(matches!(waits(&scene, other), Turn::Wait(Why::SlotsTaken { .. })), "{:?}", waits(&scene, other));

    // Proven, and the old generations still finish what they have: beside the candidates of the others, and alone.
    for &index in &first {
        assert_eq!(scene.grant(), []);
        scene.says(index, |report| {
            *report = super::report(index, report.stamp.sequence, &deploy(Policy::fast()), Standing::Proven);
            report.drained = false;
        });
    }
    assert_eq!(scene.grant(), []);
    assert_eq!(waits(&scene, other), Turn::Wait(why));
    scene.stands(first[0], Standing::Proven);
    assert_eq!(scene.grant().len(), 1, "one has drained");
}

#[test]
fn a_limit_that_leaves_no_room_is_told_with_its_numbers() {
    let mut scene = Scene::of(10, never_more_than(10));
    assert_eq!(scene.grant(), []);
    let turn = scene.rollout().turn(&id(0));
    assert_eq!(turn, Turn::Wait(Why::Limited(Limit::NeverMoreThan { most: 10, run: 10 })));
    let Turn::Wait(why) = turn else { panic!() };
    assert_eq!(
        (why.code(), why.to_string().as_str()),
        ("limited", "10 generations run or drain, and never_more_than is 10")
    );
    assert_eq!(scene.verdict(), Verdict::Continue);
}

#[test]
fn a_budget_of_connections_is_shared_by_all_generations() {
    let connections = Some(Connections { budget: 239, each: 20 });
    let mut scene = Scene::of(10, limited(Limits { connections, ..Limits::default() }));
    assert_eq!(scene.grant().len(), 1, "11 generations of 20 connections each");
    assert_eq!(scene.grant(), []);
}

#[test]
fn min_available_counts_who_serves_healthy_and_is_not_on_trial() {
    let mut scene = Scene::of(20, limited(Limits { min_available: Some(17), ..Limits::default() }));
    scene.says(0, |report| (report.healthy, report.standing) = (false, Standing::Behind));
    let first = scene.grant();
    assert_eq!(first.len(), 2, "19 serve");
    assert_eq!(scene.grant(), []);
    scene.stands(first[0], Standing::Proven);
    assert_eq!(scene.grant().len(), 1);
}

#[test]
fn p9_a_rollback_does_not_wait_for_members_that_serve() {
    let limits = Limits { min_available: Some(4), ..Limits::default() };
    let kind = Kind::Rollback { of: DeployId::from_bytes([1; 16]) };
    let mut scene = Scene::with(4, baton_core::deploy::Deploy { kind, ..deploy(limited(limits)) });
    (0..4).for_each(|index| scene.says(index, |report| report.healthy = false));
    assert_eq!(scene.grant().len(), 1);
}

#[test]
fn a_singleton_goes_one_member_at_a_time_and_runs_nothing_beside() {
    let limits = Limits { singleton: true, never_more_than: Some(20), ..Limits::default() };
    let mut scene = Scene::of(20, limited(limits));
    for _ in 0..20 {
        let [one] = scene.grant()[..] else { panic!() };
        assert_eq!(scene.grant(), []);
        scene.stands(one, Standing::Proven);
    }
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

#[test]
fn p8_failures_fill_a_window_that_a_limit_makes_small() {
    let mut scene = Scene::of(40, never_more_than(42));
    let first = scene.grant();
    assert_eq!(first.len(), 2);
    scene.stands(first[0], Standing::Proven);
    scene.stands(first[1], refused());
    let [next] = scene.grant()[..] else { panic!() };
    scene.stands(next, refused());
    let Verdict::RollBack(reason) = scene.verdict() else { panic!("{:?}", scene.verdict()) };
    assert_eq!(reason.rule, Rule::WindowFailed { slots: 2 });
}

#[test]
fn p16_a_store_gives_no_slot_that_a_limit_forbids() {
    let scene = Scene::of(20, never_more_than(21));
    let epoch = scene.deploy.epoch;
    let refused = scene.rollout().admissible(epoch, &[id(0), id(1)]);
    assert_eq!(refused, Err(Inadmissible::TooMany { asked: 2, room: 1 }));
    assert_eq!(scene.rollout().admissible(epoch, &[id(0)]), Ok(()));
}

#[test]
fn p10_a_member_that_is_not_heard_keeps_its_generations() {
    let mut scene = Scene::of(20, never_more_than(22));
    let first = scene.grant();
    scene.now = scene.now + LEASE;
    (0..20).filter(|index| *index != first[0]).for_each(|index| {
        let standing = if index == first[1] { Standing::Proven } else { Standing::Staged };
        scene.stands(index, standing);
    });
    assert_eq!(scene.grant().len(), 1, "the silent one may be running two");
    assert_eq!(scene.grant(), []);
}

/// A fleet of which every fifth member is a canary.
fn with_canaries(members: usize, amount: Amount) -> Scene {
    let target = Target { amount, label: "canary".parse().ok() };
    let mut scene = Scene::of(members, Policy { target, ..Policy::fast() });
    for index in (0..members).step_by(5) {
        scene.says(index, |report| report.labels = vec!["canary".parse().unwrap()]);
    }
    scene
}

fn canaries_prove(scene: &mut Scene) -> Vec<usize> {
    let mut tried = Vec::new();
    loop {
        let granted = scene.grant();
        for &index in &granted {
            let sequence = scene.sequence + 1;
            let proven = super::report(index, sequence, &scene.deploy.clone(), Standing::Proven);
            scene.says(index, |report| {
                *report = proven;
                report.labels = vec!["canary".parse().unwrap()];
            });
        }
        if granted.is_empty() {
            return tried;
        }
        tried.extend(granted);
    }
}

#[test]
fn a_label_chooses_members_and_the_shares_are_of_them() {
    let mut scene = with_canaries(40, Amount::Share(Share::from_percent(50)));
    assert_eq!(scene.rollout().slots(), 2, "a quarter of 8 canaries");
    let asked = |index| scene.rollout().admissible(scene.deploy.epoch, &[id(index)]);
    assert_eq!((asked(5), asked(1)), (Ok(()), Err(Inadmissible::Member { member: id(1) })));
    let tried = canaries_prove(&mut scene);
    assert_eq!(tried.len(), 4, "half of 8");
    assert!(tried.iter().all(|index| index % 5 == 0), "{tried:?}");
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
    let turn = scene.rollout().turn(&id(1));
    assert_eq!(turn, Turn::Wait(Why::NotMeant { label: "canary".parse().unwrap() }));
}

#[test]
fn a_number_of_members_is_all_where_there_are_fewer() {
    let mut scene = Scene::of(
        40,
        Policy { target: Target { amount: Amount::Members(3), label: None }, ..Policy::fast() },
    );
    assert_eq!(scene.run().concat().len(), 3);
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
    let mut scene = with_canaries(40, Amount::Members(30));
    assert_eq!(canaries_prove(&mut scene).len(), 8);
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

#[test]
fn a_label_that_nobody_has_chooses_nobody() {
    let target = Target { label: "canary".parse().ok(), ..Target::ALL };
    let mut scene = Scene::of(10, Policy { target, ..Policy::fast() });
    assert_eq!(scene.grant(), []);
    assert_eq!(scene.verdict(), Verdict::Continue, "nothing is done by doing nothing");
    let epoch = scene.deploy.epoch;
    let asked = scene.rollout().admissible(epoch, &[id(0)]);
    assert!(asked.is_err(), "{asked:?}");
}

#[test]
fn who_runs_the_release_without_the_label_does_not_count() {
    let mut scene = with_canaries(20, Amount::Share(Share::ALL));
    for index in [1, 2, 3, 4] {
        scene.stands(index, Standing::Proven);
    }
    assert_eq!(scene.rollout().wanted(), 4);
    assert_eq!(scene.verdict(), Verdict::Continue);
    assert_eq!(canaries_prove(&mut scene).len(), 4);
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

#[test]
fn who_is_not_meant_and_cannot_stage_is_not_left_over() {
    let mut scene = with_canaries(20, Amount::Share(Share::ALL));
    scene.stands(1, refused());
    canaries_prove(&mut scene);
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
    assert_eq!(scene.rollout().refused().count(), 0);
    assert_ne!(scene.deploy.release, OLD);
}

#[test]
fn p11_the_whole_fleet_tries_at_once_only_where_that_is_said_on_its_own() {
    for ppm in [500_001, 999_999, 1_000_000] {
        let share = Share::from_ppm(ppm).unwrap();
        let by_mistake = Policy { max_unhealthy: share, ..Policy::fast() };
        assert_eq!(by_mistake.check(), Err(InvalidPolicy::AllAtOnce(share)));
    }
    let policy = Policy::safe().at_once();
    assert_eq!(policy.check(), Ok(()));
    let mut scene = Scene::of(40, policy);
    assert_eq!(scene.grant().len(), 40);
    let everybody = vec![Phase { size: PhaseSize::Share(Share::ALL), bake: Millis::ZERO }];
    let most = Policy { max_unhealthy: MOST_UNHEALTHY, phases: everybody, ..Policy::fast() };
    assert_eq!(most.check(), Ok(()));
    let rounds = Scene::of(40, most).run();
    assert!(rounds.iter().all(|round| round.len() <= 20), "{rounds:?}");
}
