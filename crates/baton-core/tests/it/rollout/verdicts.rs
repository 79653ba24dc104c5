//! When a rollout stops, goes back, or is done.

use baton_core::costs::{Cost, Costs};
use baton_core::decision::Decision;
use baton_core::deploy::{Deploy, Kind, Policy};
use baton_core::fleet::{GONE_AFTER, Heard, LEASE};
use baton_core::ids::{DeployId, Epoch, ReleaseId};
use baton_core::laggards::laggards;
use baton_core::report::{Cause, Report, Stamp, Standing};
use baton_core::turn::Turn;
use baton_core::units::{Bytes, Millis, Share};
use baton_core::verdict::{HaltReason, Rule, Verdict};

use super::{NEW, OLD, Scene, id, refused};

/// The rule by which a rollout goes back.
fn rule(verdict: &Verdict) -> Option<Rule> {
    match verdict {
        Verdict::RollBack(HaltReason { rule, .. }) => Some(*rule),
        Verdict::Continue | Verdict::Halt(_) | Verdict::Incomplete | Verdict::Done { .. } => None,
    }
}

#[test]
fn p8_p9_the_first_member_that_refuses_ends_the_rollout() {
    for members in [1, 2, 3, 10, 4000] {
        let mut scene = Scene::of(members, Policy::safe());
        let first = scene.grant()[0];
        scene.stands(first, Standing::Trying);
        assert_eq!(scene.verdict(), Verdict::Continue);
        scene.stands(first, refused());
        let verdict = scene.verdict();
        let Verdict::RollBack(reason) = &verdict else { panic!("{verdict:?}") };
        let expected = format!("the first member failed (m{first}: the candidate ended: exit 1 after 0.8 s)");
        assert_eq!(reason.to_string(), expected);
        assert_eq!(scene.grant(), []);
    }
}

#[test]
fn p9_without_a_fallback_or_with_auto_rollback_off_it_halts() {
    for (auto_rollback, fallback) in [(false, true), (true, false)] {
        let mut scene = Scene::of(3, Policy::safe());
        let mut deploy = scene.deploy.clone();
        deploy.policy.auto_rollback = auto_rollback;
        deploy.fallback = deploy.fallback.filter(|_| fallback);
        scene.fleet.begin(deploy, scene.now);
        let first = scene.grant()[0];
        scene.stands(first, refused());
        assert!(matches!(scene.verdict(), Verdict::Halt(_)));
    }
}

#[test]
fn p8_a_window_full_of_failures_ends_the_rollout() {
    let mut scene = Scene::of(8, Policy { failure_limit: Share::ALL, ..Policy::fast() });
    let granted = scene.grant();
    assert_eq!(granted.len(), 2);
    scene.stands(granted[0], refused());
    assert_eq!(scene.verdict(), Verdict::Continue);
    scene.stands(granted[1], refused());
    assert_eq!(rule(&scene.verdict()), Some(Rule::WindowFailed { slots: 2 }));
}

#[test]
fn more_failures_than_chance_explains_end_the_rollout_and_fewer_do_not() {
    for (failed, ends) in [(2, false), (3, false), (60, false), (85, true)] {
        let mut scene = Scene::of(4000, Policy::fast());
        let granted = scene.grant();
        granted[..failed].iter().for_each(|&index| scene.stands(index, refused()));
        let limit = matches!(rule(&scene.verdict()), Some(Rule::FailureLimit { .. }));
        assert_eq!(limit, ends, "{failed} of {}", granted.len());
    }
}

#[test]
fn p8_a_rollout_that_has_failed_gives_no_slots_even_before_it_is_stopped() {
    let mut scene = Scene::of(4000, Policy::fast());
    let granted = scene.grant();
    granted[..85].iter().for_each(|&index| scene.stands(index, refused()));
    granted[85..500].iter().for_each(|&index| scene.stands(index, Standing::Proven));
    let untouched = (0..4000).find(|index| !granted.contains(index)).unwrap();
    let turn = scene.rollout().turn(&id(untouched));
    let Turn::Wait(why) = &turn else { panic!("{turn:?}") };
    assert!(
        why.to_string().starts_with("it is about to be stopped, because 85 of 1000 members failed"),
        "{why}"
    );
    assert_eq!(scene.grant(), []);
    let decision = Decision::of(&scene.rollout(), |_| false);
    assert!(decision.stop.is_some());
    assert_eq!(decision.grants, [], "nothing is given beside a stop");
}

#[test]
fn failures_that_show_before_the_successes_do_not_stop_a_good_release() {
    // One in a hundred members is broken: its two tries are over long before anybody has baked.
    let mut scene = Scene::of(4000, Policy::safe());
    let first = scene.grant()[0];
    scene.stands(first, Standing::Proven);
    let second = scene.grant();
    second[..4].iter().for_each(|&index| scene.stands(index, refused()));
    assert_eq!(scene.verdict(), Verdict::Continue);
}

#[test]
fn a_member_that_falls_silent_in_its_try_has_failed_but_not_at_once() {
    let mut scene = Scene::of(5, Policy::safe());
    let first = scene.grant()[0];
    scene.stands(first, Standing::Trying);
    for (lease, failed) in [(1, false), (2, true)] {
        scene.now = scene.now + LEASE;
        (0..5).filter(|&index| index != first).for_each(|index| scene.stands(index, Standing::Staged));
        scene.fleet.sweep(scene.now);
        assert_eq!(rule(&scene.verdict()), failed.then_some(Rule::FirstMember), "after {lease} leases");
    }
}

#[test]
fn a_member_that_vanishes_in_its_try_has_failed() {
    let mut scene = Scene::of(5, Policy::safe());
    let first = scene.grant()[0];
    scene.vanishes(first);
    assert_eq!(rule(&scene.verdict()), Some(Rule::FirstMember));
}

#[test]
fn f113_whoever_is_asked_to_stop_in_its_try_has_not_failed_and_another_takes_its_place() {
    let tries = [Standing::Staged, Standing::Granted, Standing::Trying, Standing::Proving];
    for (standing, failed) in tries.map(|standing| (standing, false)).into_iter().chain([(refused(), true)]) {
        let mut scene = Scene::of(5, Policy::safe());
        let first = scene.grant()[0];
        scene.stands(first, standing.clone());
        scene.fleet.leave(&id(first), scene.now);
        assert_eq!(rule(&scene.verdict()), failed.then_some(Rule::FirstMember), "{standing:?}");
        assert_eq!(scene.grant().len(), usize::from(!failed), "{standing:?}");
    }
    // Nor does it speak against the release where it had not begun to try it.
    let mut scene = Scene::of(40, Policy::safe());
    for _ in 0..10 {
        let [next] = scene.grant()[..] else { panic!("one at a time") };
        scene.fleet.leave(&id(next), scene.now);
        assert_eq!(scene.verdict(), Verdict::Continue);
    }
    // One that was silent before has failed, whoever says later that it will not come back.
    let mut scene = Scene::of(5, Policy::safe());
    let first = scene.grant()[0];
    scene.now = scene.now + LEASE;
    (0..5).filter(|&index| index != first).for_each(|index| scene.stands(index, Standing::Staged));
    scene.fleet.leave(&id(first), scene.now);
    assert_eq!(rule(&scene.verdict()), Some(Rule::FirstMember));
}

#[test]
fn p8_a_platform_that_stops_those_who_try_the_release_and_no_others_ends_the_rollout() {
    for (others, ends) in [(0, true), (2, true), (3, false), (20, false)] {
        let mut scene = Scene::of(40, Policy::safe());
        (0..others).for_each(|index| scene.fleet.leave(&id(index), scene.now));
        for stopped in 0..3 {
            assert_eq!(scene.verdict(), Verdict::Continue, "{stopped} are stopped");
            let [next] = scene.grant()[..] else { panic!("one at a time") };
            scene.stands(next, Standing::Proving);
            scene.fleet.leave(&id(next), scene.now);
        }
        let limit = Rule::FailureLimit {
            failed: 3,
            tries: 3,
            at_least: Share::from_ppm(438_493).unwrap(),
            limit: Share::from_percent(5),
        };
        assert_eq!(rule(&scene.verdict()), ends.then_some(limit), "{others} others were stopped as well");
        if let Verdict::RollBack(reason) = scene.verdict() {
            assert!(reason.failure.contains("its platform stopped it"), "{reason}");
            assert_eq!(scene.grant(), [], "what has failed gives no slots");
        }
        // The next deploy begins anew.
        let next = Deploy { id: DeployId::from_bytes([9; 16]), epoch: Epoch(3), ..scene.deploy.clone() };
        scene.fleet.begin(next, scene.now);
        assert_eq!(scene.verdict(), Verdict::Continue);
    }
}

#[test]
fn proven_members_that_crash_end_the_rollout_while_it_is_under_way() {
    let mut scene = Scene::of(100, Policy::fast());
    let granted = scene.grant();
    granted.iter().for_each(|&index| scene.stands(index, Standing::Proven));
    scene.grant();
    assert_eq!(scene.verdict(), Verdict::Continue);
    // They are up again and healthy, and bake anew: they take a slot, and the crash is not forgotten.
    for &index in &granted[..7] {
        let mut again = super::report(index, 90_000, &scene.deploy, Standing::Proving);
        again.relapses = 1;
        let _ = scene.fleet.apply(again, scene.now);
    }
    assert_eq!(scene.rollout().counts().failed, 7);
    assert_eq!(scene.rollout().counts().open, 25 + 7);
    assert!(matches!(rule(&scene.verdict()), Some(Rule::FailureLimit { .. })));
}

#[test]
fn what_fails_after_the_switch_is_not_the_deploys_failure() {
    let mut scene = Scene::of(3, Policy::safe());
    scene.run();
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
    scene.fleet.note_switched();
    for index in 0..3 {
        scene.says(index, |report| (report.relapses, report.healthy) = (3, false));
    }
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

#[test]
fn who_joins_after_the_switch_gets_the_release_whatever_has_crashed_since() {
    let mut scene = Scene::of(20, Policy::fast());
    scene.run();
    scene.fleet.note_switched();
    for index in 0..10 {
        let proven = super::report(index, 0, &scene.deploy, Standing::Proven);
        scene.says(index, |report| *report = Report { stamp: report.stamp, relapses: 3, ..proven });
    }
    scene.stands(20, Standing::Staged);
    assert_eq!(scene.rollout().stop(), None);
    assert_eq!(scene.grant(), [20]);
}

#[test]
fn p13_complete_means_that_every_live_member_has_proven_the_digest_it_runs() {
    type Change = fn(&mut Scene);
    let last = 9;
    let changes: [(&str, Change, bool); 7] = [
        ("all have", |s| s.stands(9, Standing::Proven), true),
        ("one bakes", |s| s.stands(9, Standing::Proving), false),
        ("one is behind", |s| s.stands(9, Standing::Behind), false),
        ("one runs something unknown", |s| s.says(9, |report| report.running = None), false),
        (
            "one is silent",
            |s| {
                s.now = s.now + LEASE;
            },
            false,
        ),
        ("one has left", |s| s.fleet.leave(&id(9), s.now), true),
        (
            "one has joined",
            |s| {
                s.stands(9, Standing::Proven);
                s.stands(10, Standing::Behind);
            },
            false,
        ),
    ];
    for (what, change, complete) in changes {
        let mut scene = Scene::of(10, Policy::fast());
        loop {
            let granted: Vec<_> = scene.grant().into_iter().filter(|&index| index != last).collect();
            if granted.is_empty() && scene.rollout().counts().proven == 9 {
                break;
            }
            granted.iter().for_each(|&index| scene.stands(index, Standing::Proven));
        }
        change(&mut scene);
        if what == "one is silent" {
            (0..9).for_each(|index| scene.stands(index, Standing::Proven));
        }
        let done = scene.verdict() == Verdict::Done { drained: true };
        // Who has left in the middle of a try lacks nothing.
        assert_eq!(done, complete, "{what}: {:?}", scene.verdict());
    }
}

#[test]
fn done_is_drained_when_no_old_generation_is_left() {
    let mut scene = Scene::of(1, Policy::safe());
    scene.grant();
    let proven = super::report(0, 0, &scene.deploy, Standing::Proven);
    scene.says(0, |report| *report = Report { stamp: report.stamp, drained: false, ..proven });
    assert_eq!(scene.verdict(), Verdict::Done { drained: false });
    scene.stands(0, Standing::Proven);
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

/// All but this member say again what they have said last, a lease later.
fn silence(scene: &mut Scene, silent: usize) {
    scene.now = scene.now + LEASE;
    let heard: Vec<_> =
        scene.fleet.members().map(|(id, _)| id.clone()).filter(|id_| *id_ != id(silent)).collect();
    for heard in heard {
        scene.sequence += 1;
        let stamp = Stamp { life: 1, sequence: scene.sequence };
        assert_eq!(scene.fleet.heartbeat(&heard, stamp, scene.now), Heard::News);
    }
}

#[test]
fn p10_nothing_is_drained_while_a_member_is_silent() {
    let mut scene = Scene::of(3, Policy::safe());
    scene.run();
    scene.fleet.note_switched();
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
    silence(&mut scene, 1);
    assert_eq!(scene.verdict(), Verdict::Done { drained: false }, "nobody knows what runs there");
    scene.stands(1, Standing::Proven);
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

#[test]
fn p13_a_rollout_is_not_incomplete_while_a_member_is_silent() {
    let mut scene = Scene::of(20, Policy::fast());
    // One has the release already, and another one refuses it.
    scene.stands(0, Standing::Proven);
    let refuses = scene.grant()[0];
    scene.stands(refuses, refused());
    loop {
        let tries: Vec<_> =
            scene.fleet.grants().filter(|(_, grant)| !grant.proven).map(|(id, _)| id.clone()).collect();
        tries
            .iter()
            .map(super::index)
            .filter(|index| *index != refuses)
            .for_each(|index| scene.stands(index, Standing::Proven));
        if scene.grant().is_empty() {
            break;
        }
    }
    assert_eq!(scene.verdict(), Verdict::Incomplete);
    silence(&mut scene, 0);
    assert_eq!(scene.verdict(), Verdict::Continue, "it may come back with anything");
    scene.stands(0, Standing::Proven);
    assert_eq!(scene.verdict(), Verdict::Incomplete);
}

#[test]
fn an_empty_fleet_is_never_done() {
    assert_eq!(Scene::of(0, Policy::safe()).verdict(), Verdict::Continue);
}

#[test]
fn p13_when_only_refused_and_unstageable_members_are_left_they_are_named() {
    let mut scene = Scene::of(100, Policy::fast());
    scene.stands(7, refused());
    let broken = scene.grant()[0];
    scene.stands(broken, refused());
    loop {
        assert!(!matches!(scene.verdict(), Verdict::Incomplete));
        let on_trial: Vec<_> =
            scene.fleet.grants().filter(|(_, grant)| !grant.proven).map(|(id, _)| super::index(id)).collect();
        on_trial
            .into_iter()
            .filter(|&index| index != broken)
            .for_each(|index| scene.stands(index, Standing::Proven));
        if scene.grant().is_empty() {
            break;
        }
    }
    let mut left = vec![id(7), id(broken)];
    left.sort();
    assert_eq!(scene.verdict(), Verdict::Incomplete);
    let rollout = scene.rollout();
    assert!(rollout.refused().map(|(id, _)| id).eq(&left));
    // They try again every minute, and success ends it well.
    scene.stands(7, Standing::Staged);
    assert_eq!(scene.grant(), [7]);
    scene.stands(7, Standing::Proven);
    scene.stands(broken, Standing::Proven);
    assert_eq!(scene.verdict(), Verdict::Done { drained: true });
}

#[test]
fn p46_every_reason_has_a_code_and_reads_as_a_sentence() {
    let reason = |rule| HaltReason { rule, member: id(1), failure: Cause::Startup.to_string() };
    let limit = Rule::FailureLimit {
        failed: 85,
        tries: 1000,
        at_least: Share::from_ppm(69_300).unwrap(),
        limit: Share::from_percent(5),
    };
    for (rule, code, text) in [
        (Rule::FirstMember, "first-member-failed", "the first member failed"),
        (Rule::WindowFailed { slots: 1 }, "window-failed", "the member in the only slot failed"),
        (Rule::WindowFailed { slots: 9 }, "window-failed", "the members in all 9 slots failed"),
        (
            limit,
            "failure-limit",
            "85 of 1000 members failed, which is a rate of at least 6.93 % where 5 % is allowed",
        ),
    ] {
        assert_eq!(rule.code(), code);
        assert_eq!(reason(rule).to_string(), format!("{text} (m1: the candidate was not ready in time)"));
    }
}

#[test]
fn one_that_proved_without_traffic_is_counted() {
    let mut scene = Scene::of(1, Policy::safe());
    scene.grant();
    scene.says(0, |report| {
        (report.standing, report.bake_connections) = (Standing::Proven, 0);
        (report.running, report.committed) = (Some(NEW), Some((NEW, Epoch(2))));
    });
    assert_eq!(scene.rollout().counts().proven_without_traffic, 1);
}

type Says = fn(&mut Report);

/// What a member last said before it went down, and what was begun how long after that.
struct Down {
    what: &'static str,
    says: Says,
    had_slot: bool,
    since: Millis,
    next: (Kind, ReleaseId),
}

/// Deploys to a fleet whose last member is down. How long it took.
fn roll_out_beside(down: &Down, members: usize) -> Millis {
    let mut scene = Scene::of(members, Policy::safe());
    let (before, last) = (scene.deploy.id, members - 1);
    if down.had_slot {
        let grant = scene.rollout().grant();
        scene.fleet.grant(&[id(last)], grant);
    }
    scene.says(last, down.says);
    scene.now = scene.now + down.since;
    (0..last).for_each(|index| scene.stands(index, Standing::Proven));
    scene.fleet.sweep(scene.now);
    let (kind, release) = down.next;
    let id = DeployId::from_bytes([3; 16]);
    scene.deploy = Deploy { id, epoch: Epoch(3), kind, parent: Some(before), release, ..scene.deploy };
    scene.fleet.begin(scene.deploy.clone(), scene.now);

    let begun = scene.now;
    let mut standings = vec![Standing::Staged; last];
    loop {
        for (index, standing) in standings.iter().enumerate() {
            scene.stands(index, standing.clone());
        }
        for index in scene.grant() {
            standings[index] = Standing::Proven;
        }
        let took = scene.now.since(begun);
        match scene.verdict() {
            Verdict::Continue => {}
            Verdict::Done { .. } => return took,
            other => panic!("{}, {members} members, after {took}: {other:?}", down.what),
        }
        assert!(took < Millis::from_secs(600), "{}, {members} members: it stands still", down.what);
        scene.now = scene.now + Millis::from_secs(1);
    }
}

#[test]
fn p15_who_was_down_before_a_deploy_does_not_count_against_it() {
    fn ran(report: &mut Report) {
        report.standing = Standing::Proven;
        (report.running, report.committed) = (Some(NEW), Some((NEW, Epoch(2))));
    }
    let stories: [(&str, Says); 5] = [
        ("it ran well", ran),
        ("it was unhealthy", |report| {
            ran(report);
            report.healthy = false;
        }),
        ("it had crashed again and again", |report| {
            ran(report);
            (report.running, report.healthy, report.relapses) = (None, false, 3);
        }),
        ("it was in the middle of a try", |report| report.standing = Standing::Trying),
        ("it had refused", |report| report.standing = refused()),
    ];
    let other = ReleaseId::from_bytes([3; 32]);
    let back = Kind::Rollback { of: DeployId::from_bytes([2; 16]) };
    for (what, says) in stories {
        for next in [(Kind::Rollout, other), (Kind::Rollout, NEW), (back, OLD)] {
            for since in [0, 1, 9, 10, 30, 59, 60, 90].map(Millis::from_secs) {
                for (members, had_slot) in [(2, false), (2, true), (3, false), (3, true), (4, true)] {
                    let took = roll_out_beside(&Down { what, says, had_slot, since, next }, members);
                    // Each proves it within a second, after a minute at most for who may still be trying.
                    let limit = GONE_AFTER + Millis::from_secs(members as u64);
                    assert!(took <= limit, "{what}, {members} members, {next:?}, {since}: {took}");
                }
            }
        }
    }
}

/// Who lags, and how.
fn lagging(scene: &Scene) -> Vec<(String, &'static str)> {
    let rollout = scene.rollout();
    laggards(&rollout).into_iter().map(|(id, lag)| (id.to_string(), lag.code())).collect()
}

#[test]
fn p13_who_keeps_a_deploy_from_its_end_is_named() {
    let mut scene = Scene::of(4, Policy::fast());
    assert_eq!(lagging(&scene), [], "all wait for their turn");
    let mut tried = Vec::new();
    while tried.len() < 3 {
        let [one] = scene.grant()[..] else { panic!() };
        scene.stands(one, Standing::Proven);
        tried.push(one);
    }
    let [last] = scene.grant()[..] else { panic!() };
    let name = |index: usize| id(index).to_string();
    assert_eq!(lagging(&scene), [(name(last), "on-trial")]);
    scene.stands(last, Standing::Proving);
    assert_eq!(lagging(&scene), [(name(last), "on-trial")]);
    scene.stands(last, Standing::Proven);
    scene.says(tried[0], |report| {
        *report =
            super::report(tried[0], report.stamp.sequence, &super::deploy(Policy::fast()), Standing::Proven);
        report.drained = false;
    });
    assert_eq!(scene.verdict(), Verdict::Done { drained: false });
    assert_eq!(lagging(&scene), [(name(tried[0]), "drains")]);
    scene.stands(tried[0], Standing::Proven);
    assert_eq!(lagging(&scene), []);
    scene.fleet.note_switched();
    scene.now = scene.now + LEASE;
    (0..4).filter(|index| *index != last).for_each(|index| scene.stands(index, Standing::Proven));
    assert_eq!(lagging(&scene), [(name(last), "silent")], "nobody knows whether it has drained");
}

/// A rollout to ten members with these gates, of which the first `tried` have proven the release, each with these costs.
fn costly(gates: &[Cost], tried: usize, costs: impl Fn(usize) -> Costs) -> Scene {
    let mut scene = Scene::of(
        10,
        Policy { gates: gates.to_vec(), max_unhealthy: Share::from_percent(50), ..Policy::fast() },
    );
    let mut proven = 0;
    while proven < tried {
        let granted = scene.grant();
        assert!(!granted.is_empty(), "stopped after {proven}: {:?}", scene.verdict());
        for index in granted {
            let deploy = scene.deploy.clone();
            let costs = costs(proven);
            scene.says(index, |report| {
                let sequence = report.stamp.sequence;
                *report = Report { costs, ..super::report(index, sequence, &deploy, Standing::Proven) };
            });
            proven += 1;
        }
    }
    scene
}

fn starts_in(now: u64, before: u64) -> Costs {
    Costs { startup: Some(Millis(now)), startup_before: Some(Millis(before)), ..Costs::default() }
}

#[test]
fn a_release_that_starts_much_slower_is_told_and_taken_back_where_that_is_a_gate() {
    let slow = |_| starts_in(7000, 5000);
    let told = costly(&[], 4, slow);
    assert_eq!(
        (told.rollout().learnt().more(Cost::Startup), told.verdict()),
        (Some((4, 4)), Verdict::Continue)
    );
    assert_eq!(rule(&costly(&[Cost::Memory], 4, slow).verdict()), None, "another gate");

    let gated = costly(&[Cost::Startup], 4, slow);
    let Verdict::RollBack(reason) = gated.verdict() else { panic!("{:?}", gated.verdict()) };
    assert_eq!(reason.rule, Rule::TooCostly { cost: Cost::Startup, more: 4, of: 4 });
    assert_eq!(
        (reason.rule.code(), reason.failure.as_str()),
        ("starts-slower", "it took 7 s to start, and 5 s before")
    );
    assert_eq!(gated.rollout().next_grants(), [], "what is about to be stopped gives no slots");
}

#[test]
fn one_busy_member_closes_no_gate() {
    let one = |number| starts_in(if number == 0 { 9000 } else { 5000 }, 5000);
    assert_eq!(costly(&[Cost::Startup], 4, one).verdict(), Verdict::Continue);
    let mut first = Scene::of(10, Policy { gates: vec![Cost::Startup], ..Policy::safe() });
    let [index] = first.grant()[..] else { panic!() };
    let deploy = first.deploy.clone();
    first.says(index, |report| {
        let sequence = report.stamp.sequence;
        *report = Report {
            costs: starts_in(9000, 5000),
            ..super::report(index, sequence, &deploy, Standing::Proven)
        };
    });
    assert_eq!(first.verdict(), Verdict::Continue, "one of one is not enough to say so");
}

#[test]
fn memory_is_a_gate_of_its_own_and_a_rollback_has_none() {
    let large = |_| Costs {
        memory: Some(Bytes(150 << 20)),
        memory_before: Some(Bytes(100 << 20)),
        ..Costs::default()
    };
    let gated = costly(&[Cost::Memory], 4, large);
    assert_eq!(rule(&gated.verdict()), Some(Rule::TooCostly { cost: Cost::Memory, more: 4, of: 4 }));
    let mut scene = costly(&[Cost::Memory], 0, large);
    let kind = Kind::Rollback { of: DeployId::from_bytes([1; 16]) };
    let back = Deploy { kind, id: DeployId::from_bytes([9; 16]), epoch: Epoch(3), ..scene.deploy.clone() };
    scene.deploy = back.clone();
    scene.fleet.begin(back.clone(), scene.now);
    for index in 0..5 {
        scene.says(index, |report| {
            let sequence = report.stamp.sequence;
            *report = Report { costs: large(0), ..super::report(index, sequence, &back, Standing::Proven) };
        });
    }
    assert_eq!(scene.verdict(), Verdict::Continue);
}

#[test]
fn a_gate_closes_with_the_very_last_proof_too() {
    for members in [1, 2, 3] {
        let mut scene = Scene::of(members, Policy { gates: vec![Cost::Memory], ..Policy::safe() });
        for _ in 0..members {
            let [index] = scene.grant()[..] else { panic!("one at a time") };
            let deploy = scene.deploy.clone();
            scene.says(index, |report| {
                let sequence = report.stamp.sequence;
                let (memory, memory_before) = (Some(Bytes(150 << 20)), Some(Bytes(100 << 20)));
                let costs = Costs { memory, memory_before, ..Costs::default() };
                *report = Report { costs, ..super::report(index, sequence, &deploy, Standing::Proven) };
            });
        }
        assert!(matches!(scene.verdict(), Verdict::RollBack(_)), "{members}: {:?}", scene.verdict());
    }
}
