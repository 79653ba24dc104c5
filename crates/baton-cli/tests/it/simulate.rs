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
    assert_eq!((refused.code, refused.stderr.contains("choose")), (2, true), "{}", refused.stderr);
}

#[test]
fn a_script_is_played_and_told_and_a_wrong_one_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rollout.txt");
    fs::write(&path, "fleet 4\ncrash 100%\ndeploy r2\nrun until quiet\n").unwrap();
    let asked = ["simulate", "--script", "rollout.txt"];
    let ran = run(dir.path(), NOBODY, &asked);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("\nrun until quiet\n|") && ran.stdout.contains("rollback to r1"),
        "{}",
        ran.stdout
    );
    let json = run(dir.path(), NOBODY, &[&asked[..], &["--output", "json"]].concat()).json();
    assert_eq!(
        (&json["end"], &json["transcript"]),
        (&"rolled back".into(), &ran.stdout.as_str().into()),
        "{json}"
    );

    fs::write(&path, "fleet 4\nhurry\n").unwrap();
    let refused = run(dir.path(), NOBODY, &asked);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("rollout.txt: line 2, \"hurry\": begins no line"), "{}", refused.stderr);
}
