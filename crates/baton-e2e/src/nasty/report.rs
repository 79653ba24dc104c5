//! The file in which a program tells what it does.

use std::fs::{File, OpenOptions};
use std::io::Write;

use anyhow::Context;

/// An open report: every line is appended in one call, so lines of several processes do not mix.
pub struct Report {
    path: String,
    file: File,
}

impl Report {
    /// Opens it, for lines at its end.
    pub fn open(path: &str) -> anyhow::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        Ok(Self { path: path.to_owned(), file: file.with_context(|| format!("cannot open {path}"))? })
    }

    /// Adds a line.
    pub fn say(&self, line: &str) -> anyhow::Result<()> {
        (&self.file).write_all(format!("{line}\n").as_bytes()).context("cannot write the report")
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }
}
