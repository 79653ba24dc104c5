//! Bakes that need connections.

use super::*;

const SECOND_ID: GenerationId = GenerationId(2);

/// The second release bakes for a second and needs 20 connections.
fn baking() -> World {
    let mut world = World::serving(1);
    world.order(Order::Try(launch_in_traffic(2, 1000, 20)));
    assert_eq!(world.counted.len(), 0, "nobody reaches it yet");
    world.answer(SECOND_ID, Outcome::Success);
    assert_eq!(world.counted[&SECOND_ID], 20);
    world
}

#[test]
fn a_bake_ends_when_its_time_is_over_and_its_connections_have_come_in_any_order() {
    for early in [true, false] {
        let mut world = baking();
        if early {
            world.step(Event::Accepted(SECOND_ID, 25));
            world.pass(Millis(900), &[1, 2]);
            assert_eq!(world.standing(), TrialState::Proving, "its time is not over");
            world.pass(Millis(200), &[1, 2]);
        } else {
            world.pass(Millis(2000), &[1, 2]);
            world.step(Event::Accepted(SECOND_ID, 19));
            assert_eq!(world.standing(), TrialState::Proving);
            assert_eq!(world.machine.status().accepted, Some(19));
            assert!(world.said.contains(&Fact::WaitsForTraffic(SECOND_ID, None, 20)), "{:?}", world.said);
            world.step(Event::Accepted(SECOND_ID, 20));
        }
        assert_eq!(world.standing(), TrialState::Proven);
        assert!(world.counted.is_empty(), "nobody counts any more");
    }
}

#[test]
fn a_service_that_nobody_uses_is_waited_for_no_longer_than_said() {
    let mut world = baking();
    world.pass(Millis(1000) + TRAFFIC_PATIENCE - SECOND, &[1, 2]);
    assert_eq!(world.standing(), TrialState::Proving);
    world.pass(SECOND + SECOND, &[1, 2]);
    assert_eq!(world.standing(), TrialState::Proven);
    assert!(world.said.contains(&Fact::TooLittleTraffic(SECOND_ID, None, 20)), "{:?}", world.said);
}

#[test]
fn what_a_member_runs_first_waits_for_nobody() {
    let mut world = World::new();
    world.order(Order::Try(launch_in_traffic(1, 1000, 20)));
    world.answer(GenerationId(1), Outcome::Success);
    assert!(world.counted.is_empty());
    world.pass(SECOND + SECOND, &[1]);
    assert_eq!(world.standing(), TrialState::Proven);
}

#[test]
fn a_release_that_fails_while_it_waits_for_connections_is_handed_back() {
    let mut world = baking();
    world.pass(Millis(2000), &[1, 2]);
    world.crash(2, 1);
    assert_eq!(world.machine.status().serving, Some(release(1)));
    assert!(matches!(world.standing(), TrialState::Refused { .. }));
    // What is counted too late is nobody's.
    world.step(Event::Accepted(SECOND_ID, 100));
    assert_eq!(world.machine.status().accepted, None);
}

#[test]
fn of_connections_that_are_divided_as_many_count_as_are_likely() {
    let mut world = World::serving(1);
    let mut split = settings();
    split.split = Some(Share::from_percent(10));
    let bake = Bake { time: Millis(1000), connections: 20 };
    world.order(Order::Try(Launch { bake, ..launch_of(split, 2, 1000) }));
    world.answer(SECOND_ID, Outcome::Success);
    assert_eq!(world.counted[&SECOND_ID], 200);
    world.pass(Millis(2000), &[1, 2]);
    world.step(Event::Accepted(SECOND_ID, 199));
    assert_eq!((world.machine.status().accepted, world.standing()), (Some(19), TrialState::Proving));
    world.step(Event::Accepted(SECOND_ID, 200));
    assert_eq!(world.standing(), TrialState::Proven);
}

#[test]
fn all_connections_count_where_nothing_stands_by_to_get_the_rest() {
    let bake = Bake { time: Millis(1000), connections: 20 };
    let split = Some(Share::from_percent(10));
    let mut world = World::serving(1);
    let alone = RunSettings { overlap: false, split, ..settings() };
    world.order(Order::Try(Launch { bake, ..launch_of(alone, 2, 1000) }));
    world.ends(1, Exit::Code(0));
    world.answer(SECOND_ID, Outcome::Success);
    assert_eq!(world.counted.get(&SECOND_ID), Some(&20));
    // What stood by is lost: of the 100 until then ten count, and each one from then on.
    let mut world = World::serving(1);
    let divided = RunSettings { split, ..settings() };
    world.order(Order::Try(Launch { bake, ..launch_of(divided, 2, 1000) }));
    world.answer(SECOND_ID, Outcome::Success);
    world.step(Event::Accepted(SECOND_ID, 100));
    world.crash(1, 1);
    world.step(Event::Accepted(SECOND_ID, 109));
    assert_eq!(world.machine.status().accepted, Some(19));
    world.pass(Millis(2000), &[2]);
    assert_eq!(world.standing(), TrialState::Proving);
    world.step(Event::Accepted(SECOND_ID, 110));
    assert_eq!(world.standing(), TrialState::Proven);
}

#[test]
fn what_takes_the_place_of_one_that_ended_first_needs_its_connections_as_well() {
    let mut world = World::serving(1);
    let alone = RunSettings { overlap: false, ..settings() };
    let bake = Bake { time: Millis(1000), connections: 20 };
    world.order(Order::Try(Launch { bake, ..launch_of(alone, 2, 1000) }));
    world.ends(1, Exit::Code(0));
    world.answer(SECOND_ID, Outcome::Success);
    assert_eq!(world.counted.get(&SECOND_ID), Some(&20));
    world.pass(Millis(2000), &[2]);
    assert_eq!(world.standing(), TrialState::Proving);
    world.step(Event::Accepted(SECOND_ID, 20));
    assert_eq!(world.standing(), TrialState::Proven);
}

#[test]
fn a_bake_of_connections_alone_hands_back_as_well() {
    let mut world = World::serving(1);
    world.order(Order::Try(launch_in_traffic(2, 0, 20)));
    world.answer(SECOND_ID, Outcome::Success);
    assert_eq!(world.state(1), Some(State::Standby));
    world.pass(SECOND, &[1, 2]);
    assert_eq!(world.standing(), TrialState::Proving);
    world.crash(2, 1);
    assert_eq!(world.machine.status().serving, Some(release(1)));
}

#[test]
fn where_nobody_can_be_counted_nobody_is_waited_for() {
    let mut at_a_path = settings();
    at_a_path.listen[0].address = Address::Unix("/run/web.sock".parse().unwrap());
    for settings in [worker(), at_a_path] {
        let healthy = |world: &mut World, id| {
            if settings.listen.is_empty() {
                world.say(id, Notice::Ready);
            } else {
                world.answer(GenerationId(id), Outcome::Success);
            }
        };
        let mut world = World::new();
        world.order(Order::Try(launch_of(settings.clone(), 1, 0)));
        healthy(&mut world, 1);
        let bake = Bake { time: Millis(1000), connections: 20 };
        world.order(Order::Try(Launch { bake, ..launch_of(settings.clone(), 2, 1000) }));
        healthy(&mut world, 2);
        assert!(world.counted.is_empty());
        world.pass(Millis(1500), &[1, 2]);
        assert_eq!(
            (world.machine.status().serving, world.standing()),
            (Some(release(2)), TrialState::Proven)
        );
    }
}
