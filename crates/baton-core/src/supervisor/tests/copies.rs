//! Several copies of a program in one generation.

use super::*;

fn three(number: u8, bake: u64) -> Launch {
    launch_of(RunSettings { workers: 3, ..settings() }, number, bake)
}

/// Three copies of release 1 serve, proven.
pub(super) fn copies() -> World {
    let mut world = World::new();
    world.order(Order::Try(three(1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    assert_eq!(world.committed, [release(1)]);
    world
}

impl World {
    pub(super) fn copy_ends(&mut self, id: u32, copy: u32, code: u8) {
        let process = self.processes.get_mut(&GenerationId(id)).unwrap();
        assert_ne!(process.copies & (1 << copy), 0, "copy {copy} of {id} does not run");
        process.copies &= !(1 << copy);
        let empty = process.copies == 0;
        if empty {
            self.processes.remove(&GenerationId(id));
        }
        let exit = Exit::Code(code);
        self.step(Event::CopyExited { generation: GenerationId(id), copy, exit, empty });
    }

    /// Time passes, and nobody answers.
    fn later(&mut self, time: Millis) {
        self.now = self.now + time;
        self.step(Event::Woken);
    }

    fn running(&self, id: u32) -> u32 {
        self.processes.get(&GenerationId(id)).map_or(0, |process| process.copies.count_ones())
    }
}

#[test]
fn one_that_crashes_is_launched_again_alone_at_once_and_later_with_growing_waits() {
    let mut world = copies();
    world.copy_ends(1, 1, 3);
    assert_eq!((world.running(1), world.state(1)), (3, Some(State::Serving)));
    world.copy_ends(1, 1, 3);
    assert_eq!(world.running(1), 2, "the second time it waits");
    world.pass(Millis(100), &[1]);
    assert_eq!((world.running(1), world.machine.generations().len()), (3, 1));
}

#[test]
fn one_that_crashes_again_and_again_waits_longer_each_time_however_well_the_others_are() {
    let mut world = copies();
    world.pass(Millis::from_secs(3600), &[1]);
    world.copy_ends(1, 1, 3);
    assert_eq!(world.running(1), 3, "it had run for an hour");
    for wait in [100, 200, 400].map(Millis) {
        world.copy_ends(1, 1, 3);
        world.pass(wait - Millis(1), &[1]);
        assert_eq!(world.running(1), 2, "before {wait}");
        world.pass(Millis(1), &[1]);
        assert_eq!(world.running(1), 3, "after {wait}");
    }
}

#[test]
fn where_launching_it_again_does_not_help_the_others_serve_until_a_new_generation_does() {
    let mut world = copies();
    for _ in 0..11 {
        world.copy_ends(1, 0, 3);
        world.pass(Millis::from_secs(31), &[1]);
    }
    assert_eq!((world.running(1), world.state(1)), (2, Some(State::Serving)));
    world.pass(Millis::from_secs(3), &[1, 2]);
    assert_eq!((world.running(2), world.state(1)), (3, Some(State::Draining)));
    assert_eq!(world.machine.status().serving, Some(release(1)));
}

#[test]
fn the_last_one_that_crashes_is_a_crash_of_the_generation() {
    let mut world = copies();
    let slot = world.selected.0;
    world.copy_ends(1, 0, 3);
    for copy in [0, 1, 2] {
        world.copy_ends(1, copy, 3);
    }
    assert_eq!(world.state(1), None);
    assert_eq!((world.running(2), world.processes[&GenerationId(2)].slot), (3, slot));
}

#[test]
fn p9_one_that_crashes_within_the_bake_is_a_failure_of_the_release() {
    let mut world = copies();
    world.order(Order::Try(three(2, 5000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.copy_ends(2, 2, 3);
    assert_eq!(world.machine.status().serving, Some(release(1)));
    assert!(matches!(world.standing(), TrialState::Refused { cause: Cause::Exit, .. }));
    assert_eq!((world.running(2), world.state(2)), (2, Some(State::Draining)), "the others finish");
    world.copy_ends(2, 0, 0);
    assert_eq!(world.state(2), Some(State::Draining));
    world.copy_ends(2, 1, 0);
    assert_eq!(world.state(2), None);
}

#[test]
fn one_that_crashes_before_all_are_healthy_fails_the_try() {
    let mut world = copies();
    world.order(Order::Try(three(2, 5000)));
    world.copy_ends(2, 0, 3);
    assert!(world.processes.contains_key(&GenerationId(3)), "tried once more");
    assert_eq!(world.state(2), Some(State::Draining));
    world.copy_ends(3, 0, 3);
    assert!(matches!(world.standing(), TrialState::Refused { cause: Cause::Exit, .. }));
}

#[test]
fn those_that_end_because_they_were_asked_to_are_not_launched_again() {
    let mut world = copies();
    world.order(Order::Stop);
    for copy in [2, 0] {
        world.copy_ends(1, copy, 0);
        assert_eq!(world.exit, None);
    }
    world.copy_ends(1, 1, 7);
    assert_eq!(world.exit, Some(7));
}

#[test]
fn one_that_waits_for_its_turn_is_not_launched_when_the_generation_ends_meanwhile() {
    let mut world = copies();
    world.copy_ends(1, 1, 3);
    world.copy_ends(1, 1, 3);
    world.order(Order::Try(three(2, 0)));
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!(world.state(1), Some(State::Draining));
    world.pass(SECOND, &[2]);
    assert_eq!(world.running(1), 2);
}

/// Three copies of release 1 serve, each with a queue of its own.
fn with_queues() -> World {
    let mut settings = RunSettings { workers: 3, ..settings() };
    settings.listen[0].per_worker = true;
    let mut world = World::new();
    world.order(Order::Try(launch_of(settings, 1, 0)));
    for copy in [0, 1, 2] {
        assert_eq!((world.machine.status().serving, world.asked_copy), (None, copy), "each has answered");
        // At once, one after the other.
        world.answer(GenerationId(1), Outcome::Success);
    }
    assert_eq!(world.machine.status().serving, Some(release(1)));
    world
}

#[test]
fn copies_with_queues_of_their_own_are_asked_in_turn_and_one_that_does_not_answer_again() {
    let mut world = with_queues();
    world.later(Millis::from_secs(2));
    for (copy, outcome) in
        [(0, Outcome::Success), (1, Outcome::Failure), (1, Outcome::Success), (2, Outcome::Success)]
    {
        assert_eq!(world.asked_copy, copy);
        world.answer(GenerationId(1), outcome);
        world.later(Millis::from_secs(2));
    }
    assert_eq!(world.asked_copy, 0);
    for _ in 0..2 {
        world.answer(GenerationId(1), Outcome::Failure);
        world.later(Millis::from_secs(2));
    }
    assert!(world.processes.contains_key(&GenerationId(2)), "one of them that hangs is found");
}

/// One of three copies with queues of their own is launched again.
fn one_launched_again() -> World {
    let mut world = with_queues();
    world.pass(Millis::from_secs(600), &[1]);
    world.copy_ends(1, 1, 3);
    world.copy_ends(1, 1, 3);
    assert_eq!(world.bypassed, [(GenerationId(1), 1), (GenerationId(1), 1)]);
    world.pass(SECOND, &[1]);
    assert_eq!((world.running(1), world.state(1)), (3, Some(State::Serving)));
    world
}

/// Answers for everybody for so long; those of copy 1 are bad.
fn copy_1_fails(world: &mut World, time: Millis) {
    let end = world.now + time;
    while world.now < end {
        let outcome = if world.asked_copy == 1 { Outcome::Failure } else { Outcome::Success };
        world.answer(GenerationId(1), outcome);
        world.later(SECOND);
    }
}

#[test]
fn one_with_a_queue_of_its_own_is_bypassed_and_has_its_time_to_start() {
    let mut world = one_launched_again();
    let startup = settings().startup_timeout;
    copy_1_fails(&mut world, startup - SECOND - SECOND);
    assert_eq!(world.processes.len(), 1, "the others answer");
    copy_1_fails(&mut world, startup);
    assert!(world.processes.contains_key(&GenerationId(2)), "one that does not start is found");
}

#[test]
fn the_start_of_one_that_was_launched_again_ends_with_its_first_answer() {
    let mut world = one_launched_again();
    world.pass(Millis::from_secs(20), &[1]);
    assert!(settings().startup_timeout > Millis::from_secs(40), "else this shows nothing");
    copy_1_fails(&mut world, Millis::from_secs(20));
    assert!(
        world.processes.contains_key(&GenerationId(2)),
        "it hangs, and is found long before its start is over"
    );
}

#[test]
fn where_copies_share_a_queue_no_failure_is_that_of_one_that_starts() {
    let mut world = copies();
    world.pass(Millis::from_secs(20), &[1]);
    world.copy_ends(1, 0, 3);
    world.pass(SECOND, &[1]);
    assert_eq!(world.running(1), 3);
    for _ in 0..3 {
        world.answer(GenerationId(1), Outcome::Failure);
        world.later(Millis::from_secs(2));
    }
    assert!(world.processes.contains_key(&GenerationId(2)), "all of them hang, and that is found");
}

#[test]
fn copies_that_share_a_queue_are_not_bypassed() {
    let mut world = copies();
    world.copy_ends(1, 1, 3);
    assert!(world.bypassed.is_empty());
}
