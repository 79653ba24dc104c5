//! What the member runs without control: a command, a settings file, or both.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
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

/// The longest settings file: far more than anybody writes, and nothing to read at once.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

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
    /// It goes on and on.
    #[error("{path} is longer than settings may be, {SETTINGS_BYTES_MAX} bytes", path = path.display())]
    Long {
        /// Which file.
        path: PathBuf,
    },
    /// It is a pipe, for example, and what came from it at the start is gone.
    #[error("{path} is no file, and can be read at the start only: write the settings in a file", path = path.display())]
    ReadOnce {
        /// Which one.
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
#[derive(Debug, Clone, Default)]
pub struct Image {
    settings: Option<PathBuf>,
    /// What was typed instead, as the text of a file.
    typed: String,
    command: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    /// What the settings said at the start.
    at_start: Option<Settings>,
}

/// When settings are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Before anything runs: from a pipe as well, as a shell makes one of `<(envsubst < baton.toml)`, and whoever writes there
    /// is waited for.
    AtStart,
    /// In the loop, which waits for nobody.
    Later,
}

impl Image {
    /// What these arguments name, read for the first launch. What the settings refer to is not looked at.
    pub fn open(config: &Config) -> Result<Self, ImageError> {
        let Config { settings, typed, command, environment, .. } = config.clone();
        let mut image = Self { settings, typed, command, environment, at_start: None };
        image.at_start = image.settings(When::AtStart)?;
        Ok(image)
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
        self.at_start.as_ref().map(|settings| settings.service.clone())
    }

    /// What to run first, as the settings were at the start.
    pub fn first(&self) -> Result<(Plan, Bake), ImageError> {
        self.plan(self.at_start.clone())
    }

    /// What to run now, and how a reload bakes.
    pub fn load(&self) -> Result<(Plan, Bake), ImageError> {
        self.plan(self.settings(When::Later)?)
    }

    fn plan(&self, settings: Option<Settings>) -> Result<(Plan, Bake), ImageError> {
        let Some(settings) = settings else { return self.bare_command() };
        let time = settings.policy.phases.last().map_or(Millis::ZERO, |phase| phase.bake);
        // Who reloads waits for it, and perhaps nobody connects meanwhile.
        let bake = Bake::from(time);
        let secrets = assemble(&settings.run.secrets, |reference| local(&self.environment, reference))?;
        Ok((Plan::new(Running::Image, settings.run).with_secrets(secrets), bake))
    }

    /// What the settings say; none when none were named and there are none.
    fn settings(&self, when: When) -> Result<Option<Settings>, ImageError> {
        if !self.typed.is_empty() {
            return match Path::new(SETTINGS_DEFAULT).exists() {
                true => Err(ImageError::Two),
                false => self.parse(TYPED, &self.typed).map(Some),
            };
        }
        let path = self.settings.clone().unwrap_or_else(|| SETTINGS_DEFAULT.into());
        let Some(bytes) = self.read(&path, when)? else { return Ok(None) };
        let name = path.display().to_string();
        let text = settings::text(&name, bytes).map_err(ImageError::Mistakes)?;
        self.parse(&name, &text).map(Some)
    }

    /// What is in the file; none where it was not named, and is not there.
    fn read(&self, path: &Path, when: When) -> Result<Option<Vec<u8>>, ImageError> {
        let path = path.to_owned();
        let mut file = match open(&path, when) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.settings.is_none() => {
                return Ok(None);
            }
            Err(source) => return Err(ImageError::Read { path, source }),
        };
        let kind = match file.metadata() {
            Ok(metadata) => metadata.file_type(),
            Err(source) => return Err(ImageError::Read { path, source }),
        };
        if kind.is_dir() {
            return Err(ImageError::Directory { path });
        }
        if when == When::Later && !kind.is_file() {
            return Err(ImageError::ReadOnce { path });
        }
        let mut bytes = Vec::new();
        match file.by_ref().take(SETTINGS_BYTES_MAX + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > SETTINGS_BYTES_MAX => Err(ImageError::Long { path }),
            Ok(_) => Ok(Some(bytes)),
            Err(source) => Err(ImageError::Read { path, source }),
        }
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

fn open(path: &Path, when: When) -> io::Result<File> {
    let without_waiting = match when {
        When::AtStart => 0,
        When::Later => rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    };
    OpenOptions::new().read(true).custom_flags(without_waiting).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(path: &Path) -> Result<Image, ImageError> {
        Image::open(&Config { settings: Some(path.to_owned()), ..Config::default() })
    }

    #[test]
    fn p36_settings_from_a_pipe_are_read_once_for_the_first_launch_and_nobody_waits_for_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let to = path.clone();
        let writer = std::thread::spawn(move || {
            std::fs::write(to, "service = \"web\"\n[run]\ncommand = [\"true\"]\n").unwrap();
        });
        let image = with_file(&path).unwrap();
        writer.join().unwrap();
        assert_eq!(image.service().unwrap().as_str(), "web");
        assert_eq!(image.first().unwrap().0.settings.command, ["true"]);
        let told = image.load().unwrap_err().to_string();
        assert!(
            told.ends_with("is no file, and can be read at the start only: write the settings in a file")
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "service = \"web\"\n[run]\ncommand = [\"false\"]\n").unwrap();
        assert_eq!(image.load().unwrap().0.settings.command, ["false"]);
        assert_eq!(image.first().unwrap().0.settings.command, ["true"]);
    }

    #[test]
    fn p36_what_never_ends_is_not_read_as_settings() {
        let told = with_file(Path::new("/dev/zero")).unwrap_err().to_string();
        assert_eq!(told, "/dev/zero is longer than settings may be, 1048576 bytes");
    }

    #[test]
    fn p36_a_directory_instead_of_settings_is_told_with_what_to_do() {
        let image = Image { settings: Some("/".into()), ..Image::default() };
        let error = image.load().unwrap_err().to_string();
        assert_eq!(with_file(Path::new("/")).unwrap_err().to_string(), error);
        assert_eq!(error, "/ is a directory, not a file: write the settings in a file and name that");
    }

    #[test]
    fn a_reload_waits_for_no_connections() {
        let image = Image {
            typed: "service = \"web\"\n[run]\ncommand = [\"true\"]\n[rollout]\nbake = \"7s\"\nbake_connections = 20\n"
                .to_owned(),
            ..Image::default()
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
            let config = Config {
                typed: format!(
                    "service = \"web\"\n[run]\ncommand = [\"true\"]\n[secrets.env]\nTOKEN = \"{reference}\"\n"
                ),
                ..Config::default()
            };
            let told = Image::open(&config).unwrap().first().unwrap_err().to_string();
            assert!(told.starts_with(why), "{told}");
            let mistaken = Config { typed: config.typed.replace("TOKEN = ", "TOKEN == "), ..config };
            assert!(Image::open(&mistaken).is_err());
        }
    }
}
