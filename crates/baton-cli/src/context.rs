//! What every command works with.

use std::fs;
use std::path::Path;

use baton_core::access::Shown;
use baton_core::ids::ServiceName;

use crate::args::{Global, SERVER};
use crate::client::Client;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::project::Project;
use crate::ui::Ui;

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    /// Control: any of the servers that were said, the first one first.
    pub client: Client,
    /// Each of them alone, for what each has for itself.
    pub servers: Vec<Client>,
    /// Where results go.
    pub ui: Ui,
    /// What Ctrl-C says.
    pub interrupt: Interrupt,
}

impl Context {
    /// For what was typed.
    ///
    /// # Errors
    /// The address of the server is none, or Ctrl-C cannot be caught.
    pub fn new(global: &Global, ui: Ui) -> Result<Self, Failure> {
        let interrupt =
            Interrupt::install().map_err(|source| Failure::System { what: "catch Ctrl-C", source })?;
        let token = token(global.token_file.as_deref(), |name| std::env::var(name).ok())?;
        let client = |base: &str| Client::of(base, token.clone(), global.ca.clone());
        let address = address(&global.server);
        let servers = address.split(',').map(|one| client(one.trim())).collect::<Result<_, _>>()?;
        Ok(Self { client: client(address)?, servers, ui, interrupt })
    }

    /// The service that is meant: the one that was typed, else that of the settings in this directory, else the
    /// only one that the server knows.
    ///
    /// # Errors
    /// None of these, or the server cannot be asked.
    pub fn service(&self, typed: Option<ServiceName>) -> Result<ServiceName, Failure> {
        if let Some(service) = typed {
            return Ok(service);
        }
        if let Some(project) = Project::read(Path::new("."))? {
            return Ok(project.settings.service);
        }
        only_one(&self.client.services()?.into_iter().map(|status| status.service).collect::<Vec<_>>())
    }
}

/// What is shown to control: what is in the file that was typed, else the text of `BATON_TOKEN`, which nobody sees among the
/// arguments, else what is in the file that `BATON_TOKEN_FILE` names. A variable that is empty is not set.
fn token(typed: Option<&Path>, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Shown>, Failure> {
    let usage = |name: &str, error| Failure::Usage(format!("{name}: {error}"));
    let file = |path: &Path| {
        let text =
            fs::read_to_string(path).map_err(|source| Failure::Token { path: path.to_owned(), source })?;
        text.parse().map_err(|error| usage(&path.display().to_string(), error))
    };
    let set = |name: &str| variable(name).filter(|text| !text.is_empty());
    if let Some(path) = typed {
        return file(path).map(Some);
    }
    if let Some(text) = set("BATON_TOKEN") {
        return text.parse().map(Some).map_err(|error| usage("BATON_TOKEN", error));
    }
    set("BATON_TOKEN_FILE").map(|path| file(Path::new(&path))).transpose()
}

/// Where control is: a variable that is set to nothing is not set, as for members.
fn address(said: &str) -> &str {
    if said.is_empty() { SERVER } else { said }
}

fn only_one(services: &[String]) -> Result<ServiceName, Failure> {
    let usage = |text: String| Failure::Usage(text);
    match services {
        [] => Err(usage(
            "the server knows no service yet: name one with --service, or go to a directory with a baton.toml"
                .to_owned(),
        )),
        [service] => service.parse().map_err(|error| usage(format!("the server's only service: {error}"))),
        many => Err(usage(format!("name a service with --service: the server knows {}", many.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_empty_is_none() {
        assert_eq!((address(""), address("http://control:1")), (SERVER, "http://control:1"));
    }

    #[test]
    fn a_token_file_that_was_typed_counts_more_than_variables_and_the_text_more_than_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["typed", "file"] {
            fs::write(path(name), format!("baton_{name}\n")).unwrap();
        }
        let file = path("file").display().to_string();
        let shown = |typed: Option<&Path>, text: &str, file: &str| {
            let variable = |name: &str| match name {
                "BATON_TOKEN" => Some(text.to_owned()),
                _ => Some(file.to_owned()),
            };
            token(typed, variable).map(|shown| shown.map(|shown| shown.secret.reveal().to_owned()))
        };
        let is = |found: Result<Option<String>, Failure>, what: Option<&str>| {
            assert_eq!(found.unwrap().as_deref(), what);
        };
        is(shown(Some(&path("typed")), "baton_text", &file), Some("baton_typed"));
        is(shown(None, "baton_text", &file), Some("baton_text"));
        is(shown(None, "", &file), Some("baton_file"));
        is(shown(None, "", ""), None);
        assert!(matches!(shown(Some(&path("none")), "baton_text", ""), Err(Failure::Token { .. })));
        let failure = shown(None, "no token", "").unwrap_err();
        assert!(failure.message().starts_with("BATON_TOKEN: "), "{}", failure.message());
    }

    #[test]
    fn the_only_service_is_meant_and_several_are_named() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(only_one(&names(&["web"])).unwrap().as_str(), "web");
        assert!(only_one(&names(&["api", "web"])).unwrap_err().message().contains("api, web"));
        assert!(only_one(&[]).unwrap_err().message().contains("--service"));
    }
}
