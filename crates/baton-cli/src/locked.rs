//! Lock files: which packages in which versions. Pure functions from text to text.
//!
//! Only what is needed to tell two of them apart is read, line by line where the tool writes one form only. Of what is not
//! understood nothing is told but that it has changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

/// Packages by name, each with its versions.
pub type Packages = BTreeMap<String, BTreeSet<String>>;

/// Longer lock files are not read: it would take longer than the push.
pub const LOCK_BYTES_MAX: u64 = 32 << 20;

/// A package whose versions differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its versions before; none when it is new.
    pub old: Vec<String>,
    /// Its versions now; none when it is gone.
    pub new: Vec<String>,
}

/// Reads a lock file.
type Reader = fn(&str) -> Option<Packages>;

/// The lock files that are known, by their names.
const READERS: [(&str, Reader); 11] = [
    ("package-lock.json", npm),
    ("npm-shrinkwrap.json", npm),
    ("yarn.lock", yarn),
    ("pnpm-lock.yaml", pnpm),
    ("poetry.lock", toml_packages),
    ("uv.lock", toml_packages),
    ("Cargo.lock", toml_packages),
    ("requirements.txt", requirements),
    ("Gemfile.lock", gemfile),
    ("go.sum", go_sum),
    ("composer.lock", composer),
];

/// Whether a file of this name is a lock file.
pub fn is_lock_file(name: &str) -> bool {
    READERS.iter().any(|(known, _)| *known == name)
}

/// The packages whose versions differ from one text of a lock file to another; nothing when one is not understood.
pub fn changes(name: &str, old: &str, new: &str) -> Option<Vec<PackageChange>> {
    let (_, read) = READERS.iter().find(|(known, _)| *known == name)?;
    let (old, new) = (read(old)?, read(new)?);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let versions = |of: &Packages, name: &str| of.get(name).into_iter().flatten().cloned().collect();
    let differ = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    Some(
        differ
            .map(|name| PackageChange {
                name: name.clone(),
                old: versions(&old, name),
                new: versions(&new, name),
            })
            .collect(),
    )
}

fn add(packages: &mut Packages, name: &str, version: &str) {
    packages.entry(name.to_owned()).or_default().insert(version.to_owned());
}

/// `"packages": { "node_modules/a/node_modules/b": { "version": "1.2.3" } }`, and since npm 1 to 6 `"dependencies"`.
fn npm(text: &str) -> Option<Packages> {
    let root: Value = serde_json::from_str(text).ok()?;
    let mut packages = Packages::new();
    if let Some(all) = root.get("packages").and_then(Value::as_object) {
        for (path, package) in all {
            let (Some((_, name)), Some(version)) =
                (path.rsplit_once("node_modules/"), package.get("version").and_then(Value::as_str))
            else {
                continue;
            };
            add(&mut packages, name, version);
        }
        return Some(packages);
    }
    let mut waiting = vec![root.get("dependencies")?.as_object()?];
    while let Some(all) = waiting.pop() {
        for (name, package) in all {
            if let Some(version) = package.get("version").and_then(Value::as_str) {
                add(&mut packages, name, version);
            }
            waiting.extend(package.get("dependencies").and_then(Value::as_object));
        }
    }
    Some(packages)
}

/// `"packages": [ { "name": "a/b", "version": "1.2.3" } ]`
fn composer(text: &str) -> Option<Packages> {
    let root: Value = serde_json::from_str(text).ok()?;
    let mut packages = Packages::new();
    for package in ["packages", "packages-dev"].iter().filter_map(|key| root.get(key)?.as_array()).flatten() {
        add(&mut packages, package.get("name")?.as_str()?, package.get("version")?.as_str()?);
    }
    Some(packages)
}

/// `"@a/b@^1.0.0", "@a/b@^1.2.0":` and beneath it `  version "1.2.3"`; since Yarn 2 `  version: 1.2.3`.
fn yarn(text: &str) -> Option<Packages> {
    let mut packages = Packages::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(version) = line.strip_prefix("  version") {
            let version = version.trim_start_matches([':', ' ']).trim_matches('"');
            if let Some(name) = name.take().filter(|name| *name != "__metadata") {
                add(&mut packages, name, version);
            }
        } else if !line.starts_with([' ', '#']) && line.ends_with(':') {
            let first = line.trim_end_matches(':').split(", ").next()?.trim_matches('"');
            name = Some(first.get(1..)?.find('@').map_or(first, |at| &first[..=at]));
        }
    }
    Some(packages)
}

/// `packages:` and beneath it `  '@a/b@1.2.3(peer@1)':`, or `  /@a/b@1.2.3:`.
fn pnpm(text: &str) -> Option<Packages> {
    let mut packages = Packages::new();
    let within = text.lines().skip_while(|line| *line != "packages:").skip(1);
    for line in within.take_while(|line| line.is_empty() || line.starts_with(' ')) {
        let Some(key) = line.strip_prefix("  ").filter(|key| !key.starts_with(' ')) else { continue };
        let Some(key) = key.strip_suffix(':') else { continue };
        let key = key.trim_matches('\'').trim_start_matches('/').split('(').next()?;
        let (name, version) = key.rsplit_once('@').filter(|(name, _)| !name.is_empty())?;
        add(&mut packages, name, version);
    }
    Some(packages)
}

/// `[[package]]` with `name = "a"` and `version = "1.2.3"`, as the tools write it: one to a line, the name first.
fn toml_packages(text: &str) -> Option<Packages> {
    let mut packages = Packages::new();
    let (mut within, mut name) = (false, None);
    let value = |line: &str, key: &str| {
        let value = line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?;
        Some(value.to_owned())
    };
    for line in text.lines() {
        if line.starts_with('[') {
            within = line == "[[package]]";
            name = None;
        }
        if !within {
            continue;
        }
        if let Some(found) = value(line, "name") {
            name = Some(found);
        } else if let Some((name, version)) = name.as_ref().zip(value(line, "version")) {
            add(&mut packages, name, &version);
        }
    }
    Some(packages)
}

/// `a[extra]==1.2.3 ; marker --hash=…`. What is not pinned has the text behind its name for a version.
fn requirements(text: &str) -> Option<Packages> {
    let mut packages = Packages::new();
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim().trim_end_matches('\\').trim();
        if line.is_empty() || line.starts_with(['#', '-']) {
            continue;
        }
        let requirement = line.split([';', ' ']).next().unwrap_or_default();
        let end = requirement.find(['=', '<', '>', '!', '~', '[', '@']).unwrap_or(requirement.len());
        let (name, rest) = requirement.split_at(end);
        let version = rest.rsplit_once(']').map_or(rest, |(_, rest)| rest);
        let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
        add(&mut packages, &name, version.trim_start_matches("=="));
    }
    Some(packages)
}

/// `    a (1.2.3)` beneath `  specs:`; what a package needs is two spaces further in.
fn gemfile(text: &str) -> Option<Packages> {
    let mut packages = Packages::new();
    for line in text.lines() {
        let Some(line) = line.strip_prefix("    ").filter(|line| !line.starts_with(' ')) else { continue };
        if let Some((name, version)) = line.strip_suffix(')').and_then(|line| line.split_once(" (")) {
            add(&mut packages, name, version);
        }
    }
    Some(packages)
}

/// `a.org/b v1.2.3 h1:…=`; the lines with `/go.mod` are about modules that were only asked.
fn go_sum(text: &str) -> Option<Packages> {
    let mut packages = Packages::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?);
        if !version.ends_with("/go.mod") {
            add(&mut packages, name, version);
        }
    }
    Some(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name version version`, one to a line.
    fn shown(file: &str, text: &str) -> String {
        let (_, read) = READERS.iter().find(|(known, _)| *known == file).unwrap();
        let line = |(name, versions): (String, BTreeSet<String>)| {
            format!("{name} {}\n", versions.into_iter().collect::<Vec<_>>().join(" "))
        };
        read(text).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn each_lock_file_tells_its_packages() {
        let npm = r#"{"lockfileVersion": 3, "packages": {"": {"version": "1.0.0"},
            "node_modules/a": {"version": "1.2.3"}, "node_modules/@s/b": {"version": "2.0.0"},
            "node_modules/a/node_modules/@s/b": {"version": "1.0.0"}, "node_modules/linked": {"link": true}}}"#;
        let old_npm =
            r#"{"dependencies": {"a": {"version": "1.2.3", "dependencies": {"c": {"version": "4.0.0"}}}}}"#;
        let yarn = "# yarn lockfile v1\n\n\"@s/b@^1.0.0\", \"@s/b@^1.2.0\":\n  version \"1.2.3\"\n  resolved \"x\"\n\na@^1:\n  version \"1.0.0\"\n";
        let berry = "__metadata:\n  version: 8\n\n\"a@npm:^1.0.0\":\n  version: 1.4.0\n";
        let pnpm = "lockfileVersion: '9.0'\n\npackages:\n\n  '@s/b@1.2.3(p@1.0.0)':\n    resolution: {}\n\n  a@1.0.0:\n    resolution: {}\n\nsnapshots:\n\n  a@9.9.9: {}\n";
        let poetry = "[[package]]\nname = \"a\"\nversion = \"1.0\"\n\n[package.dependencies]\nname = \"no\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0\"\n";
        let pins = "# made by pip-compile\nA_b==1.0 \\\n    --hash=sha256:1\nc[x]==2.0 ; python_version < '3'\nd>=1,<2\n-r other.txt\n";
        let gems = "GEM\n  remote: x\n  specs:\n    puma (6.4.0)\n      nio4r (~> 2.0)\n    nio4r (2.7.0)\n\nPLATFORMS\n  ruby\n";
        let go = "a.org/b v1.2.3 h1:x=\na.org/b v1.2.3/go.mod h1:y=\na.org/c v0.1.0/go.mod h1:z=\n";
        let php = r#"{"packages": [{"name": "a/b", "version": "v1.2"}], "packages-dev": []}"#;
        for (file, text, expected) in [
            ("package-lock.json", npm, "@s/b 1.0.0 2.0.0\na 1.2.3\n"),
            ("npm-shrinkwrap.json", old_npm, "a 1.2.3\nc 4.0.0\n"),
            ("yarn.lock", yarn, "@s/b 1.2.3\na 1.0.0\n"),
            ("yarn.lock", berry, "a 1.4.0\n"),
            ("pnpm-lock.yaml", pnpm, "@s/b 1.2.3\na 1.0.0\n"),
            ("poetry.lock", poetry, "a 1.0\nb 2.0\n"),
            ("uv.lock", poetry, "a 1.0\nb 2.0\n"),
            ("Cargo.lock", poetry, "a 1.0\nb 2.0\n"),
            ("requirements.txt", pins, "a-b 1.0\nc 2.0\nd >=1,<2\n"),
            ("Gemfile.lock", gems, "nio4r 2.7.0\npuma 6.4.0\n"),
            ("go.sum", go, "a.org/b v1.2.3\n"),
            ("composer.lock", php, "a/b v1.2\n"),
        ] {
            assert_eq!(shown(file, text), expected, "{file}");
        }
    }

    #[test]
    fn what_differs_is_told_and_what_is_no_lock_file_is_not_guessed() {
        let change = |name: &str, old: &[&str], new: &[&str]| PackageChange {
            name: name.to_owned(),
            old: old.iter().map(|&v| v.to_owned()).collect(),
            new: new.iter().map(|&v| v.to_owned()).collect(),
        };
        let found = changes("requirements.txt", "a==1\nb==1\nc==1\n", "a==2\nb==1\nd==1\n");
        assert_eq!(
            found,
            Some(vec![change("a", &["1"], &["2"]), change("c", &["1"], &[]), change("d", &[], &["1"])])
        );
        assert_eq!(changes("package-lock.json", "{}", "not JSON"), None);
        assert_eq!(changes("other.lock", "", ""), None);
        assert!(is_lock_file("go.sum") && !is_lock_file("go.mod"));
    }
}
