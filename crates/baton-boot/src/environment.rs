//! What a program is told at its launch: its environment, and what stands for listeners in its command.

use std::ffi::OsString;
use std::path::Path;

use baton_core::ids::GenerationId;
use baton_core::placeholder::{self, Placeholder};
use baton_core::run::Address;
use baton_core::supervisor::Plan;
use baton_sys::attributes::User;
use baton_sys::spawn::LISTEN_FDS_START;

use crate::config::Config;

/// What of a program's environment differs from launch to launch.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Which launch it is.
    pub generation: GenerationId,
    /// A folder that it may write to, if there is one.
    pub scratch: Option<&'a Path>,
    /// Where it may say that it is ready.
    pub notify: &'a str,
    /// Who it runs as, if not who we are.
    pub user: Option<&'a User>,
    /// Its listeners, in the order of the settings.
    pub listeners: &'a [GivenListener<'a>],
}

/// What a program is told of one listener.
#[derive(Debug, Clone)]
pub struct GivenListener<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where to listen, unless it takes its socket.
    pub bind: Address,
    /// The program gets its socket.
    pub passed: bool,
}

impl Given<'_> {
    /// The names of the listeners whose sockets the program gets, in their order.
    fn passed(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().filter(|listener| listener.passed).map(|listener| listener.name)
    }

    /// A text of the settings with its placeholders filled; one that cannot be is left as it is, since the
    /// settings were checked for that.
    pub fn fill(&self, text: &str) -> String {
        let descriptor = |name: &str| {
            let index = self.passed().position(|passed| passed == name)?;
            Some(LISTEN_FDS_START + i32::try_from(index).ok()?)
        };
        let bind = |name: &str| {
            let found = self.listeners.iter().find(|listener| listener.name == name);
            found.map(|listener| &listener.bind)
        };
        let filled = placeholder::expand(text, |placeholder| {
            let value = match placeholder {
                Placeholder::Fd(name) => descriptor(name).map(|fd| fd.to_string()),
                Placeholder::Port(name) => bind(name).and_then(Address::port).map(|port| port.to_string()),
                Placeholder::Path(name) => bind(name).and_then(Address::path).map(ToString::to_string),
            };
            value.ok_or(())
        });
        filled.unwrap_or_else(|()| text.to_owned())
    }
}

/// The variables of the bootloader that a program of this plan does not inherit, by their names, sorted.
pub fn withheld(config: &Config, plan: &Plan) -> Vec<String> {
    let names = config.environment.iter().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut withheld: Vec<String> = names.filter(|name| !plan.settings.inherited.includes(name)).collect();
    withheld.sort_unstable();
    withheld
}

/// The whole environment of a program, but for `LISTEN_PID` and `WATCHDOG_PID`, which only the child knows: what the bootloader
/// itself inherited, then what is merged from secrets, then what the settings say, then the secrets that have a name there,
/// then what is given to this launch.
pub fn environment(config: &Config, plan: &Plan, given: Given<'_>) -> Vec<(OsString, OsString)> {
    let mut environment = config.environment.clone();
    environment.retain(|(name, _)| plan.settings.inherited.includes(&name.to_string_lossy()));
    let mut set = |name: &str, value: OsString| {
        environment.retain(|(known, _)| known != name);
        environment.push((name.into(), value));
    };
    if let Some((name, home)) = given.user.and_then(|user| user.known_as.as_ref()) {
        set("USER", name.clone());
        set("LOGNAME", name.clone());
        set("HOME", home.into());
    }
    if let Some(mount) = &plan.settings.process.mount {
        // Shells and others believe what they inherit, as long as the same folder is there.
        set("PWD", mount.into());
    }
    for (name, value) in &plan.secrets.merged {
        set(name, value.reveal().into());
    }
    for (name, value) in &plan.settings.env {
        set(name, given.fill(value).into());
    }
    for (name, value) in &plan.secrets.named {
        set(name, value.reveal().into());
    }
    set("BATON_RELEASE", plan.release.id().map_or("image".to_owned(), |id| id.to_string()).into());
    if let Some(control) = &config.control {
        set("BATON_MEMBER", control.member.to_string().into());
        set("BATON_SERVICE", control.service.to_string().into());
    }
    set("BATON_GENERATION", given.generation.to_string().into());
    if let Some(scratch) = given.scratch {
        set("BATON_SCRATCH", scratch.into());
    }
    set("NOTIFY_SOCKET", given.notify.into());
    if let Some(limit) = plan.settings.watchdog {
        set("WATCHDOG_USEC", limit.0.saturating_mul(1000).to_string().into());
    }
    if let Some(port) = given.listeners.iter().find_map(|listener| listener.bind.port()) {
        set("PORT", port.to_string().into());
    }
    let passed: Vec<&str> = given.passed().collect();
    if !passed.is_empty() {
        set("LISTEN_FDS", passed.len().to_string().into());
        set("LISTEN_FDNAMES", passed.join(":").into());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::run::RunSettings;
    use baton_core::supervisor::Running;

    #[test]
    fn what_is_given_comes_before_the_settings_and_they_before_what_was_inherited() {
        let inherited = [
            ("HOME", "/root"),
            ("MODE", "old"),
            ("PWD", "/state/tree"),
            ("PORT", "1"),
            ("BATON_TOKEN", "secret"),
            ("LISTEN_PID", "1"),
            ("AWS_KEY", "key"),
        ];
        let config = Config {
            environment: inherited.map(|(name, value)| (name.into(), value.into())).to_vec(),
            ..Config::default()
        };
        let mut settings = RunSettings::for_command(vec!["server".into()]);
        settings.env = [("MODE", "new"), ("PORT", "2"), ("ADMIN", "{fd:admin}/{port:proxied}{path:hidden}")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec();
        let given = Given {
            generation: GenerationId(7),
            scratch: Some(Path::new("/scratch/7")),
            notify: "@x",
            user: None,
            listeners: &[
                GivenListener {
                    name: "hidden",
                    bind: "unix:/scratch/7/hidden.sock".parse().unwrap(),
                    passed: false,
                },
                GivenListener { name: "proxied", bind: "127.0.0.1:20000".parse().unwrap(), passed: false },
                GivenListener { name: "http", bind: "0.0.0.0:80".parse().unwrap(), passed: true },
                GivenListener { name: "admin", bind: "0.0.0.0:81".parse().unwrap(), passed: true },
            ],
        };
        settings.process.mount = Some("/app".to_owned());
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
            ("PWD", "/app"),
            ("PORT", "20000"),
            ("ADMIN", "4/20000/scratch/7/hidden.sock"),
            ("LISTEN_FDS", "2"),
            ("LISTEN_FDNAMES", "http:admin"),
            ("BATON_RELEASE", "image"),
            ("BATON_GENERATION", "7"),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        for name in ["BATON_MEMBER", "BATON_TOKEN", "LISTEN_PID"] {
            assert_eq!(value(name), None, "{name}");
        }
        assert_eq!(value("AWS_KEY"), Some("key"));
        let mut plan = Plan::new(Running::Image, RunSettings::for_command(vec!["server".into()]));
        assert_eq!(withheld(&config, &plan), ["BATON_TOKEN", "LISTEN_PID"]);

        plan.settings.inherited.only = Some(["HOME".to_owned(), "M*".to_owned()].to_vec());
        let found = environment(&config, &plan, given);
        let names: Vec<&str> = found.iter().filter_map(|(name, _)| name.to_str()).collect();
        assert_eq!(names[..2], ["HOME", "MODE"]);
        assert!(!names.contains(&"AWS_KEY"), "{names:?}");
        assert_eq!(withheld(&config, &plan), ["AWS_KEY", "BATON_TOKEN", "LISTEN_PID", "PORT", "PWD"]);
    }
}
