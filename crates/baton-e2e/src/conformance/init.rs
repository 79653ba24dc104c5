//! The inits that are held against the checks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use baton_core::signal::Signal;

use super::adapter;
use super::known::{KNOWN, Kind, Known, LIMIT, OF_LIMITS};

/// One init, ready to be asked to run programs.
#[derive(Debug)]
pub struct Init {
    name: String,
    command: Vec<String>,
    kind: Kind,
    known: Option<&'static Known>,
    /// When it kills a program that does not stop.
    limit: Option<Duration>,
}

impl Init {
    /// The one that this is all about, at this place.
    pub fn baton_boot(program: &Path) -> anyhow::Result<Self> {
        let program = program.to_str().context("the path of baton-boot is not a text")?;
        Self::given(&[program.to_owned()])
    }

    /// Those that it is compared with, as Debian has them.
    ///
    /// # Errors
    /// If one is not installed.
    pub fn peers() -> anyhow::Result<Vec<Self>> {
        KNOWN.iter().skip(1).map(|known| Self::given(&[known.name.to_owned()])).collect()
    }

    /// One by its command. The name alone is enough for those that are known here; for any other it is what
    /// stands before the program's command.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn given(command: &[String]) -> anyhow::Result<Self> {
        let [program, arguments @ ..] = command else {
            bail!("an init is a command, such as `tini --`");
        };
        let path = find(program).with_context(|| {
            format!("there is no {program}: run `scripts/setup conformance` for the peers")
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = KNOWN.iter().find(|known| known.name == name);
        let mut words = vec![path.to_string_lossy().into_owned()];
        match known {
            Some(known) if arguments.is_empty() => {
                words.extend(known.arguments.iter().map(|&word| word.into()));
            }
            _ => words.extend_from_slice(arguments),
        }
        let kind = known.map_or(Kind::Prefix, |known| known.kind);
        let limit = known.filter(|known| known.has_limit).map(|_| LIMIT);
        Ok(Self { name, command: words, kind, known, limit })
    }

    /// The same, which kills a program that does not stop after a limit that it has by itself.
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// When it kills a program that does not stop, where a check wants this to be soon.
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// What it is called: the name of its program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says about its version, in one line; nothing if it does not say.
    pub fn version(&self) -> String {
        let Some([program, arguments @ ..]) = self.known.map(|known| known.version) else {
            return String::new();
        };
        // The program that is checked, which need not be the one in PATH.
        let program = if *program == self.name { self.command[0].as_str() } else { program };
        let Ok(output) = Command::new(program).args(arguments).output() else {
            return String::new();
        };
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned()
    }

    /// The command that makes it run a program, with what it needs for it written to `folder`.
    ///
    /// `stop_limit` is when it shall kill a program that does not stop, for those that can be told.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn command(
        &self,
        folder: &Path,
        program: &[String],
        stop_limit: Option<Duration>,
    ) -> anyhow::Result<Vec<OsString>> {
        let mut words = self.command.clone();
        match self.kind {
            Kind::Prefix => words.extend_from_slice(program),
            Kind::BatonBoot => {
                if let Some(limit) = stop_limit {
                    words.splice(1..1, adapter::baton_boot(folder, limit)?);
                }
                words.extend_from_slice(program);
            }
            Kind::S6 => words.extend(adapter::s6(folder, program, stop_limit)?),
            Kind::Supervisord => words.extend(adapter::supervisord(folder, program, stop_limit)?),
        }
        Ok(words.into_iter().map(OsString::from).collect())
    }

    /// The signals that it does not pass on by its documentation, with the reasons.
    pub fn keeps(&self) -> Vec<(Vec<Signal>, &'static str)> {
        self.known.map(Known::keeps).unwrap_or_default()
    }

    /// The signals at which it ends by its documentation.
    pub fn ends_by(&self) -> Vec<Signal> {
        let mut signals = self.known.map(Known::ends_by).unwrap_or_default();
        signals.push(Signal::TERM);
        signals
    }

    /// Why it is documented to do something else than a check wants.
    pub fn does_otherwise(&self, check: &str) -> Option<&'static str> {
        self.known?.does_otherwise(check)
    }

    /// Why a check has nothing to be about.
    pub fn cannot(&self, check: &str) -> Option<&'static str> {
        if !OF_LIMITS.contains(&check) || self.limit.is_some() {
            return None;
        }
        Some(match self.known {
            Some(_) => "has no stop limit of its own, only the platform's KILL ends it",
            None => "nothing is known about a stop limit: say --stop-limit if it has one",
        })
    }
}

/// Where a program is: as said if there is a `/` in it, else in `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return std::path::absolute(program).ok().filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join(program)).find(|found| found.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_program_can_be_an_init_by_its_command() {
        let init = Init::given(&["env".into(), "--".into()]).unwrap();
        let command = init.command(Path::new("/nowhere"), &["true".into()], None).unwrap();
        assert_eq!((init.name(), &command[1..]), ("env", &["--".into(), "true".into()][..]));
        assert!(init.cannot("stopped").is_some() && init.with_limit(LIMIT).cannot("stopped").is_none());
        assert!(Init::given(&["no-such-init".into()]).is_err() && Init::given(&[]).is_err());
    }
}
