//! A directory with a `baton.toml`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use baton_core::settings::{self, Settings};

use crate::failure::Failure;

/// What the settings file is called.
pub const FILE: &str = "baton.toml";

/// A directory with settings.
#[derive(Debug)]
pub struct Project {
    /// The directory.
    pub dir: PathBuf,
    /// What its `baton.toml` says.
    pub settings: Settings,
}

impl Project {
    /// The project in this directory; nothing when it has no settings.
    ///
    /// # Errors
    /// The settings cannot be read, or have mistakes: all of them are told.
    pub fn read(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join(FILE);
        let name = path.strip_prefix(".").unwrap_or(&path).display().to_string();
        let Some(text) = text(&path, &name)? else { return Ok(None) };
        let settings = settings::parse(&name, &text).map_err(Failure::Settings)?;
        Ok(Some(Self { dir: dir.to_owned(), settings }))
    }

    /// The project in this directory, which a command cannot do without.
    ///
    /// # Errors
    /// As for [`Project::read`], and when there are no settings.
    pub fn required(dir: &Path) -> Result<Self, Failure> {
        Self::read(dir)?.ok_or_else(|| {
            Failure::Usage(format!(
                "there is no {FILE} in {}: let `baton init` write one, or name another directory",
                dir.display()
            ))
        })
    }
}

/// The text of the settings; nothing when there is no such file, or not even a directory where it would be.
fn text(path: &Path, name: &str) -> Result<Option<String>, Failure> {
    let found = match fs::metadata(path) {
        // Whoever opens a pipe waits for somebody to write.
        Ok(found) if !found.is_file() => {
            return Err(Failure::Usage(format!("{name} is not a file: write the settings there")));
        }
        found => found.and_then(|_| fs::read(path)),
    };
    match found {
        Ok(bytes) => settings::text(name, bytes).map(Some).map_err(Failure::Settings),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(Failure::Read { path: path.to_owned(), source }),
    }
}
