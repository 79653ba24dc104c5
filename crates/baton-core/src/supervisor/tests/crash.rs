//! What ends, or must be ended, though it should serve.

use super::*;

#[test]
fn p4_a_crash_with_nobody_standing_by_is_launched_again_on_the_same_sockets() {
    let mut world = World::serving(1);
    let slot = world.selected.0;
    world.crash(1, 1);
    assert_eq!(world.processes[&GenerationId(2)].slot, slot);
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!(world.machine.status().serving, Some(release(1)));
    world.crash(2, 1);
    assert!(world.processes.is_empty(), "the second time it waits");
    assert_eq!(world.machine.restarts(), 1);
    world.pass(Millis(100), &[]);
    assert_eq!(world.processes[&GenerationId(3)].slot, slot);
    assert_eq!(world.machine.restarts(), 2);
}

#[test]
fn children_that_outlive_a_crash_keep_their_sockets_and_the_next_one_gets_others() {
    let mut world = World::serving(1);
    world.processes.get_mut(&GenerationId(1)).unwrap().leaves_children = true;
    world.crash(1, 1);
    assert_ne!(world.processes[&GenerationId(2)].slot, world.processes[&GenerationId(1)].slot);
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!(world.selected.0, world.processes[&GenerationId(2)].slot);
}

#[test]
fn a_hung_program_is_replaced_by_a_fresh_one_and_serves_until_then() {
    let mut world = World::serving(1);
    world.pass(Millis::from_secs(5), &[]);
    assert_eq!(world.machine.status().serving, Some(release(1)));
    assert!(!world.machine.status().healthy);
    assert_eq!(world.processes.len(), 2);
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!(world.selected.0, world.processes[&GenerationId(2)].slot);
    assert!(world.machine.status().healthy);
}

#[test]
fn too_many_crashes_end_the_member_with_the_programs_code() {
    let mut world = World::serving(1);
    for id in 1..100 {
        world.crash(id, 7);
        world.pass(Millis::from_secs(40), &[]);
    }
    assert_eq!(world.exit, Some(7));
    assert_eq!(world.said.iter().filter(|fact| matches!(fact, Fact::Restarting(..))).count(), 10);
}

#[test]
fn exit_86_is_a_wish_to_be_launched_again_and_no_crash() {
    let mut world = World::serving(1);
    for id in 1..40 {
        world.pass(Millis::from_secs(2), &[id]);
        world.crash(id, 86);
        assert!(world.processes.contains_key(&GenerationId(id + 1)), "at once, however often");
        world.answer(GenerationId(id + 1), Outcome::Success);
    }
}
