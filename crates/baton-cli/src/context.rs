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
    /// Control.
    pub client: Client,
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
        let (token, authority) = (token(global)?, global.ca.clone());
        Ok(Self { client: Client::of(address(&global.server), token, authority)?, ui, interrupt })
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

/// What is shown to control: the text of a variable, which nobody sees among the arguments, or else a file.
fn token(global: &Global) -> Result<Option<Shown>, Failure> {
    if let Some(text) = std::env::var("BATON_TOKEN").ok().filter(|text| !text.is_empty()) {
        return text.parse().map(Some).map_err(|error| Failure::Usage(format!("BATON_TOKEN: {error}")));
    }
    let Some(path) = global.token_file.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(None);
    };
    let text = fs::read_to_string(path).map_err(|source| Failure::Read { path: path.clone(), source })?;
    text.parse().map(Some).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
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
    fn the_only_service_is_meant_and_several_are_named() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(only_one(&names(&["web"])).unwrap().as_str(), "web");
        assert!(only_one(&names(&["api", "web"])).unwrap_err().message().contains("api, web"));
        assert!(only_one(&[]).unwrap_err().message().contains("--service"));
    }
}
