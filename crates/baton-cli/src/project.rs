//! A directory with a `baton.toml`.

use std::io;
use std::path::{Path, PathBuf};

use baton_core::settings::{self, Settings};

use crate::failure::Failure;

/// What the settings file is called.
const FILE: &str = "baton.toml";

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
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let name = path.strip_prefix(".").unwrap_or(&path).display().to_string();
                let settings = settings::parse(&name, &text).map_err(Failure::Settings)?;
                Ok(Some(Self { dir: dir.to_owned(), settings }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Failure::Read { path, source }),
        }
    }

    /// The project in this directory, which a command cannot do without.
    ///
    /// # Errors
    /// As for [`Project::read`], and when there are no settings.
    pub fn required(dir: &Path) -> Result<Self, Failure> {
        Self::read(dir)?.ok_or_else(|| {
            Failure::Usage(format!(
                "there is no {FILE} in {}: write one with service = \"NAME\" and, under [run], \
                 command = [\"PROGRAM\"], or name another directory",
                dir.display()
            ))
        })
    }
}
