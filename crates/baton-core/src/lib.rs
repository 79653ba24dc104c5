//! Every decision that Baton takes, as pure functions over plain data.
//!
//! Nothing in this crate reads a clock, a file, the network or the environment, and nothing is random:
//! the same state, time and event give the same answer. Time comes in as [`units::Millis`]; a wish to be
//! woken goes out as a deadline. `no_std` makes the compiler the guard of that rule.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod access;
pub mod backoff;
pub mod bake;
pub mod blame;
pub mod build;
mod chain;
pub mod chorus;
pub mod collection;
pub mod costs;
pub mod counts;
pub mod decision;
pub mod deploy;
pub mod doctor;
pub mod event;
pub mod exit;
pub mod fleet;
pub mod forecast;
pub mod health;
pub mod history;
pub mod ids;
pub mod laggards;
pub mod limits;
pub mod member;
pub mod metric;
pub mod notice;
pub mod openings;
pub mod output;
mod pages;
pub mod passing;
pub mod peers;
pub mod placeholder;
pub mod release;
pub mod report;
pub mod retention;
pub mod rollout;
mod roster;
pub mod run;
pub mod seating;
pub mod service_manager;
pub mod settings;
pub mod signal;
pub mod simulate;
mod sorted;
pub mod split;
pub mod supervisor;
pub mod target;
pub mod trust;
pub mod turn;
pub mod units;
pub mod verdict;
pub mod words;
