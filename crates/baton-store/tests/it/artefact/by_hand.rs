//! A store read with public tools, by the commands that docs/format shows.

use std::fs;
use std::process::Command;

use baton_store::artefact::FolderStore;

use super::{push_dir, source};

const PAGE: &str = include_str!("../../../../../docs/format/README.md");

#[test]
fn the_commands_of_the_documentation_read_a_release() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderStore::open(&dir.path().join("store")).unwrap();
    let files = dir.path().join("source");
    // Twice, so that the chunks are in several packs; and so many files that the outline has an outline.
    push_dir(&files, 1, &store).unwrap();
    for n in 0..2500 {
        fs::write(files.join(format!("{n}")), "").unwrap();
    }
    source(&files, 1);
    let content: String = (0..20_000).map(|n| format!("console.log({});\n", n * n)).collect();
    fs::write(files.join("app.js"), &content).unwrap();
    let pushed = push_dir(&files, 1, &store).unwrap();

    let (_, commands) = PAGE.split_once("```sh\n").unwrap();
    let (commands, _) = commands.split_once("```").unwrap();
    let output = Command::new("sh")
        .args(["-euc", commands])
        .env("release", pushed.id.to_string())
        .current_dir(dir.path().join("store"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(dir.path().join("store/manifest")).unwrap(), pushed.manifest.to_text());
    assert_eq!(fs::read_to_string(dir.path().join("store/app.js")).unwrap(), content);
}

#[test]
fn the_commands_of_the_documentation_check_a_signature() {
    const APPROVAL: &str = include_str!("../../fixtures/v1/signed/approval");
    let commands = PAGE.split("```sh\n").nth(2).and_then(|block| block.split_once("```")).unwrap().0;
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        fs::write(dir.path().join("signed"), text).unwrap();
        Command::new("sh").args(["-euc", commands]).current_dir(dir.path()).output().unwrap()
    };
    let right = check(APPROVAL);
    assert!(right.status.success(), "{right:?}");
    assert!(!check(&APPROVAL.replace("limits 1042", "limits 1043")).status.success());
}
