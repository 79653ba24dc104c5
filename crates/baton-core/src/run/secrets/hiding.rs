//! Texts in which values of secrets may stand, for whoever must not have those.
//!
//! A text may have been cut before it comes here, in the middle of a value: what is left of that stands beside [`CUT`].

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::Values;
use crate::words::CUT;

/// Shorter values, such as `true` or a port, stand in many texts by chance, and are not hidden in them; neither is so
/// little of one that was cut.
const BYTES_MIN: usize = 6;
/// What stands where a value was.
const HIDDEN: &str = "[secret]";

/// A text in which none of these values is left, nor what a [`CUT`] has left of one.
pub fn hide<'a>(text: &str, all: impl IntoIterator<Item = &'a Values>) -> String {
    let values = all.into_iter().flat_map(|values| values.merged.iter().chain(&values.named));
    let pieces: Vec<&str> = values.flat_map(|(_, value)| pieces(value.reveal())).collect();
    // All of them are looked for in the text as it is: one value may be a part of another.
    let whole =
        pieces.iter().flat_map(|piece| text.match_indices(piece)).map(|(at, found)| at..at + found.len());
    let mut found: Vec<Range<usize>> = whole.chain(torn(text, &pieces)).collect();
    found.sort_unstable_by_key(|found| found.start);
    without(text, &found)
}

/// A value as it may stand in a text: as a whole, and each of its lines, as others may stand between them.
fn pieces(value: &str) -> impl Iterator<Item = &str> {
    let lines = value.split(char::is_control).map(str::trim);
    [value].into_iter().chain(lines).filter(|piece| piece.len() >= BYTES_MIN)
}

/// A text without these places in it, sorted by their beginnings.
fn without(text: &str, places: &[Range<usize>]) -> String {
    let (mut shown, mut at) = (String::new(), 0);
    for place in places.iter().filter(|place| !place.is_empty()) {
        // What follows on another one, or overlaps with it, is hidden with it.
        if place.start > at || at == 0 {
            shown.push_str(&text[at..place.start]);
            shown.push_str(HIDDEN);
        }
        at = at.max(place.end);
    }
    shown + &text[at..]
}

/// Where at a [`CUT`] the beginning, the end or the middle of a value stands.
fn torn(text: &str, pieces: &[&str]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    for line in text.split('\n') {
        let parts: Vec<&str> = line.split(CUT).collect();
        for (index, part) in parts.iter().enumerate() {
            let (begins, ends) = (index > 0, index + 1 < parts.len());
            found.extend(torn_in(part, begins, ends, pieces).map(|place| at + place.start..at + place.end));
            at += part.len() + if ends { CUT.len() } else { '\n'.len_utf8() };
        }
    }
    found
}

/// The same in what stands between two cuts: `begins`, `ends` where something is missing there.
fn torn_in(part: &str, begins: bool, ends: bool, pieces: &[&str]) -> impl Iterator<Item = Range<usize>> {
    // Half of a character cannot be shown, and is in no value.
    let from = part.len() - part.trim_start_matches(char::REPLACEMENT_CHARACTER).len();
    let text = part.trim_matches(char::REPLACEMENT_CHARACTER);
    let is_middle = |piece: &&str| text.len() >= BYTES_MIN && piece.contains(text);
    let middle = begins && ends && pieces.iter().any(is_middle);
    let end_of_value = pieces.iter().filter(|_| begins).filter_map(|piece| ending(text, piece)).max();
    let beginning_of_value = pieces.iter().filter(|_| ends).filter_map(|piece| beginning(text, piece)).min();
    let places = [
        middle.then_some(0..text.len()),
        end_of_value.map(|end| 0..end),
        beginning_of_value.map(|begin| begin..text.len()),
    ];
    places.into_iter().flatten().map(move |place| from + place.start..from + place.end)
}

/// Up to where a text begins with the end of a value.
fn ending(text: &str, piece: &str) -> Option<usize> {
    let mut ends = text.char_indices().map(|(at, c)| at + c.len_utf8()).filter(|end| *end >= BYTES_MIN).rev();
    ends.find(|end| piece.ends_with(&text[..*end]))
}

/// From where on a text is the beginning of a value.
fn beginning(text: &str, piece: &str) -> Option<usize> {
    let mut begins = text.char_indices().map(|(at, _)| at).filter(|at| text.len() - at >= BYTES_MIN);
    begins.find(|at| piece.starts_with(&text[*at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::secrets::Secret;
    use crate::words::Words;
    use alloc::borrow::ToOwned;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    fn values(of: &[&str]) -> Values {
        let named = of.iter().map(|value| ("A".to_owned(), Secret::new((*value).to_owned())));
        Values { merged: Vec::new(), named: named.collect() }
    }

    #[test]
    fn what_is_a_part_of_another_value_leaves_nothing_of_it() {
        let (old, new) = (values(&["hunter22", "on"]), values(&["hunter22-long"]));
        for all in [[&old, &new], [&new, &old]] {
            assert_eq!(hide("on hunter22-long, hunter22", all), "on [secret], [secret]");
        }
    }

    #[test]
    fn p43_a_value_that_is_a_part_of_another_one_does_not_show_what_is_around_it() {
        let all = values(&["postgres://web:hunter22@db/web", "hunter22", "db/web-and-more"]);
        for (text, hidden) in [
            ("dial postgres://web:hunter22@d…", "dial [secret]…"),
            ("…web:hunter22@db/web is gone", "…[secret] is gone"),
            ("postgres://web:hunter22@db/web-and-more", "[secret]"),
            ("hunter22hunter22, hunter22", "[secret], [secret]"),
        ] {
            assert_eq!(hide(text, [&all]), hidden, "{text:?}");
        }
    }

    #[test]
    fn p43_a_value_of_several_lines_is_hidden_line_by_line() {
        let key = values(&["-----BEGIN KEY-----\r\nMIIEvQIBADANBgkq\r\n  hkiG9w0B\r\n-----END KEY-----\r\n"]);
        let text = "read MIIEvQIBADANBgkq\nGET /\nhkiG9w0B\n-----END KEY-----";
        assert_eq!(hide(text, [&key]), "read [secret]\nGET /\n[secret]\n[secret]");
    }

    #[test]
    fn p43_what_a_cut_has_left_of_a_value_is_hidden_and_what_looks_like_it_elsewhere_is_not() {
        let url = values(&["postgres://web:hünter22@db/web"]);
        for (text, hidden) in [
            ("cannot reach postgres", "cannot reach postgres"),
            ("dial postgres://we…", "dial [secret]…"),
            ("…:hünter22@db/web failed", "…[secret] failed"),
            ("…nter22@d…", "…[secret]…"),
            ("…\u{fffd}nter22@db/web: x postgres://web:h\u{fffd}…", "…\u{fffd}[secret]: x [secret]\u{fffd}…"),
            ("its status: dial postgres://we…\nlast line", "its status: dial [secret]…\nlast line"),
            ("post…", "post…"),
            ("…b/web is gone", "…b/web is gone"),
            ("…", "…"),
            ("", ""),
        ] {
            assert_eq!(hide(text, [&url]), hidden, "{text:?}");
        }
    }

    proptest! {
        /// Wherever a text is cut, at its end or at both, nothing is left by which a value could be told.
        #[test]
        fn p43_no_cut_leaves_anything_of_a_value(
            value in "[0-9A-Z]{12,700}",
            around in "[a-z ]{0,40}",
            from in 0usize..900,
            bytes in 0usize..900,
        ) {
            let text = format!("{around}{value}{around}");
            let from = from.min(text.len());
            let to = (from + bytes).min(text.len());
            let mark = |torn: bool| if torn { CUT } else { "" };
            let cut = [mark(from > 0), &text[from..to], mark(to < text.len())].concat();
            let words = Words::new(&text).to_string();
            for text in [text, cut, words] {
                let hidden = hide(&format!("said: {text}\nend"), [&values(&[&value])]);
                let left = hidden.replace(HIDDEN, "");
                let left = left.split(|c: char| !c.is_ascii_digit() && !c.is_ascii_uppercase());
                prop_assert!(left.clone().all(|left| left.len() < BYTES_MIN), "{}", hidden);
            }
        }

        #[test]
        fn a_text_without_values_stays_as_it_is(text in "[a-z…\u{fffd}\n ]{0,60}") {
            prop_assert_eq!(hide(&text, [&values(&["HUNTER22"])]), text);
        }
    }

    #[test]
    fn without_values_there_is_nothing_to_hide() {
        assert_eq!(hide("…anything…", vec![]), "…anything…");
    }
}
