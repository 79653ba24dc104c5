//! Short texts that somebody else wrote: a probe's finding, a program's status.

use alloc::string::String;
use core::fmt;

/// How much of such a text is kept: a sentence, not a page.
const BYTES_MAX: usize = 240;
/// Stands where a text was cut: whoever hides something in it must know that it may have been there.
pub const CUT: &str = "…";

/// One line of somebody else's words: bounded, and nothing in it drives a terminal or ends a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words(String);

impl Words {
    /// What of a text is fit for a line of a log: control characters become spaces, the rest is cut.
    pub fn new(text: &str) -> Self {
        let mut words = String::new();
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        for c in clean.trim().chars() {
            if words.len() + c.len_utf8() > BYTES_MAX {
                words.push_str(CUT);
                break;
            }
            words.push(c);
        }
        Self(words)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Words {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_one_line() {
        for (text, expected) in [
            ("  loading 40 % \n", "loading 40 %"),
            ("\x1b[31mred\x1b[0m", "[31mred [0m"),
            ("a\nb\r\nc\0", "a b  c"),
            ("äöü", "äöü"),
            ("", ""),
        ] {
            assert_eq!(Words::new(text).as_str(), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn words_are_short_and_harmless(text in any::<String>(), times in 0usize..40) {
            let words = Words::new(&text.repeat(times));
            prop_assert!(words.as_str().len() <= BYTES_MAX + CUT.len());
            prop_assert!(!words.as_str().contains(char::is_control));
        }
    }
}
