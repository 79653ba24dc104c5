//! Reading a text of the format word by word, accepting one spelling of everything only.

use alloc::string::{String, ToString};
use core::fmt::{Display, Write};
use core::str::FromStr;

use super::Chunk;
use super::fault::{Fault, Text, TextError};
use crate::split::split_once;

/// The version of the format: of manifests, outlines and packs alike.
pub(crate) const VERSION: u32 = 1;

/// The lines of a text that are still to be read.
pub(crate) struct Lines<'a> {
    text: Text,
    rest: &'a str,
    number: u32,
}

impl<'a> Lines<'a> {
    /// The lines of a text, each of which ends with a line feed, after the first, which says what it is.
    pub(crate) fn new(text: Text, all: &'a str) -> Result<Self, TextError> {
        let mut lines = Self { text, rest: all, number: 1 };
        let not_that = lines.fault(Fault::NotThat(text));
        let mut words = lines.take(text.magic())?.ok_or(not_that)?;
        match words.remainder()? {
            version if version == VERSION.to_string() => Ok(lines),
            version => Err(words.fault(Fault::Version(version.to_string()))),
        }
    }

    /// The error that the next line has this fault.
    pub(crate) fn fault(&self, what: Fault) -> TextError {
        TextError { text: self.text, line: self.number, what }
    }

    /// The number of the next line, counted from 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Whether everything has been read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Passes over empty lines, and over those that begin with `#`: in texts that people write.
    pub(crate) fn skip_remarks(&mut self) -> Result<(), TextError> {
        while self.rest.starts_with(['#', '\n']) {
            self.next()?;
        }
        Ok(())
    }

    /// The next line, whatever it is.
    pub(crate) fn next(&mut self) -> Result<Words<'a>, TextError> {
        let Some((line, rest)) = split_once(self.rest, b'\n') else {
            return Err(self.fault(Fault::Unfinished));
        };
        let words = Words { text: self.text, line: self.number, rest: Some(line) };
        self.rest = rest;
        self.number += 1;
        Ok(words)
    }

    /// The next line without its first word, when that is `key`.
    pub(crate) fn take(&mut self, key: &str) -> Result<Option<Words<'a>>, TextError> {
        let after = self.rest.strip_prefix(key).map(|after| after.as_bytes().first());
        if !matches!(after, Some(None | Some(b' ' | b'\n'))) {
            return Ok(None);
        }
        let mut words = self.next()?;
        words.word()?;
        Ok(Some(words))
    }

    /// The next line without its first word, which must be `key`.
    pub(crate) fn expect(&mut self, key: &'static str) -> Result<Words<'a>, TextError> {
        let missing = self.fault(Fault::Expected(key));
        self.take(key)?.ok_or(missing)
    }
}

impl Lines<'_> {
    /// The value of the next line, which must have this key and nothing else.
    pub(crate) fn only<T: FromStr + Display>(
        &mut self,
        key: &'static str,
        what: &'static str,
    ) -> Result<T, TextError> {
        let mut words = self.expect(key)?;
        let value = words.value(what)?;
        words.end()?;
        Ok(value)
    }
}

/// What is left of one line; words are separated by one space.
pub(crate) struct Words<'a> {
    text: Text,
    line: u32,
    rest: Option<&'a str>,
}

impl<'a> Words<'a> {
    /// The error that this line has this fault.
    pub(crate) fn fault(&self, what: Fault) -> TextError {
        TextError { text: self.text, line: self.line, what }
    }

    /// The next word, up to a space or the end.
    pub(crate) fn word(&mut self) -> Result<&'a str, TextError> {
        let rest = self.rest.unwrap_or_default();
        let (word, rest) = split_once(rest, b' ').map_or((rest, None), |(word, rest)| (word, Some(rest)));
        if word.is_empty() {
            return Err(self.fault(Fault::WordMissing));
        }
        self.rest = rest;
        Ok(word)
    }

    /// The next word, as a value that prints exactly as it was written: no `+1`, no `01`.
    pub(crate) fn value<T: FromStr + Display>(&mut self, what: &'static str) -> Result<T, TextError> {
        let word = self.word()?;
        exact(word).ok_or_else(|| self.fault(Fault::NotA { what, text: word.to_string() }))
    }

    /// The next word, as a number: without sign, and without a zero in front.
    pub(crate) fn number<T: FromStr>(&mut self) -> Result<T, TextError> {
        let word = self.word()?;
        let exact = word == "0" || matches!(word.as_bytes(), [b'1'..=b'9', ..]);
        let value = if exact { word.parse().ok() } else { None };
        value.ok_or_else(|| self.fault(Fault::NotA { what: "a number", text: word.to_string() }))
    }

    /// The rest of the line, which names a chunk. A hash is read from one spelling only.
    pub(crate) fn chunk(&mut self) -> Result<Chunk, TextError> {
        let word = self.word()?;
        let what = "a chunk's hash";
        let id = word.parse().map_err(|_| self.fault(Fault::NotA { what, text: word.to_string() }))?;
        let bytes = self.number()?;
        self.end()?;
        Ok(Chunk { id, bytes })
    }

    /// The next word, which is one of a few.
    pub(crate) fn one_of<T: Copy>(&mut self, known: &[(&'static str, T)]) -> Result<T, TextError> {
        let word = self.word()?;
        let found = known.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| *value).ok_or_else(|| self.fault(Fault::UnknownWord(word.to_string())))
    }

    /// The next text in quotes.
    pub(crate) fn quoted(&mut self) -> Result<String, TextError> {
        let rest = self.rest.unwrap_or_default();
        let (text, rest) = unquote(rest).ok_or_else(|| self.fault(Fault::Quotes))?;
        self.rest = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(' ').ok_or_else(|| self.fault(Fault::Quotes))?),
        };
        Ok(text)
    }

    /// Everything that is left of the line.
    pub(crate) fn remainder(&mut self) -> Result<&'a str, TextError> {
        self.rest.take().ok_or_else(|| self.fault(Fault::WordMissing))
    }

    /// Whether nothing is left of the line.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_none()
    }

    /// Makes sure that nothing is left of the line.
    pub(crate) fn end(&self) -> Result<(), TextError> {
        match self.rest {
            None => Ok(()),
            Some(rest) => Err(self.fault(Fault::Surplus(rest.to_string()))),
        }
    }
}

/// The value of a text, if the value prints exactly like that.
pub(crate) fn exact<T: FromStr + Display>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|value| {
        let mut rest = Rest(text);
        write!(rest, "{value}").is_ok() && rest.0.is_empty()
    })
}

/// What is left of a text when what is written was taken off its front: no value is worth an allocation.
struct Rest<'a>(&'a str);

impl Write for Rest<'_> {
    fn write_str(&mut self, written: &str) -> core::fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(core::fmt::Error)?;
        Ok(())
    }
}

/// The text in quotes on one line: `"`, `\` and control characters are escaped, nothing else is.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\u{{{:x}}}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Takes a text in quotes off the front, if it is spelled as [`quote`] does.
fn unquote(input: &str) -> Option<(String, &str)> {
    let mut rest = input.strip_prefix('"')?;
    let mut text = String::new();
    loop {
        let end = rest.find(['"', '\\'])?;
        text.push_str(&rest[..end]);
        if let Some(after) = rest[end..].strip_prefix('"') {
            // Comparing with the one right spelling also refuses raw control characters and needless escapes.
            let used = &input[..input.len() - after.len()];
            return (quote(&text) == used).then_some((text, after));
        }
        let escape = &rest[end + 1..];
        rest = match escape.strip_prefix("u{") {
            Some(code) => {
                let (digits, after) = code.split_once('}')?;
                text.push(u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?);
                after
            }
            None => {
                let escaped = escape.chars().next()?;
                text.push(escaped);
                &escape[escaped.len_utf8()..]
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_have_one_spelling() {
        assert_eq!(quote("a \"b\" \\ \n ä"), r#""a \"b\" \\ \u{a} ä""#);
        for bad in [
            "",
            "a",
            "\"",
            "\"a",
            r#""\n""#,
            r#""\u{A}""#,
            r#""\u{0a}""#,
            r#""\u{61}""#,
            r#""\u{d800}""#,
            r#""\"#,
            "\"a\tb\"",
            r#""\u{a""#,
            r#""\u{+a}""#,
        ] {
            assert_eq!(unquote(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_from_its_quotes(text in ".*|[\\x00-\\x7f\"\\\\]*", after in " .*") {
            let line = quote(&text) + &after;
            prop_assert_eq!(unquote(&line), Some((text, after.as_str())));
        }
    }
}
