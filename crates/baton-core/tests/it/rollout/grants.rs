//! Who gets a slot, and when.

use baton_core::bake::Bake;
use baton_core::decision::Order;
use baton_core::deploy::{Deploy, Kind, Phase, PhaseSize, Policy};
use baton_core::fleet::{Fleet, GONE_AFTER, Heard, LEASE, Presence, Tie};
use baton_core::ids::{DeployId, Epoch};
use baton_core::laggards::laggards;
use baton_core::report::{Fetching, Report, Stamp, Standing};
use baton_core::rollout::{Inadmissible, order, slots};
use baton_core::turn::{Turn, Why};
use baton_core::units::{Bytes, Millis, Share};
use baton_core::verdict::Verdict;
use proptest::prelude::*;

use super::{Scene, deploy, id, refused, report};

fn percent(percent: u32) -> Share {
    Share::from_percent(percent)
}

#[test]
fn p15_there_is_always_a_slot_and_never_more_than_the_share() {
    for (share, max_unhealthy, members, expected) in [
        (25, 25, 0, 1),
        (25, 25, 1, 1),
        (25, 25, 3, 1),
        (25, 25, 7, 1),
        (25, 25, 8, 2),
        (5, 25, 4000, 200),
        (25, 10, 4000, 400),
        (100, 0, 4000, 1),
        (0, 25, 4000, 1),
    ] {
        let found = slots(PhaseSize::Share(percent(share)), percent(max_unhealthy), members);
        assert_eq!(found, expected, "{share} % and {max_unhealthy} % of {members}");
    }
    assert_eq!(slots(PhaseSize::One, percent(25), 4000), 1);
}

#[test]
fn p15_small_fleets_progress_one_slot_at_a_time() {
    for members in [1, 2, 3, 5, 8, 10] {
        let mut scene = Scene::of(members, Policy::safe());
        let rounds = scene.run();
        let most = rounds.iter().map(Vec::len).max();
        assert_eq!(most, Some((members / 4).max(1)), "{members} members: {rounds:?}");
        assert_eq!(rounds.concat().len(), members);
        assert_eq!(scene.verdict(), Verdict::Done { drained: true });
    }
}

#[test]
fn phases_open_as_members_are_settled_and_give_their_bake_along() {
    let mut scene = Scene::of(4000, Policy::safe());
    let mut seen = Vec::new();
    loop {
        let rollout = scene.rollout();
        seen.push((rollout.phase(), rollout.slots(), rollout.grant().bake.0));
        let granted = scene.grant();
        if granted.is_empty() {
            break;
        }
        granted.iter().for_each(|&index| scene.stands(index, Standing::Proven));
    }
    seen.dedup();
    assert_eq!(seen, [(0, 1, 10_000), (1, 200, 5_000), (2, 1000, 5_000)]);
}

#[test]
fn a_phase_does_not_end_before_its_slots_are_settled() {
    let mut scene = Scene::of(4000, Policy::safe());
    let [first] = scene.grant()[..] else { panic!() };
    for standing in [Standing::Granted, Standing::Trying, Standing::Proving] {
        scene.stands(first, standing);
        assert_eq!(scene.grant(), []);
    }
    scene.stands(first, Standing::Proven);
    let second = scene.grant();
    assert_eq!(second.len(), 200);
    second[1..].iter().for_each(|&index| scene.stands(index, Standing::Proven));
    assert_eq!(scene.rollout().phase(), 1, "one of the 200 is still trying");
    scene.stands(second[0], refused());
    assert_eq!(scene.rollout().phase(), 2);
}

#[test]
fn a_target_of_nothing_selects_nobody() {
    let mut scene = Scene::of(100, Policy { target: Share::NONE.into(), ..Policy::fast() });
    assert_eq!(scene.grant(), []);
    let none = Turn::Wait(Why::TargetReached { target: Share::NONE.into() });
    assert!((0..100).all(|index| scene.rollout().turn(&id(index)) == none));
}

#[test]
fn a_target_selects_its_share_rounded_up_and_no_more_when_members_fail_or_vanish() {
    let mut scene = Scene::of(101, Policy { target: percent(10).into(), ..Policy::fast() });
    let first = scene.grant();
    assert_eq!(first.len(), 11);
    scene.stands(first[0], refused());
    scene.vanishes(first[1]);
    first[2..].iter().for_each(|&index| scene.stands(index, Standing::Proven));
    assert_eq!(scene.grant(), [], "who failed is not made up for by others");
}

#[test]
fn who_is_gone_with_the_release_is_not_made_up_for_by_others_either() {
    let mut scene = Scene::of(100, Policy { target: percent(10).into(), ..Policy::fast() });
    let granted = scene.grant();
    granted.iter().for_each(|&index| scene.stands(index, Standing::Proven));
    scene.now = scene.now + GONE_AFTER;
    let heard = (0..100).filter(|index| *index != granted[0]);
    heard.for_each(|index| {
        let standing = if granted.contains(&index) { Standing::Proven } else { Standing::Staged };
        scene.stands(index, standing);
    });
    assert_eq!(scene.fleet.sweep(scene.now), [id(granted[0])]);
    assert_eq!(scene.grant(), []);
}

#[test]
fn the_order_is_salted_by_the_deploy_and_the_same_for_everybody() {
    let first = |deploy: u8| {
        let deploy = DeployId::from_bytes([deploy; 16]);
        (0..100).min_by_key(|&index| order(deploy, &id(index))).unwrap()
    };
    let firsts: std::collections::BTreeSet<_> = (0..20).map(first).collect();
    assert!(firsts.len() > 10, "{firsts:?}");
    let mut scene = Scene::of(100, Policy::safe());
    let expected = (0..100).min_by_key(|&index| order(scene.deploy.id, &id(index))).unwrap();
    assert_eq!(scene.grant(), [expected]);
}

#[test]
fn who_cannot_stage_is_skipped_and_says_so() {
    let mut scene = Scene::of(3, Policy::safe());
    let first = scene.rollout().next_grants().remove(0);
    scene.stands(super::index(&first), refused());
    let turn = scene.rollout().turn(&first);
    assert!(matches!(turn, Turn::Wait(Why::CannotStage(_))), "{turn:?}");
    assert_eq!(scene.grant().len(), 1);
}

#[test]
fn p8_a_member_that_refused_keeps_its_slot_and_so_does_one_that_vanished() {
    let mut scene = Scene::of(100, Policy::fast());
    let granted = scene.grant();
    assert_eq!(granted.len(), 25);
    scene.stands(granted[0], refused());
    scene.vanishes(granted[1]);
    assert_eq!(scene.rollout().counts().open, 25);
    scene.stands(granted[2], Standing::Proven);
    // 99 members are left, of which a quarter is 24: 24 slots are still taken.
    assert_eq!(scene.rollout().slots(), 24);
    assert_eq!(scene.grant(), []);
    scene.stands(granted[3], Standing::Proven);
    assert_eq!(scene.grant().len(), 1);
}

#[test]
fn p10_the_smaller_fleet_decides_when_members_vanish_or_appear() {
    let mut scene = Scene::of(100, Policy::fast());
    assert_eq!(scene.rollout().slots(), 25);
    (100..500).for_each(|index| scene.stands(index, Standing::Staged));
    assert_eq!(scene.rollout().slots(), 25, "400 more members open no slots");
    (40..500).for_each(|index| scene.fleet.leave(&id(index), scene.now));
    assert_eq!(scene.rollout().slots(), 10);
}

#[test]
fn a_member_that_left_in_good_order_makes_room() {
    let mut scene = Scene::of(4, Policy::fast());
    let first = scene.grant()[0];
    scene.stands(first, Standing::Proven);
    let second = scene.grant()[0];
    scene.stands(second, Standing::Proven);
    scene.fleet.leave(&id(first), scene.now);
    assert_eq!(scene.grant().len(), 1);
}

#[test]
fn p9_a_member_on_which_the_release_failed_after_its_proof_is_remembered_when_it_leaves() {
    let mut scene = Scene::of(40, Policy::fast());
    let granted = scene.grant();
    assert_eq!(granted.len(), 10);
    for index in &granted {
        scene.stands(*index, Standing::Proven);
    }
    for index in &granted[..5] {
        let said = report(*index, 0, &scene.deploy, Standing::Proven);
        scene.says(*index, |report| {
            let stamp = report.stamp;
            *report = Report { stamp, relapses: 1, healthy: false, ..said };
        });
        // The platform replaces what has crashed, in good order.
        scene.fleet.leave(&id(*index), scene.now);
    }
    assert!(matches!(scene.verdict(), Verdict::RollBack(_)), "{:?}", scene.rollout().counts());
}

#[test]
fn p9_a_member_that_had_the_release_before_and_crashes_counts_on_the_way_there_and_not_on_the_way_back() {
    let back = Kind::Rollback { of: DeployId::from_bytes([1; 16]) };
    for (kind, failed) in [(Kind::Rollout, 3), (back, 0)] {
        let mut scene = Scene::with(40, Deploy { kind, ..deploy(Policy::fast()) });
        for index in 0..3 {
            scene.stands(index, Standing::Proven);
            assert_eq!(scene.fleet.member(&id(index)).unwrap().tie(), Tie::Found, "it needed no slot");
            let said = report(index, 0, &scene.deploy, Standing::Proven);
            scene.says(index, |report| *report = Report { stamp: report.stamp, relapses: 1, ..said });
        }
        assert_eq!(scene.rollout().counts().failed, failed, "{kind:?}");
        // Nor is it forgotten when its platform replaces it.
        (0..3).for_each(|index| scene.fleet.leave(&id(index), scene.now));
        assert_eq!(scene.rollout().counts().failed, failed, "{kind:?}");
        assert_eq!(matches!(scene.verdict(), Verdict::RollBack(_)), failed > 0, "{kind:?}");
    }
}

#[test]
fn a_policy_without_phases_goes_one_by_one_and_bakes_a_minute() {
    let mut scene = Scene::of(3, Policy { phases: Vec::new(), ..Policy::fast() });
    assert_eq!((scene.rollout().slots(), scene.rollout().grant().bake), (1, Millis::from_secs(60)));
    assert_eq!(scene.run().iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
}

/// A member says that it obeys this epoch.
fn obeys(scene: &mut Scene, index: usize, epoch: u64) {
    scene.says(index, |report| {
        report.seen = report.seen.map(|seen| baton_core::report::Seen { epoch: Epoch(epoch), ..seen });
    });
}

#[test]
fn p12_a_server_that_is_behind_most_of_its_members_does_nothing() {
    let mut scene = Scene::of(10, Policy::fast());
    (0..6).for_each(|index| obeys(&mut scene, index, 7));
    assert_eq!(scene.grant(), []);
    assert_eq!(scene.rollout().turn(&id(8)), Turn::Wait(Why::Outranked { epoch: Epoch(7) }));
    assert_eq!(scene.fleet.highest_epoch(), Epoch(7));
    assert_eq!(scene.verdict(), Verdict::Continue);
}

#[test]
fn p12_f64_what_was_done_once_is_not_where_most_members_obey_something_else() {
    let halt = Kind::Halt { of: DeployId::from_bytes([1; 16]), hand_back: false };
    for kind in [Kind::Rollout, Kind::Rollback { of: DeployId::from_bytes([1; 16]) }, halt] {
        let mut scene = Scene::with(4, Deploy { kind, ..deploy(Policy::fast()) });
        // As the store of a server says that was put back.
        scene.fleet.note_switched();
        let before = scene.verdict();
        (0..2).for_each(|index| obeys(&mut scene, index, 7));
        assert_eq!(scene.verdict(), before, "half of them are not most");
        obeys(&mut scene, 2, 7);
        assert_eq!(scene.rollout().stop(), Some(Why::Outranked { epoch: Epoch(7) }), "{kind:?}");
        assert_eq!(scene.verdict(), Verdict::Continue, "{kind:?}");
        // Nobody waits for its end.
        scene.says(3, |report| report.drained = false);
        assert_eq!(laggards(&scene.rollout()), [], "{kind:?}");
    }
}

#[test]
fn p39_an_epoch_that_one_member_makes_up_stops_nobody_and_uses_up_no_numbers() {
    for made_up in [3, 1_000, 1_000_000, 2_000_000, 1 << 53, u64::MAX] {
        let mut scene = Scene::of(10, Policy::fast());
        obeys(&mut scene, 3, made_up);
        assert!(scene.fleet.highest_epoch() <= Epoch(1_002), "{made_up}");
        assert_eq!(scene.rollout().turn(&id(3)), Turn::Wait(Why::Ahead { epoch: Epoch(made_up) }));
        let granted = scene.grant();
        assert!(!granted.is_empty() && !granted.contains(&3), "{made_up}: {granted:?}");
        // Nor does it keep a bad release where it is.
        granted.iter().for_each(|index| scene.stands(*index, refused()));
        assert!(matches!(scene.verdict(), Verdict::RollBack(_)), "{made_up}");
    }
    assert_eq!(Epoch(u64::MAX).next(), Epoch(u64::MAX), "and never panics");
}

#[test]
fn p12_f64_what_most_members_obey_is_believed_however_far_it_is() {
    let mut scene = Scene::of(5, Policy::fast());
    for (index, epoch) in [5_001, 5_000, 4_999].into_iter().enumerate() {
        assert_eq!(scene.fleet.highest_epoch(), Epoch(2));
        obeys(&mut scene, index, epoch);
    }
    assert_eq!(scene.fleet.highest_epoch(), Epoch(5_001), "the next deploy is above all of them");
    assert!(matches!(scene.rollout().stop(), Some(Why::Outranked { .. })));
}

#[test]
fn p12_the_highest_epoch_that_anybody_has_seen_is_kept_whatever_others_say_and_write() {
    let mut scene = Scene::of(5, Policy::fast());
    for (index, epoch) in [(0, 7), (1, 3), (2, 2), (3, 6)] {
        obeys(&mut scene, index, epoch);
        assert_eq!(scene.fleet.highest_epoch(), Epoch(7), "after one that has seen {epoch}");
    }
    let theirs = Fleet::restore([], scene.fleet.in_force().cloned(), Epoch(2), scene.now);
    scene.fleet.adopt(&theirs, None, scene.now);
    assert_eq!(scene.fleet.highest_epoch(), Epoch(7), "who wrote the store has not heard of it");
    scene.fleet.begin(Deploy { epoch: Epoch(3), ..deploy(Policy::fast()) }, scene.now);
    assert_eq!(scene.fleet.highest_epoch(), Epoch(7), "nor is it forgotten with another deploy");
}

#[test]
fn p12_an_equal_epoch_of_another_deploy_is_not_ours() {
    let mut scene = Scene::of(1, Policy::fast());
    let other = DeployId::from_bytes([9; 16]);
    scene.says(0, |report| {
        report.seen = report.seen.map(|seen| baton_core::report::Seen { deploy: other, ..seen });
    });
    assert_eq!(scene.grant(), []);
}

#[test]
fn p16_two_servers_that_looked_at_the_same_state_do_not_give_the_slots_twice() {
    let mut store = Scene::of(100, Policy::fast());
    let (one, other) = (store.rollout().next_grants(), store.rollout().next_grants());
    assert_eq!(store.rollout().admissible(Epoch(2), &one), Ok(()));
    let grant = store.rollout().grant();
    store.fleet.grant(&one, grant);
    let late = store.rollout().admissible(Epoch(2), &other);
    assert_eq!(late, Err(Inadmissible::TooMany { asked: 25, room: 0 }));
    let free: Vec<_> = (0..100).map(id).filter(|id| !one.contains(id)).take(1).collect();
    assert!(store.rollout().admissible(Epoch(2), &free).is_err(), "nor others instead");
}

#[test]
fn p16_slots_are_refused_for_another_deploy_a_halt_and_members_that_have_one() {
    let mut store = Scene::of(100, Policy::fast());
    let wanted = store.rollout().next_grants();
    let late = store.rollout().admissible(Epoch(1), &wanted);
    assert_eq!(late, Err(Inadmissible::OtherDeploy { asked: Epoch(1), in_force: Epoch(2) }));
    let twice = [wanted[0].clone(), wanted[0].clone()];
    assert_eq!(
        store.rollout().admissible(Epoch(2), &twice),
        Err(Inadmissible::Member { member: wanted[0].clone() })
    );
    let grant = store.rollout().grant();
    store.fleet.grant(&wanted[..1], grant);
    assert_eq!(
        store.rollout().admissible(Epoch(2), &wanted[..1]),
        Err(Inadmissible::Member { member: wanted[0].clone() })
    );
    let mut halt = deploy(Policy::fast());
    halt.kind = Kind::Halt { of: halt.id, hand_back: false };
    store.fleet.begin(halt, store.now);
    assert!(matches!(store.rollout().admissible(Epoch(2), &wanted), Err(Inadmissible::Stopped(_))));
}

#[test]
fn p10_a_store_gives_no_slot_to_a_member_that_it_does_not_hear() {
    let mut store = Scene::of(10, Policy::fast());
    let wanted = store.rollout().next_grants();
    store.now = store.now + LEASE;
    let others = (0..10).filter(|index| !wanted.contains(&id(*index)));
    others.for_each(|index| store.stands(index, Standing::Staged));
    assert!(store.rollout().room() > 0);
    assert_eq!(
        store.rollout().admissible(Epoch(2), &wanted[..1]),
        Err(Inadmissible::Member { member: wanted[0].clone() })
    );
}

#[test]
fn p10_a_sign_of_life_of_a_member_that_is_gone_does_not_bring_it_back_but_a_report_does() {
    let mut scene = Scene::of(10, Policy::fast());
    let first = scene.grant()[0];
    scene.vanishes(first);
    let before = scene.fleet.clone();
    let stamp = Stamp { life: 1, sequence: 1_000 };
    // So it is asked for all that it has to say.
    assert_eq!(scene.fleet.heartbeat(&id(first), stamp, scene.now), Heard::Stale);
    assert_eq!(scene.fleet, before);
    scene.sequence = 2_000;
    scene.stands(first, Standing::Proven);
    assert_eq!(scene.fleet.member(&id(first)).unwrap().presence(scene.now), Presence::Live);
}

#[test]
fn every_reason_to_wait_reads_as_a_sentence() {
    let mut scene = Scene::of(8, Policy::safe());
    scene.stands(7, Standing::Behind);
    let first = scene.grant()[0];
    let other = (0..7).find(|&index| index != first).unwrap();
    let why = |scene: &Scene, index| match scene.rollout().turn(&id(index)) {
        Turn::Go => "go".into(),
        Turn::Wait(why) => why.to_string(),
    };
    assert_eq!(why(&scene, other), format!("1 of 1 slot is taken by m{first}"));
    // It may have all of it.
    assert_eq!(why(&scene, 7), "it looks through what it has of the release");
    for (total, sentence) in
        [(0, "it looks through what it has of the release"), (9, "it is still fetching the release")]
    {
        let fetching = Some(Fetching { fetched: Bytes(0), total: Bytes(total) });
        scene.says(7, |report| (report.standing, report.fetching) = (Standing::Behind, fetching));
        assert_eq!(why(&scene, 7), sentence, "{total}");
    }
    assert_eq!(why(&scene, first), "it has a slot, and has not begun");
    scene.stands(first, refused());
    let refused =
        "it refused the release: the candidate ended: exit 1 after 0.8 s; it tries again every minute";
    assert_eq!(why(&scene, first), refused);
    scene.stands(first, Standing::Proven);
    assert_eq!(why(&scene, first), "it runs the release, proven");
    assert_eq!(why(&scene, 99), "it is gone");
}

proptest! {
    /// However members answer, whoever leaves, and whatever time passes: what is granted never makes more
    /// members unproven at once than there are slots.
    #[test]
    fn p7_p8_open_never_exceeds_the_slots(
        members in 1_usize..40,
        max_unhealthy in 0_u32..60,
        steps in prop::collection::vec((0_usize..60, 0_u8..8), 0..200),
    ) {
        let phases = vec![
            Phase { size: PhaseSize::One, bake: Millis(1) },
            Phase { size: PhaseSize::Share(percent(10)), bake: Millis(1) },
            Phase { size: PhaseSize::Share(percent(50)), bake: Millis(1) },
        ];
        let policy = Policy { max_unhealthy: percent(max_unhealthy), phases, ..Policy::safe() };
        let mut scene = Scene::of(members, policy);
        for (index, step) in steps {
            match step {
                0 => scene.stands(index, Standing::Trying),
                1 => scene.stands(index, Standing::Proving),
                2 | 3 => scene.stands(index, Standing::Proven),
                4 => scene.stands(index, refused()),
                5 => scene.fleet.leave(&id(index), scene.now),
                6 => scene.now = scene.now + Millis(index as u64 * 300),
                _ => scene.says(index, |report| report.healthy = false),
            }
            scene.fleet.sweep(scene.now);
            let slots = scene.rollout().slots();
            if !scene.grant().is_empty() {
                let open = scene.rollout().counts().open;
                prop_assert!(open <= slots, "{open} of {slots} slots are taken");
            }
        }
    }

    /// Who may go still may go when others have made progress.
    #[test]
    fn progress_never_unselects(
        members in 2_usize..60,
        rounds in 0_usize..6,
        progress in prop::collection::vec((0_usize..60, 1_u8..5), 1..30),
    ) {
        let mut scene = Scene::of(members, Policy::fast());
        let mut granted: Vec<usize> = Vec::new();
        for _ in 0..rounds {
            granted.iter().for_each(|&index| scene.stands(index, Standing::Proven));
            granted = scene.grant();
        }
        let mut stage = vec![0; members];
        for (pick, to) in progress {
            let before = scene.rollout().next_grants();
            let Some(&index) = granted.get(pick % granted.len().max(1)) else { continue };
            if to <= stage[index] {
                continue;
            }
            stage[index] = to;
            let standings = [Standing::Granted, Standing::Trying, Standing::Proving, Standing::Proven];
            scene.stands(index, standings[usize::from(to) - 1].clone());
            let after = scene.rollout().next_grants();
            prop_assert!(before.iter().all(|id| after.contains(id)));
        }
    }
}

#[test]
fn what_a_bake_needs_comes_with_a_slot_and_who_lacks_it_is_told() {
    let mut scene = Scene::of(4, Policy { bake_connections: 20, ..Policy::fast() });
    let first = scene.grant()[0];
    let order = |scene: &Scene| Order::of(&scene.deploy, scene.fleet.member(&id(first)), false);
    let time = scene.rollout().grant().bake;
    let bake = Bake { time, connections: 20 };
    assert_eq!(order(&scene), Some(Order::Grant { deploy: scene.deploy.id, bake }));
    for (standing, accepted, why) in [
        (Standing::Trying, 0, "it is on trial (trying)"),
        (Standing::Proving, 19, "it is on trial (proving), and has accepted 19 of 20 connections"),
        (Standing::Proving, 20, "it is on trial (proving)"),
    ] {
        scene.says(first, |report| {
            report.standing = standing.clone();
            report.bake_connections = accepted;
        });
        let Turn::Wait(waits) = scene.rollout().turn(&id(first)) else { panic!() };
        assert_eq!(waits.to_string(), why);
    }
    // Nobody waits for connections on the way back.
    let of = scene.deploy.id;
    scene.deploy.kind = Kind::Rollback { of };
    assert_eq!(scene.deploy.bake(Millis::ZERO), Bake::NONE);
}
