//! `[push]`: what of the directory belongs into a release.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::value;
use crate::release::{ExternalLinks, check_external};

/// What of the directory belongs into a release.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushSettings {
    /// What is in it whatever ignore files say, with all that is in it: patterns as in `.gitignore`.
    pub include: Vec<String>,
    /// What is not in it in any case: likewise.
    pub exclude: Vec<String>,
    /// Where links may lead outside of the release.
    pub external_links: ExternalLinks,
    /// Whether paths must differ where case and the form of accents do not count.
    pub portable: bool,
}

/// Reads what the table says.
pub(super) fn read(table: &mut Table<'_, '_>) -> PushSettings {
    let external = table.any_list("external_links", external).unwrap_or_default();
    let external_links = ExternalLinks::of(external).unwrap_or_else(|fault| {
        table.wrong("external_links", format!("is not possible: {fault}"), "name fewer");
        ExternalLinks::default()
    });
    PushSettings {
        external_links,
        include: table.any_list("include", pattern).unwrap_or_default(),
        exclude: table.any_list("exclude", pattern).unwrap_or_default(),
        portable: table.read("portable", value::boolean).unwrap_or_default(),
    }
}

fn external(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FIX: &str = "write the absolute path of a file that every member has, such as \"/usr/bin/python3\"";
    let target = value::string(value, FIX)?;
    let wrong = |fault| Wrong::new(format!("is {target:?}: {fault}"), FIX);
    check_external(target).map(|()| target.to_owned()).map_err(wrong)
}

/// A line of `.gitignore` that says something, and does not take it back.
pub(super) fn pattern(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = value::string(value, "write patterns as in .gitignore, in quotes")?;
    match text.chars().next() {
        None => Err(Wrong::new("is empty", "write a pattern as in .gitignore, or leave it out")),
        Some('!') => Err(Wrong::new(format!("is {text:?}"), "leave the ! out, and name what is meant")),
        Some('#') => Err(Wrong::new(
            format!("is {text:?}, which .gitignore takes for a comment"),
            "write \"\\\\#\" for a name that begins so",
        )),
        Some(_) if text.trim_matches('/').is_empty() => {
            Err(Wrong::new("is everything", "name what is meant"))
        }
        Some(_) => Ok(text.to_owned()),
    }
}
