//! Halting, resuming, rolling back, superseding.

use baton_core::decision::Order;
use baton_core::deploy::{Deploy, Kind, Policy};
use baton_core::fleet::{Fleet, LEASE, Presence, Tie};
use baton_core::ids::{DeployId, Epoch};
use baton_core::report::{Report, Seen, Standing};
use baton_core::turn::{Turn, Why};
use baton_core::units::{Millis, Share};
use baton_core::verdict::Verdict;

use super::{NEW, OLD, Scene, deploy, id, refused, report};

/// The deploy after `before`.
fn next(before: &Deploy, kind: Kind, release: baton_core::ids::ReleaseId) -> Deploy {
    let number = before.epoch.0 as u8 + 1;
    Deploy {
        id: DeployId::from_bytes([number; 16]),
        epoch: before.epoch.next(),
        kind,
        release,
        parent: Some(before.id),
        reason: "it looks bad".into(),
        ..before.clone()
    }
}

/// A fleet of 100 in which 20 have proven the release, 5 bake it, and 20 start it.
fn half_way() -> Scene {
    let mut scene = Scene::of(100, Policy::fast());
    let granted = scene.grant();
    granted[..20].iter().for_each(|&index| scene.stands(index, Standing::Proven));
    granted[20..].iter().for_each(|&index| scene.stands(index, Standing::Proving));
    for index in scene.grant() {
        scene.stands(index, Standing::Trying);
    }
    scene
}

fn begin(scene: &mut Scene, kind: Kind, release: baton_core::ids::ReleaseId) {
    let deploy = next(&scene.deploy, kind, release);
    scene.deploy = deploy.clone();
    scene.fleet.begin(deploy, scene.now);
}

fn who(scene: &Scene, is: impl Fn(&Standing) -> bool) -> Vec<usize> {
    let members = scene.fleet.members();
    let picked = members.filter(|(_, member)| member.report().is_some_and(|report| is(&report.standing)));
    picked.map(|(id, _)| super::index(id)).collect()
}

#[test]
fn a_halt_grants_nothing_and_says_by_whom_and_why() {
    for hand_back in [false, true] {
        let mut scene = half_way();
        let on_trial = who(&scene, Standing::on_trial).len();
        let of = scene.deploy.id;
        begin(&mut scene, Kind::Halt { of, hand_back }, NEW);
        (0..200).for_each(|index| scene.stands(index % 100, Standing::Staged));
        assert_eq!(scene.grant(), []);
        let by = scene.deploy.id;
        let halted = Why::Halted { by, because: "it looks bad".into() };
        assert_eq!(scene.rollout().turn(&id(0)), Turn::Wait(halted.clone()));
        assert_eq!(halted.to_string(), "halted by deploy 030303030303: it looks bad");
        assert_eq!(scene.verdict(), Verdict::Continue);
        assert_eq!(on_trial, 25);
    }
}

#[test]
fn p9_the_halt_of_a_failing_release_hands_back_and_a_persons_lets_bakes_finish() {
    for hand_back in [false, true] {
        let mut scene = half_way();
        let of = scene.deploy.id;
        begin(&mut scene, Kind::Halt { of, hand_back }, NEW);
        assert_eq!(scene.rollout().hand_backs().len(), if hand_back { 25 } else { 0 });
    }
}

#[test]
fn p9_a_rollback_hands_back_at_once_and_starts_the_rest_with_slots() {
    let mut scene = half_way();
    let of = scene.deploy.id;
    begin(&mut scene, Kind::Rollback { of }, OLD);
    let (baking, trying) =
        (who(&scene, |s| *s == Standing::Proving), who(&scene, |s| *s == Standing::Trying));
    let mut expected = [baking, trying].concat();
    expected.sort();
    let mut handed_back: Vec<_> = scene.rollout().hand_backs().iter().map(super::index).collect();
    handed_back.sort();
    assert_eq!(handed_back, expected);
    let proven = who(&scene, |s| *s == Standing::Proven);
    let on_new = |scene: &mut Scene, index| {
        scene.says(index, |report| {
            (report.running, report.committed) = (Some(NEW), Some((NEW, Epoch(2))));
        });
    };
    proven.iter().for_each(|&index| on_new(&mut scene, index));
    assert_eq!(scene.grant(), [], "all slots are taken by those on trial");
    // Back on the old release, they have proven it long ago.
    expected.iter().for_each(|&index| scene.stands(index, Standing::Proven));
    (0..100).filter(|index| !proven.contains(index)).for_each(|index| scene.stands(index, Standing::Proven));
    let rollout = scene.rollout();
    assert_eq!((rollout.slots(), rollout.grant().bake, rollout.counts().proven), (25, Millis::ZERO, 80));
    let rounds = scene.run();
    assert_eq!(rounds.concat().len(), 20, "only those who had proven the new one need a slot");
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

#[test]
fn p9_a_rollback_ends_the_bake_of_a_worker_that_has_nothing_standing_by() {
    let mut scene = Scene::of(4, Policy::fast());
    let first = scene.grant()[0];
    scene.stands(first, Standing::Proving);
    let of = scene.deploy.id;
    begin(&mut scene, Kind::Rollback { of }, OLD);
    let bakes = |scene: &mut Scene, committed| {
        scene.says(first, |report| {
            (report.standing, report.running, report.standby) = (Standing::Proving, Some(NEW), None);
            report.committed = committed;
        });
    };
    bakes(&mut scene, Some((OLD, Epoch(1))));
    assert_eq!(scene.rollout().hand_backs(), [id(first)], "it starts again what it has proven");
    // One that would start something else waits for its slot.
    bakes(&mut scene, None);
    assert_eq!(scene.rollout().hand_backs(), []);
}

#[test]
fn f92_a_rollback_that_fails_too_halts() {
    let mut scene = Scene::of(4, Policy::fast());
    scene.run();
    let of = scene.deploy.id;
    begin(&mut scene, Kind::Rollback { of }, OLD);
    scene.deploy.fallback = Some(OLD);
    for index in 0..4 {
        scene.says(index, |r| (r.running, r.committed) = (Some(NEW), Some((NEW, Epoch(2)))));
    }
    let first = scene.grant()[0];
    scene.stands(first, refused());
    assert!(matches!(scene.verdict(), Verdict::Halt(_)), "{:?}", scene.verdict());
}

#[test]
fn f119_the_same_release_deployed_again_asks_nothing_of_the_members_that_run_it() {
    let mut scene = Scene::of(20, Policy::fast());
    scene.run();
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
    begin(&mut scene, Kind::Rollout, NEW);
    assert_eq!(scene.grant(), [], "before they have heard of it");
    (0..20).for_each(|index| scene.stands(index, Standing::Proven));
    assert_eq!((scene.grant(), scene.verdict()), (vec![], Verdict::Done { drained: true }));
}

#[test]
fn a_resumed_rollout_counts_who_has_proven_the_release_and_starts_with_a_wide_window() {
    let mut scene = half_way();
    let of = scene.deploy.id;
    begin(&mut scene, Kind::Halt { of, hand_back: false }, NEW);
    begin(&mut scene, Kind::Rollout, NEW);
    let counts = *scene.rollout().counts();
    assert_eq!((counts.proven, counts.held, counts.open), (20, 20, 25));
    assert_eq!(scene.rollout().next_grants(), [], "the bakes that go on take the slots");
}

#[test]
fn a_reached_target_is_not_done_while_members_are_on_trial() {
    let mut scene = half_way();
    scene.deploy.policy.target = Share::from_percent(10).into();
    begin(&mut scene, Kind::Rollout, NEW);
    assert_eq!((scene.rollout().counts().proven, scene.verdict()), (20, Verdict::Continue));
    for index in who(&scene, Standing::on_trial) {
        scene.stands(index, Standing::Staged);
    }
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

#[test]
fn p16_a_second_deploy_counts_who_is_on_trial_of_the_first_until_they_say_otherwise() {
    let mut scene = Scene::of(100, Policy::fast());
    let granted = scene.grant();
    // Nothing was heard of them since: they may be starting the release this moment.
    let before = scene.deploy.clone();
    begin(&mut scene, Kind::Rollout, baton_core::ids::ReleaseId::from_bytes([3; 32]));
    assert_eq!(scene.rollout().counts().open, 25);
    assert!(granted.iter().all(|&i| scene.fleet.member(&id(i)).unwrap().tie() == Tie::Leftover));
    let untouched: Vec<_> = (0..100).filter(|index| !granted.contains(index)).collect();
    untouched.iter().for_each(|&index| scene.stands(index, Standing::Staged));
    assert_eq!(scene.grant(), []);
    let late = report(granted[0], 70_000, &before, Standing::Trying);
    let _ = scene.fleet.apply(late, scene.now);
    assert_eq!(scene.grant(), [], "a late word on the first deploy settles nothing");
    granted.iter().enumerate().for_each(|(n, &index)| {
        let said = report(index, 80_000 + n as u64, &scene.deploy, Standing::Staged);
        let _ = scene.fleet.apply(said, scene.now);
    });
    assert_eq!(scene.grant().len(), 25);
}

/// What a store keeps of a scene of so many, as a server reads it that has just started and has heard all but this member.
fn restarted(scene: &Scene, members: usize, unheard: usize) -> Fleet {
    let ties = scene.fleet.members().map(|(id, member)| (id.clone(), member.tie()));
    let gone = scene.fleet.members().filter(|(_, member)| member.is_gone()).map(|(id, _)| id.clone());
    let in_force = scene.fleet.in_force().cloned();
    let mut fleet = Fleet::restore(ties, in_force, scene.fleet.highest_epoch(), scene.now).without(gone);
    for index in (0..members).filter(|index| *index != unheard) {
        let _ = fleet.apply(report(index, 5000, &scene.deploy, Standing::Staged), scene.now);
    }
    fleet
}

#[test]
fn a_rollback_does_not_wait_for_who_refused_the_release_and_left_before_the_server_was_restarted() {
    let mut scene = Scene::of(5, Policy::safe());
    let [refuses] = scene.grant()[..] else { panic!() };
    scene.stands(refuses, refused());
    scene.fleet.leave(&id(refuses), scene.now);
    scene.fleet = restarted(&scene, 5, refuses);
    scene.sequence = 6000;
    assert_eq!(scene.fleet.member(&id(refuses)).unwrap().presence(scene.now), Presence::Gone);
    let rollout = scene.rollout();
    let counts = rollout.counts();
    assert_eq!((counts.unheard, counts.failed, counts.open), (0, 1, 1), "in its deploy it has failed");
    let of = scene.deploy.id;
    begin(&mut scene, Kind::Rollback { of }, OLD);
    assert!(scene.fleet.member(&id(refuses)).is_none());
    (0..5)
        .filter(|index| *index != refuses)
        .for_each(|index| scene.says(index, |said| said.running = Some(NEW)));
    assert_eq!(scene.grant().len(), 1, "nobody holds the slot");
}

#[test]
fn what_is_left_of_a_slot_ends_with_whoever_had_it_whichever_server_has_begun_the_rollback() {
    let mut scene = Scene::of(5, Policy::safe());
    let [refuses] = scene.grant()[..] else { panic!() };
    // There nothing was heard of the refusal and of the goodbye.
    let mut there = Scene { fleet: restarted(&scene, 5, refuses), deploy: scene.deploy.clone(), ..scene };
    there.sequence = 6000;
    scene.stands(refuses, refused());
    scene.fleet.leave(&id(refuses), scene.now);
    let of = there.deploy.id;
    begin(&mut there, Kind::Rollback { of }, OLD);
    assert_eq!(there.fleet.member(&id(refuses)).unwrap().tie(), Tie::Leftover);
    scene.fleet.adopt(&there.fleet, None, scene.now);
    scene.deploy = there.deploy.clone();
    assert_eq!(scene.fleet.member(&id(refuses)).unwrap().tie(), Tie::Leftover);
    (0..5)
        .filter(|index| *index != refuses)
        .for_each(|index| scene.says(index, |said| said.running = Some(NEW)));
    assert_eq!(scene.grant().len(), 1, "it is known here that it is gone");
    // The other one hears of the goodbye without what was said before.
    there.fleet.leave(&id(refuses), there.now);
    (0..5)
        .filter(|index| *index != refuses)
        .for_each(|index| there.says(index, |said| said.running = Some(NEW)));
    let was_live = there.fleet.clone();
    assert_eq!(there.grant().len(), 1);
    // A later life may still be at what it was given before, and is heard.
    there.fleet = was_live;
    there.says(refuses, |said| (said.stamp.life, said.seen) = (2, None));
    assert_eq!(there.fleet.member(&id(refuses)).unwrap().tie(), Tie::Leftover);
    assert_eq!(there.grant(), []);
}

#[test]
fn who_waits_for_somebody_that_is_silent_is_told_how_to_let_it_go() {
    let mut scene = Scene::of(5, Policy::safe());
    let [tries] = scene.grant()[..] else { panic!() };
    let of = scene.deploy.id;
    begin(&mut scene, Kind::Rollback { of }, OLD);
    scene.now = scene.now + LEASE;
    let others: Vec<_> = (0..5).filter(|index| *index != tries).collect();
    others.iter().for_each(|&index| scene.says(index, |said| said.running = Some(NEW)));
    assert_eq!(scene.grant(), []);
    let Turn::Wait(why) = scene.rollout().turn(&id(others[0])) else { panic!() };
    let text = format!(
        "1 of 1 slot is taken by m{tries}; 1 of them cannot be heard: if it will not come back, \
         `baton members forget --silent`"
    );
    assert_eq!(why.to_string(), text);
}

#[test]
fn p14_nobody_is_handed_back_in_a_mass_silence() {
    let mut scene = half_way();
    let of = scene.deploy.id;
    begin(&mut scene, Kind::Rollback { of }, OLD);
    assert_eq!(scene.rollout().hand_backs().len(), 25);
    scene.now = scene.now + LEASE;
    assert_eq!(scene.rollout().hand_backs(), []);
}

/// Half way, and on the way back: who may go back to its standby is not told so as long as too little is known.
fn on_the_way_back() -> Scene {
    let mut scene = half_way();
    let of = scene.deploy.id;
    begin(&mut scene, Kind::Rollback { of }, OLD);
    scene
}

#[test]
fn p14_nobody_who_is_heard_is_handed_back_either_while_most_are_not() {
    let mut scene = on_the_way_back();
    let back: Vec<_> = scene.rollout().hand_backs().iter().map(super::index).collect();
    scene.now = scene.now + LEASE;
    let beside = (0..100).filter(|index| !back.contains(index));
    let say = |scene: &mut Scene, index: usize| {
        let last = scene.fleet.member(&id(index)).and_then(|member| member.report().cloned()).unwrap();
        scene.says(index, |report| *report = Report { stamp: report.stamp, ..last });
    };
    back.iter().chain(&beside.clone().take(24).collect::<Vec<_>>()).for_each(|index| say(&mut scene, *index));
    assert!(scene.fleet.silence(scene.now).is_mass());
    assert_eq!(scene.rollout().hand_backs(), []);
    say(&mut scene, beside.clone().nth(24).unwrap());
    assert_eq!(scene.rollout().hand_backs().len(), back.len(), "half of them are not most");
}

#[test]
fn who_starts_what_it_goes_back_to_is_not_told_to_hand_that_back() {
    let mut scene = on_the_way_back();
    let before = scene.rollout().hand_backs();
    let goes_back = who(&scene, |standing| *standing == Standing::Proven)[0];
    scene.stands(goes_back, Standing::Proving);
    assert_eq!(scene.rollout().hand_backs(), before);
}

#[test]
fn p12_a_server_that_is_behind_hands_nobody_back() {
    let mut scene = on_the_way_back();
    assert_eq!(scene.rollout().hand_backs().len(), 25);
    let proven = who(&scene, |standing| *standing == Standing::Proven)[0];
    let ahead = Seen { epoch: Epoch(9), deploy: DeployId::from_bytes([9; 16]) };
    scene.says(proven, |report| report.seen = Some(ahead));
    assert_eq!(scene.rollout().hand_backs(), [], "one of them obeys a later deploy");
}

#[test]
fn p12_a_member_is_told_what_is_for_the_deploy_that_it_obeys_and_nothing_else() {
    let mut scene = Scene::of(2, Policy::fast());
    let first = scene.grant()[0];
    let (ours, grant) = (scene.deploy.clone(), scene.deploy.bake(scene.rollout().grant().bake));
    let (give, back) = (Order::Grant { deploy: ours.id, bake: grant }, Order::HandBack { deploy: ours.id });
    let other = DeployId::from_bytes([9; 16]);
    for (what, seen, slot, handed) in [
        ("it has heard of nothing", None, Some(Order::Wish), Some(Order::Wish)),
        ("it obeys an earlier one", Some((1, other)), Some(Order::Wish), Some(Order::Wish)),
        ("it obeys this one", Some((2, ours.id)), Some(give), Some(back)),
        ("it obeys another one of the same number", Some((2, other)), None, None),
        ("it obeys a later one", Some((3, other)), None, None),
    ] {
        let seen = seen.map(|(epoch, deploy)| Seen { epoch: Epoch(epoch), deploy });
        let life = scene.sequence;
        scene.says(first, |report| (report.seen, report.stamp.life) = (seen, life));
        let order = |back| Order::of(&ours, scene.fleet.member(&id(first)), back);
        assert_eq!((order(false), order(true)), (slot, handed), "{what}");
    }
}

#[test]
fn a_member_that_lost_the_release_gets_it_again() {
    let mut scene = Scene::of(2, Policy::fast());
    scene.run();
    begin(&mut scene, Kind::Rollout, NEW);
    assert_eq!(scene.rollout().counts().held, 2);
    // A new container under the old name, with an empty disk.
    scene.says(0, |report| report.stamp.life = 2);
    assert_eq!(scene.rollout().counts().held, 1);
    assert_eq!(scene.grant(), [0]);
}

#[test]
fn what_was_seen_of_another_deploy_is_no_standing_in_this_one() {
    let mut scene = Scene::of(1, Policy::fast());
    let seen = Some(Seen { epoch: Epoch(1), deploy: DeployId::from_bytes([1; 16]) });
    scene.fleet = Fleet::new();
    scene.fleet.begin(deploy(Policy::fast()), scene.now);
    scene.says(0, |report| report.seen = seen);
    assert_eq!(scene.rollout().turn(&id(0)), Turn::Wait(Why::NotStaged { aware: false, fetches: false }));
}
