//! Settings that are typed as arguments: for whoever has no file.

use std::path::Path;

use baton_core::ids::ServiceName;
use baton_core::settings;

use super::ConfigError;

/// What a listener is called that was given no name.
const LISTENER_DEFAULT: &str = "http";
/// What a service is called whose command has no name that could be one.
const SERVICE_DEFAULT: &str = "program";

/// What `--listen` and `--set` say.
#[derive(Debug, Default)]
pub struct TypedSettings {
    listens: Vec<String>,
    lines: Vec<String>,
    names_service: bool,
}

impl TypedSettings {
    /// Takes `[NAME=]ADDRESS`. What is wrong with it is found where all settings are read.
    pub fn listen(&mut self, text: &str) {
        let (name, address) = text.split_once('=').unwrap_or((LISTENER_DEFAULT, text));
        let [name, address] = [name, address].map(settings::quoted);
        self.listens.push(format!("{{ name = {name}, address = {address} }}"));
    }

    /// Takes `KEY=VALUE`.
    pub fn set(&mut self, text: &str) -> Result<(), ConfigError> {
        let (key, value) = text.split_once('=').ok_or_else(|| ConfigError::Set(text.to_owned()))?;
        self.names_service |= key == "service";
        self.lines.push(settings::line(key, value).ok_or_else(|| ConfigError::Set(text.to_owned()))?);
        Ok(())
    }

    /// The argument that says something, if any does.
    pub fn any(&self) -> Option<&'static str> {
        match (self.listens.is_empty(), self.lines.is_empty()) {
            (true, true) => None,
            (true, false) => Some("--set"),
            (false, _) => Some("--listen"),
        }
    }

    /// All of it as the text of a settings file, with a line for each argument; empty where nothing is said. The
    /// service has the name of the command, if it has none.
    pub fn text(self, command: &[String]) -> String {
        if self.any().is_none() {
            return String::new();
        }
        let mut lines = self.lines;
        if !self.listens.is_empty() {
            lines.push(format!("run.listen = [{}]", self.listens.join(", ")));
        }
        if !self.names_service {
            let file = command.first().and_then(|first| Path::new(first).file_name()?.to_str());
            let name = file.filter(|name| name.parse::<ServiceName>().is_ok()).unwrap_or(SERVICE_DEFAULT);
            lines.push(format!("service = {}", settings::quoted(name)));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_reads_as_a_file_would() {
        let mut typed = TypedSettings::default();
        assert_eq!(typed.any(), None);
        for set in ["run.drain=10s", "run.workers=2", "run.health.http=/health", "env.A=b \"c\"\t=d"] {
            typed.set(set).unwrap();
        }
        typed.listen("127.0.0.1:8080");
        typed.listen("admin=unix:/run/admin.sock");
        assert_eq!(typed.any(), Some("--listen"));
        let command = ["/usr/bin/python3".to_owned()];
        let settings =
            settings::parse_with_command("the arguments", &typed.text(&command), command.to_vec()).unwrap();
        assert_eq!((settings.service.as_str(), settings.run.workers), ("python3", 2));
        let listens: Vec<_> =
            settings.run.listen.iter().map(|one| (&*one.name, one.address.to_string())).collect();
        assert_eq!(listens, [("http", "127.0.0.1:8080".into()), ("admin", "unix:/run/admin.sock".into())]);
    }

    #[test]
    fn mistakes_are_those_of_the_settings() {
        let mut typed = TypedSettings::default();
        typed.set("run.drian=10s").unwrap();
        typed.set("service=web").unwrap();
        let text = typed.text(&[]);
        let mistakes = settings::parse_with_command("the arguments", &text, vec!["true".into()]).unwrap_err();
        assert!(mistakes.to_string().contains("drain"), "{mistakes}");
        for bad in ["run.drain", "=1", "a b=1", "a\nb=1", "[x]=1"] {
            assert!(TypedSettings::default().set(bad).is_err(), "{bad:?}");
        }
    }
}
