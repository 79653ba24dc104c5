//! Stories of programs that use too much memory.

use super::*;
use crate::run::Recycle;
use crate::units::{Bytes, Share};

const MIB: u64 = 1 << 20;

fn recycled() -> RunSettings {
    RunSettings { recycle: Some(Recycle::Share(Share::from_percent(80))), ..settings() }
}

/// So much of 100 MiB is used by a generation, for so many seconds.
fn use_memory(world: &mut World, id: u32, mib: u64, seconds: u64, answering: &[u32]) {
    for _ in 0..seconds {
        let (used, limit) = (Bytes(mib * MIB), Bytes(100 * MIB));
        world.step(Event::Used { generation: GenerationId(id), used, limit });
        world.pass(SECOND, answering);
    }
}

#[test]
fn a_program_that_uses_too_much_for_too_long_is_replaced_by_a_handover() {
    let mut world = World::new();
    world.order(Order::Try(launch_of(recycled(), 1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    use_memory(&mut world, 1, 90, 9, &[1]);
    use_memory(&mut world, 1, 80, 1, &[1]);
    use_memory(&mut world, 1, 90, 9, &[1]);
    assert_eq!(world.state(2), None, "it was less for a moment");
    use_memory(&mut world, 1, 90, 3, &[1, 2]);
    assert_eq!(world.state(1), Some(State::Draining));
    assert_eq!(world.state(2), Some(State::Serving));
    assert_eq!(world.machine.status().serving, Some(release(1)));
    let told = Fact::Recycled(GenerationId(1), Bytes(90 * MIB), Bytes(80 * MIB));
    assert!(world.said.contains(&told), "{:?}", world.said);
    assert_eq!(world.machine.restarts(), 0, "it has not failed");
}

#[test]
fn one_that_always_uses_too_much_is_replaced_now_and_then_only() {
    let mut world = World::new();
    world.order(Order::Try(launch_of(recycled(), 1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    use_memory(&mut world, 1, 90, 12, &[1, 2]);
    use_memory(&mut world, 2, 90, 590, &[2]);
    assert_eq!(world.state(3), None);
    use_memory(&mut world, 2, 90, 20, &[2, 3]);
    assert_eq!(world.state(3), Some(State::Serving));
}

#[test]
fn a_successor_that_gets_nowhere_is_given_up_and_the_old_one_serves_on() {
    let mut world = World::new();
    world.order(Order::Try(launch_of(recycled(), 1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    use_memory(&mut world, 1, 90, 11, &[1]);
    assert!(world.state(2).is_some());
    for _ in 0..200 {
        world.pass(SECOND, &[1]);
    }
    assert_eq!(world.state(1), Some(State::Serving));
    assert_eq!(world.machine.generations().len(), 1);
}

#[test]
fn who_was_told_nothing_and_who_does_not_serve_is_left_alone() {
    let mut world = World::serving(1);
    use_memory(&mut world, 1, 99, 60, &[1]);
    assert_eq!(world.state(2), None);
    let mut world = World::new();
    world.order(Order::Try(launch_of(recycled(), 1, 0)));
    use_memory(&mut world, 1, 99, 30, &[]);
    assert_eq!(world.state(2), None);
}
