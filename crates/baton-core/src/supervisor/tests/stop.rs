//! The end of the container.

use super::*;

#[test]
fn p20_stopping_ends_by_its_limit_whatever_the_program_does() {
    let mut world = World::serving(1);
    world.order(Order::Stop);
    assert_eq!(world.exit, None);
    world.pass(Millis::from_secs(30), &[]);
    assert_eq!(world.exit, Some(137));
    // And a process that the kernel cannot bury holds nobody up: of the second after its limit, a part is left for what
    // else the end takes. How it ends is known already.
    let mut world = World::serving(1);
    let stopped = world.now;
    world.order(Order::Stop);
    world.processes.clear();
    let end = world.machine.ends_by().unwrap();
    assert_eq!(end.all.since(stopped), Millis::from_secs(31));
    assert_eq!(end.all.since(end.processes), Millis(400));
    world.pass(Millis(30_599), &[]);
    assert_eq!(world.exit, None);
    world.pass(Millis(1), &[]);
    assert_eq!(world.exit, Some(137));
}

#[test]
fn a_stop_ends_within_the_platforms_limit_and_a_longer_drain_is_told_of() {
    let mut world = World::new();
    world.machine = Supervisor::new().with_stop_limit(Some(Millis::from_secs(12)));
    world.order(Order::Try(launch(1, 0)));
    let (ten, drain) = (Millis::from_secs(10), Millis::from_secs(30));
    assert!(world.said.contains(&Fact::DrainCut(GenerationId(1), drain, Millis::from_secs(12), ten)));
    world.answer(GenerationId(1), Outcome::Success);
    world.order(Order::Try(launch(2, 60_000)));
    world.answer(GenerationId(2), Outcome::Success);
    let told = world.said.iter().filter(|fact| matches!(fact, Fact::DrainCut(..))).count();
    assert_eq!(told, 1, "the same drain again");
    world.order(Order::Stop);
    world.pass(Millis(9_999), &[]);
    assert_eq!(world.exit, None);
    world.pass(Millis(1), &[]);
    assert_eq!(world.exit, Some(137));
}

#[test]
fn stopping_passes_the_exit_of_the_program_on() {
    for (exit, code) in [(Exit::Code(0), 0), (Exit::Code(42), 42), (Exit::Signal(Signal::TERM), 143)] {
        let mut world = World::serving(1);
        world.order(Order::Stop);
        let event = world.end(GenerationId(1), exit, true).unwrap();
        world.step(event);
        assert_eq!(world.exit, Some(code));
    }
}

#[test]
fn p19_what_a_program_that_ended_by_itself_has_left_has_the_time_that_it_had() {
    let mut world = World::working(RunSettings { on_exit: crate::run::OnExit::Exit, ..singleton() });
    let drain = world.machine.generations()[0].plan.settings.drain;
    world.ends(1, Exit::Code(3));
    let end = world.machine.ends_by().unwrap();
    assert_eq!((world.exit, end.all.since(world.now)), (Some(3), drain + Millis::from_secs(1)));
}

#[test]
fn a_third_request_to_stop_kills() {
    let mut world = World::serving(1);
    for _ in 0..3 {
        world.order(Order::Stop);
    }
    assert_eq!(world.exit, Some(137));
}

#[test]
fn p19_what_a_kill_has_overlooked_is_killed_again_until_nothing_is_left() {
    let mut world = World::serving(1);
    world.overlooked = 3;
    world.order(Order::Try(launch(2, 0)));
    world.answer(GenerationId(2), Outcome::Success);
    world.pass(Millis(30_250), &[2]);
    assert_eq!(
        world.state(1),
        Some(State::Draining),
        "it was asked when its last clients had said what they want"
    );
    world.pass(Millis::from_secs(2), &[2]);
    assert_eq!(world.state(1), Some(State::Draining), "the third kill has overlooked one as well");
    world.pass(SECOND, &[2]);
    assert_eq!((world.state(1), world.overlooked), (None, 0));
}

#[test]
fn p4_what_is_forwarded_may_be_accepted_for_half_of_the_time_that_there_is_and_no_longer() {
    let mut world = World::new();
    world.machine = Supervisor::new().with_stop_limit(Some(Millis::from_secs(12)));
    world.order(Order::Try(launch(1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    world.order(Order::Try(launch(2, 0)));
    world.answer(GenerationId(2), Outcome::Success);
    world.pass(Millis(250), &[2]);
    assert_eq!(world.limits, [(GenerationId(1), Millis::from_secs(15))].into());
    // The one has been told to stop for a while; of the platform's time two seconds are ours.
    world.pass(Millis::from_secs(1), &[2]);
    world.order(Order::Stop);
    assert_eq!(world.limits, [1, 2].map(|id| (GenerationId(id), Millis::from_secs(5))).into());
    assert_eq!(world.asked, [1, 2].map(GenerationId));
}

#[test]
fn that_a_release_on_trial_ends_its_member_is_news_and_that_somebody_has_it_stopped_is_none() {
    let exits = || RunSettings { on_exit: crate::run::OnExit::Exit, ..singleton() };
    for asked in [false, true] {
        let mut world = World::working(exits());
        world.order(Order::Try(launch_of(exits(), 2, 5000)));
        world.ends(1, Exit::Code(0));
        world.say(2, Notice::Ready);
        assert!(world.machine.has_news());
        if asked {
            world.order(Order::Stop);
        }
        world.ends(2, Exit::Code(1));
        assert!(world.machine.is_stopping());
        let trial = world.machine.status().trial;
        let refused = matches!(trial, Some((_, TrialState::Refused { cause: Cause::Exit, .. })));
        assert_eq!((world.machine.has_news(), refused), (!asked, !asked), "{trial:?}");
    }
}
