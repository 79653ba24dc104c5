//! What happens when control knows less than it should: nothing faster than before.

use baton_core::deploy::Policy;
use baton_core::fleet::{Fleet, GONE_AFTER, Grant, Heard, InForce, LEASE, Member, Presence, Tie};
use baton_core::ids::{Epoch, MemberId};
use baton_core::report::{Report, Stamp, Standing};
use baton_core::rollout::Rollout;
use baton_core::turn::{Turn, Why};
use baton_core::units::Millis;
use baton_core::verdict::Verdict;
use proptest::prelude::*;

use super::{NOW, Scene, id, report};

#[test]
fn p10_a_stale_or_doubled_report_changes_nothing_and_renews_no_lease() {
    let mut scene = Scene::of(3, Policy::safe());
    let first = scene.grant()[0];
    let old = report(first, 1000, &scene.deploy, Standing::Proven);
    let new = report(first, 1001, &scene.deploy, super::refused());
    assert_eq!(scene.fleet.apply(new.clone(), scene.now), Heard::News);
    let before = scene.fleet.clone();
    let later = scene.now + Millis(5000);
    for stale in [old, new] {
        assert_eq!(scene.fleet.apply(stale, later), Heard::Stale);
        assert_eq!(scene.fleet, before);
    }
    let stamp = Stamp { life: 1, sequence: 1001 };
    assert_eq!(scene.fleet.heartbeat(&id(first), stamp, later), Heard::Stale);
    assert_eq!(scene.fleet, before);
}

#[test]
fn p10_a_report_of_an_earlier_epoch_is_ignored_within_one_life() {
    let mut scene = Scene::of(1, Policy::safe());
    let earlier = |life| Report {
        stamp: Stamp { life, sequence: 99 },
        seen: None,
        ..report(0, 0, &scene.deploy, Standing::Staged)
    };
    let (reordered, restarted) = (earlier(1), earlier(2));
    assert_eq!(scene.fleet.apply(reordered, scene.now), Heard::Stale);
    assert_eq!(scene.fleet.apply(restarted, scene.now), Heard::News, "a new life may have lost its disk");
}

#[test]
fn p10_an_earlier_life_counts_again_when_the_later_one_of_another_process_is_not_heard_any_more() {
    let mut scene = Scene::of(1, Policy::safe());
    scene.grant();
    let of_life =
        |life| Report { stamp: Stamp { life, sequence: 7 }, ..report(0, 0, &scene.deploy, Standing::Staged) };
    assert_eq!(scene.fleet.apply(of_life(9), scene.now), Heard::News);
    assert_eq!(scene.fleet.apply(of_life(8), scene.now), Heard::Stale);
    let mut left = scene.fleet.clone();
    left.leave(&id(0), NOW);
    // Killed, it says no goodbye; and of a fleet of one that is silent nobody is ever gone.
    for (mut fleet, now) in [(left, scene.now), (scene.fleet.clone(), scene.now + LEASE)] {
        assert_eq!(fleet.apply(of_life(8), now), Heard::News);
        assert_eq!(fleet.apply(of_life(8), now), Heard::Stale);
    }
}

#[test]
fn p10_proven_needs_the_digest_the_health_and_the_word() {
    type Change = fn(&mut Report);
    let changes: [(&str, Change, u32); 6] = [
        ("all is well", |_| {}, 1),
        ("another digest runs", |r| r.running = Some(super::OLD), 0),
        ("something unknown runs", |r| r.running = None, 0),
        ("it is not committed", |r| r.committed = Some((super::OLD, Epoch(1))), 0),
        ("it is unhealthy", |r| r.healthy = false, 0),
        ("it bakes still", |r| r.standing = Standing::Proving, 0),
    ];
    for (what, change, proven) in changes {
        let mut scene = Scene::of(2, Policy::safe());
        let first = scene.grant()[0];
        let mut said = report(first, 1000, &scene.deploy, Standing::Proven);
        change(&mut said);
        assert_eq!(scene.fleet.apply(said, scene.now), Heard::News);
        assert_eq!(scene.rollout().counts().proven, proven, "{what}");
        assert_eq!(scene.grant().len() as u32, proven, "{what}");
    }
}

#[test]
fn a_silent_member_counts_neither_as_proven_nor_as_gone_for_a_minute() {
    let mut scene = Scene::of(10, Policy::fast());
    let first = scene.grant();
    scene.stands(first[0], Standing::Proven);
    scene.now = scene.now + LEASE;
    let others = (0..10).filter(|index| !first.contains(index)).collect::<Vec<_>>();
    for after in [Millis::ZERO, Millis::from_secs(40)] {
        scene.now = scene.now + after;
        others.iter().for_each(|&index| scene.stands(index, Standing::Staged));
        scene.fleet.sweep(scene.now);
        let counts = *scene.rollout().counts();
        assert_eq!((counts.silent, counts.proven, counts.gone), (2, 0, 0));
        assert_eq!(scene.grant(), []);
    }
    scene.now = NOW + GONE_AFTER;
    others.iter().for_each(|&index| scene.stands(index, Standing::Staged));
    assert_eq!(scene.fleet.sweep(scene.now).len(), 2);
}

#[test]
fn p14_a_mass_silence_freezes_and_nothing_is_done_until_it_is_over() {
    let mut scene = Scene::of(100, Policy::fast());
    let granted = scene.grant();
    granted[..20].iter().for_each(|&index| scene.stands(index, Standing::Proven));
    let say = |scene: &mut Scene, heard: usize| {
        for index in 0..heard {
            let last = scene.fleet.member(&id(index)).and_then(|member| member.report().cloned()).unwrap();
            scene.says(index, |report| *report = Report { stamp: report.stamp, ..last });
        }
    };
    for seconds in [10, 30, 60, 600] {
        scene.now = NOW + Millis::from_secs(seconds);
        say(&mut scene, 49);
        assert_eq!(scene.fleet.sweep(scene.now), []);
        assert_eq!(scene.grant(), []);
        assert_eq!(scene.verdict(), Verdict::Continue);
        let waits = (0..49).map(|index| scene.rollout().turn(&id(index)));
        let frozen = waits.filter(|turn| *turn == Turn::Wait(Why::Frozen { silent: 51, of: 100 })).count();
        assert!(frozen > 20, "after {seconds} s: {frozen}");
    }
    // Half of them are back: those still missing are not blamed at once.
    say(&mut scene, 60);
    scene.fleet.sweep(scene.now);
    assert_eq!((scene.verdict(), scene.rollout().counts().failed), (Verdict::Continue, 0));
    say(&mut scene, 100);
    assert!(!scene.grant().is_empty(), "it goes on");
}

#[test]
fn p14_a_person_who_knows_that_the_silent_will_not_come_back_ends_the_silence() {
    let mut scene = Scene::of(5, Policy::fast());
    let first = scene.grant()[0];
    let others: Vec<usize> = (0..5).filter(|&index| index != first).collect();
    scene.now = NOW + Millis::from_secs(3600);
    for index in [first, others[0]] {
        scene.says(index, |report| {
            if index == first {
                report.standing = super::refused();
            }
        });
    }
    scene.fleet.sweep(scene.now);
    assert_eq!((scene.grant(), scene.verdict()), (vec![], Verdict::Continue));
    others[1..].iter().for_each(|&index| scene.fleet.leave(&id(index), scene.now));
    assert!(matches!(scene.verdict(), Verdict::RollBack(_)), "it is found at once that the first one failed");
}

#[test]
fn p14_half_of_the_fleet_is_not_most_of_it() {
    for (members, silent, frozen) in
        [(1, 1, true), (2, 1, false), (3, 2, true), (4, 2, false), (100, 51, true)]
    {
        let mut scene = Scene::of(members, Policy::fast());
        scene.now = scene.now + LEASE;
        (silent..members).for_each(|index| scene.stands(index, Standing::Staged));
        assert_eq!(scene.fleet.silence(scene.now).is_mass(), frozen, "{silent} of {members}");
        assert_eq!(scene.rollout().next_grants().is_empty(), frozen, "{silent} of {members}");
    }
}

/// What a store keeps of a scene, as a server reads it that has just started.
fn restored(scene: &Scene, known: impl IntoIterator<Item = MemberId>, now: Millis) -> Fleet {
    let in_force = InForce { deploy: scene.deploy.clone(), members_at_start: 100, switched: false };
    let tie = |id: &MemberId| match scene.fleet.member(id).map(Member::tie) {
        Some(Tie::Slot(grant)) => Tie::Slot(Grant { proven: false, ..grant }),
        Some(Tie::Leftover) => Tie::Leftover,
        Some(Tie::Found | Tie::Nothing) | None => Tie::Nothing,
    };
    let members = known.into_iter().map(|id| (id.clone(), tie(&id)));
    Fleet::restore(members, Some(in_force), Epoch(2), now)
}

#[test]
fn p10_a_server_that_has_just_started_listens_before_it_grants() {
    let mut scene = Scene::of(100, Policy::fast());
    let granted = scene.grant();
    granted.iter().for_each(|&index| scene.stands(index, Standing::Proven));
    let mut fleet = restored(&scene, (0..100).map(id), NOW);
    let stop = |fleet: &Fleet, now| Rollout::of(fleet, now).unwrap().stop();
    for index in 0..100 {
        assert_eq!(stop(&fleet, NOW), Some(Why::Listening { unheard: 100 - index as u32, anew: false }));
        let standing = if granted.contains(&index) { Standing::Proven } else { Standing::Staged };
        assert_eq!(fleet.apply(report(index, 5000, &scene.deploy, standing), NOW), Heard::News);
    }
    let rollout = Rollout::of(&fleet, NOW).unwrap();
    assert_eq!((rollout.counts().proven, rollout.next_grants().len()), (25, 25), "and goes on where it was");
}

#[test]
fn p10_a_server_with_an_empty_store_waits_for_a_whole_lease() {
    let scene = Scene::of(10, Policy::fast());
    let mut fleet = restored(&scene, [], NOW);
    for now in [NOW, NOW + LEASE - Millis(1), NOW + LEASE] {
        (0..10).for_each(|index| {
            let said = report(index, 5000 + now.0, &scene.deploy, Standing::Staged);
            assert_eq!(fleet.apply(said, now), Heard::News);
        });
        let grants = Rollout::of(&fleet, now).unwrap().next_grants().len();
        assert_eq!(grants > 0, now >= NOW + LEASE);
    }
}

#[test]
fn p10_slots_outlive_a_restart_with_their_holders_unheard() {
    let mut scene = Scene::of(100, Policy::fast());
    let granted = scene.grant();
    let mut fleet = restored(&scene, (0..100).map(id), NOW);
    let later = NOW + LEASE;
    for index in (0..100).filter(|index| !granted.contains(index)) {
        assert_eq!(fleet.apply(report(index, 5000, &scene.deploy, Standing::Staged), later), Heard::News);
    }
    let rollout = Rollout::of(&fleet, later).unwrap();
    assert_eq!((rollout.counts().open, rollout.next_grants().len()), (25, 0));
    let presence = fleet.member(&id(granted[0])).unwrap().presence(later);
    assert_eq!(presence, Presence::Silent { since: NOW });
}

#[test]
fn p10_who_was_not_heard_since_a_restart_may_be_on_trial() {
    let scene = Scene::of(8, Policy::fast());
    let mut fleet = restored(&scene, (0..8).map(id), NOW);
    for (after, room) in [(LEASE, 0), (GONE_AFTER, 1)] {
        let now = NOW + after;
        for index in 0..7 {
            let said = report(index, 5000 + now.0, &scene.deploy, Standing::Staged);
            assert_eq!(fleet.apply(said, now), Heard::News);
        }
        fleet.sweep(now);
        let rollout = Rollout::of(&fleet, now).unwrap();
        assert_eq!((rollout.slots(), rollout.room()), (1, room), "after {after}");
    }
}

/// How far each member gets, and how much of that control hears.
fn telling() -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
    let member = (0_usize..6, 0_usize..6, any::<bool>());
    prop::collection::vec(member, 1..80)
}

/// The reports of members that got a slot and went on to prove the release, `steps` of them each.
fn story(scene: &Scene, index: usize, steps: usize) -> Vec<Report> {
    let standings =
        [Standing::Staged, Standing::Granted, Standing::Trying, Standing::Proving, Standing::Proven];
    let has_slot = scene.fleet.grants().any(|(holder, _)| *holder == id(index));
    let standings = &standings[..if has_slot { 5 } else { 1 }];
    let reports = standings.iter().enumerate().take(steps);
    reports.map(|(step, s)| report(index, 10_000 + step as u64, &scene.deploy, s.clone())).collect()
}

proptest! {
    /// With the ends of some stories not heard, with silence, doubles and stale reports: no more slots.
    #[test]
    fn p10_worse_information_never_speeds_up(telling in telling(), rounds in 0_usize..4) {
        let mut scene = Scene::of(telling.len(), Policy::safe());
        for _ in 0..rounds {
            for index in scene.grant() {
                scene.stands(index, Standing::Proven);
            }
        }
        scene.grant();
        let (mut full, mut worse) = (scene.fleet.clone(), scene.fleet.clone());
        // By then who has not been heard of since is silent.
        let now = scene.now + LEASE;
        let mut seen = Vec::new();
        for (index, (steps, heard, silent)) in telling.into_iter().enumerate() {
            let story = story(&scene, index, steps.max(1));
            for said in &story {
                let _ = full.apply(said.clone(), now);
            }
            if !silent {
                for said in story.iter().take(heard.max(1)) {
                    let _ = worse.apply(said.clone(), now);
                    seen.push(said.clone());
                }
            }
        }
        for stale in seen {
            let _ = worse.apply(stale, now);
        }
        let (full, worse) = (Rollout::of(&full, now).unwrap(), Rollout::of(&worse, now).unwrap());
        prop_assert!(worse.room() <= full.room(), "{} > {}", worse.room(), full.room());
        prop_assert!(worse.next_grants().len() <= full.next_grants().len());
        prop_assert!(worse.counts().open >= full.counts().open || worse.stop().is_some());
    }

    /// In whichever order reports arrive, and however often, the same is known in the end.
    #[test]
    fn p10_the_order_of_reports_does_not_matter(
        telling in telling(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let mut scene = Scene::of(telling.len(), Policy::fast());
        scene.grant();
        let stories = telling.iter().enumerate().flat_map(|(i, (steps, ..))| story(&scene, i, *steps));
        let stories: Vec<_> = stories.collect();
        let (mut straight, mut shuffled) = (scene.fleet.clone(), scene.fleet.clone());
        if !stories.is_empty() {
            for index in order {
                let _ = shuffled.apply(index.get(&stories).clone(), NOW);
            }
        }
        for said in stories.iter().rev() {
            let _ = shuffled.apply(said.clone(), NOW);
        }
        for said in stories {
            let _ = straight.apply(said, NOW);
        }
        prop_assert_eq!(straight, shuffled);
    }
}
