//! `[secrets]`: what the program is given that is in no release.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::value;
use crate::run::secrets::{InvalidReference, Keep, Pinned, REFERENCES_MAX, Reference, Secrets};

const FORM: &str = "write file:/PATH, env:NAME, s3://BUCKET/OBJECT, aws-secretsmanager:NAME or aws-ssm:NAME";
const KEEP: [(&str, Keep); 2] = [("memory", Keep::Memory), ("disk", Keep::Disk)];

/// Reads what the table says over `secrets`. `env` has the variables that `[env]` sets; one of a flavor takes the place of
/// the secret outside.
pub(super) fn read(
    table: &mut Table<'_, '_>,
    mut secrets: Secrets,
    env: &BTreeMap<String, String>,
) -> Secrets {
    table.set("keep", &mut secrets.keep, value::one_of(&KEEP));
    if let Some(from) = table.any_list("from", merged) {
        secrets.from = from;
    }
    let named = table.table("env", |table| {
        table.chosen(value::env_name, |table, name| {
            let pinned = table.read(name, reference);
            if env.contains_key(name) {
                table.wrong(name, "is set in [env] too", "leave one of them out");
            }
            pinned
        })
    });
    let mut all: BTreeMap<String, Pinned> = secrets.env.into_iter().collect();
    all.retain(|name, _| !env.contains_key(name));
    all.extend(named.into_iter().filter_map(|(name, pinned)| Some((name, pinned?))));
    secrets.env = all.into_iter().collect();
    if secrets.pinned().count() > REFERENCES_MAX {
        table.wrong_here(
            format!("has more than {REFERENCES_MAX} references"),
            "put several values in one JSON object, and that in secrets.from",
        );
    }
    secrets
}

fn reference(value: &DeValue<'_>) -> Result<Pinned, Wrong> {
    // A value that was written here by mistake is not repeated.
    let wrong = |fault: &str| Wrong::new(format!("is no reference to a secret: {fault}"), FORM);
    let text = value.as_str().ok_or_else(|| wrong("it is no text in quotes"))?;
    let reference: Reference = text.parse().map_err(|fault: InvalidReference| wrong(&fault.to_string()))?;
    Ok(reference.into())
}

/// A JSON object whose members become variables.
fn merged(value: &DeValue<'_>) -> Result<Pinned, Wrong> {
    let pinned = reference(value)?;
    if pinned.reference.aws().is_some_and(|aws| aws.key.is_some()) {
        let fix = "leave out what is behind its #, or name a variable for it in [secrets.env]";
        return Err(Wrong::new("is one member of an object, and all are merged here", fix));
    }
    Ok(pinned)
}
