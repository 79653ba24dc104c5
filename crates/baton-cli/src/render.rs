//! Answers of the API as text: pure functions. What comes from elsewhere is escaped here.

pub mod access;
pub mod bar;
pub mod difference;
pub mod doctor;
pub mod lists;
pub mod pruned;
pub mod regained;
pub mod repaired;
pub mod rollout;
pub mod service;
pub mod simulated;
pub mod verified;

use crate::escape::escape;

/// How many digits of an id people read and type.
const ID_DIGITS: usize = 12;

/// An id as people read it.
pub fn id(id: &str) -> String {
    let short: String = id.chars().take(ID_DIGITS).collect();
    escape(&short)
}

/// What stands for nothing in a table.
pub fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), escape)
}

/// A number of bytes: `999 B`, `1.2 MB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number with its noun: `1 member`, `3 members`.
pub fn count(n: u64, noun: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (1_234_567, "1.2 MB"),
            (5_000_000_000_000, "5.0 TB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn p44_ids_are_escaped_like_everything() {
        assert_eq!(id("9f3a2b7c1d5e0000"), "9f3a2b7c1d5e");
        assert_eq!(id("\x1b[2J"), "\\x1b[2J");
    }
}
