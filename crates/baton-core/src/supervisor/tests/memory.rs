//! Stories of programs that use too much memory.

use super::*;
use crate::run::Recycle;
use crate::units::Share;

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

fn room(used: u64) -> Option<Room> {
    Some(Room { used: Bytes(used * MIB), grown: Bytes(0), limit: Bytes(100 * MIB) })
}

fn needing(number: u8, mib: u64) -> Launch {
    launch_of(RunSettings { needs: Some(Bytes(mib * MIB)), ..settings() }, number, 5000)
}

fn refused_for(world: &World) -> Option<(Cause, std::string::String)> {
    match world.standing() {
        TrialState::Refused { cause, detail, .. } => Some((cause, detail)),
        TrialState::Trying | TrialState::Proving | TrialState::Proven | TrialState::Dropped => None,
    }
}

#[test]
fn f84_a_candidate_that_there_is_no_memory_for_is_refused_without_a_start() {
    let mut world = World::serving(1);
    world.room = room(60);
    world.order(Order::Try(needing(2, 41)));
    let why =
        "it needs 41 MiB (run.memory.needs), and 60 MiB of the 100 MiB that this member may use are in use";
    assert_eq!(refused_for(&world), Some((Cause::NoRoom, why.into())));
    assert_eq!((world.state(2), world.processes.len(), world.machine.on_trial()), (None, 1, false));
    assert_eq!(world.machine.status().serving, Some(release(1)));
    // What fits, and what nothing is known of, is launched.
    world.order(Order::Try(needing(3, 40)));
    assert_eq!(world.state(3), Some(State::Starting));
    world.order(Order::Try(launch(4, 5000)));
    assert_eq!(world.state(4), Some(State::Starting));
    world.room = None;
    world.order(Order::Try(needing(5, 400)));
    assert_eq!(world.state(5), Some(State::Starting));
}

#[test]
fn f84_a_reload_of_what_the_image_brought_is_refused_where_there_is_no_room_for_another_like_it() {
    let image =
        |ticket| Launch { plan: Plan::new(Running::Image, settings()).into(), ticket, bake: Bake::NONE };
    let mut world = World::new();
    (world.room, world.learnt) = (room(60), Some(Bytes(41 * MIB)));
    world.order(Order::Try(image(Ticket::Restore)));
    world.answer(GenerationId(1), Outcome::Success);
    assert_eq!(world.state(1), Some(State::Serving), "what runs anyway is launched in any case");
    world.order(Order::Try(image(Ticket::Reload)));
    assert_eq!(refused_for(&world).map(|(cause, _)| cause), Some(Cause::NoRoom));
    assert_eq!((world.state(1), world.state(2)), (Some(State::Serving), None));
    world.room = room(59);
    world.order(Order::Try(image(Ticket::Reload)));
    assert_eq!(world.state(3), Some(State::Starting));
}

#[test]
fn what_a_release_used_here_before_counts_beside_what_runs_without_what_that_has_leaked() {
    let mut world = World::serving(1);
    (world.room, world.learnt) = (room(95), Some(Bytes(45 * MIB)));
    world.order(Order::Try(launch(2, 5000)));
    assert_eq!(refused_for(&world).map(|(cause, _)| cause), Some(Cause::NoRoom));
    world.room = room(95).map(|room| Room { grown: Bytes(40 * MIB), ..room });
    world.order(Order::Try(launch(2, 5000)));
    assert_eq!(world.state(3), Some(State::Starting));
}

#[test]
fn what_stood_by_is_let_go_before_a_candidate_is_refused() {
    for (left, expected) in [(60, State::Starting), (61, State::Draining)] {
        let mut world = warm::warm();
        world.room = room(90);
        world.order(Order::Try(needing(3, 40)));
        assert_eq!((world.state(1), world.state(3)), (Some(State::Draining), Some(State::Waiting)));
        assert_eq!(world.standing(), TrialState::Trying);
        world.pass(SECOND, &[2]);
        world.room = room(left);
        world.ends(1, Exit::Code(0));
        let refused = refused_for(&world).is_some();
        assert_eq!((world.state(3), refused), ((!refused).then_some(expected), expected != State::Starting));
    }
}

#[test]
fn a_candidate_does_not_wait_for_memory_for_longer_than_for_its_start() {
    let mut world = World::working(worker());
    world.order(Order::Try(launch_of(worker(), 2, 0)));
    world.say(2, Notice::Ready);
    assert_eq!(world.state(1), Some(State::Quiescing), "for hours");
    world.room = room(90);
    let needs = Some(Bytes(40 * MIB));
    world.order(Order::Try(launch_of(RunSettings { needs, ..worker() }, 3, 0)));
    world.pass(Millis::from_secs(59), &[]);
    assert_eq!(world.state(3), Some(State::Waiting));
    world.pass(SECOND, &[]);
    assert_eq!(refused_for(&world).map(|(cause, _)| cause), Some(Cause::NoRoom));
}

#[test]
fn what_the_member_runs_anyway_is_launched_whatever_there_is() {
    let mut world = World::new();
    world.room = room(99);
    world.order(Order::Try(needing(1, 50)));
    world.answer(GenerationId(1), Outcome::Success);
    assert_eq!(world.state(1), Some(State::Serving), "beside nobody");
    world.pass(Millis::from_secs(6), &[1]);
    world.pass(Millis::from_secs(10), &[]);
    assert_eq!(world.state(2), Some(State::Starting), "in the place of what does not answer");
}
