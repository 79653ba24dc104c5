//! A release that gets a part of the new connections while it bakes.

use super::*;

const PART: Share = Share::from_percent(5);

fn split(number: u8, bake: u64) -> Launch {
    launch_of(RunSettings { split: Some(PART), ..settings() }, number, bake)
}

/// Release 1 is proven, and release 2 bakes with a part of the connections.
fn baking() -> World {
    let mut world = World::serving(1);
    world.order(Order::Try(split(2, 5000)));
    assert_eq!(world.split, None, "the candidate is reached by nobody");
    world.answer(GenerationId(2), Outcome::Success);
    let rest = world.processes[&GenerationId(1)].slot;
    assert_eq!(world.split, Some(Split { share: PART, rest }));
    assert_eq!(world.selected.0, world.processes[&GenerationId(2)].slot);
    world
}

#[test]
fn when_it_is_proven_it_gets_all() {
    let mut world = baking();
    assert!(world.said.contains(&Fact::Split(GenerationId(2), PART, GenerationId(1))));
    world.pass(Millis(5000), &[2]);
    assert_eq!((world.split, world.state(1)), (None, Some(State::Draining)));
    assert_eq!(world.machine.status().serving, Some(release(2)));
}

#[test]
fn when_it_fails_the_other_one_gets_all_back() {
    type Failure = fn(&mut World);
    let ways: [(&str, Failure); 3] = [
        ("it crashes", |world| world.crash(2, 1)),
        ("its probes fail", |world| world.pass(Millis::from_secs(4), &[])),
        ("it is taken back", |world| world.order(Order::HandBack)),
    ];
    for (way, fail) in ways {
        let mut world = baking();
        fail(&mut world);
        assert_eq!(world.split, None, "{way}");
        assert_eq!(world.selected.0, world.processes[&GenerationId(1)].slot, "{way}");
    }
}

#[test]
fn when_the_other_one_ends_it_gets_all() {
    let mut world = baking();
    world.crash(1, 1);
    assert_eq!(world.split, None);
    assert_eq!(world.selected.0, world.processes[&GenerationId(2)].slot);
}

#[test]
fn without_another_one_it_gets_all_at_once() {
    let mut world = World::new();
    world.order(Order::Try(split(1, 5000)));
    world.answer(GenerationId(1), Outcome::Success);
    assert_eq!((world.split, world.machine.status().serving), (None, Some(release(1))));
    // It crashes in its bake and is launched again where its clients wait.
    world.crash(1, 1);
    world.pass(Millis(1000), &[1, 2]);
    assert_eq!(world.split, None);
}

#[test]
fn what_replaces_a_failing_one_or_is_gone_back_to_gets_all_at_once() {
    let mut world = World::new();
    world.order(Order::Try(split(1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    // The same release, since the one that serves has become unhealthy.
    world.pass(Millis::from_secs(20), &[2, 3]);
    assert!(world.said.iter().any(|fact| matches!(fact, Fact::Restarting(..))));
    assert_eq!(world.split, None);

    let kept = |number, bake| {
        let keep_warm = Some(Millis::from_secs(600));
        launch_of(RunSettings { split: Some(PART), keep_warm, ..settings() }, number, bake)
    };
    let mut world = World::new();
    for number in 1..=2 {
        world.order(Order::Try(kept(number, 5000)));
        world.answer(GenerationId(number.into()), Outcome::Success);
        world.pass(Millis(5000), &[1, 2]);
    }
    assert_eq!(world.machine.status().standby, Some(release(1)));
    world.order(Order::Try(kept(1, 5000)));
    assert_eq!((world.split, world.machine.status().serving), (None, Some(release(1))));
}

#[test]
fn what_bakes_is_probed_where_only_probes_reach_it() {
    let mut world = baking();
    world.pass(Millis::from_secs(2), &[2]);
    // The checks of the world's probes hold; and it is still the one that serves.
    assert!(world.split.is_some());
    assert_eq!(world.machine.status().serving, Some(release(2)));
}
