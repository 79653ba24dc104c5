//! Text from elsewhere (a program's output, a reason, a name), made safe to print.
//!
//! Whoever writes such a text does not own the terminal on which it is read: no character of it may move the
//! cursor, change colours, hide or reorder what stands around it, or begin a line of its own.

/// What stands for a tab in [`lines`]: indentation should stay readable.
const TAB: &str = "    ";

/// The text on one line, without any character that a terminal acts on.
///
/// Those are written as `\n`, `\x1b` or `\u{202e}`, and a backslash as `\\`, so that two different texts never
/// look alike.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => safe.push_str("\\\\"),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if u32::from(c) < 0x100 && c.is_control() => safe.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if unseen(c) => safe.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// The lines of a text, each escaped.
pub fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(|line| escape(&line.replace('\t', TAB)))
}

/// Characters that take no room of their own and change how others look: directions, joiners, separators,
/// invisible operators, variation selectors, tags.
fn unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads back what [`escape`] wrote.
    fn unescape(safe: &str) -> String {
        let mut text = String::new();
        let mut rest = safe.chars();
        let code = |digits: String| char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap();
        while let Some(c) = rest.next() {
            text.push(match c {
                '\\' => match rest.next().unwrap() {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'x' => code(rest.by_ref().take(2).collect()),
                    'u' => code(rest.by_ref().skip(1).take_while(|c| *c != '}').collect()),
                    c => c,
                },
                c => c,
            });
        }
        text
    }

    proptest! {
        #[test]
        fn p44_no_text_can_drive_a_terminal_and_none_is_lost(text in any::<String>()) {
            let safe = escape(&text);
            prop_assert!(!safe.chars().any(unseen), "{safe:?}");
            prop_assert_eq!(unescape(&safe), text);
        }

        #[test]
        fn p44_nor_can_any_character(code in any::<char>()) {
            let safe = escape(&code.to_string());
            prop_assert!(!safe.chars().any(unseen), "{safe:?}");
        }

        #[test]
        fn p44_a_line_is_one_line(text in any::<String>()) {
            for line in lines(&text) {
                prop_assert!(!line.chars().any(unseen), "{line:?}");
            }
        }
    }

    #[test]
    fn p44_what_is_dangerous_is_shown_instead() {
        for (text, safe) in [
            ("plain text, ünïcödé, 漢字", "plain text, ünïcödé, 漢字"),
            ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
            ("100%\rdone\n", "100%\\rdone\\n"),
            ("a\u{9b}31m", "a\\x9b31m"),
            ("user\u{202e}txt.exe", "user\\u{202e}txt.exe"),
            (r"C:\temp", r"C:\\temp"),
        ] {
            assert_eq!(escape(text), safe);
        }
        assert_eq!(lines("a\n\tb\x1b\n").collect::<Vec<_>>(), ["a", "    b\\x1b"]);
    }
}
