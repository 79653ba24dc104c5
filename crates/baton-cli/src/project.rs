//! A directory with a `baton.toml`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use baton_core::ids::ServiceName;
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
    /// The project in this directory, or a flavor of it: `DIR@FLAVOR`; nothing when it has no settings.
    ///
    /// # Errors
    /// The settings cannot be read, or have mistakes: all of them are told. Or there is no such flavor.
    pub fn read(named: &Path) -> Result<Option<Self>, Failure> {
        let Some((dir, flavor)) = flavor_of(named) else { return Self::read_all(named) };
        let Some(project) = Self::read_all(dir)? else { return Ok(None) };
        let settings = project.settings.of_flavor(flavor);
        let settings = settings.map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Some(Self { settings, ..project }))
    }

    /// The project as a service of it is run: one of its flavors, where that is its service. It may be pushed as any other
    /// service, too.
    ///
    /// # Errors
    /// By its name it is a flavor, and the settings have others only.
    pub fn of_service(self, service: &ServiceName) -> Result<Self, Failure> {
        let flavor = service.as_str().strip_prefix(self.settings.service.as_str());
        let flavor = flavor.and_then(|flavor| flavor.strip_prefix('.'));
        match flavor.filter(|_| !self.settings.flavors.is_empty()) {
            Some(flavor) => {
                let settings = self.settings.of_flavor(flavor);
                let settings = settings.map_err(|error| Failure::Usage(error.to_string()))?;
                Ok(Self { settings, ..self })
            }
            None => Ok(self),
        }
    }

    fn read_all(dir: &Path) -> Result<Option<Self>, Failure> {
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

/// The directory and the flavor that are named, where it is not the name of a directory.
fn flavor_of(named: &Path) -> Option<(&Path, &str)> {
    let (dir, flavor) = named.to_str()?.rsplit_once('@')?;
    let is_flavor = !named.is_dir() && !flavor.contains('/');
    is_flavor.then_some((Path::new(if dir.is_empty() { "." } else { dir }), flavor))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavor_of_a_directory_is_a_service_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let text = "service = \"web\"\n[run]\ncommand = [\"serve\"]\n\
                    [flavor.taskworker]\nrun.command = [\"work\"]\nrollout.bake = \"1m\"\n";
        fs::write(folder.path().join(FILE), text).unwrap();
        let read = |flavor: &str| {
            let named = format!("{}{flavor}", folder.path().display());
            Project::required(Path::new(&named)).map(|project| (project.dir, project.settings))
        };
        let (dir, whole) = read("").unwrap();
        assert_eq!((dir.as_path(), whole.service.as_str()), (folder.path(), "web"));
        let (dir, worker) = read("@taskworker").unwrap();
        assert_eq!((dir.as_path(), worker.service.as_str()), (folder.path(), "web.taskworker"));
        assert_eq!(worker.run.command, ["work"]);
        assert!(worker.policy.phases.iter().all(|phase| phase.bake.0 == 60_000));
        let unknown = read("@cron").unwrap_err().message();
        assert!(unknown.contains("no [flavor.cron]: there is taskworker"), "{unknown}");
        let of = |service: &str| {
            let project = Project::required(folder.path()).unwrap().of_service(&service.parse().unwrap());
            project.map(|project| project.settings.service.to_string()).map_err(|error| error.message())
        };
        assert_eq!(of("web.taskworker").unwrap(), "web.taskworker");
        let unknown = of("web.tsakworker").unwrap_err();
        assert!(unknown.contains("no [flavor.tsakworker]: there is taskworker"), "{unknown}");
        for other in ["web", "web2", "api.taskworker"] {
            assert_eq!(of(other).unwrap(), "web", "{other} is run as that");
        }
        // Whoever has such a directory means it.
        let odd = folder.path().join("a@b");
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join(FILE), text).unwrap();
        assert_eq!(Project::required(&odd).unwrap().settings.service.as_str(), "web");
    }
}
