//! Stories of programs that hang, take their time, or end by their own wish.

use super::*;
use crate::run::Progress;

fn watched() -> RunSettings {
    RunSettings { watchdog: Some(Millis::from_secs(10)), ..settings() }
}

#[test]
fn f33_a_program_that_hangs_while_its_port_answers_is_found_by_its_watchdog() {
    let mut world = World::new();
    world.order(Order::Try(launch_of(watched(), 1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    for _ in 0..5 {
        world.pass(Millis::from_secs(9), &[1]);
        world.say(1, Notice::Alive);
    }
    assert!(world.machine.status().healthy);
    world.pass(Millis::from_secs(10), &[1]);
    assert!(!world.machine.status().healthy);
    assert_eq!(world.examined, [GenerationId(1)]);
    let limit = Some(Millis::from_secs(10));
    assert!(world.said.contains(&Fact::Restarting(GenerationId(1), Reason::Hung(limit), Millis::ZERO)));
    world.pass(SECOND, &[1, 2]);
    assert_eq!(world.selected.0, world.processes[&GenerationId(2)].slot);
    assert_eq!(world.state(1), Some(State::Draining));
}

#[test]
fn signs_of_life_before_readiness_start_no_watchdog_and_later_ones_heal() {
    let mut world = World::new();
    world.order(Order::Try(launch_of(watched(), 1, 0)));
    world.say(1, Notice::Alive);
    world.pass(Millis::from_secs(30), &[]);
    assert_eq!(world.state(1), Some(State::Starting));
    world.pass(Millis::from_secs(2), &[1]);
    assert!(world.machine.status().healthy);
    world.pass(Millis::from_secs(10), &[1]);
    assert!(!world.machine.status().healthy);
    world.say(1, Notice::Alive);
    assert!(world.machine.status().healthy);
}

#[test]
fn a_program_whose_progress_file_stays_as_it_is_is_replaced_whatever_else_it_says() {
    let mut world = World::new();
    let progress = Some(Progress { file: "beat".into(), within: Millis::from_secs(20) });
    world.order(Order::Try(launch_of(RunSettings { progress, ..watched() }, 1, 0)));
    world.step(Event::Moved(GenerationId(1)));
    world.answer(GenerationId(1), Outcome::Success);
    for _ in 0..3 {
        world.pass(Millis::from_secs(9), &[1]);
        world.say(1, Notice::Alive);
        world.step(Event::Moved(GenerationId(1)));
    }
    assert!(world.machine.status().healthy);
    for _ in 0..3 {
        world.pass(Millis::from_secs(9), &[1]);
        world.say(1, Notice::Alive);
    }
    let limit = Millis::from_secs(20);
    let told = Fact::Restarting(GenerationId(1), Reason::NoProgress(limit), Millis::ZERO);
    assert!(world.said.contains(&told), "{:?}", world.said);
    assert!(!world.machine.status().healthy, "one sign does not make up for the other");
    world.step(Event::Moved(GenerationId(1)));
    assert!(world.machine.status().healthy);
}

#[test]
fn a_candidate_that_hangs_is_refused_and_tells_why() {
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 5000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.say(2, Notice::Status("all locks are mine".into()));
    world.say(2, Notice::Hangs);
    let TrialState::Refused { cause, detail, .. } = world.standing() else { panic!() };
    assert_eq!(cause, Cause::Unhealthy);
    let expected = "it said that it hangs (WATCHDOG=trigger)\nits status: all locks are mine\nit sleeps";
    assert_eq!(detail, expected);
    assert_eq!(world.machine.status().serving, Some(release(1)));
}

#[test]
fn a_start_may_take_longer_when_the_program_asks_for_it_and_not_for_ever() {
    let mut world = World::new();
    world.order(Order::Try(launch(1, 0)));
    for _ in 0..100 {
        world.say(1, Notice::Extend(Millis::from_secs(50)));
        world.pass(Millis::from_secs(45), &[]);
    }
    let launched = |id| world.said.contains(&Fact::Launched(GenerationId(id), release(1)));
    assert!(launched(2) && !launched(3));
    let limit = Millis::from_secs(60) + EXTENSION_MAX;
    let refused =
        |fact: &Fact| matches!(fact, Fact::Retried(_, Reason::NotHealthyIn(after, _)) if *after == limit);
    assert!(world.said.iter().any(refused), "{:?}", world.said);
}

#[test]
fn a_drain_may_take_longer_beside_a_successor_and_not_when_the_container_ends() {
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 0)));
    world.answer(GenerationId(2), Outcome::Success);
    world.say(1, Notice::Extend(Millis::from_secs(600)));
    world.pass(Millis::from_secs(500), &[2]);
    assert_eq!(world.state(1), Some(State::Draining));
    world.order(Order::Stop);
    world.say(1, Notice::Extend(Millis::from_secs(600)));
    world.pass(Millis::from_secs(30), &[]);
    assert!(world.exit.is_some());
}

#[test]
fn a_program_that_ends_by_its_own_wish_is_launched_again_at_once_and_not_counted() {
    let mut world = World::serving(1);
    for id in 1..40 {
        world.pass(Millis::from_secs(2), &[id]);
        world.say(id, Notice::Stopping);
        world.crash(id, 0);
        world.answer(GenerationId(id + 1), Outcome::Success);
    }
    assert_eq!(world.machine.status().serving, Some(release(1)));
    assert!(world.said.iter().any(|fact| matches!(fact, Fact::Left(..))));
}

#[test]
fn a_release_that_starts_much_slower_than_the_last_proven_one_is_told_of() {
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 100)));
    world.pass(SECOND, &[1]);
    world.pass(SECOND, &[1, 2]);
    let took = world.machine.status().started_in.unwrap();
    assert!(took >= SECOND);
    assert!(world.said.contains(&Fact::SlowStart(GenerationId(2), took, Millis::ZERO)), "{:?}", world.said);
    // The next one is held against this one.
    world.order(Order::Try(launch(3, 100)));
    world.pass(SECOND, &[2]);
    world.pass(SECOND, &[2, 3]);
    assert_eq!(world.said.iter().filter(|fact| matches!(fact, Fact::SlowStart(..))).count(), 1);
}

#[test]
fn how_long_a_handover_takes_is_told_where_there_was_one() {
    let mut world = World::serving(1);
    assert_eq!(world.machine.status().handed_over_in, None, "nobody served before it");
    world.order(Order::Try(launch(2, 100)));
    assert_eq!(world.machine.status().handed_over_in, None);
    world.answer(GenerationId(2), Outcome::Success);
    assert_eq!(world.machine.status().handed_over_in, Some(handover(GenerationId(2))));
    world.pass(SECOND, &[1, 2]);
    assert_eq!(world.machine.status().handed_over_in, Some(handover(GenerationId(2))), "while it serves");
}

#[test]
fn what_a_failed_trial_hides_is_told_all_the_same() {
    // Nobody stands by, so the member helps itself in the same moment.
    let mut world = World::serving(1);
    world.order(Order::Try(launch(2, 60_000)));
    world.answer(GenerationId(2), Outcome::Success);
    world.crash(1, 1);
    world.pass(Millis::from_secs(6), &[]);
    assert!(matches!(world.standing(), TrialState::Refused { cause: Cause::Unhealthy, .. }));
    world.pass(SECOND, &[3]);
    assert_eq!(world.machine.status().serving, Some(release(1)), "what was proven");
}

#[test]
fn a_program_that_hangs_now_and_then_is_replaced_as_soon_as_the_first_time() {
    let mut world = World::new();
    world.order(Order::Try(launch_of(watched(), 1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    for id in 1..=12 {
        for _ in 0..400 {
            world.pass(Millis::from_secs(9), &[id]);
            world.say(id, Notice::Alive);
        }
        world.pass(Millis::from_secs(10), &[id]);
        let at_once =
            Fact::Restarting(GenerationId(id), Reason::Hung(Some(Millis::from_secs(10))), Millis::ZERO);
        assert!(world.said.contains(&at_once), "{id}: {:?}", world.said.last());
        world.pass(SECOND, &[id + 1]);
        assert_eq!(world.state(id + 1), Some(State::Serving));
    }
}

#[test]
fn a_program_that_hangs_again_at_once_is_waited_for_longer_each_time() {
    let mut world = World::new();
    world.order(Order::Try(launch_of(watched(), 1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    for (id, wait) in [(1, 0), (2, 100), (3, 200)] {
        world.pass(Millis::from_secs(10), &[id]);
        let told =
            Fact::Restarting(GenerationId(id), Reason::Hung(Some(Millis::from_secs(10))), Millis(wait));
        assert!(world.said.contains(&told), "{:?}", world.said);
        world.pass(SECOND, &[id + 1]);
    }
}

#[test]
fn a_question_that_came_to_no_end_is_asked_again_and_says_nothing_of_the_program() {
    let mut world = World::new();
    world.order(Order::Try(launch_of(settings(), 1, 0)));
    world.answer(GenerationId(1), Outcome::Success);
    for _ in 0..10 {
        while !world.probes.remove(&GenerationId(1)) {
            world.now = world.machine.deadline().expect("it is asked again");
            world.step(Event::Woken);
        }
        world.step(Event::NotAsked(GenerationId(1)));
        assert!(world.machine.status().healthy);
    }
    world.pass(Millis::from_secs(20), &[]);
    assert!(!world.machine.status().healthy, "what hangs is found as ever");
}
