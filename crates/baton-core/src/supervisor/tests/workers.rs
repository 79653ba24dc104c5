//! Stories of workers, which have no sockets to hand over.

use super::*;

#[test]
fn a_worker_is_asked_to_take_no_new_work_and_to_stop_when_it_is_idle() {
    let mut world = World::working(worker());
    world.order(Order::Try(launch_of(worker(), 2, 5000)));
    world.say(1, Notice::Idle);
    assert_eq!(world.state(1), Some(State::Serving), "before it was asked, being idle means nothing");
    world.say(2, Notice::Ready);
    assert_eq!((world.state(1), world.state(2)), (Some(State::Quiescing), Some(State::Serving)));
    assert_eq!(world.quiesced, [GenerationId(1)]);
    world.pass(Millis::from_secs(3600), &[]);
    assert_eq!(world.state(1), Some(State::Quiescing), "its work may take hours");
    assert_eq!(world.committed, [release(1), release(2)], "meanwhile the next one is proven");
    world.say(1, Notice::Idle);
    assert_eq!(world.state(1), Some(State::Draining));
    world.ends(1, Exit::Code(0));
    assert_eq!(world.machine.status().draining, 0);
}

#[test]
fn a_worker_that_is_never_idle_is_asked_to_stop_at_its_limit() {
    let mut world = World::working(worker());
    world.order(Order::Try(launch_of(worker(), 2, 0)));
    world.say(2, Notice::Ready);
    world.pass(Millis::from_secs(2 * 3600), &[]);
    assert_eq!(world.state(1), Some(State::Draining));
    world.pass(Millis::from_secs(30), &[]);
    assert_eq!(world.state(1), None, "killed at the end of its drain");
    assert_eq!(world.examined, [GenerationId(1)], "and looked at before");
}

#[test]
fn a_main_process_that_is_named_late_is_asked_what_the_one_before_it_was_asked() {
    let mut world = World::working(worker());
    world.name(1, 10);
    world.order(Order::Try(launch_of(worker(), 2, 0)));
    world.say(2, Notice::Ready);
    world.name(1, 11);
    world.say(1, Notice::Idle);
    world.name(1, 12);
    world.processes.get_mut(&GenerationId(1)).unwrap().leaves_children = true;
    world.crash(1, 0);
    world.name(1, 13);
    let (quiesce, stop) = (Some(Signal::USR1), Some(Signal::TERM));
    // The last one had the signal with all others that the main process has left.
    assert_eq!(world.followed, [(10, None), (11, quiesce), (12, stop), (13, None)]);
}

#[test]
fn p20_a_worker_that_quiesces_does_not_hold_up_the_end_of_the_container() {
    let mut world = World::working(worker());
    world.order(Order::Try(launch_of(worker(), 2, 0)));
    world.say(2, Notice::Ready);
    world.order(Order::Stop);
    world.pass(Millis::from_secs(30), &[]);
    assert!(world.exit.is_some());
}

#[test]
fn a_singleton_is_launched_when_the_one_before_is_gone() {
    let mut world = World::working(singleton());
    world.processes.get_mut(&GenerationId(1)).unwrap().leaves_children = true;
    world.order(Order::Try(launch_of(singleton(), 2, 5000)));
    assert_eq!((world.state(1), world.state(2)), (Some(State::Draining), Some(State::Waiting)));
    world.crash(1, 0);
    assert_eq!(world.state(2), Some(State::Waiting), "its children are still there");
    world.ends(1, Exit::Code(0));
    assert_eq!(world.state(2), Some(State::Starting));
    world.say(2, Notice::Ready);
    world.pass(Millis(5000), &[]);
    assert_eq!(world.committed, [release(1), release(2)]);
}

#[test]
fn a_singleton_that_fails_gives_way_to_what_was_proven_before() {
    for after_the_switch in [false, true] {
        let mut world = World::working(singleton());
        world.order(Order::Try(launch_of(singleton(), 2, 5000)));
        world.ends(1, Exit::Code(0));
        if after_the_switch {
            world.say(2, Notice::Ready);
        } else {
            world.ends(2, Exit::Code(1));
            assert_eq!(world.state(3), Some(State::Starting), "the second try");
        }
        world.ends(if after_the_switch { 2 } else { 3 }, Exit::Code(1));
        assert!(matches!(world.standing(), TrialState::Refused { cause: Cause::Exit, .. }));
        let back = if after_the_switch { 3 } else { 4 };
        world.say(back, Notice::Ready);
        assert_eq!(world.machine.status().serving, Some(release(1)), "after the switch: {after_the_switch}");
        assert!(world.said.contains(&Fact::GoingBack(release(1))));
    }
}

#[test]
fn a_singleton_that_is_taken_back_gives_way_to_what_was_proven_before() {
    for ready in [false, true] {
        let mut world = World::working(singleton());
        world.order(Order::Try(launch_of(singleton(), 2, 5000)));
        world.ends(1, Exit::Code(0));
        if ready {
            world.say(2, Notice::Ready);
        }
        world.order(Order::HandBack);
        assert_eq!(world.standing(), TrialState::Dropped);
        world.ends(2, Exit::Code(0));
        world.say(3, Notice::Ready);
        assert_eq!(world.machine.status().serving, Some(release(1)), "ready: {ready}");
    }
}

#[test]
fn a_singleton_that_waits_is_forgotten_when_another_one_is_wanted() {
    let mut world = World::working(singleton());
    for number in 2..9 {
        world.order(Order::Try(launch_of(singleton(), number, 0)));
    }
    assert_eq!(world.machine.generations().len(), 2, "one that drains and one that waits");
    world.ends(1, Exit::Code(0));
    world.say(8, Notice::Ready);
    assert_eq!(world.machine.status().serving, Some(release(8)));
}
