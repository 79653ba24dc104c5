//! The rules of rollouts, as scripts that tell what comes out: read them, they are in `scripts`.
//!
//! `UPDATE_EXPECT=1 cargo test -p baton-core --test it scripts` writes what comes out now into them.

use std::fs;
use std::path::Path;

use baton_core::simulate::{End, Script};
use expect_test::expect_file;

/// What stands before what was told.
const TOLD: char = '|';

#[test]
fn every_script_tells_what_it_told_before_and_keeps_every_invariant() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/scripts");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "{paths:?}");
    for path in paths {
        let script: Script = fs::read_to_string(&path).unwrap().parse().unwrap();
        let played = script.play();
        assert_eq!(played.outcome.broken, None, "{}", path.display());
        assert_ne!(played.outcome.end, End::Broken, "{}", path.display());
        expect_file![path].assert_eq(&played.transcript);
    }
}

#[test]
fn what_was_told_can_be_played_again_and_tells_the_same() {
    let script: Script =
        "seed 3\nfleet 8 # small\n\npolicy fast\ndeploy r2\nrun until quiet\nshow".parse().unwrap();
    let played = script.play();
    assert!(played.transcript.lines().any(|line| line.starts_with(TOLD)), "{}", played.transcript);
    let again: Script = played.transcript.parse().unwrap();
    assert_eq!(again, script);
    assert_eq!(again.play(), played);
    assert_eq!(script.run(), played.outcome, "reading along changes nothing");
}
