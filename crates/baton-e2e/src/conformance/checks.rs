//! All checks.

mod exits;
mod given;
mod places;
mod reaping;
mod signals;
mod stops;

use super::check::Check;

/// Every check, in the order of the table.
pub const CHECKS: &[Check] = &[
    exits::EXIT_CODES,
    exits::EXIT_SIGNALS,
    exits::CANNOT_RUN,
    signals::SIGNALS,
    signals::SIGNALS_DURING_START,
    signals::RANDOM_SIGNALS,
    given::FRESH_SIGNALS,
    given::SESSION,
    given::TERMINAL,
    given::DESCRIPTORS,
    given::STDIN,
    given::OUTPUT,
    given::ENVIRONMENT,
    given::SURROUNDINGS,
    reaping::ORPHANS,
    reaping::ZOMBIES,
    stops::STOP_CODE,
    stops::SECOND_STOP,
    stops::GRACEFUL,
    stops::LEFT_BEHIND,
    stops::ESCAPED,
    stops::IGNORES_TERM,
    stops::STOPPED,
    stops::FORKS_AWAY,
    places::CLOSED_OUTPUT,
    places::SEALED,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_what_for() {
        let names: BTreeSet<&str> = CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), CHECKS.len());
        assert!(CHECKS.iter().all(|check| !check.proves.is_empty() && !check.matters.is_empty()));
    }

    #[test]
    fn the_page_explains_every_check_and_no_other() {
        let page = include_str!("../../../../docs/conformance.md");
        let (_, explained) = page.split_once("## The checks").unwrap();
        let (explained, _) = explained.split_once("\n## ").unwrap();
        let rows: Vec<String> =
            explained.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
        let here: Vec<String> = CHECKS
            .iter()
            .map(|check| format!("| `{}` | {} | {} |", check.name, check.proves, check.matters))
            .collect();
        assert_eq!(rows, here, "docs/conformance.md and the checks differ");
    }
}
