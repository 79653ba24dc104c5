//! `[[build]]`: the steps that make what a release needs.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use toml::de::DeValue;

use super::findings::Wrong;
use super::table::Table;
use super::{push, value};
use crate::build::Step;
use crate::release::TreePath;

/// The steps, in the order in which they run.
pub(super) fn read(root: &mut Table<'_, '_>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    root.tables("build", |table| {
        let step = read_one(table);
        for other in &steps {
            if other.name == step.name && !step.name.is_empty() {
                table.wrong("name", format!("is {:?} twice", step.name), "give each step a name of its own");
            }
            if let Some((one, _)) =
                pairs(&step, other).find(|(one, other)| overlap(one.as_str(), other.as_str()))
            {
                let is = format!("has {:?}, which step {} makes too", one.as_str(), other.name);
                table.wrong("outputs", is, "let one step make it");
            }
        }
        steps.push(step);
    });
    steps
}

fn read_one(table: &mut Table<'_, '_>) -> Step {
    let name = table.required("name", value::listener, "write a name, such as name = \"deps\"");
    let inputs = table.list("inputs", push::pattern);
    if !table.has("inputs") {
        table.missing(
            "inputs",
            "write what it is made of, such as inputs = [\"package.json\", \"package-lock.json\"]",
        );
    }
    let run = table.list("run", value::text);
    if !table.has("run") {
        table.missing("run", "write a command, such as run = [\"npm\", \"ci\"]");
    }
    let outputs = table.list("outputs", output);
    if !table.has("outputs") {
        table.missing("outputs", "write what it makes, such as outputs = [\"node_modules\"]");
    }
    let env = table.any_list("env", variable).unwrap_or_default();
    Step {
        name: name.unwrap_or_default(),
        inputs: inputs.unwrap_or_default(),
        run: run.unwrap_or_default(),
        outputs: outputs.unwrap_or_default(),
        env,
    }
}

fn pairs<'a>(one: &'a Step, other: &'a Step) -> impl Iterator<Item = (&'a TreePath, &'a TreePath)> {
    one.outputs.iter().flat_map(|output| other.outputs.iter().map(move |other| (output, other)))
}

/// Whether one path is the other or lies beneath it.
fn overlap(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A file or directory that a step makes.
fn output(value: &DeValue<'_>) -> Result<TreePath, Wrong> {
    const FORM: &str = "write a path in the directory of this file, such as \"node_modules\"";
    let text = value::string(value, FORM)?;
    let path = text.strip_prefix("./").unwrap_or(text);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.parse().map_err(|fault| Wrong::new(format!("is {text:?}: {fault}"), FORM))
}

/// The name of a variable.
fn variable(value: &DeValue<'_>) -> Result<String, Wrong> {
    const FORM: &str = "write the name of a variable, such as \"NODE_ENV\"";
    let text = value::string(value, FORM)?;
    let is_name =
        !text.is_empty() && !text.contains(|c: char| c == '=' || c.is_control() || c.is_whitespace());
    if is_name { Ok(text.to_owned()) } else { Err(Wrong::new(format!("is {text:?}"), FORM)) }
}
