//! Every reason has a code for machines, and each stands in the reference.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use baton_core::event::What;
use baton_core::report::Cause;

const API: &str = include_str!("../../../../docs/reference/api.md");

/// Where the functions are that make codes, and the files with refusals.
const CODES: [&str; 5] = ["turn.rs", "verdict.rs", "metric.rs", "laggards.rs", "report.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The texts that look like codes in a part of a source.
fn quoted(part: &str) -> impl Iterator<Item = String> + '_ {
    let is_code =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    part.split('"').skip(1).step_by(2).filter(is_code).map(str::to_owned)
}

/// What the functions called `code` of the core answer.
fn of_the_core(root: &Path) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for file in CODES {
        let text = fs::read_to_string(root.join("baton-core/src").join(file)).unwrap();
        let before = codes.len();
        for part in text.split("pub const fn code(").skip(1) {
            codes.extend(quoted(part.split("\n    }\n").next().unwrap()));
        }
        assert!(codes.len() > before, "{file} has codes");
    }
    codes
}

/// What refusals are made with here.
fn of_refusals(root: &Path) -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root.join("baton-control/src"), &mut files);
    let mut codes = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for part in text.split("StatusCode::").skip(1) {
            let Some((_, rest)) = part.split_once(',') else { continue };
            let is_next = rest.trim_start().starts_with('"');
            codes.extend(is_next.then(|| quoted(rest).next()).flatten());
        }
    }
    codes
}

#[test]
fn p46_every_reason_for_which_something_is_not_done_has_a_code_that_the_reference_explains() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (core, refusals) = (of_the_core(root), of_refusals(root));
    assert!(core.contains("slots-taken") && core.contains("failure-limit") && core.contains("metric-failed"));
    assert!(refusals.contains("conflict") && refusals.contains("needs-approval"));
    let events = What::ALL.iter().map(|what| what.code().to_owned());
    let causes = Cause::ALL.iter().map(|cause| cause.code().to_owned());
    let all: BTreeSet<String> = core.into_iter().chain(refusals).chain(events).chain(causes).collect();
    let missing: Vec<_> = all.iter().filter(|code| !API.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/reference/api.md does not explain {missing:?}");
}
