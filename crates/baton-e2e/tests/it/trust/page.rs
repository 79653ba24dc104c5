//! What the page on signing shows, done as it stands there, one command after the other.

use std::fs;
use std::process::Command;

use super::all_answer;
use crate::boot::{Folder, binary};
use crate::fleet::Fleet;
use crate::page::blocks;

const PAGE: &str = "how-to/signing.md";

/// A list of keys, without what differs from one key to another of the same name.
fn without_bits(list: &str) -> Vec<String> {
    let line = |line: &str| {
        let words = line.split(' ').enumerate();
        words
            .map(|(n, word)| if n == 2 && line.starts_with("key ") { "…" } else { word })
            .collect::<Vec<_>>()
            .join(" ")
    };
    list.lines().map(line).collect()
}

/// A command of the page that asks no server.
fn alone(folder: &Folder, command: &str) {
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let done = Command::new(binary("baton")).args(words).current_dir(folder.path()).output().unwrap();
    assert!(done.status.success(), "{command}: {done:?}");
}

/// A command of the page against this fleet: with this release, and this one to go back to.
fn at(fleet: &Fleet, folder: &Folder, command: &str, release: &str, fallback: &str) -> Option<i32> {
    let command = command.replace("RELEASE", release).replace("9f3a2b", fallback);
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    fleet.baton_in(folder.path(), &words).status.code()
}

#[test]
fn what_the_page_on_signing_shows_is_so() {
    let folder = Folder::with_example("python");
    fs::write(folder.path().join(".batonignore"), "*.key\ntrusted-keys\n").unwrap();
    let shell = blocks(PAGE, "sh");
    let [generate, push, fallback, renew, rotate, revoke, own, together] = &shell[..] else {
        panic!("{shell:?}")
    };

    generate.lines().for_each(|line| alone(&folder, line));
    let list = folder.path().join("trusted-keys");
    let texts = blocks(PAGE, "text");
    assert_eq!(without_bits(&fs::read_to_string(&list).unwrap()), without_bits(&texts[0]), "the list");
    let more = folder.path().join("more");
    fs::write(&more, complete(&texts[1])).unwrap();
    alone(&folder, "baton key list --trusted more");

    let fleet = Fleet::start_trusting(&list, "web", 2);
    let [pushed, deployed] = &push.lines().collect::<Vec<_>>()[..] else { panic!("{push}") };
    let first = release(&fleet, &folder, pushed);
    assert_eq!(at(&fleet, &folder, deployed, &first, ""), Some(0));
    all_answer(&fleet, &first);
    folder.write("VERSION", "2");
    let second = release(&fleet, &folder, pushed);
    assert_eq!(at(&fleet, &folder, fallback.trim(), &second, &first), Some(0));
    all_answer(&fleet, &second);
    assert_eq!(at(&fleet, &folder, renew.trim(), "", ""), Some(0));

    alone(&folder, rotate.trim());
    let renewed = renew.trim().replace("ada.key", "ada-2.key");
    assert_eq!(at(&fleet, &folder, &renewed, "", ""), Some(0), "in force anew, by the new key");
    alone(&folder, revoke.trim());
    folder.write("VERSION", "3");
    let both = |ada: &str| format!("baton deploy --key ci.key --key {ada} --timeout 60s");
    assert_eq!(at(&fleet, &folder, &both("ada-2.key"), "", ""), Some(0), "both at once");
    let last = fleet.release();
    all_answer(&fleet, &last);
    // Another release: to whom it runs already, a deploy of the same one says nothing new.
    folder.write("VERSION", "4");
    let revoked = both("ada.key").replace("60s", "2s");
    assert_ne!(at(&fleet, &folder, &revoked, "", ""), Some(0), "its key counts for nothing new");
    all_answer(&fleet, &last);

    // Nothing waits here: what two people do is shown elsewhere. That these are commands is shown here.
    let [own, line] = &own.lines().map(without_comment).collect::<Vec<_>>()[..] else { panic!("{own}") };
    alone(&folder, own);
    let found = Command::new("sh").args(["-c", line]).current_dir(folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&found.stdout).starts_with("key grace "), "{line}: {found:?}");
    for line in together.lines() {
        let command = without_comment(line).replace("9f3a2b", &first);
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let done = fleet.baton_in(folder.path(), &words);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!said.contains("Usage: "), "{command}: {said}");
    }
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap().trim()
}

/// Pushes as the page has it, and returns the id.
fn release(fleet: &Fleet, folder: &Folder, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let pushed = fleet.json_in(folder.path(), &words);
    pushed["id"].as_str().unwrap().to_owned()
}

/// A list of the page with whole keys, each another one.
fn complete(list: &str) -> String {
    let whole = |(n, line): (usize, &str)| match line.split_once('…') {
        Some((start, rest)) => {
            let (before, bits) = start.rsplit_once(' ').unwrap();
            format!("{before} {bits}{n:0>60}{rest}")
        }
        None => line.to_owned(),
    };
    list.lines().enumerate().map(|line| whole(line) + "\n").collect()
}
