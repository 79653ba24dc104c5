//! `baton.toml`: from text to [`Settings`], or to every mistake in it at once.
//!
//! Reading is a walk over the document: each function takes the settings of one table by name. What a table
//! was asked for is what it may contain, so a setting is added by the one line that reads it; everything
//! that nobody asked for is reported, with the nearest name that somebody asks for.

mod build;
mod findings;
mod health;
mod listen;
mod mistake;
mod output;
mod probe;
mod process;
mod push;
mod rollout;
mod run;
mod secrets;
mod socket_options;
mod suggest;
mod table;
mod value;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use toml::de::DeTable;

use self::findings::Findings;
pub use self::mistake::{Mistake, Mistakes};
pub use self::push::PushSettings;
pub use self::suggest::nearest;
use self::table::Table;
use crate::build::Step;
use crate::deploy::Policy;
use crate::ids::{FlavorName, ServiceName};
use crate::placeholder;
use crate::run::RunSettings;

/// What a `baton.toml` says, with every value that it leaves out at its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The service that the program is.
    pub service: ServiceName,
    /// How it wants to be run.
    pub run: RunSettings,
    /// How its releases are rolled out.
    pub policy: Policy,
    /// What of the directory belongs into a release.
    pub push: PushSettings,
    /// The steps that make what a release needs, in their order.
    pub build: Vec<Step>,
    /// Its other modes, each complete: what a flavor leaves out is as above.
    pub flavors: BTreeMap<FlavorName, Flavor>,
}

/// One mode of the same code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    /// How it wants to be run.
    pub run: RunSettings,
    /// How its releases are rolled out.
    pub policy: Policy,
}

/// Why a flavor is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoFlavor {
    /// The settings have no such one.
    #[error("there is no [flavor.{name}]: there is {known}")]
    Unknown {
        /// The one that is asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The name of the service that it is would be none.
    #[error("the flavor would be the service {0:?}, which is too long: choose shorter names")]
    Name(String),
}

impl Settings {
    /// The settings of a service that is described here: of this one, or of one of its flavors.
    pub fn of_service(&self, service: &ServiceName) -> Option<Self> {
        if *service == self.service {
            return Some(self.clone());
        }
        let flavor = service.as_str().strip_prefix(self.service.as_str())?.strip_prefix('.')?;
        self.of_flavor(flavor).ok()
    }

    /// The settings of one of its flavors, which is a service of its own: `SERVICE.FLAVOR`, such as `web.taskworker`.
    ///
    /// # Errors
    /// There is no such flavor, or its service could not have that name.
    pub fn of_flavor(&self, name: &str) -> Result<Self, NoFlavor> {
        let found = self.flavors.iter().find(|(known, _)| known.as_str() == name);
        let Some((_, Flavor { run, policy })) = found else {
            let known: Vec<&str> = self.flavors.keys().map(FlavorName::as_str).collect();
            let known = if known.is_empty() { String::from("none") } else { known.join(", ") };
            return Err(NoFlavor::Unknown { name: String::from(name), known });
        };
        let service = format!("{}.{name}", self.service);
        Ok(Self {
            service: service.parse().map_err(|_| NoFlavor::Name(service))?,
            run: run.clone(),
            policy: policy.clone(),
            push: self.push.clone(),
            build: self.build.clone(),
            flavors: BTreeMap::new(),
        })
    }
}

/// Reads the text of a settings file; `file` is its name for people.
///
/// # Errors
/// All mistakes in the text, in the order of their places.
pub fn parse(file: &str, text: &str) -> Result<Settings, Mistakes> {
    read(file, text, None)
}

/// Like [`parse`], for a caller who was told what to run: `command` takes the place of `run.command`,
/// which may then be missing. Flavors with a command of their own keep it.
///
/// # Errors
/// All mistakes in the text, in the order of their places.
pub fn parse_with_command(file: &str, text: &str, command: Vec<String>) -> Result<Settings, Mistakes> {
    read(file, text, Some(command))
}

/// The text of a file with these bytes, for [`parse`].
///
/// # Errors
/// That it is not UTF-8, and where it ceases to be.
pub fn text(file: &str, bytes: Vec<u8>) -> Result<String, Mistakes> {
    String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        Mistakes(vec![findings::not_utf8(file, &good)])
    })
}

/// A line of a settings file: a setting by its full name, and its value as people type it, with or without the quotes
/// of a text. None, where the name cannot be one.
pub fn line(key: &str, value: &str) -> Option<String> {
    let is_one = |text: &str| {
        let (document, mistakes) = DeTable::parse_recoverable(text);
        mistakes.is_empty() && !text.contains('\n') && document.get_ref().len() == 1
    };
    let [as_it_is, as_text] = [String::from(value), quoted(value)].map(|value| format!("{key} = {value}"));
    [as_it_is, as_text].into_iter().find(|line| is_one(line))
}

/// A text as a basic string of TOML (<https://toml.io/en/v1.0.0#string>).
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The full names of all settings, sorted. What people choose themselves is in capitals, as in `env.NAME`;
/// what is in a flavor is left out, since it is the same as outside.
pub fn keys() -> BTreeSet<String> {
    let mut keys = every_key();
    keys.retain(|key| !key.starts_with("flavor.NAME."));
    keys
}

fn read(file: &str, text: &str, command: Option<Vec<String>>) -> Result<Settings, Mistakes> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut findings = Findings::default();
    let settings = Table::walk(document.get_ref(), &mut findings, |root| read_root(root, command));
    let mistakes = findings.into_mistakes(file, text, &syntax, every_key);
    match settings {
        Some(settings) if mistakes.is_empty() => Ok(settings),
        Some(_) | None => Err(Mistakes(mistakes)),
    }
}

/// The names that a walk asks for when every table is there.
fn every_key() -> BTreeSet<String> {
    let (document, _) = DeTable::parse_recoverable("[[build]]\n[[run.listen]]\n[[flavor.NAME.run.listen]]");
    let mut findings = Findings::default();
    Table::walk(document.get_ref(), &mut findings, |root| read_root(root, None));
    findings.asked
}

fn read_root(root: &mut Table<'_, '_>, command: Option<Vec<String>>) -> Option<Settings> {
    let service = root.required("service", value::service, "write service = \"NAME\"");
    let defaults =
        Flavor { run: RunSettings::for_command(command.clone().unwrap_or_default()), policy: Policy::safe() };
    let mut base = read_flavor(root, defaults);
    if let Some(command) = command {
        base.run.command = command;
    }
    let flavors = root.table("flavor", |flavors| {
        flavors
            .chosen(value::flavor, |table, key| table.table(key, |flavor| read_flavor(flavor, base.clone())))
    });
    let push = root.table("push", push::read);
    let build = build::read(root);
    Some(Settings { service: service?, run: base.run, policy: base.policy, push, build, flavors })
}

/// Reads what a flavor says over what it has without saying anything. The root is read like a flavor of the
/// defaults.
fn read_flavor(table: &mut Table<'_, '_>, base: Flavor) -> Flavor {
    let mut run = table.table("run", |table| run::read(table, base.run));
    let env = table.table("env", |env| env.chosen(value::env_name, |env, name| read_env(env, name, &run)));
    let mut merged: BTreeMap<String, String> = run.env.into_iter().collect();
    merged.extend(env);
    let secrets = core::mem::take(&mut run.secrets);
    run.secrets = table.table("secrets", |table| secrets::read(table, secrets, &merged));
    run.env = merged.into_iter().collect();
    let policy = table.table("rollout", |table| rollout::read(table, base.policy, run.overlap));
    Flavor { run, policy }
}

fn read_env(env: &mut Table<'_, '_>, name: &str, run: &RunSettings) -> String {
    let value = env.read(name, value::text).unwrap_or_default();
    for unfit in placeholder::unfit(&value, &run.listen) {
        env.wrong(name, run::unfilled(&unfit), run::NAME_LISTENER);
    }
    value
}
