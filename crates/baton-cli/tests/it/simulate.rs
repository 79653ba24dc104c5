//! `baton simulate`, as people ask it.

use std::fs;

use crate::program::run;

/// Nobody is asked.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn what_a_rollout_would_do_is_told_and_drawn_and_is_the_same_for_the_same_seed() {
    let dir = tempfile::tempdir().unwrap();
    let asked = ["simulate", "--members", "200", "--startup", "8s", "--runs", "3", "--output", "json"];
    let with = |more: &[&str]| {
        let ran = run(dir.path(), NOBODY, &[&asked[..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.json()
    };
    let good = with(&["--svg", "course.svg"]);
    assert_eq!((&good["ends"]["switched"], &good["touched_most"]), (&3.into(), &200.into()), "{good}");
    assert!(good["took_ms"][1].as_u64().unwrap() > 3 * 8000, "{good}");
    assert!(fs::read_to_string(dir.path().join("course.svg")).unwrap().contains("200 members, safe"));
    assert_eq!(with(&[])["timeline"], good["timeline"]);
    assert_ne!(with(&["--seed", "2"])["timeline"], good["timeline"]);

    let bad = with(&["--crash-rate", "100%"]);
    assert_eq!((&bad["ends"]["rolled back"], &bad["touched_most"]), (&3.into(), &1.into()), "{bad}");

    // The policy of the settings that are here; and one that makes no sense is refused.
    let settings = "service = \"web\"\n[run]\ncommand = [\"true\"]\n[rollout]\npolicy = \"fast\"\n";
    fs::write(dir.path().join("baton.toml"), settings).unwrap();
    assert!(with(&[])["took_ms"][1].as_u64() < good["took_ms"][1].as_u64());
    let refused = run(dir.path(), NOBODY, &["simulate", "--max-unhealthy", "100%"]);
    assert_eq!((refused.code, refused.stderr.contains("choose less")), (2, true), "{}", refused.stderr);
}
