//! What a walk over the document finds, and how it becomes [`Mistake`]s.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::mistake::Mistake;
use super::suggest;

/// What is wrong with a value, and what to write instead.
pub(super) struct Wrong {
    /// To be read after the key: `is an integer`.
    pub is: String,
    /// What to do.
    pub fix: String,
}

impl Wrong {
    pub(super) fn new(is: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { is: is.into(), fix: fix.into() }
    }
}

/// What is the matter with a key.
pub(super) enum Problem {
    /// It is there, but not as it must be.
    Wrong(Wrong),
    /// It must be there and is not.
    Missing {
        /// What to do.
        fix: String,
    },
    /// Nobody asks for it.
    Unknown {
        /// The full name of its table.
        table: String,
        /// Its own name.
        name: String,
    },
}

struct Finding {
    /// The place in the text, in bytes.
    at: usize,
    key: String,
    problem: Problem,
}

/// What a walk has found so far.
#[derive(Default)]
pub(super) struct Findings {
    /// The full name of every setting that the walk asked for.
    pub asked: BTreeSet<String>,
    found: Vec<Finding>,
}

impl Findings {
    pub(super) fn add(&mut self, at: usize, key: String, problem: Problem) {
        self.found.push(Finding { at, key, problem });
    }

    /// All mistakes in the order of their places. `every_key` gives the names to suggest.
    ///
    /// Where the text is not TOML, the walk sees values that nobody wrote and misses some that are there. So
    /// what it found on lines that cannot be trusted is left out, and so is all that seems to be missing.
    pub(super) fn into_mistakes(
        self,
        file: &str,
        text: &str,
        syntax: &[toml::de::Error],
        every_key: impl FnOnce() -> BTreeSet<String>,
    ) -> Vec<Mistake> {
        let unknown = self.found.iter().any(|finding| matches!(finding.problem, Problem::Unknown { .. }));
        let mut keys = self.asked;
        if unknown {
            keys.append(&mut every_key());
        }
        let mistake = |at: usize, key: Option<String>, Wrong { is, fix }: Wrong| {
            let (line, column) = line_and_column(text, at);
            Mistake { file: file.to_owned(), line, column, key, wrong: is, fix }
        };
        let mut mistakes: Vec<Mistake> =
            syntax.iter().map(|error| mistake(place(error), None, of_syntax(text, error))).collect();
        let broken = broken_lines(text, mistakes.iter().map(|mistake| mistake.line));
        for Finding { at, key, problem } in self.found {
            let wrong = match problem {
                Problem::Missing { .. } if !broken.is_empty() => continue,
                Problem::Missing { fix } => Wrong::new("is missing", fix),
                Problem::Unknown { table, name } => {
                    Wrong::new("is not a setting", suggest::instead_of(&table, &name, &keys))
                }
                Problem::Wrong(wrong) => wrong,
            };
            let mistake = mistake(at, Some(key), wrong);
            if !broken.contains(&mistake.line) {
                mistakes.push(mistake);
            }
        }
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        mistakes.dedup();
        mistakes
    }
}

/// The lines with errors; behind a broken header also the lines up to the next one, since they belong to
/// another table than it seems.
fn broken_lines(text: &str, errors: impl Iterator<Item = usize>) -> BTreeSet<usize> {
    let mut broken: BTreeSet<usize> = errors.collect();
    let mut under_broken_header = false;
    for (line, content) in (1..).zip(text.split('\n')) {
        if content.trim_start().starts_with('[') {
            under_broken_header = broken.contains(&line);
        } else if under_broken_header {
            broken.insert(line);
        }
    }
    broken
}

fn place(error: &toml::de::Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

/// What the TOML parser says, in our form.
fn of_syntax(text: &str, error: &toml::de::Error) -> Wrong {
    let found = error.span().and_then(|span| text.get(span)).unwrap_or_default();
    let message = error.message().replace('\n', " ");
    match message.split_once(", expected ") {
        Some(("string values must be quoted", _)) if found.is_empty() => {
            Wrong::new("the value is missing", "write one after the =")
        }
        Some(("string values must be quoted", _)) => {
            Wrong::new(format!("{} is not in quotes", found.escape_debug()), format!("write {found:?}"))
        }
        Some((is, expected)) => Wrong::new(is, format!("expected {expected}")),
        None if message == "duplicate key" => {
            Wrong::new(format!("{} is here for the second time", found.escape_debug()), "keep one of the two")
        }
        None => Wrong::new(message, "see https://toml.io for the form of this file"),
    }
}

/// What is wrong with a file that is text only this far.
pub(super) fn not_utf8(file: &str, good: &str) -> Mistake {
    let (line, column) = line_and_column(good, good.len());
    let Wrong { is, fix } = Wrong::new("this is not UTF-8", "write the settings as UTF-8 text");
    Mistake { file: file.to_owned(), line, column, key: None, wrong: is, fix }
}

/// The line and the column in characters of the byte at `offset`, both counted from 1.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let (mut line, mut column) = (1, 1);
    for (_, character) in text.char_indices().take_while(|(at, _)| *at < offset) {
        if character == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::line_and_column;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let text = "aä€b\r\n\nc";
        for (offset, place) in
            [(0, (1, 1)), (1, (1, 2)), (3, (1, 3)), (6, (1, 4)), (9, (2, 1)), (10, (3, 1)), (99, (3, 2))]
        {
            assert_eq!(line_and_column(text, offset), place, "byte {offset}");
        }
    }
}
