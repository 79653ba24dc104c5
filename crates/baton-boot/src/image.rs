//! What the member runs without control: a command, a settings file, or both.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use baton_core::bake::Bake;
use baton_core::ids::ServiceName;
use baton_core::run::secrets::Lacking;
use baton_core::run::{OnExit, RunSettings, Stdin};
use baton_core::settings::{self, Mistakes, Settings};
use baton_core::supervisor::{Plan, Running};
use baton_core::units::Millis;

use crate::config::Config;
use crate::secrets::{assemble, local};

/// The settings file that is read when none is named.
const SETTINGS_DEFAULT: &str = "baton.toml";

/// What settings that were typed are called in what is said of them.
const TYPED: &str = "the arguments";

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a directory.
    #[error("{path} is a directory, not a file: write the settings in a file and name that", path = path.display())]
    Directory {
        /// Which directory.
        path: PathBuf,
    },
    /// The file has mistakes.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// Settings in a file and in the arguments.
    #[error(
        "settings are typed, and there is a baton.toml: write them in the file, or start in another directory"
    )]
    Two,
    /// A secret is not there.
    #[error(transparent)]
    Secret(#[from] Lacking),
    /// Neither a file nor a command.
    #[error("there is nothing to run: give a command behind --, or write run.command in baton.toml")]
    Nothing,
}

/// Where to find out what to run, whenever it is asked for.
#[derive(Debug, Clone)]
pub struct Image {
    settings: Option<PathBuf>,
    /// What was typed instead, as the text of a file.
    typed: String,
    command: Vec<String>,
    environment: Vec<(OsString, OsString)>,
}

impl Image {
    /// What these arguments name.
    pub fn new(config: &Config) -> Self {
        let Config { settings, typed, command, environment, .. } = config.clone();
        Self { settings, typed, command, environment }
    }

    /// Whether there is neither a command nor a settings file.
    pub fn is_empty(&self) -> bool {
        self.command.is_empty()
            && self.settings.is_none()
            && self.typed.is_empty()
            && !Path::new(SETTINGS_DEFAULT).exists()
    }

    /// Where the settings are, for people, if there are any.
    pub fn source(&self) -> Option<String> {
        let path = || self.settings.clone().unwrap_or_else(|| SETTINGS_DEFAULT.into());
        match self.typed.is_empty() {
            true => std::path::absolute(path())
                .ok()
                .filter(|path| path.exists())
                .map(|path| path.display().to_string()),
            false => Some(TYPED.to_owned()),
        }
    }

    /// The service, if there are settings that say it.
    pub fn service(&self) -> Option<ServiceName> {
        self.settings().ok()?.map(|settings| settings.service)
    }

    /// Finds mistakes in what is written. What it refers to is not looked at.
    pub fn check(&self) -> Result<(), ImageError> {
        match self.settings()? {
            Some(_) => Ok(()),
            None => self.bare_command().map(drop),
        }
    }

    /// What to run now, and how a reload bakes.
    pub fn load(&self) -> Result<(Plan, Bake), ImageError> {
        let Some(settings) = self.settings()? else { return self.bare_command() };
        let time = settings.policy.phases.last().map_or(Millis::ZERO, |phase| phase.bake);
        // Who reloads waits for it, and perhaps nobody connects meanwhile.
        let bake = Bake::from(time);
        let secrets = assemble(&settings.run.secrets, |reference| local(&self.environment, reference))?;
        Ok((Plan::new(Running::Image, settings.run).with_secrets(secrets), bake))
    }

    /// What the settings say; none when none were named and there are none.
    fn settings(&self) -> Result<Option<Settings>, ImageError> {
        if !self.typed.is_empty() {
            return match Path::new(SETTINGS_DEFAULT).exists() {
                true => Err(ImageError::Two),
                false => self.parse(TYPED, &self.typed).map(Some),
            };
        }
        let path = self.settings.clone().unwrap_or_else(|| SETTINGS_DEFAULT.into());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                return Err(ImageError::Directory { path });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.settings.is_none() => {
                return Ok(None);
            }
            Err(source) => return Err(ImageError::Read { path, source }),
        };
        let name = path.display().to_string();
        let text = settings::text(&name, bytes).map_err(ImageError::Mistakes)?;
        self.parse(&name, &text).map(Some)
    }

    fn parse(&self, name: &str, text: &str) -> Result<Settings, ImageError> {
        let settings = if self.command.is_empty() {
            settings::parse(name, text)
        } else {
            settings::parse_with_command(name, text, self.command.clone())
        };
        settings.map_err(ImageError::Mistakes)
    }

    /// A command and nothing else: like any init, the bootloader ends when it does.
    fn bare_command(&self) -> Result<(Plan, Bake), ImageError> {
        if self.command.is_empty() {
            return Err(ImageError::Nothing);
        }
        let mut run = RunSettings::for_command(self.command.clone());
        run.on_exit = OnExit::Exit;
        run.process.stdin = Stdin::Inherit;
        Ok((Plan::new(Running::Image, run), Bake::NONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p36_a_directory_instead_of_settings_is_told_with_what_to_do() {
        let image = Image {
            settings: Some("/".into()),
            typed: String::new(),
            command: Vec::new(),
            environment: Vec::new(),
        };
        let error = image.load().unwrap_err().to_string();
        assert_eq!(error, "/ is a directory, not a file: write the settings in a file and name that");
    }

    #[test]
    fn a_reload_waits_for_no_connections() {
        let image = Image {
            settings: None,
            typed: "service = \"web\"\n[run]\ncommand = [\"true\"]\n[rollout]\nbake = \"7s\"\nbake_connections = 20\n"
                .to_owned(),
            command: Vec::new(),
            environment: Vec::new(),
        };
        assert_eq!(image.load().unwrap().1, Bake { time: Millis::from_secs(7), connections: 0 });
    }

    #[test]
    fn p28_a_secret_that_is_not_to_be_had_here_is_no_mistake() {
        for (reference, why) in [
            (
                "aws-ssm:/prod/token",
                "the secret TOKEN (aws-ssm:/prod/token) cannot be had: control resolves it",
            ),
            ("s3://bucket/token", "the secret TOKEN (s3://bucket/token) cannot be had: control resolves it"),
            ("file:/absent", "the secret TOKEN (file:/absent) cannot be had: No such file"),
        ] {
            let image = Image {
                settings: None,
                typed: format!(
                    "service = \"web\"\n[run]\ncommand = [\"true\"]\n[secrets.env]\nTOKEN = \"{reference}\"\n"
                ),
                command: Vec::new(),
                environment: Vec::new(),
            };
            image.check().unwrap();
            let told = image.load().unwrap_err().to_string();
            assert!(told.starts_with(why), "{told}");
            let mistaken = Image { typed: image.typed.replace("TOKEN = ", "TOKEN == "), ..image };
            assert!(mistaken.check().is_err());
        }
    }
}
