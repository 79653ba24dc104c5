//! The structure of the workspace is what it is said to be.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Crates by floor: one may use what is on a lower floor, and nothing else of the workspace.
const FLOORS: [&[&str]; 7] = [
    &["baton-core"],
    &["baton-wire", "baton-sys"],
    &["baton-release", "baton-engine"],
    &["baton-store"],
    &["baton-boot", "baton-control"],
    &["baton-cli"],
    &["baton-e2e", "xtask"],
];

/// What must never be compiled into the bootloader: servers, stores and cloud clients.
const NOT_IN_BOOT: [&str; 10] = [
    "axum",
    "object_store",
    "redb",
    "baton-store",
    "baton-engine",
    "baton-control",
    "clap",
    "reqwest",
    "openssl-sys",
    "aws-config",
];

fn metadata() -> Metadata {
    MetadataCommand::new().exec().unwrap()
}

#[test]
fn every_crate_uses_only_what_is_on_a_lower_floor() {
    let floor_of: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, crates)| crates.iter().map(move |name| (*name, floor)))
        .collect();
    let metadata = metadata();
    let names: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, floor_of.keys().copied().collect());
    for package in metadata.workspace_packages() {
        let used = package.dependencies.iter().filter(|used| used.kind != DependencyKind::Development);
        for used in used.filter(|used| names.contains(used.name.as_str())) {
            let (from, to) = (package.name.as_str(), used.name.as_str());
            assert!(floor_of[from] > floor_of[to], "{from} uses {to}, which is not on a lower floor");
        }
    }
}

#[test]
fn every_crate_says_why_it_is_not_a_module() {
    for package in metadata().workspace_packages() {
        let description = package.description.clone().unwrap_or_default();
        assert!(description.contains("A crate "), "{} does not say why it is a crate", package.name);
    }
}

/// Resolved for the bootloader alone, as it is built for people: what others ask of the same crates is not in it.
#[test]
fn the_bootloader_stays_small() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "baton-boot", "--edges", "normal", "--prefix", "none"])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let names: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("tokio"), "no tree was printed");
    for forbidden in NOT_IN_BOOT {
        assert!(!names.contains(forbidden), "{forbidden} is compiled into baton-boot");
    }
}

/// The rows that docs/reliability.md answers for.
fn reliability_rows() -> impl Iterator<Item = String> {
    let promises = (1..=43).chain([46, 47]).map(|number| format!("P{number}"));
    let faults = (1..=105).chain(109..=120);
    promises.chain(faults.map(|number| format!("F{number}")))
}

#[test]
fn every_promise_and_fault_has_a_row_and_every_test_it_names_exists() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = std::fs::read_to_string(docs.join("reliability.md")).unwrap();
    let rows: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| P") || line.starts_with("| F")).collect();
    let mut named: Vec<&str> = rows.iter().filter_map(|row| row.split('|').nth(1)).map(str::trim).collect();
    // Rows about several are those of the invariants that are simulated.
    named.retain(|name| !name.contains(','));
    let mut expected: Vec<_> = reliability_rows().collect();
    named.sort_unstable();
    expected.sort_unstable();
    assert_eq!(named, expected);
    let mut tests = 0;
    for link in page.split("[`").skip(1).filter_map(|text| text.split_once(')')).map(|(link, _)| link) {
        let (name, file) = link.split_once("`](").unwrap_or_else(|| panic!("{link} is no link"));
        let text = std::fs::read_to_string(docs.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let is_there = name.ends_with(".rs") || text.contains(&format!("fn {name}("));
        assert!(is_there, "there is no test {name} in {file}");
        tests += 1;
    }
    assert!(tests > rows.len(), "only {tests} tests are named in {} rows", rows.len());
}
