//! References to secrets as lines of a manifest: `run.secrets.from`, `run.secrets.env`, each with the version that was
//! current when the release was made, and `run.secrets.keep`. A release without any has no such lines.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::fault::TextError;
use super::lines::{Lines, Words, quote};
use super::process_lines::read_one;
use super::run_lines::refused;
use crate::run::secrets::{Keep, Pinned, REFERENCES_MAX, Secrets, is_version};

const FROM: &str = "run.secrets.from";
const ENV: &str = "run.secrets.env";
const KEEP: &str = "run.secrets.keep";

/// The lines as (key, value), in the order of the manifest.
pub(super) fn write(secrets: &Secrets) -> Vec<(&'static str, String)> {
    let Secrets { from, env, keep } = secrets;
    let from = from.iter().map(|pinned| (FROM, value(pinned)));
    let env = env.iter().map(|(name, pinned)| (ENV, format!("{} {}", quote(name), value(pinned))));
    let keep = match keep {
        Keep::Memory => None,
        Keep::Disk => Some((KEEP, "disk".to_owned())),
    };
    from.chain(env).chain(keep).collect()
}

fn value(pinned: &Pinned) -> String {
    let Pinned { reference, version } = pinned;
    let version = version.iter().map(|version| format!(" {}", quote(version)));
    quote(&reference.to_string()) + &version.collect::<String>()
}

/// Reads what [`write`] wrote.
pub(super) fn read(lines: &mut Lines<'_>) -> Result<Secrets, TextError> {
    let mut secrets = Secrets::default();
    while let Some(mut words) = lines.take(FROM)? {
        secrets.from.push(read_pinned(FROM, &mut words)?);
    }
    while let Some(mut words) = lines.take(ENV)? {
        let name = words.quoted()?;
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(words.fault(refused(ENV, "a name is not empty and has no `=` or NUL character")));
        }
        if secrets.env.last().is_some_and(|(last, _)| *last >= name) {
            return Err(words.fault(refused(ENV, "names are sorted, each once")));
        }
        secrets.env.push((name, read_pinned(ENV, &mut words)?));
    }
    if secrets.pinned().count() > REFERENCES_MAX {
        return Err(lines.fault(refused(ENV, "there are more references than a release may have")));
    }
    let keep = read_one(lines, KEEP, |words| words.one_of(&[("disk", Keep::Disk)]))?;
    secrets.keep = keep.unwrap_or_default();
    Ok(secrets)
}

fn read_pinned(key: &'static str, words: &mut Words<'_>) -> Result<Pinned, TextError> {
    let text = words.quoted()?;
    let reference = text.parse();
    let reference =
        reference.map_err(|_| words.fault(refused(key, "no secret is known by this reference")))?;
    let version = if words.is_empty() { None } else { Some(words.quoted()?) };
    words.end()?;
    let pinned = Pinned { reference, version };
    let fits =
        pinned.version.as_ref().is_none_or(|text| pinned.reference.aws().is_some() && is_version(text));
    if fits { Ok(pinned) } else { Err(words.fault(refused(key, "such a reference has no such version"))) }
}
