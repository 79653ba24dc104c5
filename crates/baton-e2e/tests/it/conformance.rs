//! The bootloader as PID 1, by the checks that any init can be held against (`make conformance`).

use baton_e2e::conformance::{Init, Tools, checks::CHECKS, hold};

use crate::boot::binary;

/// Holds the bootloader against these checks.
fn hold_against(names: &[&str]) {
    let init = Init::baton_boot(&binary("baton-boot")).unwrap();
    let tools = Tools::new(env!("CARGO_BIN_EXE_baton-nasty").into()).unwrap();
    let checks: Vec<_> = CHECKS.iter().filter(|check| names.contains(&check.name)).collect();
    assert_eq!(checks.len(), names.len(), "{names:?}");
    let scores = hold(&init, &tools, &checks, &mut std::io::sink()).unwrap();
    assert!(scores.failed().is_empty(), "{:#?}", scores.failed());
}

#[test]
fn p18_pid_1_passes_exits_and_signals_on_and_reaps() {
    hold_against(&[
        "exit-codes",
        "exit-signals",
        "cannot-run",
        "signals",
        "signals-during-start",
        "random-signals",
        "fresh-signals",
        "zombies",
        "stop-code",
        "second-stop",
    ]);
}

#[test]
fn p19_pid_1_lets_everybody_finish_and_ends_last() {
    hold_against(&["graceful", "left-behind", "escaped"]);
}

#[test]
fn p20_pid_1_stops_within_its_limit() {
    hold_against(&["ignores-term", "stopped", "forks-away"]);
}

#[test]
fn f23_pid_1_gives_its_program_what_it_was_given() {
    hold_against(&["session", "descriptors", "output", "environment", "surroundings", "closed-output"]);
}
