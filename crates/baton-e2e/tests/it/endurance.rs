//! A short `make endurance`: every kind of client, every way to hand over.

use std::path::PathBuf;

use baton_e2e::endurance::{Pace, Places, boot};
use baton_e2e::load::Habit;

use crate::boot::binary;

/// How many reloads there are, and after how many what is left is looked at.
const RELOADS: u64 = 20;
const LOOKS: [u64; 2] = [10, RELOADS];

fn twenty_reloads(way: &'static str) {
    let nowhere = PathBuf::new;
    let places = Places {
        boot: binary("baton-boot"),
        web: binary("baton-web"),
        apps: nowhere(),
        python: nowhere(),
        pm2: nowhere(),
    };
    let round = boot::round(&places, way, Pace::Modest, RELOADS, &LOOKS).unwrap();
    // An allocator has not settled after so few: memory is for `make endurance` to look at.
    for faults in [round.losses(), round.leaks()] {
        assert!(faults.is_empty(), "{faults:#?}\n{:#?}\n{:?}", round.report, round.looks);
    }
    for habit in Habit::ALL {
        let answered: u64 = round.report.habits[&habit].answered.values().sum();
        assert!(answered > RELOADS, "{habit:?}: {:#?}", round.report);
    }
}

#[test]
fn p1_p3_p5_every_kind_of_client_outlives_twenty_reloads_by_interception() {
    twenty_reloads("auto");
}

#[test]
fn p1_p3_p5_every_kind_of_client_outlives_twenty_reloads_by_inheritance() {
    twenty_reloads("inherit");
}

#[test]
fn p1_p3_p5_every_kind_of_client_outlives_twenty_reloads_by_proxy() {
    twenty_reloads("proxy");
}
