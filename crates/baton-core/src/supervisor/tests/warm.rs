//! What is kept warm after its successor was proven.

use super::*;

const KEPT: Millis = Millis::from_secs(600);

fn kept_warm(number: u8, bake: u64) -> Launch {
    launch_of(RunSettings { keep_warm: Some(KEPT), ..settings() }, number, bake)
}

/// Release 2 is proven, and release 1 stands by, warm.
pub(super) fn warm() -> World {
    let mut world = World::new();
    world.order(Order::Try(kept_warm(1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    world.order(Order::Try(kept_warm(2, 5000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.pass(Millis(5000), &[2]);
    assert_eq!(world.committed, [release(1), release(2)]);
    world
}

fn stands_by(world: &World) -> Option<Running> {
    world.machine.status().standby
}

#[test]
fn it_stands_by_as_long_as_its_successor_says_and_is_asked_to_stop_then() {
    let mut world = warm();
    world.pass(KEPT - Millis::from_secs(10), &[2]);
    assert_eq!(stands_by(&world), Some(release(1)));
    world.pass(Millis::from_secs(10), &[2]);
    assert_eq!((stands_by(&world), world.state(1)), (None, Some(State::Draining)));
    assert_eq!(world.machine.status().serving, Some(release(2)));
}

#[test]
fn a_way_back_to_it_is_one_selection_and_no_launch() {
    let mut world = warm();
    let slot = world.processes[&GenerationId(1)].slot;
    world.order(Order::Try(kept_warm(1, 5000)));
    assert_eq!(world.selected.0, slot, "at once");
    assert_eq!(world.processes.len(), 2, "nothing was launched");
    assert_eq!(world.standing(), TrialState::Proving);
    assert_eq!(stands_by(&world), Some(release(2)));
    world.pass(Millis(5000), &[1]);
    assert_eq!(world.committed.last(), Some(&release(1)));
    assert_eq!(stands_by(&world), Some(release(2)), "now that one is kept warm");
    // And forth again.
    world.order(Order::Try(kept_warm(2, 5000)));
    assert_eq!(world.machine.status().serving, Some(release(2)));
}

#[test]
fn told_to_go_back_it_needs_no_bake_and_launches_nothing_where_nothing_is_warm() {
    let mut world = warm();
    world.order(Order::GoBack(kept_warm(3, 0)));
    assert_eq!(world.machine.status().serving, Some(release(2)), "that one is not there");
    world.order(Order::GoBack(kept_warm(1, 0)));
    assert_eq!((world.machine.status().serving, world.standing()), (Some(release(1)), TrialState::Proven));
    assert_eq!(world.committed.last(), Some(&release(1)));
    assert_eq!(world.state(2), Some(State::Draining), "nobody wants to go back to that");
    world.order(Order::GoBack(kept_warm(2, 0)));
    assert_eq!(world.machine.status().serving, Some(release(1)));
    assert_eq!(world.processes.len(), 2);
}

#[test]
fn one_that_turns_out_to_be_ill_is_left_again_at_once() {
    let mut world = warm();
    world.order(Order::Try(kept_warm(1, 30_000)));
    world.pass(Millis::from_secs(6), &[2]);
    assert_eq!(world.machine.status().serving, Some(release(2)));
    assert!(matches!(world.standing(), TrialState::Refused { .. }));
    assert_eq!(world.committed, [release(1), release(2)]);
}

#[test]
fn another_release_takes_its_place() {
    let mut world = warm();
    world.order(Order::Try(kept_warm(3, 5000)));
    assert_eq!(world.state(1), Some(State::Draining), "three at once would be one too many");
    world.answer(GenerationId(3), Outcome::Success);
    assert_eq!(stands_by(&world), Some(release(2)));
}

#[test]
fn a_crash_of_what_is_proven_does_not_go_back_to_it_by_itself() {
    let mut world = warm();
    world.crash(2, 1);
    world.answer(GenerationId(3), Outcome::Success);
    assert_eq!(world.machine.status().serving, Some(release(2)));
    assert_eq!(stands_by(&world), Some(release(1)), "it is still there to be gone back to");
    // Nor does an illness.
    world.pass(Millis::from_secs(8), &[]);
    world.answer(GenerationId(4), Outcome::Success);
    assert_eq!(world.machine.status().serving, Some(release(2)));
}

#[test]
fn what_the_image_brought_may_have_changed_on_disk_and_is_launched_anew() {
    let image = |bake| {
        let plan = Plan { release: Running::Image, ..(*kept_warm(0, 0).plan).clone() };
        Launch { plan: plan.into(), ticket: Ticket::Reload, bake: Millis(bake).into() }
    };
    let mut world = World::new();
    world.order(Order::Try(image(0)));
    world.answer(GenerationId(1), Outcome::Success);
    world.order(Order::Try(image(1000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.pass(Millis(1000), &[2]);
    assert_eq!(stands_by(&world), Some(Running::Image));
    world.order(Order::Try(image(1000)));
    assert!(world.processes.contains_key(&GenerationId(3)));
}

#[test]
fn under_pressure_it_is_let_go() {
    let mut world = warm();
    world.step(Event::NoMemoryLeft);
    assert_eq!((stands_by(&world), world.state(1)), (None, Some(State::Draining)));
    assert_eq!(world.machine.status().serving, Some(release(2)));
    // But not beside one on trial.
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 5000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.step(Event::NoMemoryLeft);
    assert_eq!(stands_by(&world), Some(release(1)));
}
