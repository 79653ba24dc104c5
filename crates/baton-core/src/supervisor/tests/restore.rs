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
