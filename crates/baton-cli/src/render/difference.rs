//! What changes from the release in force to another one, as text.

use super::{count, id};
use crate::difference::{Change, Difference, LockChange};
use crate::escape::escape;
use crate::locked::PackageChange;

/// How many names of one sort are shown: more are read nowhere.
const NAMES_MAX: usize = 6;

/// A line for each sort of change.
pub fn difference(difference: &Difference) -> String {
    let Difference { since, added, removed, changed, settings, libraries, locks } = difference;
    if difference.is_empty() {
        return format!("nothing changes since release {}, which is in force\n", id(since));
    }
    let mut text = format!("since release {}, which is in force:\n", id(since));
    for (what, paths) in [("changed", changed), ("added", added), ("removed", removed)] {
        if !paths.is_empty() {
            let names = some(paths.iter().map(|path| escape(path)));
            text.push_str(&format!("  {} {what}: {names}\n", count(paths.len() as u64, "path")));
        }
    }
    for setting in settings {
        text.push_str(&format!("  {}\n", changed_to(&setting.name, &setting.old, &setting.new)));
    }
    for LockChange { path, packages } in locks {
        let told = match packages {
            None => "has changed".to_owned(),
            Some(packages) => some(packages.iter().map(package)),
        };
        text.push_str(&format!("  {}: {told}\n", escape(path)));
    }
    if !libraries.is_empty() {
        let told = some(libraries.iter().map(|Change { name, old, new }| changed_to(name, old, new)));
        text.push_str(&format!("  native libraries: {told}\n"));
    }
    text
}

fn package(PackageChange { name, old, new }: &PackageChange) -> String {
    changed_to(name, old, new)
}

/// `libpq 5.9 → 5.17`, `+ libz 1`, `- libssl 1.1`.
fn changed_to(name: &str, old: &[String], new: &[String]) -> String {
    let shown = |values: &[String]| escape(&values.join(", "));
    match (old, new) {
        ([], new) => format!("+ {} {}", escape(name), shown(new)).trim_end().to_owned(),
        (old, []) => format!("- {} {}", escape(name), shown(old)).trim_end().to_owned(),
        (old, new) => format!("{} {} → {}", escape(name), shown(old), shown(new)),
    }
}

/// The first few of them, and how many others there are.
fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    let others = names.len().saturating_sub(NAMES_MAX);
    let mut shown: Vec<String> = names.take(NAMES_MAX).collect();
    if others > 0 {
        shown.push(format!("and {}", count(others as u64, "other")));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn each_sort_of_change_has_its_line() {
        let change = |name: &str, old: &[&str], new: &[&str]| Change {
            name: name.to_owned(),
            old: texts(old),
            new: texts(new),
        };
        let package = |name: &str, old: &[&str], new: &[&str]| PackageChange {
            name: name.to_owned(),
            old: texts(old),
            new: texts(new),
        };
        let nothing = Difference {
            since: "9f3a2b7c1d5e0000".to_owned(),
            added: vec![],
            removed: vec![],
            changed: vec![],
            settings: vec![],
            libraries: vec![],
            locks: vec![],
        };
        assert_eq!(difference(&nothing), "nothing changes since release 9f3a2b7c1d5e, which is in force\n");
        let all = Difference {
            added: (0..8).map(|n| format!("new/{n}")).collect(),
            removed: texts(&["gone\x1b"]),
            changed: texts(&["app.js", "package-lock.json"]),
            settings: vec![change("run.drain", &["30000"], &["60000"])],
            libraries: vec![change("libpq", &["5.9"], &["5.17"]), change("libz", &[], &["1"])],
            locks: vec![
                LockChange {
                    path: "package-lock.json".to_owned(),
                    packages: Some(vec![
                        package("express", &["4.18.2"], &["4.19.0"]),
                        package("left-pad", &["1.3.0"], &[]),
                    ]),
                },
                LockChange { path: "go.sum".to_owned(), packages: None },
            ],
            ..nothing
        };
        assert_eq!(
            difference(&all),
            "since release 9f3a2b7c1d5e, which is in force:
  2 paths changed: app.js, package-lock.json
  8 paths added: new/0, new/1, new/2, new/3, new/4, new/5, and 2 others
  1 path removed: gone\\x1b
  run.drain 30000 → 60000
  package-lock.json: express 4.18.2 → 4.19.0, - left-pad 1.3.0
  go.sum: has changed
  native libraries: libpq 5.9 → 5.17, + libz 1
"
        );
    }
}
