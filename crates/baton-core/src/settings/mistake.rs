//! What people are told about a mistake in their settings.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// One mistake: where it is, what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The full name of the setting; none where the text is not even TOML.
    pub key: Option<String>,
    /// What is wrong, to be read after the key: `is missing`.
    pub wrong: String,
    /// What to do: `write service = "NAME"`.
    pub fix: String,
}

impl fmt::Display for Mistake {
    /// `baton.toml:12:3: run.helth is not a setting; did you mean run.health?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, key, wrong, fix } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if let Some(key) = key {
            write!(f, "{key} ")?;
        }
        write!(f, "{wrong}; {fix}")
    }
}

/// Every mistake in a file, in the order of their places; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    /// One mistake a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}
impl core::error::Error for Mistakes {}
