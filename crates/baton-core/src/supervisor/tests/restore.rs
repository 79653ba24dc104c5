//! What the member runs anyway, and what is tried beside it.

use super::*;

fn restored(number: u8) -> Launch {
    Launch { ticket: Ticket::Restore, ..launch(number, 0) }
}

#[test]
fn what_was_to_be_restored_comes_back_when_what_pushed_it_aside_fails() {
    let mut world = World::new();
    world.order(Order::Try(restored(1)));
    assert!(world.machine.status().restoring);
    // Control has the member down as trying this one, from before it was killed.
    world.order(Order::Try(launch(2, 5000)));
    assert!(!world.machine.status().restoring);
    for id in [2, 3] {
        world.crash(id, 3);
    }
    world.pass(Millis(1000), &[4]);
    assert_eq!(world.machine.status().serving, Some(release(1)));
}

#[test]
fn a_release_that_crashes_in_its_bake_gives_way_to_what_was_never_healthy_in_this_life() {
    let mut world = World::new();
    world.order(Order::Try(restored(1)));
    world.order(Order::Try(launch(2, 60_000)));
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!(world.machine.status().serving, Some(release(2)));
    world.crash(2, 3);
    world.pass(Millis(1000), &[3]);
    assert_eq!(world.machine.status().serving, Some(release(1)));
}

#[test]
fn what_is_restored_is_launched_again_as_often_as_it_says_from_the_first_launch_on() {
    for (healthy_first, max_restarts) in [(true, 0), (true, 2), (false, 0), (false, 2)] {
        let settings = RunSettings { max_restarts, ..settings() };
        let plan = Arc::new(Plan::new(Running::Image, settings));
        let mut world = World::new();
        world.order(Order::Try(Launch { plan, ..restored(1) }));
        if healthy_first {
            world.answer(GenerationId(1), Outcome::Success);
        }
        for id in 1..=max_restarts + 1 {
            assert_eq!(world.exit, None, "{healthy_first} {max_restarts}");
            world.crash(id, 7);
            world.pass(Millis::from_secs(40), &[]);
        }
        assert_eq!(world.exit, Some(7), "{healthy_first} {max_restarts}");
    }
}
