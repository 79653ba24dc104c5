//! What a program finds in its environment.

use std::ffi::OsString;
use std::path::Path;

use baton_core::ids::GenerationId;
use baton_core::run::Listen;
use baton_core::supervisor::Plan;

use crate::config::Config;

/// What of a program's environment differs from launch to launch.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Which launch it is.
    pub generation: GenerationId,
    /// A folder that it may write to.
    pub scratch: &'a Path,
    /// Where it may say that it is ready.
    pub notify: &'a str,
    /// Its listeners, in the order in which it gets their sockets.
    pub listens: &'a [&'a Listen],
}

/// The whole environment of a program, but for `LISTEN_PID`, which only the child knows: what the bootloader
/// itself inherited, then what the settings say, then what is given to this launch.
pub fn environment(config: &Config, plan: &Plan, given: Given<'_>) -> Vec<(OsString, OsString)> {
    let mut environment = config.environment.clone();
    let mut set = |name: &str, value: OsString| {
        environment.retain(|(known, _)| known != name);
        environment.push((name.into(), value));
    };
    for (name, value) in &plan.settings.env {
        set(name, value.into());
    }
    set("BATON_RELEASE", plan.release.id().map_or("image".to_owned(), |id| id.to_string()).into());
    if let Some(control) = &config.control {
        set("BATON_MEMBER", control.member.to_string().into());
        set("BATON_SERVICE", control.service.to_string().into());
    }
    set("BATON_GENERATION", given.generation.to_string().into());
    set("BATON_SCRATCH", given.scratch.into());
    set("NOTIFY_SOCKET", given.notify.into());
    if let Some(first) = given.listens.first() {
        set("PORT", first.address.port().to_string().into());
        let names: Vec<&str> = given.listens.iter().map(|listen| listen.name.as_str()).collect();
        set("LISTEN_FDS", names.len().to_string().into());
        set("LISTEN_FDNAMES", names.join(":").into());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::run::{Handover, RunSettings};
    use baton_core::supervisor::Running;

    #[test]
    fn what_is_given_comes_before_the_settings_and_they_before_what_was_inherited() {
        let inherited = [("HOME", "/root"), ("MODE", "old"), ("PORT", "1")];
        let config = Config {
            environment: inherited.map(|(name, value)| (name.into(), value.into())).to_vec(),
            ..Config::default()
        };
        let mut settings = RunSettings::for_command(vec!["server".into()]);
        settings.env =
            [("MODE", "new"), ("PORT", "2")].map(|(name, value)| (name.into(), value.into())).to_vec();
        let listen = |name: &str, port| Listen {
            name: name.into(),
            address: ([0, 0, 0, 0], port).into(),
            handover: Handover::Inherit,
            backlog: 1,
        };
        let (http, admin) = (listen("http", 80), listen("admin", 81));
        let given = Given {
            generation: GenerationId(7),
            scratch: Path::new("/scratch/7"),
            notify: "@x",
            listens: &[&http, &admin],
        };
        let found = environment(&config, &Plan::new(Running::Image, settings), given);
        let value = |name: &str| {
            let mut values = found.iter().filter(|(known, _)| known == name);
            let value = values.next().and_then(|(_, value)| value.to_str());
            assert_eq!(values.next(), None, "{name} twice");
            value
        };
        for (name, expected) in [
            ("HOME", "/root"),
            ("MODE", "new"),
            ("PORT", "80"),
            ("LISTEN_FDS", "2"),
            ("LISTEN_FDNAMES", "http:admin"),
            ("BATON_RELEASE", "image"),
            ("BATON_GENERATION", "7"),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        assert_eq!(value("BATON_MEMBER"), None);
    }
}
