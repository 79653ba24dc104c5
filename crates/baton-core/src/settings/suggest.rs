//! Which name somebody may have meant.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use strsim::damerau_levenshtein;

/// One slip in this many letters is still the same word; at least one slip is.
const LETTERS_PER_SLIP: usize = 3;

/// Among `names`, the one nearest to `word`, if any is near.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |name: &&str| slips(word, name).is_some();
    names.into_iter().filter(near).min_by_key(|name| slips(word, name))
}

/// How far apart two words are, if they are near.
fn slips(word: &str, name: &str) -> Option<usize> {
    let slips = damerau_levenshtein(word, name);
    (slips <= (word.chars().count() / LETTERS_PER_SLIP).max(1)).then_some(slips)
}

/// What to do about `word` in `table`, which is not among `keys`: a near name in the same table, else one in
/// another table, else what the table has.
pub(super) fn instead_of(table: &str, word: &str, keys: &BTreeSet<String>) -> String {
    let rank = |known: &&String| {
        let (other_table, name) = split(known);
        let shared = table.bytes().zip(known.bytes()).take_while(|(a, b)| a == b).count();
        Some((other_table != table, slips(word, name)?, Reverse(shared), known.len()))
    };
    let near = keys.iter().filter(|known| rank(known).is_some()).min_by_key(rank);
    if let Some(near) = near {
        return format!("did you mean {near}?");
    }
    let here: Vec<&str> =
        keys.iter().map(|key| split(key)).filter(|(t, _)| *t == table).map(|(_, name)| name).collect();
    match table {
        "" => format!("the settings here are {}", here.join(", ")),
        _ => format!("the settings of {table} are {}", here.join(", ")),
    }
}

/// The table and the last part of a full name.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_looked_for_first_in_the_same_table() {
        let keys = ["service", "run", "run.command", "run.drain", "run.health", "run.health.timeout"]
            .into_iter()
            .chain(["flavor.a.run", "flavor.a.run.command"])
            .map(String::from)
            .collect();
        for (table, word, fix) in [
            ("run", "helth", "did you mean run.health?"),
            ("run", "drian", "did you mean run.drain?"),
            ("", "servce", "did you mean service?"),
            ("", "drain", "did you mean run.drain?"),
            ("run", "timeout", "did you mean run.health.timeout?"),
            ("", "command", "did you mean run.command?"),
            ("flavor.a", "command", "did you mean flavor.a.run.command?"),
            ("run", "workers", "the settings of run are command, drain, health"),
            ("", "secrets", "the settings here are run, service"),
        ] {
            assert_eq!(instead_of(table, word, &keys), fix, "{table}.{word}");
        }
    }
}
