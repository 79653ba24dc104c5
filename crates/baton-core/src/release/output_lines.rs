//! The settings of output as lines of a manifest. What is at its default has no line: so older manifests, which
//! have none, say the same, and there is still one spelling of everything.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::fault::TextError;
use super::lines::{Lines, Words};
use super::run_lines::refused;
use crate::run::{Format, Output};
use crate::units::{Bytes, Millis};

const FORMAT: [(&str, Format); 3] =
    [("raw", Format::Raw), ("json", Format::Json), ("inherit", Format::Inherit)];

/// The lines as (key, value), in the order of the manifest.
pub(super) fn write(output: &Output) -> Vec<(&'static str, String)> {
    let Output { format, line_max, stall } = *output;
    let default = Output::default();
    [
        (format != default.format).then(|| ("run.output.format", format_word(format).to_string())),
        (line_max != default.line_max).then(|| ("run.output.line_max", line_max.0.to_string())),
        (stall != default.stall).then(|| ("run.output.stall", stall.0.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Reads what [`write`] wrote.
pub(super) fn read(lines: &mut Lines<'_>) -> Result<Output, TextError> {
    let default = Output::default();
    let number = |words: &mut Words<'_>| words.value("a number");
    Ok(Output {
        format: read_one(lines, "run.output.format", default.format, |words| words.one_of(&FORMAT))?,
        line_max: read_one(lines, "run.output.line_max", default.line_max, |words| number(words).map(Bytes))?,
        stall: read_one(lines, "run.output.stall", default.stall, |words| number(words).map(Millis))?,
    })
}

fn read_one<T: PartialEq>(
    lines: &mut Lines<'_>,
    key: &'static str,
    default: T,
    read: impl FnOnce(&mut Words<'_>) -> Result<T, TextError>,
) -> Result<T, TextError> {
    let Some(mut words) = lines.take(key)? else { return Ok(default) };
    let value = read(&mut words)?;
    words.end()?;
    if value == default {
        return Err(words.fault(refused(key, "this is the default, which has no line")));
    }
    Ok(value)
}

const fn format_word(format: Format) -> &'static str {
    match format {
        Format::Raw => "raw",
        Format::Json => "json",
        Format::Inherit => "inherit",
    }
}
