//! Build steps: what a step is, which key its outputs are kept under, and why it has to run.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::ids::{BuildKey, ChunkId};
use crate::release::{EntryKind, Tree, TreePath};

/// A command that makes something out of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is called.
    pub name: String,
    /// What it is made of: patterns as in `.gitignore`, from the directory of the settings on.
    pub inputs: Vec<String>,
    /// The program and its arguments; it is started in that directory.
    pub run: Vec<String>,
    /// What it makes: files and directories.
    pub outputs: Vec<TreePath>,
    /// Variables of the environment whose values count.
    pub env: Vec<String>,
}

/// Everything that decides what a step makes, one thing a line. Its hash is the [`BuildKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe(String);

impl Recipe {
    /// That of a step with these inputs, on this platform, where `value` has the environment.
    pub fn new(step: &Step, inputs: &Tree, platform: &str, value: impl Fn(&str) -> Option<String>) -> Self {
        let mut text = format!("baton-build 1\nplatform {platform:?}\ncommand {:?}\n", step.run);
        // Writing to a String cannot fail.
        for output in &step.outputs {
            let _ = writeln!(text, "output {output}");
        }
        for name in &step.env {
            let _ = writeln!(text, "env {name} {:?}", value(name));
        }
        for entry in inputs.entries() {
            let path = &entry.path;
            let _ = match &entry.kind {
                // An empty directory makes no difference to most programs, and the others are told by their files.
                EntryKind::Dir => Ok(()),
                EntryKind::Link { target } => writeln!(text, "input {path} link {target:?}"),
                EntryKind::File(file) => {
                    let mut ids = String::new();
                    let _ = file.chunks.iter().try_for_each(|chunk| write!(ids, "{}", chunk.id));
                    let kind = if file.executable { "exec" } else { "file" };
                    writeln!(text, "input {path} {kind} {}", ChunkId::of(ids.as_bytes()))
                }
            };
        }
        Self(text)
    }

    /// One that was kept.
    pub fn kept(text: String) -> Self {
        Self(text)
    }

    /// Its text, to keep it.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What its outputs are kept under.
    pub fn key(&self) -> BuildKey {
        BuildKey::from_bytes(*blake3::hash(self.0.as_bytes()).as_bytes())
    }

    /// How it differs from an earlier one, a few words for each difference.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let (old, new) = (before.parts(), self.parts());
        let mut found = Vec::new();
        for (what, value) in &new {
            match old.get(what) {
                None => found.push(format!("{what} is new")),
                Some(old) if old != value => found.push(format!("{what} has changed")),
                Some(_) => {}
            }
        }
        found
            .extend(old.keys().filter(|what| !new.contains_key(*what)).map(|what| format!("{what} is gone")));
        found
    }

    /// What is listed, with the value of each.
    fn parts(&self) -> BTreeMap<String, &str> {
        let part = |line: &'_ str| -> (String, usize) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "input" => {
                    // A path may have spaces; the value behind it is a word and a word, or a quoted text.
                    let kind =
                        [" file ", " exec ", " link \""].iter().filter_map(|kind| rest.rfind(kind)).max();
                    let end = kind.unwrap_or(rest.len());
                    (format!("{word} {}", &rest[..end]), word.len() + 1 + end)
                }
                "env" => {
                    let name = rest.split(' ').next().unwrap_or_default();
                    (format!("{word} {name}"), word.len() + 1 + name.len())
                }
                "output" => (String::from(line), line.len()),
                word => (String::from(word), word.len()),
            }
        };
        self.0
            .lines()
            .map(|line| {
                let (what, at) = part(line);
                (what, &line[at..])
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Chunk, Entry, File};
    use std::borrow::ToOwned;
    use std::string::ToString;
    use std::vec;

    fn step() -> Step {
        Step {
            name: "deps".to_owned(),
            inputs: vec!["package.json".to_owned()],
            run: vec!["npm".to_owned(), "ci".to_owned()],
            outputs: vec!["node_modules".parse().unwrap()],
            env: vec!["NODE_ENV".to_owned()],
        }
    }

    fn tree(files: &[(&str, &str, bool)]) -> Tree {
        let entry = |(path, content, executable): &(&str, &str, bool)| Entry {
            path: path.parse().unwrap(),
            kind: EntryKind::File(File {
                executable: *executable,
                chunks: [Chunk { id: ChunkId::of(content.as_bytes()), bytes: content.len() as u32 }].into(),
            }),
        };
        Tree::of(files.iter().map(entry).collect()).unwrap()
    }

    fn recipe(step: &Step, files: &[(&str, &str, bool)], platform: &str, node_env: Option<&str>) -> Recipe {
        Recipe::new(step, &tree(files), platform, |_| node_env.map(str::to_owned))
    }

    #[test]
    fn everything_that_counts_makes_another_key_and_is_told() {
        let files = [("a b", "1", false), ("c", "2", false)];
        let base = recipe(&step(), &files, "linux", None);
        assert_eq!(base.key(), recipe(&step(), &files, "linux", None).key());
        let with = |change: &dyn Fn(&mut Step)| {
            let mut step = step();
            change(&mut step);
            recipe(&step, &files, "linux", None)
        };
        let other = |files: &[(&str, &str, bool)]| recipe(&step(), files, "linux", None);
        for (recipe, told) in [
            (with(&|step| step.run.push("--x".to_owned())), vec!["command has changed"]),
            (with(&|step| step.outputs.push("x".parse().unwrap())), vec!["output x is new"]),
            (with(&|step| step.env.clear()), vec!["env NODE_ENV is gone"]),
            (recipe(&step(), &files, "other", None), vec!["platform has changed"]),
            (recipe(&step(), &files, "linux", Some("")), vec!["env NODE_ENV has changed"]),
            (other(&[("a b", "3", false), ("c", "2", false)]), vec!["input a b has changed"]),
            (other(&[("a b", "1", true), ("c", "2", false)]), vec!["input a b has changed"]),
            (other(&[("a b", "1", false), ("d", "2", false)]), vec!["input d is new", "input c is gone"]),
        ] {
            assert_ne!(recipe.key(), base.key(), "{told:?}");
            assert_eq!(recipe.differences(&base), told);
        }
        let called = with(&|step| step.name = "other".to_owned());
        assert_eq!(called.key(), base.key(), "what it is called makes no difference");
        assert_eq!(Recipe::kept(base.text().to_string()).differences(&base), [""; 0]);
    }

    #[test]
    fn words_do_not_run_together() {
        let with = |run: &[&str]| {
            let run = run.iter().map(|word| (*word).to_owned()).collect();
            recipe(&Step { run, ..step() }, &[], "linux", None).key()
        };
        assert_ne!(with(&["a", "b"]), with(&["a b"]));
        assert_ne!(with(&["a\"", "\"b"]), with(&["a\", \"b"]));
    }
}
