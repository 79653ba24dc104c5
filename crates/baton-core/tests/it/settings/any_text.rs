//! No text makes the parser panic, and every report has its form.

use baton_core::settings::parse;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::FULL;

/// Parses anything, and checks what must hold of every report.
fn check_report(text: &str) -> Result<(), TestCaseError> {
    let Err(mistakes) = parse("f", text) else { return Ok(()) };
    prop_assert!(!mistakes.0.is_empty());
    let lines = text.split('\n').count();
    let mut last = (0, 0);
    for mistake in &mistakes.0 {
        let place = (mistake.line, mistake.column);
        prop_assert!(place >= last && mistake.line <= lines && mistake.column >= 1, "{mistake}");
        prop_assert!(!mistake.to_string().contains(char::is_control), "{:?}", mistake.to_string());
        last = place;
    }
    Ok(())
}

/// Pieces that a file is made of, right and wrong ones.
const PIECES: [&str; 40] = [
    "service",
    "run",
    "command",
    "listen",
    "health",
    "rollout",
    "env",
    "flavor",
    "phases",
    "drain",
    "name",
    "address",
    "http",
    "x",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "\n",
    "\n",
    " ",
    "\"",
    "'",
    "\"web\"",
    "\"30s\"",
    "\"0.0.0.0:80\"",
    "[\"a\"]",
    "1",
    "-0.5",
    "true",
    "1979-05-27",
    "#",
    "\"\"\"",
    "ä\\\u{1}",
];

proptest! {
    #[test]
    fn any_text_is_read_or_reported(text in any::<String>()) {
        check_report(&text)?;
    }

    #[test]
    fn any_pieces_are_read_or_reported(pieces in vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.into_iter().map(|index| PIECES[index]).collect();
        check_report(&text)?;
    }

    #[test]
    fn a_good_file_with_a_few_changes_is_read_or_reported(
        changes in vec((any::<Index>(), 0..PIECES.len(), 0usize..8), 1..6),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, piece, removed) in changes {
            let at = at.index(text.len());
            text.splice(at..(at + removed).min(text.len()), PIECES[piece].chars());
        }
        check_report(&text.into_iter().collect::<String>())?;
    }
}
