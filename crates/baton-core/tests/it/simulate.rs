//! Whole rollouts, each with its invariants checked at every step.

use std::num::NonZero;
use std::thread;

use baton_core::limits::Limits;
use baton_core::simulate::{self, End, Flaws, Outcome, Program, SMALL_FLEETS, Scenario, Trouble};
use baton_core::units::{Millis, Share};

/// Simulates so many seeds on all cores. Fails with the seeds and scenarios that went wrong.
fn simulate(seeds: u64, scenario: impl Fn(u64) -> Scenario + Sync) -> Vec<(Scenario, Outcome)> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let every_nth = |first: usize| {
        let checked = (first as u64..seeds).step_by(cores).map(|seed| {
            let scenario = scenario(seed);
            let checked = simulate::check(seed, &scenario);
            (seed, scenario, checked)
        });
        checked.collect::<Vec<_>>()
    };
    let checked: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|first| scope.spawn(move || every_nth(first))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let wrong = checked.iter().filter(|(_, _, checked)| checked.is_err()).count();
    if let Some((seed, scenario, Err(what))) = checked.iter().find(|(_, _, checked)| checked.is_err()) {
        let script = simulate::smallest(*seed, scenario).unwrap_or_else(|| scenario.script(*seed));
        panic!("{wrong} of {seeds} went wrong, such as\n{what}\n\n{}", script.play().transcript);
    }
    checked.into_iter().map(|(_, scenario, outcome)| (scenario, outcome.unwrap())).collect()
}

/// Ten thousand rollouts over small fleets with one trouble.
fn small(trouble: Trouble) -> Vec<(Scenario, Outcome)> {
    simulate(10_000, |seed| {
        let members = SMALL_FLEETS[(seed % SMALL_FLEETS.len() as u64) as usize];
        Scenario::drawn(seed, members).with(trouble)
    })
}

#[test]
fn p7_p8_p9_500_rollouts_of_4000_members_keep_every_invariant_and_end_as_they_should() {
    simulate(500, |seed| Scenario::drawn(seed, 4000));
}

#[test]
fn p8_p9_of_4000_members_a_release_that_crashes_at_start_touches_its_first_slots_and_goes_back_by_itself() {
    let crash = |seed| Scenario::drawn(seed, 4000).with(Trouble::CrashAtStart);
    for (scenario, outcome) in simulate(20, crash) {
        assert_eq!(outcome.end, End::RolledBack, "{scenario}");
        assert!(outcome.touched <= scenario.first_slots(), "{scenario}: {}", outcome.touched);
    }
}

#[test]
fn one_flaky_start_in_a_hundred_does_not_stop_a_good_release_of_4000_members() {
    let flaky = |seed| {
        let mut scenario = Scenario::drawn(seed, 4000).with(Trouble::FlakyStart);
        scenario.policy.limits = Limits::default();
        scenario
    };
    for (scenario, outcome) in simulate(20, flaky) {
        assert_eq!((outcome.end, outcome.touched), (End::Switched, 4000), "{scenario}");
    }
}

#[test]
fn fleets_of_any_middling_size_keep_every_invariant_and_end_as_they_should() {
    simulate(1000, |seed| Scenario::drawn(seed, 11 + (seed * 7 % 190) as u32));
}

#[test]
fn p15_small_fleets_with_nothing_wrong_switch() {
    for (scenario, outcome) in small(Trouble::None) {
        assert_eq!((outcome.end, outcome.touched), (End::Switched, scenario.members), "{scenario}");
        assert!(outcome.on_trial_most <= (scenario.members / 4).max(1), "{scenario}");
    }
}

#[test]
fn p8_p9_a_release_that_crashes_at_start_touches_one_member_of_a_small_fleet_and_goes_back_by_itself() {
    for (scenario, outcome) in small(Trouble::CrashAtStart) {
        let slots = (scenario.members / 4).max(1);
        assert!(outcome.touched <= slots, "{scenario}: {}", outcome.touched);
        assert_eq!(outcome.end, End::RolledBack, "{scenario}");
    }
}

#[test]
fn p8_a_release_that_crashes_within_the_bake_touches_no_more_than_one_that_crashes_at_start() {
    let careful = |seed| {
        let (policy, policy_name) = (baton_core::deploy::Policy::careful(), "careful".into());
        let scenario = Scenario { policy, policy_name, ..Scenario::drawn(seed, 200) };
        scenario.with(Trouble::CrashAfterHalfAMinute)
    };
    for (scenario, outcome) in simulate(50, careful) {
        assert_eq!((outcome.end, outcome.touched), (End::RolledBack, 1), "{scenario}");
    }
}

#[test]
fn p14_small_fleets_outlive_a_mass_silence() {
    small(Trouble::MassSilence);
}

#[test]
fn p16_small_fleets_are_superseded_and_halted_and_resumed() {
    small(Trouble::Superseded);
    small(Trouble::HaltAndResume);
}

#[test]
fn p17_members_join_and_leave_small_fleets() {
    small(Trouble::JoinsAndLeaves);
}

#[test]
fn f113_whom_its_platform_stops_in_mid_try_is_no_failure_and_no_burst_opens_slots() {
    let switched = |(_, outcome): &&(Scenario, Outcome)| outcome.end == End::Switched;
    assert!(small(Trouble::Scaled).iter().filter(switched).count() >= 9_950);
    simulate(24, |seed| Scenario::drawn(seed, 1000).with(Trouble::Scaled));
}

#[test]
fn f111_f112_people_take_back_abort_and_lock() {
    small(Trouble::TakenBack);
    small(Trouble::Aborted);
    small(Trouble::Locked);
}

#[test]
fn a_part_of_the_fleet_gets_the_release_and_no_more() {
    small(Trouble::PartOfTheFleet);
}

#[test]
fn a_release_that_costs_too_much_is_taken_back_in_a_fleet_of_any_size() {
    small(Trouble::Costly);
}

#[test]
fn p12_p16_several_servers_that_end_and_start_keep_every_invariant() {
    small(Trouble::ServersRestart);
}

#[test]
fn p10_p31_f64_a_store_that_forgets_opens_no_slots_and_what_was_accepted_goes_on() {
    small(Trouble::StoreForgets);
}

#[test]
fn p10_p13_a_partition_lets_nobody_more_try_and_nothing_count_as_done() {
    small(Trouble::Partitions);
}

/// Who is cut off for a minute counts as gone, and runs on.
#[test]
fn a_limit_has_room_for_those_that_nobody_can_know_to_be_there() {
    let scenario = Scenario::drawn(7775, 10).with(Trouble::Partitions);
    simulate::check(7775, &scenario).unwrap();
}

#[test]
fn p13_members_that_refuse_are_left_over_or_end_the_rollout() {
    small(Trouble::RefusedMembers);
    small(Trouble::FlakyStart);
    small(Trouble::CrashAfterHalfAMinute);
}

#[test]
fn a_seed_gives_the_same_rollout_every_time() {
    for seed in 0..20 {
        let scenario = Scenario::drawn(seed, 50);
        assert_eq!(simulate::run(seed, &scenario), simulate::run(seed, &scenario));
    }
}

#[test]
fn what_somebody_asks_about_is_simulated_as_asked() {
    let policy = baton_core::deploy::Policy::safe();
    let program = Program::starting_in(Millis::from_secs(8), Millis::from_secs(2));
    let asked = |flaws| Scenario {
        members: 4000,
        policy_name: "safe".into(),
        policy: policy.clone(),
        trouble: Trouble::None,
        overlap: true,
        program,
        flaws,
        restarts: false,
    };
    let good = simulate::check(1, &asked(Flaws::NONE)).unwrap();
    assert_eq!((good.end, good.touched), (End::Switched, 4000));
    // One member, then two phases with the rest: no faster than their starts and bakes one after the other.
    assert!(
        good.took > Millis::from_secs(3 * (8 + 5)) && good.took < Millis::from_secs(600),
        "{}",
        good.took
    );
    let last = good.timeline.last().unwrap();
    assert_eq!((last.exposed, last.on_trial), (4000, 0));
    assert!(good.timeline.is_sorted_by_key(|moment| moment.at));

    let crashing = Flaws { crashes: Share::ALL, ..Flaws::NONE };
    let bad = simulate::run(1, &asked(crashing));
    assert_eq!((bad.end, bad.touched, &bad.broken), (End::RolledBack, 1, &None));
    assert!(bad.timeline.iter().all(|moment| moment.exposed == 0));
    let late = Flaws { crashes_after: Some(Millis::from_secs(3)), ..Flaws::NONE };
    let late = simulate::run(1, &asked(late));
    assert_eq!((late.end, late.touched), (End::RolledBack, 1), "the bake is longer");
}
