//! The reference page and the examples, held against the parser.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use baton_core::settings::{keys, parse};

use super::{SMALL, good};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn reference() -> String {
    fs::read_to_string(repository().join("docs/reference/settings.md")).unwrap()
}

/// The rows of the tables of the reference page: setting and default.
fn documented() -> Vec<(String, String)> {
    let page = reference();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [setting, _, default, _] = cells.as_slice() else { panic!("{row}") };
        (setting.trim_matches(['|', ' ', '`']).to_owned(), (*default).to_owned())
    })
    .collect()
}

#[test]
fn the_reference_has_every_setting_and_no_other() {
    let known = keys();
    let is_table = |key: &str| known.iter().any(|other| other.starts_with(&format!("{key}.")));
    let settings: BTreeSet<&str> =
        known.iter().map(String::as_str).filter(|key| !is_table(key) || *key == "flavor.NAME").collect();
    let documented = documented();
    let page: BTreeSet<&str> = documented.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(page.len(), documented.len(), "a setting is documented twice");
    assert_eq!(page, settings);
}

#[test]
fn a_default_of_the_reference_changes_nothing_when_written_down() {
    let with = |key: &str, line: &str, listener: &str| {
        let address = if key == "run.listen.mode" { "unix:/run/a" } else { "0.0.0.0:1" };
        let rest = match key {
            // The one setting that programs with listeners must not have.
            "run.overlap" => String::new(),
            _ => format!(
                "run.listen = [{{ name = \"a\", address = {address:?}{listener} }}]\nrun.health.http = \"/\"\n"
            ),
        };
        // What is measured has to be said where anything is said of it.
        let metric = "rollout.metric.query = \"up\"\nrollout.metric.max = 1\n";
        let metric = if key.starts_with("rollout.metric.") { metric } else { "" };
        good(&format!("{SMALL}{rest}{metric}{line}"))
    };
    let mut checked = 0;
    for (key, default) in documented() {
        let Some(value) = default.strip_prefix('`').and_then(|text| text.strip_suffix('`')) else { continue };
        let (line, listener) = match key.strip_prefix("run.listen.") {
            Some(name @ ("proxy_protocol" | "close_hint")) => {
                (String::new(), format!(", handover = \"proxy\", {name} = {value}"))
            }
            Some(name) => (String::new(), format!(", {name} = {value}")),
            None => (format!("{key} = {value}"), String::new()),
        };
        let without = if listener.contains("proxy") { ", handover = \"proxy\"" } else { "" };
        assert_eq!(with(&key, &line, &listener), with(&key, "", without), "{key} = {value}");
        checked += 1;
    }
    assert!(checked > 15, "only {checked} defaults found in the page");
}

#[test]
fn the_files_in_the_reference_are_good() {
    let page = reference();
    let files: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        good(file);
    }
}

#[test]
fn the_examples_are_good() {
    let mut files = 0;
    for entry in fs::read_dir(repository().join("examples")).unwrap() {
        let path = entry.unwrap().path().join("baton.toml");
        if path.exists() {
            let text = fs::read_to_string(&path).unwrap();
            let parsed = parse(&path.to_string_lossy(), &text);
            assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
            files += 1;
        }
    }
    assert!(files > 0, "there are no examples");
}
